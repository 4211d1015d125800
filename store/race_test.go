package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// replicas returns n stores on the test's database, like n replicas of a server. The first is
// b.Store.
func (b bundle) replicas(t *testing.T, n int) []*store.Store {
	t.Helper()
	list := []*store.Store{b.Store}
	for len(list) < n {
		list = append(list, b.db.Open(t, b.Policy()))
	}
	return list
}

// warm opens a store with conns connections for requests. They are open before the first call, as
// in a running server.
func (b bundle) warm(t *testing.T, conns int32) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{URL: b.db.URL, MinConns: conns, MaxConns: conns, Policy: b.Policy()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// atOnce calls f with 0 to n-1, each on a goroutine of its own. All calls start at the same moment.
// atOnce returns their errors.
func atOnce(n int, f func(i int) error) []error {
	var ready, done sync.WaitGroup
	ready.Add(n)
	errs := make([]error, n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			errs[i] = f(i)
		})
	}
	done.Wait()
	return errs
}

// wantOneWinner checks that exactly one call succeeded, and that all others failed with the error
// lost. It returns the index of the call that succeeded.
func wantOneWinner(t *testing.T, errs []error, lost error) (winner int) {
	t.Helper()
	winner = -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("calls %d and %d both succeeded", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, lost):
			t.Fatalf("call %d failed with %v, want %v", i, err, lost)
		}
	}
	if winner < 0 {
		t.Fatalf("no call succeeded: %v", errs)
	}
	return winner
}

const countDeadlocks = `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`

// deadlocks returns the number of deadlocks that the test has caused. A session reports its deadlocks
// when it ends, so deadlocks closes the stores first.
func (b bundle) deadlocks(t *testing.T, stores ...*store.Store) int {
	t.Helper()
	for _, s := range stores {
		s.Close()
	}
	storetest.Eventually(t, "the sessions have ended", func() bool {
		return storetest.Value[bool](t, b.db, `
			SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	})
	return storetest.Value[int](t, b.db, countDeadlocks) - b.deadlocked
}

func TestReserveRace(t *testing.T) {
	t.Parallel()
	const rounds = 20
	for _, rivals := range []int{10, 50, 64, 200} {
		t.Run(fmt.Sprint(rivals), func(t *testing.T) {
			t.Parallel()
			rules := library.DefaultPolicy()
			rules.MaxUpcoming = 0
			b := setupWith(t, rules)
			b.Close()
			b.users = b.db.Users(t, rivals)
			stores := []*store.Store{b.warm(t, 16), b.warm(t, 16), b.warm(t, 16)}
			took := make([]time.Duration, (rounds+1)*rivals)
			for round := range rounds + 1 {
				errs := atOnce(rivals, func(i int) error {
					begin := time.Now()
					from := 60 + 120*round + i%30 // the windows of a round overlap
					_, err := stores[i%3].Reserve(t.Context(), library.Booking{
						UserID: b.users[i], SeatID: b.seats[0], StartTime: at(from), EndTime: at(from + 60)})
					took[round*rivals+i] = time.Since(begin)
					return err
				})
				wantOneWinner(t, errs, library.ErrSeatTaken)
			}
			took = took[rivals:] // in the first round each session prepares its statements
			slices.Sort(took)
			median, p99, slowest := took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
			t.Logf("%d rivals: median %v, P99 %v, maximum %v", rivals, median, p99, slowest)
			// No call may wait as long as deadlock_timeout, which is one second. On a very busy
			// machine, every call takes long. Then the maximum may be five times the median.
			if slowest > max(time.Second, 5*median) {
				t.Errorf("median %v, maximum %v", median, slowest)
			}
			storetest.CheckInvariants(t, b.db)
			if n := b.deadlocks(t, stores...); n != 0 {
				t.Errorf("%d deadlocks", n)
			}
		})
	}
}

// TestControlPlainInsertsDeadlock shows that the check for deadlocks in TestReserveRace can fail.
// Here the rivals insert reservations without the locks of the store. They must deadlock, and
// Postgres must count these deadlocks.
func TestControlPlainInsertsDeadlock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Close()
	const rivals = 24
	b.users = b.db.Users(t, rivals)
	config, err := pgxpool.ParseConfig(b.db.UnguardedURL())
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = rivals
	config.ConnConfig.RuntimeParams["deadlock_timeout"] = "20ms" // instead of 1 s, so that the test is fast
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	// All rivals wait for one lock inside Postgres, so that they insert within the same
	// microseconds.
	const gate = 1
	book := func(i, round int) error {
		from := 60 + 120*round + i%30
		batch := &pgx.Batch{}
		batch.Queue(`SELECT pg_advisory_xact_lock_shared($1)`, gate)
		batch.Queue(`
			INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
				created_at)
			VALUES (1, $1, $2, tstzrange($3, $4), 'CONFIRMED', $3, $4, $3)`, b.seats[0], b.users[i], at(from), at(from+60))
		return pool.SendBatch(t.Context(), batch).Close()
	}
	victims := 0
	const maxRounds = 2000
	for round := 0; round < maxRounds && victims == 0; round++ {
		b.db.Exec(t, `SELECT pg_advisory_lock($1)`, gate)
		var rivalsDone sync.WaitGroup
		errs := make([]error, rivals)
		for i := range rivals {
			rivalsDone.Go(func() { errs[i] = book(i, round) })
		}
		storetest.Eventually(t, "all rivals wait for the lock", func() bool {
			return rivals == storetest.Value[int](t, b.db, `
				SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
		})
		b.db.Exec(t, `SELECT pg_advisory_unlock($1)`, gate)
		rivalsDone.Wait()
		for _, err := range errs {
			pg, ok := errors.AsType[*pgconn.PgError](err)
			switch {
			case err == nil, ok && pg.Code == "23P01": // booked, or refused by the constraint
			case ok && pg.Code == "40P01":
				victims++
			default:
				t.Fatal(err)
			}
		}
		if victims > 0 {
			t.Logf("%d rivals deadlocked in round %d", victims, round+1)
		}
	}
	pool.Close()
	if n := b.deadlocks(t); victims == 0 || n == 0 {
		t.Errorf("%d deadlocks by errors, %d by statistics: TestReserveRace proves nothing", victims, n)
	}
}

func TestUserCannotReserveTwoSeatsAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stores := b.replicas(t, 2)
	for round := range 40 {
		errs := atOnce(5, func(i int) error {
			from := 60 + 120*round + 10*i
			_, err := stores[i%2].Reserve(t.Context(), library.Booking{
				UserID: b.users[0], SeatID: b.seats[i], StartTime: at(from), EndTime: at(from + 60),
			})
			return err
		})
		winner := wantOneWinner(t, errs, library.ErrUserBusy)
		id := storetest.Value[int64](t, b.db, `SELECT id FROM reservations WHERE occupies AND seat_id = $1`, b.seats[winner])
		mustDo(t, b.Cancel, b.users[0], id)
	}
	storetest.CheckInvariants(t, b.db)
}

func TestMaxUpcomingRace(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxUpcoming = 3
	b := setupWith(t, rules)
	errs := atOnce(12, func(i int) error {
		_, err := b.Reserve(t.Context(), library.Booking{
			UserID: b.users[0], SeatID: b.seats[i%5], StartTime: at(60 * i), EndTime: at(60*i + 60),
		})
		return err
	})
	won := len(slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, library.ErrTooManyReservations) }))
	if won != 3 {
		t.Errorf("%d booked of 3 allowed: %v", won, errs)
	}
}

