package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestPostgresDiesUnderLoad kills Postgres three times while users book. Every call must succeed or
// fail with an error of package library. Every acknowledged booking must exist afterwards.
func TestPostgresDiesUnderLoad(t *testing.T) {
	t.Parallel()
	db, pg := storetest.NewCluster(t)
	s, err := store.Open(t.Context(), store.Config{URL: db.URL, MinConns: 4, MaxConns: 8, Policy: library.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	const clients = 8
	seats, users := db.Seats(t, clients), db.Users(t, clients)
	begin := time.Now().Add(time.Hour).Truncate(time.Minute)

	var acknowledged [clients]map[int64]library.ReservationStatus
	var booked, failed atomic.Int64
	over := make(chan struct{})
	var wg sync.WaitGroup
	for i := range clients {
		acknowledged[i] = map[int64]library.ReservationStatus{}
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				r, err := s.Reserve(t.Context(), library.Booking{UserID: users[i], SeatID: seats[i], StartTime: begin,
					EndTime: begin.Add(time.Hour), RequestID: fmt.Sprint(n)})
				if err == nil {
					booked.Add(1)
					acknowledged[i][r.ID] = "" // unknown until Cancel returns without an error
					if _, err = s.Cancel(t.Context(), users[i], r.ID); err == nil {
						acknowledged[i][r.ID] = library.Cancelled
					}
				}
				switch {
				case err == nil:
				case errors.Is(err, library.ErrUnavailable):
					failed.Add(1)
				// The user has a booking from an earlier call that failed after its commit.
				case errors.Is(err, library.ErrSeatTaken), errors.Is(err, library.ErrUserBusy):
					for _, id := range liveOf(t, s, users[i]) {
						_, _ = s.Cancel(t.Context(), users[i], id)
					}
				default:
					t.Errorf("%v", err)
					return
				}
			}
		})
	}
	for range 3 {
		was, failures := booked.Load(), failed.Load()
		storetest.Eventually(t, "bookings", func() bool { return booked.Load() > was+50 })
		if err := pg.Kill(); err != nil {
			t.Fatal(err)
		}
		storetest.Eventually(t, "failures", func() bool { return failed.Load() > failures })
		if err := s.Ping(t.Context()); !errors.Is(err, library.ErrUnavailable) {
			t.Errorf("Ping: %v", err)
		}
		if err := pg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	was := booked.Load()
	storetest.Eventually(t, "bookings", func() bool { return booked.Load() > was+50 })
	close(over)
	wg.Wait()
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	for i, list := range acknowledged {
		for id, status := range list {
			if r, err := s.Reservation(t.Context(), users[i], id); err != nil || status != "" && r.Status != status {
				t.Errorf("reservation %d was acknowledged with the status %q: %+v, %v", id, status, r, err)
			}
		}
	}
	t.Logf("%d booked, %d failed", booked.Load(), failed.Load())
	if faults, err := storetest.Violations(t.Context(), db.URL, 1); err != nil || len(faults) > 0 {
		t.Error(faults, err)
	}
}

// TestSilentConnectionsAreClosed stops the server processes of all connections of the store
// (SIGSTOP), so that Postgres does not answer on these connections. The store must close such a
// connection after a short time and use another one, also for a caller without a deadline.
func TestSilentConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	db, _ := storetest.NewCluster(t)
	s, err := store.Open(t.Context(), store.Config{URL: db.URL, MinConns: 1, MaxConns: 4, Policy: library.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	const idle = `SELECT pid FROM pg_stat_activity WHERE application_name = 'dlsms' AND state = 'idle'
		AND state_change < clock_timestamp() - interval '1.1 s'`
	const conns = 5 // at least one each for requests, worker and bookings, and two logConns
	var pids []int
	storetest.Eventually(t, "idle connections", func() bool {
		pids = storetest.Rows[int](t, db, idle)
		return len(pids) >= conns && len(pids) == storetest.Value[int](t, db,
			`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dlsms'`)
	})
	signal := func(sig syscall.Signal) {
		for _, pid := range pids {
			if err := syscall.Kill(pid, sig); err != nil {
				t.Error(err)
			}
		}
	}
	signal(syscall.SIGSTOP)
	t.Cleanup(func() { signal(syscall.SIGCONT) })

	done := make(chan error, 2)
	go func() {
		_, _, err := s.MarkNoShows(context.Background(), 10)
		done <- err
	}()
	go func() {
		_, err := s.Reservations(context.Background(), 1, store.ViewAll, store.ReservationCursor{}, 1)
		done <- err
	}()
	for range 2 {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a call still waits for a silent connection")
		}
	}
}

