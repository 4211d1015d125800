package store_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestStress makes random calls for 16 users through three replicas, with a worker in each replica.
// The database's clock runs 6,000 times as fast as real time, for eight hours of its own time.
// Every answer must be one that the contract allows. Afterwards the invariants must hold.
func TestStress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seats, b.users = b.db.Seats(t, 6), b.db.Users(t, 16)
	b.Close()
	stores := []*store.Store{b.warm(t, 6), b.warm(t, 6), b.warm(t, 6)}
	const hours, operations = 8, 500
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	clock := b.db.SpeedClock(t, noon, 6000)

	var done atomic.Int64
	var reasons sync.Map
	var users, workers sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for i, s := range stores {
		workers.Go(func() {
			for tick := time.NewTicker(5 * time.Millisecond); ctx.Err() == nil; <-tick.C {
				for _, step := range workerSteps(s) {
					if _, _, err := step(context.WithoutCancel(ctx), 50); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
		for j := range 4 {
			users.Go(func() {
				c := client{store: s, bundle: b, random: rand.New(rand.NewPCG(seed, uint64(4*i+j))), now: clock, reasons: &reasons}
				for !t.Failed() && (done.Add(1) < operations || clock().Before(noon.Add(hours*time.Hour))) {
					c.act(t)
				}
			})
		}
	}
	users.Wait()
	stop()
	workers.Wait()
	now := storetest.Value[time.Time](t, b.db, `SELECT dlsms_now()`)
	b.db.FreezeClock(t, now)
	for again := true; again; {
		again = false
		for _, step := range workerSteps(stores[0]) {
			n, more, err := step(t.Context(), 50)
			if err != nil {
				t.Fatal(err)
			}
			again = again || n > 0 || more
		}
	}
	storetest.CheckInvariants(t, b.db)
	for _, s := range stores {
		checkNotificationsOf(t, s, b)
	}
	kinds := storetest.Rows[string](t, b.db, `
		SELECT kind || ' ' || count(*) FROM reservation_events GROUP BY kind ORDER BY kind`)
	t.Logf("%d operations in %v of the clock, %v", done.Load(), now.Sub(noon).Round(time.Minute), kinds)
	if len(kinds) < 10 {
		t.Errorf("few kinds of transitions: %v", kinds)
	}
	for _, e := range []*library.Error{
		library.ErrSeatTaken, library.ErrUserBusy, library.ErrSeatAvailable, library.ErrAlreadyWaiting,
		library.ErrCheckInTooEarly,
	} {
		if _, ok := reasons.Load(e.Reason); !ok {
			t.Errorf("no call was refused with %s", e.Reason)
		}
	}
	if n := b.deadlocks(t, stores...); n != 0 {
		t.Errorf("%d deadlocks", n)
	}
}

func workerSteps(s *store.Store) []func(context.Context, int) (int, bool, error) {
	return []func(context.Context, int) (int, bool, error){
		s.CompleteEnded, s.MarkNoShows, s.ExpireOffers, s.ExpireWaiting, s.RemindOfCheckIn, s.OfferFreeSeats,
	}
}

// checkNotificationsOf checks that each user has a notification for each event that notifies, in
// the order of ids.
func checkNotificationsOf(t *testing.T, s *store.Store, b bundle) {
	t.Helper()
	for _, user := range b.users {
		got := []int64{} // a user may have none
		for after := int64(0); ; after = got[len(got)-1] {
			page, err := s.Notifications(t.Context(), user, after, 7)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range page {
				got = append(got, n.ID)
			}
			if len(page) < 7 {
				break
			}
		}
		want := storetest.Rows[int64](t, b.db, `SELECT id FROM reservation_events WHERE user_id = $1
			AND kind IN ('OFFERED', 'OFFER_EXPIRED', 'REMINDED', 'NO_SHOW', 'COMPLETED', 'CHECKED_OUT') ORDER BY id`, user)
		wantEqual(t, "notifications", got, want)
	}
}

// client is a program that makes random calls for its users.
type client struct {
	store *store.Store
	bundle
	random  *rand.Rand
	now     func() time.Time
	reasons *sync.Map // the reasons of all refusals so far
}

func (c client) act(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	user := c.users[c.random.IntN(len(c.users))]
	mine, err := c.store.Reservations(ctx, user, store.ViewUpcoming, store.ReservationCursor{}, 20)
	c.check(t, err)
	waiting, err := c.store.Waitlist(ctx, user)
	c.check(t, err)
	if len(waiting) > 0 && c.random.IntN(2) == 0 {
		e := waiting[len(waiting)-1-c.random.IntN(min(3, len(waiting)))]
		if c.random.IntN(4) == 0 {
			_, err = c.store.LeaveWaitlist(ctx, user, e.ID)
		} else {
			_, _, err = c.store.ClaimOffer(ctx, user, e.ID)
		}
		c.check(t, err)
	}
	if len(mine) > 0 {
		r := mine[c.random.IntN(len(mine))]
		switch c.random.IntN(6) {
		case 0:
			_, err = c.store.Cancel(ctx, user, r.ID)
		case 1:
			_, err = c.store.CheckOut(ctx, user, r.ID)
		case 2:
			_, err = c.store.Extend(ctx, user, r.ID, r.EndTime.Add(15*time.Minute))
		default:
			_, err = c.store.CheckIn(ctx, user, r.ID, nil)
		}
		c.check(t, err)
	}
	start := c.now().Add(time.Duration(c.random.IntN(60)) * time.Minute)
	booking := library.Booking{
		UserID: user, SeatID: c.seats[c.random.IntN(len(c.seats))],
		StartTime: start, EndTime: start.Add(time.Duration(15+c.random.IntN(45)) * time.Minute),
	}
	if c.random.IntN(2) == 0 {
		_, err = c.store.Reserve(ctx, booking)
	} else {
		_, err = c.store.JoinWaitlist(ctx, booking)
	}
	c.check(t, err)
}

// check accepts success and a refusal by a rule of the library. It fails the test for an overload,
// an internal error or an unavailable database.
func (c client) check(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	e, ok := errors.AsType[*library.Error](err)
	if !ok || e.Kind == library.KindUnavailable || e.Kind == library.KindInternal ||
		e.Reason == library.ErrOverloaded.Reason {
		t.Error(err)
		return
	}
	c.reasons.Store(e.Reason, true)
}
