package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// These tests count the rows that Postgres reads for a call while the tables are large. A call must
// not read many more rows than it needs. EXPLAIN would show only the plan for some arguments. The
// statistics of Postgres show the rows that the sessions of a store have really read.

// place has users and seats for the measured calls. The seats are free for the next two hours.
type place struct {
	now   time.Time
	users []int64
	seats []int64
}

func (p place) user(i int) int64 { return p.users[i] }
func (p place) seat(i int) int64 { return p.seats[i] }

func (p place) booking(i int, from, to time.Duration) library.Booking {
	return library.Booking{UserID: p.user(i), SeatID: p.seat(i), StartTime: p.now.Add(from), EndTime: p.now.Add(to)}
}

// call is a call of the store. do is measured and prepare is not. Each call has a number i. It uses
// the users and seats with the numbers i and i+10, which no other call uses.
type call struct {
	prepare func(c *caller, i int) // nil: nothing
	do      func(c *caller, i int) error
	// seated means that the call reads the rows of all users who have checked in. The reason is
	// that a check-in does not change the index of deadlines, so the deadlines of these users are
	// still in it.
	seated bool
}

// caller makes calls to a store for a place and keeps their results.
type caller struct {
	*store.Store
	place
	t            *testing.T
	reservations map[int]library.Reservation
	entries      map[int]library.WaitlistEntry
}

func (c *caller) reserve(i int, b library.Booking) {
	r, err := c.Reserve(c.t.Context(), b)
	if err != nil {
		c.t.Fatal(err)
	}
	c.reservations[i] = r
}

func (c *caller) visit(i int) { c.reserve(i, c.booking(i, 0, time.Hour)) }

// wait puts user i+10 in line for the seat of user i.
func (c *caller) wait(i int) {
	c.visit(i)
	b := c.booking(i, 0, time.Hour)
	b.UserID = c.user(i + 10)
	e, err := c.JoinWaitlist(c.t.Context(), b)
	if err != nil {
		c.t.Fatal(err)
	}
	c.entries[i] = e
}

func (c *caller) offer(i int) {
	c.wait(i)
	if err := c.transition(i, c.Cancel); err != nil {
		c.t.Fatal(err)
	}
}

func (c *caller) checkIn(i int) {
	c.visit(i)
	if err := c.transition(i, c.withoutCodes); err != nil {
		c.t.Fatal(err)
	}
}

// withoutCodes is CheckIn of a user who sends no code.
func (c *caller) withoutCodes(ctx context.Context, userID, id int64) (library.Reservation, error) {
	return c.CheckIn(ctx, userID, id, nil)
}

func (c *caller) transition(i int, verb func(context.Context, int64, int64) (library.Reservation, error)) error {
	_, err := verb(c.t.Context(), c.reservations[i].UserID, c.reservations[i].ID)
	return err
}

// want returns a call that succeeds if the given call fails with err.
func want(err error, call func(c *caller, i int) error) func(c *caller, i int) error {
	return func(c *caller, i int) error {
		if got := call(c, i); !errors.Is(got, err) {
			return fmt.Errorf("got %w, want %w", got, err)
		}
		return nil
	}
}

func due(step func(*caller) func(context.Context, int) (int, bool, error)) call {
	return call{do: func(c *caller, _ int) error {
		_, _, err := step(c)(c.t.Context(), 100)
		return err
	}}
}

func list(view store.View) call {
	return call{do: func(c *caller, i int) error {
		if _, err := c.Reservations(c.t.Context(), c.user(i), view, store.ReservationCursor{}, 50); err != nil {
			return err
		}
		_, err := c.Reservations(c.t.Context(), c.user(i), view, store.ReservationCursor{StartTime: c.now, ID: 1}, 50)
		return err
	}}
}

