package worker_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
	"github.com/dlsms/dlsms/worker"
)

// noon is the time of most tests. It is in the past, so a test fails if the code uses Go's clock
// instead of Postgres's clock.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func at(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }

// running is a worker that runs, and the figures that it has reported.
type running struct {
	*worker.Worker
	done sync.Map // step → *atomic.Int64
	seen sync.Map // steps that have queried for due rows

	skipped sync.Map // step → *atomic.Int64
	failing sync.Map // steps whose last pass failed
	log     *lines
	stop    func() // stops the worker and waits for its end
}

// lines is a log that tests read while the worker writes it.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), what)
}

// run starts a worker on a store, with an hour between its passes unless a row is due.
func run(t *testing.T, s *store.Store) *running {
	t.Helper()
	return runRetaining(t, s, 0)
}

// runRetaining is run with a retention of some months.
func runRetaining(t *testing.T, s *store.Store, months int) *running {
	t.Helper()
	r := &running{log: &lines{}}
	r.Worker = worker.New(s, worker.Config{
		Interval:        time.Hour,
		RetentionMonths: months,
		Logger:          slog.New(slog.NewTextHandler(r.log, nil)),
		Done: func(step string, n int) {
			counter, _ := r.done.LoadOrStore(step, &atomic.Int64{})
			counter.(*atomic.Int64).Add(int64(n))
		},
		Metrics: worker.Metrics{
			Lag: func(step string, _ time.Duration) { r.seen.Store(step, true) },
			Failing: func(step string, failing bool) {
				r.failing.Delete(step)
				if failing {
					r.failing.Store(step, true)
				}
			},
			Skipped: func(step string, seats int) {
				counter, _ := r.skipped.LoadOrStore(step, &atomic.Int64{})
				counter.(*atomic.Int64).Store(int64(seats))
			},
		},
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
	r.stop = func() { cancel(); <-ended }
	t.Cleanup(r.stop)
	return r
}

func (r *running) count(step string) int {
	if counter, ok := r.done.Load(step); ok {
		return int(counter.(*atomic.Int64).Load())
	}
	return 0
}

// fails reports whether the last pass of every step failed (want is true) or succeeded (want is false).
func (r *running) fails(want bool) bool {
	for _, step := range append(slices.Clone(store.DueSteps), store.OfferStep) {
		if _, failing := r.failing.Load(step.Name); failing != want {
			return false
		}
	}
	return true
}

func quick() library.Policy {
	rules := library.DefaultPolicy()
	rules.Grace, rules.ReminderLead, rules.ClaimTime = 300*time.Millisecond, 100*time.Millisecond, 300*time.Millisecond
	return rules
}

func kinds(t *testing.T, db *storetest.DB) []string {
	t.Helper()
	return storetest.Rows[string](t, db, `
		SELECT kind || ' ' || count(*) FROM reservation_events GROUP BY kind ORDER BY kind`)
}

// TestWorkersShareDueRows gives 10,000 due transitions to three workers. One worker stops early,
// and another one starts in its place. Each transition must happen exactly once.
func TestWorkersShareDueRows(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, noon)
	const each = 2000
	seats := db.Seats(t, 4*each)
	users := db.Users(t, 5*each)
	fillWithDue(t, db, seats, users, each)

	begin := time.Now()
	var workers []*running
	for range 3 {
		workers = append(workers, run(t, db.Open(t, library.DefaultPolicy())))
	}
	sum := func(step string) (n int) {
		for _, w := range workers {
			n += w.count(step)
		}
		return n
	}
	storetest.Eventually(t, "a quarter of the completions is done", func() bool { return sum("complete") >= each/4 })
	workers[0].stop()
	workers = append(workers, run(t, db.Open(t, library.DefaultPolicy())))
	steps := []string{"complete", "no_show", "offer_expired", "waiting_expired", "remind"}
	storetest.Eventually(t, "all transitions are done", func() bool {
		return !slices.ContainsFunc(steps, func(step string) bool { return sum(step) < each })
	})
	t.Logf("drained in %v", time.Since(begin))
	for _, w := range workers {
		w.stop()
	}
	want := []string{
		"CHECKED_IN 2000", "COMPLETED 2000", "NO_SHOW 2000", "OFFERED 4000", "OFFER_EXPIRED 2000", "REMINDED 2000",
		"RESERVED 6000",
	}
	if got := kinds(t, db); strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("events %v, want %v", got, want)
	}
	for _, step := range steps {
		if sum(step) != each {
			t.Errorf("%s: done %d times, want %d", step, sum(step), each)
		}
	}
	busy := 0
	for _, w := range workers {
		if w.count("complete")+w.count("no_show")+w.count("offer_expired") > 0 {
			busy++
		}
		if w.log.count("level=") != 0 {
			t.Errorf("a worker logged:\n%s", w.log.buf.String())
		}
	}
	if busy < 2 {
		t.Error("one worker made all transitions")
	}
	storetest.CheckInvariants(t, db)
}