func liveOf(t *testing.T, s *store.Store, user int64) (ids []int64) {
	t.Helper()
	list, err := s.Reservations(t.Context(), user, store.ViewUpcoming, store.ReservationCursor{}, 10)
	if err != nil && !errors.Is(err, library.ErrUnavailable) {
		t.Error(err)
	}
	for _, r := range list {
		ids = append(ids, r.ID)
	}
	return ids
}

// TestEverythingIsUnavailableWithoutPostgres stops Postgres and calls every method. Each must fail
// with ErrUnavailable, so that the client knows that it may retry.
func TestEverythingIsUnavailableWithoutPostgres(t *testing.T) {
	t.Parallel()
	db, pg := storetest.NewCluster(t)
	config := store.Config{URL: db.URL, MinConns: 1, MaxConns: 4, Policy: library.DefaultPolicy()}
	s, err := store.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := pg.Process.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, b := t.Context(), library.Booking{UserID: 1, SeatID: 1, StartTime: at(0), EndTime: at(60)}
	drop := func(_ any, err error) error { return err }
	step := func(f func(context.Context, int) (int, bool, error)) error { _, _, err := f(ctx, 10); return err }
	for name, call := range map[string]func() error{
		"Open":            func() error { return drop(store.Open(ctx, config)) },
		"Ping":            func() error { return s.Ping(ctx) },
		"Reserve":         func() error { return drop(s.Reserve(ctx, b)) },
		"Reservation":     func() error { return drop(s.Reservation(ctx, 1, 1)) },
		"Reservations":    func() error { return drop(s.Reservations(ctx, 1, store.ViewAll, store.ReservationCursor{}, 1)) },
		"Cancel":          func() error { return drop(s.Cancel(ctx, 1, 1)) },
		"CheckIn":         func() error { return drop(s.CheckIn(ctx, 1, 1, nil)) },
		"CheckOut":        func() error { return drop(s.CheckOut(ctx, 1, 1)) },
		"Extend":          func() error { return drop(s.Extend(ctx, 1, 1, at(60))) },
		"JoinWaitlist":    func() error { return drop(s.JoinWaitlist(ctx, b)) },
		"LeaveWaitlist":   func() error { return drop(s.LeaveWaitlist(ctx, 1, 1)) },
		"Waitlist":        func() error { return drop(s.Waitlist(ctx, 1)) },
		"ClaimOffer":      func() error { _, _, err := s.ClaimOffer(ctx, 1, 1); return err },
		"Notifications":   func() error { return drop(s.Notifications(ctx, 1, 0, 1)) },
		"Changes":         func() error { return drop(s.Changes(ctx, store.Snapshot{})) },
		"Revocations":     func() error { return drop(s.Revocations(ctx, store.Snapshot{})) },
		"LoadWorld":       func() error { return drop(s.LoadWorld(ctx)) },
		"RegisterUser":    func() error { return drop(s.RegisterUser(ctx, library.NewUser{})) },
		"Credentials":     func() error { return drop(s.Credentials(ctx, "x")) },
		"CredentialsByID": func() error { return drop(s.CredentialsByID(ctx, 1)) },
		"ChangePassword":  func() error { return drop(s.ChangePassword(ctx, 1, "", "", noon)) },
		"RevokeToken":     func() error { return s.RevokeToken(ctx, 1, "x", noon) },
		"Seed":            func() error { return drop(s.Seed(ctx, "")) },
		"Faults":          func() error { return drop(s.DurabilityFaults(ctx)) },
		"NextDue":         func() error { _, _, err := s.NextDue(ctx, time.Minute); return err },
		"MarkNoShows":     func() error { return step(s.MarkNoShows) },
		"CompleteEnded":   func() error { return step(s.CompleteEnded) },
		"ExpireOffers":    func() error { return step(s.ExpireOffers) },
		"ExpireWaiting":   func() error { return step(s.ExpireWaiting) },
		"Remind":          func() error { return step(s.RemindOfCheckIn) },
		"OfferFreeSeats":  func() error { return step(s.OfferFreeSeats) },
		"Forget":          func() error { return step(s.ForgetRevocations) },
	} {
		err := call()
		e, ok := errors.AsType[*library.Error](err)
		if !ok || !errors.Is(err, library.ErrUnavailable) || e.Kind != library.KindUnavailable || e.RetryAfter == 0 ||
			errors.Unwrap(e) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := pg.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LoadWorld(ctx); err != nil {
		t.Error(err)
	}
}

// sessions is a tracer that counts the connections that are opened.
type sessions struct {
	opened atomic.Int64
}

func (c *sessions) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}
func (c *sessions) TraceConnectEnd(context.Context, pgx.TraceConnectEndData) { c.opened.Add(1) }
func (c *sessions) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (c *sessions) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestCancelledCallsKeepTheirConnections cancels hundreds of calls that book, change or read. The
// pool must lose no connection, and every transaction that has begun must complete.
func TestCancelledCallsKeepTheirConnections(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxUpcoming = 0
	b := setupWith(t, rules)
	b.users = b.db.Users(t, 30)
	counted := &sessions{}
	s, err := store.Open(t.Context(), store.Config{URL: b.db.URL, MinConns: 4, MaxConns: 4, Policy: rules,
		Tracer: counted})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	before := counted.opened.Load()
	var cancelled, done atomic.Int64
	errs := atOnce(30, func(i int) error {
		user := b.users[i]
		abandoned := func(do func(ctx context.Context) error) error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			time.AfterFunc(rand.N(10*time.Millisecond), cancel) // at any moment of the call
			err := do(ctx)
			if errors.Is(err, library.ErrUnavailable) {
				cancelled.Add(1)
				return nil
			}
			done.Add(1)
			return err
		}
		for n := range 20 {
			booking := library.Booking{UserID: user, SeatID: b.seats[n%5], StartTime: at(60 * n), EndTime: at(60*n + 60)}
			err := abandoned(func(ctx context.Context) error {
				r, err := s.Reserve(ctx, booking)
				if err != nil {
					return err
				}
				return abandoned(func(ctx context.Context) error {
					_, err := s.Cancel(ctx, user, r.ID)
					return err
				})
			})
			if err == nil || errors.Is(err, library.ErrSeatTaken) {
				err = abandoned(func(ctx context.Context) error {
					_, err := s.Waitlist(ctx, user)
					return err
				})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if n := counted.opened.Load() - before; n != 0 || cancelled.Load() == 0 || done.Load() == 0 {
		t.Errorf("%d new connections; %d calls completed, and %d were cancelled", n, done.Load(), cancelled.Load())
	}
	storetest.CheckInvariants(t, b.db)
}

// TestFullPoolIsUnavailable lets a call wait while another call holds the only connection of the
// pool. The waiting call must fail with ErrUnavailable at its deadline.
func TestFullPoolIsUnavailable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.warm(t, 1)
	w := b.writers(t, 1).sessions[0]
	w.exec(t, `BEGIN`)
	w.exec(t, `SELECT 1 FROM users WHERE id = $1 FOR UPDATE`, b.users[0])
	blocked := make(chan error, 1)
	go func() {
		_, err := s.Reserve(context.WithoutCancel(t.Context()), library.Booking{UserID: b.users[0], SeatID: b.seats[0],
			StartTime: at(0), EndTime: at(60)})
		blocked <- err
	}()
	storetest.Eventually(t, "the connection is taken", func() bool { return s.PoolStat().AcquiredConns() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Waitlist(ctx, b.users[1])
	wantErr(t, err, library.ErrUnavailable)
	if _, err := s.Changes(t.Context(), store.Snapshot{}); err != nil { // the logConns are not of the pool
		t.Error(err)
	}
	wantDone(t, 0, s.MarkNoShows) // the worker has a pool of its own
	w.exec(t, `COMMIT`)
	if err := <-blocked; err != nil {
		t.Error(err)
	}
}

// TestLongHeldLockIsOverloaded books a seat while another session holds its lock for too long. The
// call must fail with ErrOverloaded and change nothing.
func TestLongHeldLockIsOverloaded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.writers(t, 1).sessions[0]
	w.exec(t, `BEGIN`)
	w.exec(t, `SELECT 1 FROM seats WHERE id = $1 FOR UPDATE`, b.seats[0])
	_, err := b.Reserve(t.Context(), library.Booking{UserID: b.users[0], SeatID: b.seats[0], StartTime: at(0),
		EndTime: at(60)})
	wantErr(t, err, library.ErrOverloaded)
	w.exec(t, `COMMIT`)
	b.reserve(t, 0, 0, 0, 60)
}

// TestOpen checks that Open refuses a malformed URL, and that the default isolation level of the
// database has no effect on the sessions of the store.
func TestOpen(t *testing.T) {
	t.Parallel()
	_, err := store.Open(t.Context(), store.Config{URL: "postgres://%zz", MinConns: 1, MaxConns: 1})
	if err == nil || !strings.Contains(err.Error(), "DATABASE_URL") {
		t.Errorf("a malformed URL: %v", err)
	}
	db := storetest.NewDB(t)
	db.Altered()
	db.Exec(t, `
		DO $$ BEGIN
			EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database());
		END $$`)
	s, err := store.Open(t.Context(), store.Config{URL: db.URL, MinConns: 3, MaxConns: 3, Policy: library.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sessions := 0
	store.EachSession(t.Context(), t, s, func(kind string, conn *pgx.Conn) {
		sessions++
		var level string
		if err := conn.QueryRow(t.Context(), `SHOW transaction_isolation`).Scan(&level); err != nil ||
			level != "read committed" {
			t.Errorf("%s: the isolation level is %q (%v)", kind, level, err)
		}
	})
	if sessions < 7 {
		t.Errorf("%d sessions", sessions)
	}
}

func TestDurabilityFaults(t *testing.T) {
	t.Parallel()
	b := setup(t)
	faults, err := b.DurabilityFaults(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "faults of a cluster for tests", faults, []string{"fsync is off", "full_page_writes is off"})
}

// TestCloseEndsAllGoroutines must not run in parallel, because it looks at all goroutines of the
// process, and other tests have some of their own.
func TestCloseEndsAllGoroutines(t *testing.T) { //nolint:paralleltest // see above
	db := storetest.NewDB(t)
	before := goleak.IgnoreCurrent()
	s, err := store.Open(t.Context(), store.Config{URL: db.URL, MinConns: 2, MaxConns: 4, Policy: library.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	seats, users := db.Seats(t, 40), db.Users(t, 40)
	for i := range seats { // enough for the tables to be analyzed
		if _, err := s.Reserve(t.Context(), library.Booking{UserID: users[i], SeatID: seats[i],
			EndTime: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	goleak.VerifyNone(t, before)
}

// TestCrashBetweenTwoReads lets Postgres crash and start again between two reads. A snapshot from
// before the crash must be invalid, although no read failed while Postgres was down.
func TestCrashBetweenTwoReads(t *testing.T) {
	t.Parallel()
	db, pg := storetest.NewCluster(t)
	s := db.Open(t, library.DefaultPolicy())
	w, err := s.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log, err := s.Revocations(t.Context(), store.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(pg.Kill(), pg.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Changes(t.Context(), w.Snapshot); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("the first read of the changes after the crash: %v", err)
	}
	if c, err := s.Changes(t.Context(), w.Snapshot); err != nil || c.Snapshot.After(w.Snapshot) {
		t.Errorf("the second read of the changes: %+v, %v", c, err)
	}
	if _, err := s.Revocations(t.Context(), log.Snapshot); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("the first read of the revocations after the crash: %v", err)
	}
	if again, err := s.Revocations(t.Context(), log.Snapshot); err != nil || again.Snapshot.After(log.Snapshot) {
		t.Errorf("the second read of the revocations: %+v, %v", again, err)
	}
}