// TestReserveOnceForRepeatedRequestID sends one request from many goroutines. All must get the same
// answer. The pool has fewer connections than there are calls. If a call held one connection while
// it waited for a second, all calls could wait forever.
func TestReserveOnceForRepeatedRequestID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stores := []*store.Store{}
	for range 3 {
		stores = append(stores, b.warm(t, 2))
	}
	for round := range 20 {
		booking := library.Booking{
			UserID: b.users[0], SeatID: b.seats[0], StartTime: at(120 * round), EndTime: at(120*round + 60),
			RequestID: fmt.Sprint(round),
		}
		reservations := make([]library.Reservation, 12)
		for _, err := range atOnce(12, func(i int) (err error) {
			reservations[i], err = stores[i%3].Reserve(t.Context(), booking)
			return err
		}) {
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range reservations[1:] {
			wantEqual(t, "the same request", r, reservations[0])
		}
		booking.UserID = b.users[1]
		entries := make([]library.WaitlistEntry, 12)
		for _, err := range atOnce(12, func(i int) (err error) {
			entries[i], err = stores[i%3].JoinWaitlist(t.Context(), booking)
			return err
		}) {
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range entries[1:] {
			wantEqual(t, "the same request to wait", e, entries[0])
		}
		// The reservation and the entry end, so that both users stay below their limits.
		if _, err := b.LeaveWaitlist(t.Context(), b.users[1], entries[0].ID); err != nil {
			t.Fatal(err)
		}
		mustDo(t, b.Cancel, b.users[0], reservations[0].ID)
	}
	wantEqual(t, "rows", storetest.Value[string](t, b.db, `
		SELECT count(*) FILTER (WHERE request_id IS NOT NULL) || ' ' || (SELECT count(*) FROM waitlist_entries)
		FROM reservations`), "20 20")
	storetest.CheckInvariants(t, b.db)
}

// TestRepeatedCallsAtOnce makes each call of a user eight times at once. It must take effect once,
// and all calls must get the same answer.
func TestRepeatedCallsAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stores := b.replicas(t, 2)
	same := func(what string, call func(s *store.Store) (any, error)) {
		t.Helper()
		answers := make([]any, 8)
		for _, err := range atOnce(len(answers), func(i int) (err error) {
			answers[i], err = call(stores[i%2])
			return err
		}) {
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		for _, a := range answers[1:] {
			wantEqual(t, what, a, answers[0])
		}
	}
	user := b.users[0]
	for round := range 5 {
		b.clock(t, 200*round)
		from := 200 * round
		r := b.reserve(t, 0, 0, from, from+60)
		same("check-in", func(s *store.Store) (any, error) { return s.CheckIn(t.Context(), user, r.ID, nil) })
		same("extension", func(s *store.Store) (any, error) { return s.Extend(t.Context(), user, r.ID, at(from+90)) })
		same("check-out", func(s *store.Store) (any, error) { return s.CheckOut(t.Context(), user, r.ID) })
		wantEqual(t, "history", b.history(t, r.ID), []string{"RESERVED", "CHECKED_IN", "EXTENDED", "CHECKED_OUT"})

		r = b.reserve(t, 0, 1, from, from+60)
		same("cancellation", func(s *store.Store) (any, error) { return s.Cancel(t.Context(), user, r.ID) })
		wantEqual(t, "history", b.history(t, r.ID), []string{"RESERVED", "CANCELLED"})

		e := b.offered(t, 0, 2, from, from+60)
		same("claim", func(s *store.Store) (any, error) {
			entry, r, err := s.ClaimOffer(t.Context(), user, e.ID)
			return []any{entry, r}, err
		})
		wantEqual(t, "history", b.history(t, e.ReservationID), []string{"OFFERED", "CLAIMED"})
		mustDo(t, b.Cancel, user, e.ReservationID)

		e = b.offered(t, 0, 2, from, from+60)
		same("decline", func(s *store.Store) (any, error) { return s.LeaveWaitlist(t.Context(), user, e.ID) })
		wantEqual(t, "history", b.history(t, e.ReservationID), []string{"OFFERED", "DECLINED"})
	}
	storetest.CheckInvariants(t, b.db)
}

func TestExtendAgainstReserve(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stores := b.replicas(t, 2)
	wins := map[int]int{}
	for round := range 40 {
		from := 240 * round
		r := b.reserve(t, 0, 0, from, from+60)
		errs := atOnce(2, func(i int) (err error) {
			if i == 0 {
				_, err = stores[0].Extend(t.Context(), b.users[0], r.ID, at(from+120))
			} else {
				_, err = stores[1].Reserve(t.Context(), library.Booking{
					UserID: b.users[1], SeatID: b.seats[0], StartTime: at(from + 90), EndTime: at(from + 150),
				})
			}
			return err
		})
		winner := wantOneWinner(t, errs, library.ErrSeatTaken)
		wins[winner]++
		if got := mustRead(t, b, 0, r.ID).EndTime; winner == 0 && !got.Equal(at(from+120)) ||
			winner == 1 && !got.Equal(at(from+60)) {
			t.Errorf("%d won, and the reservation ends %v", winner, got)
		}
		// End all reservations, so that both users stay below their limit.
		for _, id := range storetest.Rows[int64](t, b.db, `SELECT id FROM reservations WHERE occupies`) {
			user := storetest.Value[int](t, b.db, `
				SELECT CASE user_id WHEN $2 THEN 0 ELSE 1 END FROM reservations WHERE id = $1`, id, b.users[0])
			mustDo(t, b.Cancel, b.users[user], id)
		}
	}
	t.Logf("wins of the extension and the booking: %v", wins)
	storetest.CheckInvariants(t, b.db)
}

// TestClaimAgainstOtherBookingOfUser claims an offer while the user books another seat for the same
// time, or extends a reservation into the window of the offer. Exactly one of the two calls must
// succeed.
func TestClaimAgainstOtherBookingOfUser(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxWaiting, rules.MaxWaitingPerSeat, rules.MaxWaitlist = 0, 0, 0 // no limits: a lost claim leaves a live entry
	b := setupWith(t, rules)
	stores := b.replicas(t, 2)
	for round := range 30 {
		from := 240 * round
		e := b.offered(t, 0, 0, from+60, from+120)
		visit := b.reserve(t, 0, 2, from, from+60)
		errs := atOnce(2, func(i int) (err error) {
			switch {
			case i == 0:
				_, _, err = stores[0].ClaimOffer(t.Context(), b.users[0], e.ID)
			case round%2 == 0:
				_, err = stores[1].Reserve(t.Context(), library.Booking{
					UserID: b.users[0], SeatID: b.seats[1], StartTime: at(from + 90), EndTime: at(from + 150),
				})
			default:
				_, err = stores[1].Extend(t.Context(), b.users[0], visit.ID, at(from+90))
			}
			return err
		})
		wantOneWinner(t, errs, library.ErrUserBusy)
		for _, id := range storetest.Rows[int64](t, b.db, `SELECT id FROM reservations WHERE occupies AND status <> 'HELD'`) {
			mustDo(t, b.Cancel, b.users[0], id)
		}
	}
	storetest.CheckInvariants(t, b.db)
}

func TestConcurrentPasswordChanges(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u, err := b.RegisterUser(t.Context(), library.NewUser{
		StudentID: "S1", Name: "N", Email: "e@x.example", PasswordHash: "0", Role: library.RoleStudent,
	})
	if err != nil {
		t.Fatal(err)
	}
	stores := b.replicas(t, 2)
	hash := "0"
	last := storetest.Value[int64](t, b.db, `SELECT token_generation FROM users WHERE id = $1`, u.ID)
	for round := range 20 {
		errs := atOnce(4, func(i int) error {
			generation, err := stores[i%2].ChangePassword(t.Context(), u.ID, hash, fmt.Sprint(round, " ", i), at(60))
			if err == nil { // only one of the four calls gets here
				if generation <= last {
					err = fmt.Errorf("generation %d, after %d", generation, last)
				}
				last = generation
			}
			return err
		})
		hash = fmt.Sprint(round, " ", wantOneWinner(t, errs, library.ErrBadCredentials))
	}
	c, err := b.CredentialsByID(t.Context(), u.ID)
	if err != nil || c.PasswordHash != hash || c.TokenGeneration != last {
		t.Errorf("%+v, %v", c, err)
	}
	wantEqual(t, "revocations", storetest.Value[int](t, b.db, `SELECT count(DISTINCT generation) FROM revocations`), 20)
}

func TestConcurrentRegistrations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for round := range 10 {
		wantOneWinner(t, atOnce(6, func(i int) error {
			id := fmt.Sprintf([]string{"Student-%d", "STUDENT-%d", "student-%d"}[i%3], round)
			_, err := b.RegisterUser(context.WithoutCancel(t.Context()), library.NewUser{
				StudentID: id, Role: library.RoleStudent,
			})
			return err
		}), library.ErrStudentIDTaken)
	}
}

// TestLockedSeatBlocksOnlyItself holds the lock of one seat while users book three seats. Only the
// bookings of the locked seat may wait.
func TestLockedSeatBlocksOnlyItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	users := b.db.Users(t, 12) // four of them wait for the lock; the pool has 16 connections
	conn, err := pgx.Connect(t.Context(), b.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `
		SELECT FROM seats WHERE library_id = 1 AND id = $1 FOR UPDATE`, b.seats[0]); err != nil {
		t.Fatal(err)
	}

	var waiting, others sync.WaitGroup
	var stillLocked atomic.Bool
	stillLocked.Store(true)
	for i, user := range users {
		seat, group := b.seats[i%3], &others
		if i%3 == 0 {
			group = &waiting
		}
		group.Go(func() {
			_, err := b.Reserve(t.Context(), library.Booking{
				UserID: user, SeatID: seat, StartTime: at(60 * i), EndTime: at(60*i + 60),
			})
			if err != nil {
				t.Errorf("user %d: %v", i, err)
			}
			if group == &waiting && stillLocked.Load() {
				t.Errorf("user %d has booked a seat that is locked", i)
			}
		})
	}
	others.Wait() // this must take less than 3 s, after which the waiting calls fail
	stillLocked.Store(false)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
}