var calls = map[string]call{
	"Reserve": {do: func(c *caller, i int) error {
		_, err := c.Reserve(c.t.Context(), c.booking(i, 0, time.Hour))
		return err
	}},
	"Reserve with a key": {do: func(c *caller, i int) error {
		b := c.booking(i, 0, time.Hour)
		b.RequestID = fmt.Sprint("key ", i)
		_, err := c.Reserve(c.t.Context(), b)
		if err == nil {
			_, err = c.Reserve(c.t.Context(), b)
		}
		return err
	}},
	"Reserve a seat that is taken": {prepare: (*caller).visit, do: want(library.ErrSeatTaken,
		func(c *caller, i int) error {
			b := c.booking(i, 30*time.Minute, 2*time.Hour)
			b.UserID = c.user(i + 10)
			_, err := c.Reserve(c.t.Context(), b)
			return err
		})},
	"Reserve for a busy user": {prepare: (*caller).visit, do: want(library.ErrUserBusy,
		func(c *caller, i int) error {
			b := c.booking(i, 30*time.Minute, 2*time.Hour)
			b.SeatID = c.seat(i + 10)
			_, err := c.Reserve(c.t.Context(), b)
			return err
		})},
	"Reservation": {prepare: (*caller).visit, do: func(c *caller, i int) error { return c.transition(i, c.Reservation) }},
	"Cancel":      {prepare: (*caller).wait, do: func(c *caller, i int) error { return c.transition(i, c.Cancel) }},
	"CheckIn": {prepare: (*caller).visit, do: func(c *caller, i int) error {
		if err := c.transition(i, c.withoutCodes); err != nil {
			return err
		}
		return c.transition(i, c.withoutCodes)
	}},
	"CheckOut": {prepare: (*caller).checkIn, do: func(c *caller, i int) error { return c.transition(i, c.CheckOut) }},
	"Extend": {prepare: (*caller).visit, do: func(c *caller, i int) error {
		_, err := c.Extend(c.t.Context(), c.user(i), c.reservations[i].ID, c.now.Add(90*time.Minute))
		return err
	}},
	"JoinWaitlist": {prepare: (*caller).visit, do: func(c *caller, i int) error {
		b := c.booking(i, 0, time.Hour)
		b.UserID, b.RequestID = c.user(i+10), fmt.Sprint("wait ", i)
		_, err := c.JoinWaitlist(c.t.Context(), b)
		return err
	}},
	"Waitlist": {prepare: (*caller).wait, do: func(c *caller, i int) error {
		_, err := c.Waitlist(c.t.Context(), c.user(i+10))
		return err
	}},
	"ClaimOffer": {prepare: (*caller).offer, do: func(c *caller, i int) error {
		_, _, err := c.ClaimOffer(c.t.Context(), c.user(i+10), c.entries[i].ID)
		return err
	}},
	"LeaveWaitlist": {prepare: (*caller).offer, do: func(c *caller, i int) error {
		_, err := c.LeaveWaitlist(c.t.Context(), c.user(i+10), c.entries[i].ID)
		return err
	}},
	"upcoming": list(store.ViewUpcoming),
	"history":  list(store.ViewHistory),
	"all":      list(store.ViewAll),
	"Notifications": {do: func(c *caller, i int) error {
		_, err := c.Notifications(c.t.Context(), c.user(i), 0, 100)
		return err
	}},
	"accounts": {do: func(c *caller, i int) error {
		name := fmt.Sprint("new", c.user(i))
		u, err := c.RegisterUser(c.t.Context(), library.NewUser{
			StudentID: name, Role: library.RoleStudent, PasswordHash: "a",
		})
		if err != nil {
			return err
		}
		if _, err := c.Credentials(c.t.Context(), strings.ToUpper(name)); err != nil {
			return err
		}
		if _, err := c.CredentialsByID(c.t.Context(), u.ID); err != nil {
			return err
		}
		if err := c.RevokeToken(c.t.Context(), u.ID, name, c.now.Add(time.Hour)); err != nil {
			return err
		}
		_, err = c.ChangePassword(c.t.Context(), u.ID, "a", "b", c.now.Add(time.Hour))
		return err
	}},
	"Changes": {do: func(c *caller, _ int) error {
		changes, err := c.Changes(c.t.Context(), store.Snapshot{Xmax: 1 << 40, InProgress: []uint64{1, 2, 1 << 41}})
		if err != nil {
			return err
		}
		_, err = c.Changes(c.t.Context(), changes.Snapshot)
		return err
	}},
	"Revocations": {do: func(c *caller, _ int) error {
		_, err := c.Revocations(c.t.Context(), store.Snapshot{Xmax: 1 << 40, InProgress: []uint64{1, 2, 1 << 41}})
		return err
	}},
	"CompleteEnded": due(func(c *caller) func(context.Context, int) (int, bool, error) { return c.CompleteEnded }),
	"MarkNoShows": {seated: true, do: func(c *caller, _ int) error {
		_, _, err := c.MarkNoShows(c.t.Context(), 100)
		return err
	}},
	"ExpireOffers":      due(func(c *caller) func(context.Context, int) (int, bool, error) { return c.ExpireOffers }),
	"ExpireWaiting":     due(func(c *caller) func(context.Context, int) (int, bool, error) { return c.ExpireWaiting }),
	"RemindOfCheckIn":   due(func(c *caller) func(context.Context, int) (int, bool, error) { return c.RemindOfCheckIn }),
	"ForgetRevocations": due(func(c *caller) func(context.Context, int) (int, bool, error) { return c.ForgetRevocations }),
	// This FindDue skips the rows with a deadline up to now.
	"NextDue after FindDue": {do: func(c *caller, _ int) error {
		_, _, err := c.NextDueAfter(c.t.Context(), time.Minute, c.now)
		return err
	}},
	"NextDue": {seated: true, do: func(c *caller, _ int) error {
		_, _, err := c.NextDue(c.t.Context(), time.Minute)
		return err
	}},
}

