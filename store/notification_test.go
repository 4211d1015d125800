package store_test

import (
	"sync"
	"testing"

	"github.com/dlsms/dlsms/store/storetest"
)

// TestNotificationsMissNothing creates notifications for two users in many concurrent transactions.
// Readers continue after the last id that they have read. They must miss no notification, whatever
// the order of the commits.
func TestNotificationsMissNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const rounds, seats, users = 20, 8, 2
	b.seats, b.users = b.db.Seats(t, seats), b.db.Users(t, users)
	stores := b.replicas(t, 3)
	writing := make(chan struct{})
	var readers sync.WaitGroup
	got := make([][]int64, users)
	for user := range users {
		readers.Go(func() {
			last := int64(0)
			for over := false; ; {
				page, err := stores[user%3].Notifications(t.Context(), b.users[user], last, 5)
				if err != nil {
					t.Error(err)
					return
				}
				for _, n := range page {
					got[user], last = append(got[user], n.ID), n.ID
				}
				if over && len(page) == 0 {
					return
				}
				select {
				case <-writing:
					over = true // the last commits must still be read
				default:
				}
			}
		})
	}
	for round := range rounds {
		b.clock(t, 60*round+seats/2) // half of the visits have ended, so CompleteEnded and CheckOut compete
		ids := make([]int64, seats)
		for i := range ids { // one after another, because a user has one seat at a time
			ids[i] = b.reserveQuickVisit(t, i%users, i, 60*round)
		}
		for _, err := range atOnce(seats+2, func(i int) error {
			if i >= seats {
				_, _, err := stores[i%3].CompleteEnded(t.Context(), 100)
				return err
			}
			_, err := stores[i%3].CheckOut(t.Context(), b.users[i%users], ids[i])
			return err
		}) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	close(writing)
	readers.Wait()
	for user := range users {
		want := storetest.Rows[int64](t, b.db, `SELECT id FROM reservation_events WHERE user_id = $1
			AND kind IN ('CHECKED_OUT', 'COMPLETED') ORDER BY id`, b.users[user])
		if len(want) != rounds*seats/users {
			t.Errorf("%d notifications, want %d", len(want), rounds*seats/users)
		}
		wantEqual(t, "notifications", got[user], want)
	}
	wantEqual(t, "notifications of both users", len(got[0])+len(got[1]), rounds*seats)
}

// reserveQuickVisit inserts a CHECKED_IN reservation of one minute and returns its id. It begins
// from+seat minutes after noon. The start depends on the seat, so that the visits of one user at
// several seats do not overlap.
func (b bundle) reserveQuickVisit(t *testing.T, user, seat, from int) int64 {
	t.Helper()
	id := storetest.Value[int64](t, b.db, `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at,
		check_in_deadline, created_at, checked_in_at)
		VALUES (1, $1, $2, tstzrange($3, $4), 'CHECKED_IN', $3, $4, $3, $3)
		RETURNING id`, b.seats[seat], b.users[user], at(from+seat), at(from+seat+1))
	return id
}

// TestEventsOfPreviousVersion writes events as a replica of the version before by_library does. The
// database derives from the kind whether they notify.
func TestEventsOfPreviousVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.writers(t, 1).sessions[0]
	for i, kind := range []string{"CANCELLED", "NO_SHOW"} {
		r := b.reserve(t, 0, i, 120*i, 120*i+60)
		w.exec(t, `BEGIN`)
		w.exec(t, `UPDATE reservations SET status = $2, version = 2, ended_at = dlsms_now() WHERE id = $1`, r.ID, kind)
		w.exec(t, `
			INSERT INTO reservation_events (library_id, at, kind, reservation_id, version, seat_id, user_id, during, status,
				occupies, check_in_opens_at, check_in_deadline, created_at, ended_at)
			SELECT library_id, ended_at, status, id, version, seat_id, user_id, during, status,
				occupies, check_in_opens_at, check_in_deadline, created_at, ended_at FROM reservations WHERE id = $1`, r.ID)
		w.exec(t, `COMMIT`)
	}
	wantEqual(t, "told", b.told(t, 0), []string{"NO_SHOW"})
}
