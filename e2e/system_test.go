package e2e_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
	"github.com/dlsms/dlsms/store/storetest"
)

// waitTimeout bounds the wait for an expected event. It is far above the usual time, because the
// machine may be busy.
const waitTimeout = time.Minute

// system is a running stack with its log, a connection pool to its database, and connections to its
// proxy.
type system struct {
	*stack.Stack

	topology stack.Topology

	log    *e2e.LogRecorder
	db     *pgxpool.Pool
	secret string        // signs tokens, under the kid "e2e"
	codes  string        // PRESENCE_SECRET
	names  *atomic.Int64 // the last number in a name

	protocol protocol                    // of proxied and conn
	proxied  [4]grpc.ClientConnInterface // several: one nginx worker serves all of a connection
	dials    atomic.Int64
}

// startSystem starts a system with defaults for tests: no fsync, cheap passwords.
func startSystem(ctx context.Context, cfg stack.Config) (*system, error) {
	s := &system{
		topology: cfg.Topology, log: &e2e.LogRecorder{}, secret: rand.Text() + rand.Text(), codes: rand.Text() + rand.Text(),
		names:    &atomic.Int64{},
		protocol: overGRPC,
	}
	if cfg.Binary == "" {
		cfg.Binary = program("dlsms")
	}
	cfg.Unsafe, cfg.Log = true, s.log
	// With less weight, auth may not start in time beside other tests.
	cfg.EqualWeight = true
	cfg.PostgresSettings = map[string]string{"log_min_messages": "error"} // s.log finds deadlocks
	env := map[string]string{
		"JWT_SECRET":      "e2e:" + s.secret,
		"BCRYPT_COST":     "4",
		"PRESENCE_SECRET": s.codes,
		"LOG_LEVEL":       "warn", // "info" logs each call, which takes seconds with the race detector
	}
	maps.Copy(env, cfg.Env)
	cfg.Env = env
	var err error
	if s.Stack, err = stack.Start(ctx, cfg); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.log.Tail(40))
	}
	if s.db, err = pgxpool.New(ctx, s.Postgres.AdminURL()); err != nil {
		return nil, errors.Join(err, s.Stack.Stop(ctx))
	}
	if err := s.dial(""); err != nil {
		return nil, errors.Join(err, s.stop(ctx))
	}
	return s, nil
}

// stop stops the system. It fails if a process exited with an error, the log has a fault, or the
// database breaks an invariant.
func (s *system) stop(ctx context.Context) error {
	hungUp := s.hangUp()
	idle := s.waitUntilIdle(ctx)
	// The replicas stop before checkDatabase reads the statistics, because a connection reports its
	// statistics to Postgres when it closes.
	stopped := make([]error, len(s.Replicas))
	var all sync.WaitGroup
	for i, r := range s.Replicas {
		all.Go(func() { stopped[i] = r.Stop(ctx) })
	}
	all.Wait()
	checked := s.checkDatabase(ctx)
	s.db.Close()
	return errors.Join(hungUp, idle, errors.Join(stopped...), checked, s.Stack.Stop(ctx), s.log.Err())
}

// waitUntilIdle waits until no step of the worker is due and no waitlist entry waits for a free
// seat.
func (s *system) waitUntilIdle(ctx context.Context) error {
	alive := slices.ContainsFunc(s.Replicas, func(r *stack.Replica) bool { return r.PID() != 0 })
	if s.Postgres.PID() == 0 || !alive {
		return nil
	}
	var left []string
	var err error
	if happens(func() bool {
		left, err = storetest.Unfinished(ctx, s.Postgres.AdminURL())
		return err == nil && len(left) == 0
	}) {
		return nil
	}
	return errors.Join(err, fmt.Errorf("the system does not finish its work:\n\t%s", strings.Join(left, "\n\t")))
}

// checkDatabase fails if Postgres had a deadlock or the database breaks an invariant.
func (s *system) checkDatabase(ctx context.Context) error {
	if s.Postgres.PID() == 0 {
		return nil // a test has stopped it
	}
	n, err := s.deadlocks(ctx)
	if err == nil && n > 0 {
		err = fmt.Errorf("there were %d deadlocks", n)
	}
	broken, queryErr := storetest.Violations(ctx, s.Postgres.AdminURL(), 1)
	if len(broken) > 0 {
		err = errors.Join(err, fmt.Errorf("the database breaks its invariants:\n\t%s", strings.Join(broken, "\n\t")))
	}
	return errors.Join(err, queryErr)
}

