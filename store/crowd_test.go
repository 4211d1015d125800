package store_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// crowd adds as many new users as waiters says, all without reservations. Each of them waits for
// one of the seats, in turn: the first user for the first seat, the second for the second seat. All
// wait for the window between from and to, in minutes after noon. crowd returns the users.
func crowd(t *testing.T, b bundle, seats []int64, waiters, from, to int) []int64 {
	t.Helper()
	b.db.Altered()
	users := b.db.Users(t, waiters)
	b.db.Exec(t, `SET session_replication_role = replica`) // turns off the foreign keys, which the rows satisfy
	b.db.Exec(t, `
		INSERT INTO waitlist_entries (library_id, seat_id, user_id, during, joined_position, created_at)
		SELECT 1, ($1::bigint[])[1 + (i - 1) % cardinality($1::bigint[])], u, tstzrange($3, $4), 1, $5
		FROM unnest($2::bigint[]) WITH ORDINALITY x (u, i) ORDER BY i`, seats, users, at(from), at(to), at(0))
	b.db.Exec(t, `SET session_replication_role = DEFAULT`)
	b.db.Exec(t, `ANALYZE`)
	return users
}

// openAllDay gives all branches opening hours from midnight to closes, in their time zone, on every
// day.
func openAllDay(t *testing.T, b bundle, closes string) {
	t.Helper()
	b.db.Exec(t, `DELETE FROM branch_hours`)
	b.db.Exec(t, `
		INSERT INTO branch_hours SELECT 1, id, d, '0:00', $1::text::time FROM branches, generate_series(1, 7) d`, closes)
}

// inTime fails the test if f takes more than five times as long as most. The factor allows for other
// tests on the same two cores, which have made a sweep ten times slower. what names the work in the
// message.
func inTime(t *testing.T, what string, most time.Duration, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	took := time.Since(begin)
	t.Logf("%s: %v", what, took)
	if took > 5*most {
		t.Errorf("%s took %v, more than %v", what, took, most)
	}
}

// TestLongWaitlistOfOneSeat has 40,000 users wait for one seat. This is more than the policy
// allows, but a database may have as many entries from the time before the limit existed. A
// check-out, a cancellation and the end of an offer must take about a second at most, and the first
// waiter must get the offer.
func TestLongWaitlistOfOneSeat(t *testing.T) {
	t.Parallel()
	b := setup(t)
	openAllDay(t, b, "24:00")
	r := b.reserve(t, 0, 0, 0, 60)
	mustDo(t, b.checkIn, b.users[0], r.ID)
	later := b.reserve(t, 1, 0, 120, 180)
	const waiters = 40_000
	users := crowd(t, b, b.seats[:1], waiters, 0, 60)
	others := crowd(t, b, b.seats[:1], 10, 120, 180)
	offered := func(want int64) {
		t.Helper()
		got := storetest.Value[int64](t, b.db, `
			SELECT user_id FROM reservations WHERE status = 'HELD' ORDER BY id DESC LIMIT 1`)
		if got != want {
			t.Errorf("user %d has the offer, want %d", got, want)
		}
	}
	inTime(t, "check-out", time.Second, func() { mustDo(t, b.CheckOut, b.users[0], r.ID) })
	offered(users[0])
	inTime(t, "cancel", time.Second, func() { mustDo(t, b.Cancel, b.users[1], later.ID) })
	offered(others[0])
	b.clock(t, 10)
	inTime(t, "the end of the offers", time.Second, func() { wantDone(t, 2, b.ExpireOffers) })
	inTime(t, "a sweep", 2*time.Second, func() { wantDone(t, 0, b.OfferFreeSeats) })
	// From here on, all waiters except the first have another reservation.
	b.db.Exec(t, `SET session_replication_role = replica`)
	b.db.Exec(t, `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status,
			check_in_opens_at, check_in_deadline, created_at)
		SELECT 1, 1000000 + u, u, tstzrange($2, $3), 'CONFIRMED', $2, $3, $2
		FROM unnest($1::bigint[]) u`, users[1:], at(0), at(60))
	b.db.Exec(t, `SET session_replication_role = DEFAULT`)
	hold := storetest.Value[int64](t, b.db, `
		SELECT id FROM waitlist_entries WHERE status = 'OFFERED' AND during @> $1::timestamptz`, at(30))
	inTime(t, "a declined offer while all other waiters are busy", 2*time.Second, func() {
		if _, err := b.LeaveWaitlist(t.Context(), users[1], hold); err != nil {
			t.Error(err)
		}
	})
}