// fillWithDue writes rows whose transition is due at noon. Each of the four groups has seats of its
// own. each is the number of these seats:
//   - CONFIRMED reservations that are no-shows
//   - CHECKED_IN reservations that have ended
//   - CONFIRMED reservations that need a reminder, and waitlist entries whose window has passed
//   - expired offers, each with a next waitlist entry
func fillWithDue(t *testing.T, db *storetest.DB, seats, users []int64, each int) {
	t.Helper()
	part := func(ids []int64, i int) []int64 { return ids[i*each : (i+1)*each] }
	for i, kind := range []struct {
		status            string
		from, to          int
		deadline, arrived int
	}{
		{"CONFIRMED", -60, 60, -45, 0}, {"CHECKED_IN", -60, 0, -45, -55}, {"CONFIRMED", -10, 60, 5, 0},
	} {
		db.Exec(t, `
			INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
				created_at, checked_in_at)
			SELECT 1, s, u, tstzrange($4, $5), $3, $6, $7, $6, CASE $3 WHEN 'CHECKED_IN' THEN $8::timestamptz END
			FROM unnest($1::bigint[], $2::bigint[]) x (s, u)`,
			part(seats, i), part(users, i), kind.status, at(kind.from), at(kind.to),
			at(-120), at(kind.deadline), at(kind.arrived))
	}
	join := func(seats, users []int64, from, to int) {
		db.Exec(t, `
			INSERT INTO waitlist_entries (library_id, seat_id, user_id, during, joined_position, created_at)
			SELECT 1, s, u, tstzrange($3, $4), 1, $5 FROM unnest($1::bigint[], $2::bigint[]) x (s, u)`,
			seats, users, at(from), at(to), at(-60))
	}
	join(part(seats, 3), part(users, 3), -30, 60)
	db.Exec(t, `
		INSERT INTO reservations
			(library_id, seat_id, user_id, entry_id, during, status, check_in_opens_at, offer_expires_at, created_at)
		SELECT 1, seat_id, user_id, id, during, 'HELD', $1, $2, $1 FROM waitlist_entries`, at(-45), at(-20))
	db.Exec(t, `
		UPDATE waitlist_entries w SET status = 'OFFERED', reservation_id = r.id, offer_expires_at = r.offer_expires_at
		FROM reservations r WHERE r.entry_id = w.id`)
	join(part(seats, 3), part(users, 4), -30, 30)
	join(part(seats, 2), part(users, 4), -60, -1)
	db.WriteHistory(t)
	db.Exec(t, `ANALYZE`)
}