// deadlocks returns the number of deadlocks that Postgres has counted. A connection reports its
// deadlocks within ten seconds, and when it closes.
func (s *system) deadlocks(ctx context.Context) (n int, err error) {
	err = s.db.QueryRow(ctx, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).Scan(&n)
	return n, err
}

// start starts a system for one test and stops it at the end of the test.
func start(t *testing.T, cfg stack.Config) *system {
	t.Helper()
	s, err := startSystem(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log:\n%s", s.log.Tail(30))
		}
		if err := s.stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// anonymous returns a client without a token. Its calls go through the proxy.
func (s *system) anonymous() *e2e.Client {
	return e2e.Anonymous(s.proxied[int(s.dials.Add(1))%len(s.proxied)])
}

const password = "correct horse battery"

// student registers a student and logs in, through the proxy.
func (s *system) student(t *testing.T) student {
	t.Helper()
	return student{s.users(t, 1)[0], t}
}

// users registers n students concurrently, and logs them in.
func (s *system) users(t *testing.T, n int) []*e2e.Client {
	t.Helper()
	list := make([]*e2e.Client, n)
	at := s.names.Add(int64(n)) - int64(n) + 1
	inParallel(t, n, 16, func(i int) error {
		id := fmt.Sprintf("E2E-%d", at+int64(i))
		err := retryOverloaded(t.Context(), func() error {
			_, err := s.anonymous().Auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
				StudentId: id, Name: "Student " + id, Email: "student@university.example", Password: password,
			})
			return err
		})
		if err != nil {
			return fmt.Errorf("register %s: %w", id, err)
		}
		return retryOverloaded(t.Context(), func() (err error) {
			list[i], err = s.anonymous().Login(t.Context(), id, password)
			return err
		})
	})
	return list
}

// retryOverloaded repeats a call while it fails with OVERLOADED. A busy machine refuses calls when
// too many passwords wait for hashing.
func retryOverloaded(ctx context.Context, call func() error) error {
	for {
		err := call()
		if e2e.Reason(err) != "OVERLOADED" {
			return err
		}
		timer := time.NewTimer(e2e.RefusalOf(err).RetryAfter)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// librarian returns a user with the role LIBRARIAN.
func (s *system) librarian(t *testing.T) student {
	t.Helper()
	u := s.student(t)
	s.exec(t, `UPDATE users SET role = 'LIBRARIAN' WHERE library_id = 1 AND id = $1`, u.User.GetId())
	return s.login(t, u.User.GetStudentId(), password) // the role is in the token
}

func (s *system) login(t *testing.T, studentID, password string) student {
	t.Helper()
	var u *e2e.Client
	err := retryOverloaded(t.Context(), func() (err error) {
		u, err = s.anonymous().Login(t.Context(), studentID, password)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return student{u, t}
}

// branch is a branch that only one test uses.
type branch struct {
	code  string
	seats []int64
}

// branch adds a branch with n seats that is always open, and returns when every replica shows it.
func (s *system) branch(t *testing.T, n int) branch {
	t.Helper()
	b := branch{code: strings.ToLower(fmt.Sprintf("e2e-%d", s.names.Add(1)))}
	rows, err := s.db.Query(t.Context(), `
		WITH b AS (INSERT INTO branches (library_id, code, name, timezone)
			VALUES (1, $1, 'Branch of a test', 'Europe/Berlin') RETURNING id)
		INSERT INTO seats (library_id, branch_id, area, label, amenities)
		SELECT 1, b.id, 'Area', 'A-' || i, '{1}' FROM b, generate_series(1, $2) i RETURNING id`, b.code, n)
	if err == nil {
		b.seats, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.copies() {
		r := e2e.Anonymous(conn(t, s, i))
		eventually(t, "the replica shows the new branch", func() bool {
			resp, err := r.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{Branch: b.code})
			return err == nil && int(resp.GetTotalCount()) == n
		})
	}
	return b
}

func (s *system) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := s.db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%v: %s", err, sql)
	}
}

// value returns the single value of a query.
func value[T any](t *testing.T, s *system, sql string, args ...any) T {
	t.Helper()
	rows, err := s.db.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%v: %s", err, sql)
	}
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%v: %s", err, sql)
	}
	return v
}