// TestCancelReadsFewWaitlistEntries cancels a reservation while 1,000 users wait for the same
// window. The first user must get the offer, and the transaction must read at most 50 entries.
func TestCancelReadsFewWaitlistEntries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var judged atomic.Int64
	s, err := store.Open(t.Context(), store.Config{
		URL: b.db.URL, MinConns: 1, MaxConns: 2, Policy: b.Policy(),
		Observer: store.Observer{Judged: func(entries int) { judged.Add(int64(entries)) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	r := b.reserve(t, 0, 0, 0, 60)
	users := crowd(t, b, b.seats[:1], 1000, 0, 60)
	mustDo(t, s.Cancel, b.users[0], r.ID)
	const offered = `SELECT user_id FROM reservations WHERE status = 'HELD'`
	wantEqual(t, "users with an offer", storetest.Rows[int64](t, b.db, offered), users[:1])
	const most = 50
	if n := judged.Load(); n == 0 || n > most {
		t.Errorf("%d entries were read; want 1 to %d", n, most)
	}
}

// TestLongWaitlistsWithOpeningHours has 20,000 free users wait for 100 seats of branches with
// opening hours. The hours must not slow down the steps of the worker.
func TestLongWaitlistsWithOpeningHours(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const seats, waiters = 100, 20_000
	b.seats, b.users = b.db.Seats(t, seats), b.db.Users(t, seats)
	openAllDay(t, b, "24:00")
	for i := range seats {
		b.reserve(t, i, i, 0, 60)
	}
	crowd(t, b, b.seats, waiters, 0, 60)
	inTime(t, "a sweep that finds nothing", time.Second, func() { wantDone(t, 0, b.OfferFreeSeats) })
	b.clock(t, 15)
	inTime(t, "100 no-shows", time.Second, func() {
		if n, _, err := b.MarkNoShows(t.Context(), seats); err != nil || n != seats {
			t.Errorf("%d no-shows, %v", n, err)
		}
	})
	if n := storetest.Value[int](t, b.db, `SELECT count(*) FROM reservations WHERE status = 'HELD'`); n != seats {
		t.Errorf("%d offers, want %d", n, seats)
	}
	b.clock(t, 25)
	openAllDay(t, b, "13:30") // in Berlin, noon UTC is 13:00: the branch closes before the windows end
	inTime(t, "the end of 100 offers", time.Second, func() {
		if n, _, err := b.ExpireOffers(t.Context(), seats); err != nil || n != seats {
			t.Errorf("%d offers ended, %v", n, err)
		}
	})
	inTime(t, "a sweep over seats that are free and closed", time.Second, func() { wantDone(t, 0, b.OfferFreeSeats) })
	openAllDay(t, b, "24:00")
	inTime(t, "a sweep that serves all seats", 2*time.Second, func() {
		for n := 0; n < seats; {
			found, err := b.FindDue(t.Context(), store.OfferStep, store.DueQuery{Most: 5000})
			if err != nil || len(found.Seats) == 0 {
				t.Fatal(found, err)
			}
			served, _, err := b.Run(t.Context(), store.OfferStep, found.Seats)
			if err != nil {
				t.Fatal(err)
			}
			n += served
		}
	})
	storetest.CheckInvariants(t, b.db)
}