// statements counts the statements that a store sends to Postgres.
type statements struct{ n atomic.Int64 }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.n.Add(1)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestStepsRunWhenDue checks that a worker with an interval of an hour still makes each transition
// in time: a reminder, a no-show, and then two offers that expire. Between the transitions the
// worker is idle.
func TestStepsRunWhenDue(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.SetClock(t, noon)
	asked := &statements{}
	rules := quick()
	rules.Grace, rules.ReminderLead = time.Second, 400*time.Millisecond // longer than maxStartDelay
	s, err := store.Open(t.Context(), store.Config{URL: db.URL, MinConns: 1, MaxConns: 4, Policy: rules, Tracer: asked})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	seat, users := db.Seats(t, 1)[0], db.Users(t, 3)
	r, err := s.Reserve(t.Context(), library.Booking{UserID: users[0], SeatID: seat, EndTime: at(60)})
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range users[1:] {
		entry := library.Booking{UserID: user, SeatID: seat, StartTime: r.StartTime, EndTime: at(60)}
		if _, err := s.JoinWaitlist(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	run(t, s)
	storetest.Eventually(t, "the last offer has expired", func() bool {
		return storetest.Value[int](t, db, `SELECT count(*) FROM reservation_events WHERE kind = 'OFFER_EXPIRED'`) == 2
	})
	got := storetest.Rows[string](t, db, `SELECT kind FROM reservation_events ORDER BY id`)
	want := "RESERVED REMINDED NO_SHOW OFFERED OFFER_EXPIRED OFFERED OFFER_EXPIRED"
	if strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
	late := storetest.Rows[float64](t, db, `
		SELECT extract(epoch FROM at - CASE kind WHEN 'REMINDED' THEN check_in_deadline - interval '400 ms'
			WHEN 'NO_SHOW' THEN check_in_deadline ELSE due END)::float8
		FROM (SELECT *,
			lag(offer_expires_at) OVER (PARTITION BY reservation_id ORDER BY version) AS due FROM reservation_events) e
		WHERE kind IN ('REMINDED', 'NO_SHOW', 'OFFER_EXPIRED')`)
	t.Logf("late by (s): %.3f", late)
	for _, seconds := range late {
		if seconds < 0 || seconds > 1 {
			t.Errorf("a transition was %.3f s late, want 0 to 1 s", seconds)
		}
	}
	// The worker makes five passes, or ten if timers fire a little early. A pass sends about a
	// dozen statements, besides the statements of its transactions. A worker that is not idle would
	// send many more.
	if n := asked.n.Load(); n > 400 {
		t.Errorf("%d statements: the worker is not idle", n)
	}
	storetest.CheckInvariants(t, db)
}

// awaitRest waits until each step has made its first query for due rows.
func (r *running) awaitRest(t *testing.T) {
	t.Helper()
	storetest.Eventually(t, "each step has queried for due rows", func() bool {
		for _, step := range append(slices.Clone(store.DueSteps), store.OfferStep) {
			if _, ok := r.seen.Load(step.Name); !ok {
				return false
			}
		}
		return true
	})
}

// TestDueInWakesIdleSteps calls DueIn of a worker that would otherwise be idle for an hour.
func TestDueInWakesIdleSteps(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.SetClock(t, noon)
	asked := &statements{}
	s, err := store.Open(t.Context(), store.Config{URL: db.URL, MinConns: 1, MaxConns: 4, Policy: quick(), Tracer: asked})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	seats, users := db.Seats(t, 2), db.Users(t, 2)
	w := run(t, s)
	w.awaitRest(t)
	for i, seat := range seats {
		if _, err := s.Reserve(t.Context(), library.Booking{UserID: users[i], SeatID: seat, EndTime: at(60)}); err != nil {
			t.Fatal(err)
		}
		before := asked.n.Load()
		w.DueIn(time.Hour) // a later time has no effect
		w.DueIn(300 * time.Millisecond)
		w.DueIn(2 * time.Hour)
		storetest.Eventually(t, "no step fails", func() bool { return w.fails(false) })
		storetest.Eventually(t, "the no-show is recorded", func() bool {
			return storetest.Value[int](t, db, `SELECT count(*) FROM reservation_events WHERE kind = 'NO_SHOW'`) == i+1
		})
		if n := asked.n.Load() - before; n > 100 {
			t.Errorf("%d statements: the worker is not idle", n)
		}
	}
	storetest.CheckInvariants(t, db)
}

// TestFirstPassOffersFreeSeat cancels a reservation while its seat is out of service, so the cancel
// does not offer the seat to the waitlist. When the seat is back in service, the first pass of a
// worker must offer it.
func TestFirstPassOffersFreeSeat(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, noon)
	s := db.Open(t, library.DefaultPolicy())
	seat, users := db.Seats(t, 1)[0], db.Users(t, 2)
	r, err := s.Reserve(t.Context(), library.Booking{UserID: users[0], SeatID: seat, EndTime: at(60)})
	if err != nil {
		t.Fatal(err)
	}
	entry := library.Booking{UserID: users[1], SeatID: seat, StartTime: noon, EndTime: at(60)}
	if _, err := s.JoinWaitlist(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `UPDATE seats SET out_of_service = true`)
	if _, err := s.Cancel(t.Context(), users[0], r.ID); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `UPDATE seats SET out_of_service = false`)
	w := run(t, s)
	storetest.Eventually(t, "the seat is offered", func() bool { return w.count("offer") == 1 })
	storetest.CheckInvariants(t, db)
}

// TestWorksAgainAfterPostgresRestart starts a worker while Postgres is stopped. The worker logs the
// outage once, and makes the due transitions when Postgres runs again.
func TestWorksAgainAfterPostgresRestart(t *testing.T) {
	t.Parallel()
	db, pg := storetest.NewCluster(t)
	s, err := store.Open(t.Context(), store.Config{URL: db.URL, MinConns: 1, MaxConns: 4, Policy: quick()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	seat, users := db.Seats(t, 1)[0], db.Users(t, 2)
	r, err := s.Reserve(t.Context(), library.Booking{UserID: users[0], SeatID: seat, EndTime: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if err := pg.Process.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := run(t, s)
	storetest.Eventually(t, "the worker fails", func() bool { return w.log.count("the worker fails") == 1 })
	storetest.Eventually(t, "all steps fail", func() bool { return w.fails(true) })
	storetest.Eventually(t, "the deadline has passed", func() bool { return time.Now().After(*r.CheckInDeadline) })
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	storetest.Eventually(t, "the worker works again", func() bool { return w.log.count("the worker works again") == 1 })
	storetest.Eventually(t, "the no-show is recorded", func() bool { return w.count("no_show") == 1 })
	list, err := s.Notifications(t.Context(), users[0], 0, 10)
	if err != nil || len(list) != 1 || list[0].Kind != library.EventNoShow || list[0].ReservationID != r.ID {
		t.Errorf("notifications %+v, %v, want one no-show", list, err)
	}
	if n := w.log.count("level="); n != 2 {
		t.Errorf("%d lines in the log, want 2:\n%s", n, w.log.buf.String())
	}
	if faults, err := storetest.Violations(t.Context(), db.URL, 1); err != nil || len(faults) > 0 {
		t.Error(faults, err)
	}
}

// TestRunLeaksNoGoroutines runs alone, because goleak sees the goroutines of all tests.
func TestRunLeaksNoGoroutines(t *testing.T) { //nolint:paralleltest // see above
	db := storetest.NewDB(t)
	before := goleak.IgnoreCurrent()
	s, err := store.Open(t.Context(), store.Config{URL: db.URL, MinConns: 2, MaxConns: 4, Policy: library.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	w := run(t, s)
	w.awaitRest(t)
	w.stop()
	s.Close()
	goleak.VerifyNone(t, before)
}