// session is a store that makes only one of calls. It collects the process ids of its sessions in
// Postgres.
type session struct {
	*store.Store
	mu     sync.Mutex
	pids   []uint32
	report atomic.Bool // true: report the statistics after each statement
}

func (s *session) TraceQueryStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pid := conn.PgConn().PID(); !slices.Contains(s.pids, pid) {
		s.pids = append(s.pids, pid)
	}
	return ctx
}

func (s *session) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryEndData) {
	s.tell(ctx, conn)
}

func (s *session) TraceBatchStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return s.TraceQueryStart(ctx, conn, pgx.TraceQueryStartData{})
}

func (s *session) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (s *session) TraceBatchEnd(ctx context.Context, conn *pgx.Conn, _ pgx.TraceBatchEndData) {
	s.tell(ctx, conn)
}

// tell makes the server process of conn report its statistics now, if report is set. By default a
// process reports at most once a second.
func (s *session) tell(ctx context.Context, conn *pgx.Conn) {
	if s.report.Load() {
		_ = conn.PgConn().Exec(ctx, `SELECT pg_stat_force_next_flush()`).Close()
	}
}

// end closes the store and waits until its sessions have ended. They have then reported their
// statistics.
func (s *session) end(t *testing.T, db *storetest.DB) {
	t.Helper()
	s.Close()
	storetest.Eventually(t, "the sessions have ended", func() bool {
		return storetest.Value[bool](t, db, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ANY($1))`, s.pids)
	})
}

func openSession(t *testing.T, db *storetest.DB) *session {
	t.Helper()
	rules := library.DefaultPolicy()
	rules.MaxUpcoming = 1000
	s := &session{}
	var err error
	config := store.Config{URL: db.URL, MinConns: 1, MaxConns: 1, Policy: rules, Tracer: s}
	if s.Store, err = store.Open(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// times makes a call n times in the store s. The calls have the numbers first, first+1 and so on.
// Before the first call, times prepares all calls in the store others, and then runs the function
// before.
func (c call) times(t *testing.T, n, first int, s, others *store.Store, p place, before func()) {
	t.Helper()
	by := &caller{others, p, t, map[int]library.Reservation{}, map[int]library.WaitlistEntry{}}
	if c.prepare != nil {
		for i := first; i < first+n; i++ {
			c.prepare(by, i)
		}
	}
	before()
	by.Store = s
	for i := first; i < first+n; i++ {
		if err := c.do(by, i); err != nil {
			t.Error(err)
		}
	}
}

// trained returns a session for each entry of calls. Each session has run the statements of its
// call so often that Postgres keeps their plans. This takes five runs of a statement.
func trained(t *testing.T, db *storetest.DB, p place) map[string]*session {
	t.Helper()
	sessions := map[string]*session{}
	others := openSession(t, db)
	names := slices.Sorted(maps.Keys(calls))
	for n, name := range names {
		sessions[name] = openSession(t, db)
		calls[name].times(t, 7, 20*n, sessions[name].Store, others.Store, p, func() {})
	}
	for n, name := range names {
		sessions[name].report.Store(true) // reports the rows read until now, so that they do not count later
		calls[name].times(t, 1, 20*n+8, sessions[name].Store, others.Store, p, func() {})
		sessions[name].report.Store(false)
	}
	others.end(t, db)
	return sessions
}

// workDone returns the number of rows that Postgres has read so far, from each index and by scans
// of each table.
func workDone(t *testing.T, db *storetest.DB) map[string]int {
	t.Helper()
	done := map[string]int{}
	for _, line := range storetest.Rows[string](t, db, `
		SELECT relname || ' (scanned) ' || seq_tup_read FROM pg_stat_user_tables
		UNION ALL SELECT indexrelname || ' ' || idx_tup_read FROM pg_stat_user_indexes`) {
		i := strings.LastIndex(line, " ")
		n, err := strconv.Atoi(line[i+1:])
		if err != nil {
			t.Fatal(err)
		}
		done[line[:i]] = n
	}
	return done
}

// workSince closes a store, and returns how many rows Postgres has read since before, and from which
// tables and indexes.
func workSince(t *testing.T, db *storetest.DB, s *store.Store, before map[string]int) (sum int, where []string) {
	t.Helper()
	s.Close()
	storetest.Eventually(t, "the sessions have ended, and with that reported their statistics", func() bool {
		return storetest.Value[int](t, db, `
			SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
				AND backend_type = 'client backend'`) == 0
	})
	for index, n := range workDone(t, db) {
		if n -= before[index]; n > 0 {
			sum += n
			where = append(where, index)
		}
	}
	slices.Sort(where)
	return sum, where
}

// measure makes each call several times in its own session, and checks the number of rows that
// Postgres reads for one call. seated is the number of users who have checked in.
func measure(t *testing.T, db *storetest.DB, p place, sessions map[string]*session, seated int) {
	t.Helper()
	const times, most = 10, 70
	db.Exec(t, `SELECT pg_stat_force_next_flush()`) // reports the preparations, so that they do not count
	for n, name := range slices.Sorted(maps.Keys(calls)) {
		others := openSession(t, db)
		var before map[string]int
		var begin time.Time
		calls[name].times(t, times, 20*n, sessions[name].Store, others.Store, p, func() {
			others.end(t, db)
			before, begin = workDone(t, db), time.Now()
		})
		took := time.Since(begin) / times
		sessions[name].end(t, db)
		rows, where := 0, []string{}
		for name, n := range workDone(t, db) {
			if n = (n - before[name]) / times; n > 0 {
				rows += n
				where = append(where, fmt.Sprint(name, " ", n))
			}
		}
		slices.Sort(where)
		t.Logf("%-32s %8.2f ms %6d rows: %s", name, took.Seconds()*1000, rows, strings.Join(where, ", "))
		allowed := most
		if calls[name].seated {
			allowed += 2 * seated
		}
		if rows > allowed {
			t.Errorf("%s reads %d rows for each call: %s", name, rows, strings.Join(where, ", "))
		}
	}
}

// TestPlansOfNewDatabase begins with a database that has no reservations. Its sessions make each
// call so often that Postgres keeps the plans of the statements. Then 10,000 users book the same
// hours. The sessions must still read few rows for each call, although autovacuum is off.
func TestPlansOfNewDatabase(t *testing.T) {
	t.Parallel()
	db := storetest.NewUnusedDB(t)
	db.Altered()
	for _, table := range storetest.Rows[string](t, db, `SELECT relname::text FROM pg_stat_user_tables`) {
		db.Exec(t, `ALTER TABLE `+table+` SET (autovacuum_enabled = off)`)
	}
	db.FreezeClock(t, noon)
	sessions := trained(t, db, place{noon, db.Users(t, 1000), db.Seats(t, 1000)})
	const many, seated = 10_000, 100
	p := place{noon, db.Users(t, many), db.Seats(t, many)}
	term(t, db, p, seated)
	grow(t, db, p)
	measure(t, db, p, sessions, seated)
}

// grow makes 32 reservations, after which the store analyzes the tables. It checks that each table
// was analyzed.
func grow(t *testing.T, db *storetest.DB, p place) {
	t.Helper()
	s := db.Open(t, library.DefaultPolicy())
	for i := range 32 {
		if _, err := s.Reserve(t.Context(), p.booking(1000+i, 0, time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	for _, table := range []string{
		"reservations", "reservation_events", "waitlist_entries", "seats", "users", "branches",
	} {
		if !storetest.Value[bool](t, db, `
			SELECT last_analyze IS NOT NULL FROM pg_stat_user_tables WHERE relname = $1`, table) {
			t.Errorf("%s was not analyzed", table)
		}
	}
}

// term fills the tables. It reserves a seat for each user for the same two hours of this afternoon.
// A quarter of the users also wait for a seat. The last users of p, as many as seated says, have
// been checked in since this morning.
func term(t *testing.T, db *storetest.DB, p place, seated int) {
	t.Helper()
	db.Exec(t, `SET session_replication_role = replica`) // turns off the foreign keys, which the rows satisfy
	const book = `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
			created_at, checked_in_at)
		SELECT 1, s, u, tstzrange($3, $4), $5, $3::timestamptz - interval '15 min', $3::timestamptz + interval '15 min', $6,
			CASE $5 WHEN 'CHECKED_IN' THEN $3 END
		FROM unnest($1::bigint[], $2::bigint[]) x (s, u)`
	db.Exec(t, book, p.seats, p.users, p.now.Add(2*time.Hour), p.now.Add(4*time.Hour), "CONFIRMED",
		p.now.Add(-6*time.Hour))
	n := len(p.seats)
	db.Exec(t, book, p.seats[n-seated:], p.users[n-seated:], p.now.Add(-3*time.Hour), p.now.Add(time.Hour), "CHECKED_IN",
		p.now.Add(-6*time.Hour))
	db.Exec(t, `
		INSERT INTO waitlist_entries (library_id, seat_id, user_id, during, joined_position, created_at)
		SELECT 1, s, u, tstzrange($3, $4), 1, $5 FROM unnest($1::bigint[], $2::bigint[]) x (s, u)`,
		p.seats[:n/4], p.users[n/4:n/2], p.now.Add(2*time.Hour), p.now.Add(3*time.Hour), p.now.Add(-time.Hour))
	db.Exec(t, `
		INSERT INTO revocations (library_id, user_id, jti, expires_at)
		SELECT 1, u, 'bulk' || u, $2 FROM unnest($1::bigint[]) u`, p.users, p.now.Add(time.Hour))
	db.WriteHistory(t)
}
