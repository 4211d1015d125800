package store_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestClosureRace closes a branch again and again while users book, extend, cancel, join, claim and
// check in, and while two workers sweep. After each sweep, no reservation may be left inside the
// closure, and each user who lost one must have been told exactly once.
func TestClosureRace(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxUpcoming = 0
	b := setupWith(t, rules)
	b.Close()
	b.users = b.db.Users(t, 24)
	stores := []*store.Store{b.warm(t, 12), b.warm(t, 12)}
	b.Store = stores[0]
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	for round := range 8 {
		ctx, stop := context.WithCancel(t.Context())
		var users sync.WaitGroup
		for i := range b.users {
			users.Go(func() {
				random := rand.New(rand.NewPCG(seed, uint64(100*round+i)))
				for ctx.Err() == nil {
					b.visitAtRandom(t, stores[i%2], random, i)
				}
			})
		}
		storetest.Eventually(t, "seats are taken", func() bool {
			return storetest.Value[int](t, b.db, `SELECT count(*) FROM reservations WHERE occupies`) > 15
		})
		closure := b.closeUnderLoad(t, []int{60, -30}[round%2], 180)
		errs := atOnce(2, func(i int) error { return sweepAll(t.Context(), stores[i], 1+round%3) })
		stop()
		users.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		inside := storetest.Rows[string](t, b.db, `
			SELECT r.id || ' ' || r.status || ' ' || r.during FROM reservations r, closures c
			WHERE c.id = $1 AND r.occupies AND r.during && c.during AND upper(r.during) > dlsms_now()`, closure.ID)
		if len(inside) > 0 {
			t.Fatalf("round %d: left inside the closure: %v", round, inside)
		}
		_, _, err := b.UpdateClosure(t.Context(), order("UpdateClosure"), library.ClosureChange{ID: closure.ID, Lift: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	wrong := storetest.Rows[int64](t, b.db, `
		SELECT reservation_id FROM reservation_events WHERE sweep_id IS NOT NULL
		GROUP BY reservation_id, sweep_id HAVING count(*) > 1 OR NOT bool_and(notifies AND by_library)`)
	if len(wrong) > 0 {
		t.Errorf("reservations whose users were not told exactly once: %v", wrong)
	}
	ended := storetest.Value[int](t, b.db, `SELECT sum(ended)::int FROM sweeps`)
	wantEqual(t, "events of the sweeps", storetest.Value[int](t, b.db,
		`SELECT count(*) FROM reservation_events WHERE sweep_id IS NOT NULL`), ended)
	t.Logf("%d ended; kinds: %v", ended, storetest.Rows[string](t, b.db, `
		SELECT kind || ' ' || count(*) FROM reservation_events WHERE sweep_id IS NOT NULL GROUP BY kind ORDER BY kind`))
	if ended < 40 {
		t.Errorf("the sweeps ended only %d reservations", ended)
	}
	for wantMore := true; wantMore; {
		n, _, err := b.OfferFreeSeats(t.Context(), 1000)
		if wantMore = n > 0; err != nil {
			t.Fatal(err)
		}
	}
	storetest.CheckInvariants(t, b.db)
	if n := b.deadlocks(t, stores...); n != 0 {
		t.Errorf("%d deadlocks", n)
	}
}

// closeUnderLoad closes the branch. It repeats the call until the number of reservations has not
// changed since the check.
func (b bundle) closeUnderLoad(t *testing.T, from, to int) library.ClosureState {
	t.Helper()
	spec := library.ClosureSpec{Branch: "branch-0", StartTime: at(from), EndTime: at(to), Disruption: cancelling(0)}
	for {
		check := order("CreateClosure")
		check.ValidateOnly = true
		_, impact, err := b.CreateClosure(t.Context(), check, spec)
		if err != nil {
			t.Fatal(err)
		}
		spec.Expected = impact.Reservations
		c, _, err := b.CreateClosure(t.Context(), order("CreateClosure"), spec)
		if errors.Is(err, library.ErrChangedSinceCheck) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

// visitAtRandom makes one random call of a user. Every error of package library is allowed.
func (b bundle) visitAtRandom(t *testing.T, s *store.Store, random *rand.Rand, user int) {
	ctx, id := t.Context(), b.users[user]
	mine, err := s.Reservations(ctx, id, store.ViewUpcoming, store.ReservationCursor{}, 10)
	if err != nil {
		t.Error(err)
		return
	}
	entries, err := s.Waitlist(ctx, id)
	if err != nil {
		t.Error(err)
		return
	}
	from := random.IntN(16) * 15
	booking := library.Booking{
		UserID: id, SeatID: b.seats[random.IntN(5)], StartTime: at(from), EndTime: at(from + 15 + 15*random.IntN(6)),
	}
	at := func(r library.Reservation) time.Time { return r.EndTime.Add(15 * time.Minute) }
	offered := slices.IndexFunc(entries, func(e library.WaitlistEntry) bool { return e.Status == library.EntryOffered })
	switch what := random.IntN(8); {
	case offered >= 0 && what < 5:
		_, _, err = s.ClaimOffer(ctx, id, entries[offered].ID)
	case len(mine) > 0 && what == 0:
		_, err = s.Extend(ctx, id, mine[0].ID, at(mine[0]))
	case len(mine) > 0 && what < 3:
		_, err = s.CheckIn(ctx, id, mine[0].ID, nil)
	case len(mine) > 1 && what == 3:
		_, err = s.Cancel(ctx, id, mine[random.IntN(len(mine))].ID)
	case len(mine) > 1 && what == 4 && mine[0].Status == library.CheckedIn:
		_, err = s.CheckOut(ctx, id, mine[0].ID)
	case what == 5:
		_, err = s.JoinWaitlist(ctx, booking)
	default:
		_, err = s.Reserve(ctx, booking)
	}
	if _, known := errors.AsType[*library.Error](err); err != nil && !known {
		t.Errorf("user %d: %v", user, err)
	}
}

// TestBookingDecidedBeforeClosureIsSwept holds a booking between its decision and its commit, closes
// the branch and starts the sweep. The sweep must wait for the booking and end it.
func TestBookingDecidedBeforeClosureIsSwept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	booking := b.writers(t, 1).sessions[0]
	booking.exec(t, `BEGIN`)
	booking.exec(t, `SELECT FROM seats WHERE id = $1 FOR NO KEY UPDATE`, b.seats[0])
	booking.exec(t, `
		WITH r AS (
			INSERT INTO reservations
				(library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline, created_at)
			VALUES (1, $1, $2, tstzrange($3, $4), 'CONFIRMED', $3, $4, dlsms_now()) RETURNING *)
		INSERT INTO reservation_events (library_id, at, kind, reservation_id, version, seat_id, user_id, during, status,
			check_in_opens_at, check_in_deadline, created_at)
		SELECT library_id, created_at, 'RESERVED', id, version, seat_id, user_id, during, status,
			check_in_opens_at, check_in_deadline, created_at FROM r`, b.seats[0], b.users[0], at(60), at(120))
	b.closeBranch(t, 0, 240, 0) // the impact does not have the booking yet
	swept := make(chan error, 1)
	go func() { swept <- sweepAll(t.Context(), b.Store, 100) }()
	b.db.EventuallyLocked(t, "FROM seats")
	booking.exec(t, `COMMIT`)
	if err := <-swept; err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "told", b.told(t, 0), []string{"CANCELLED by library: A pipe has burst."})
	storetest.CheckInvariants(t, b.db)
}
