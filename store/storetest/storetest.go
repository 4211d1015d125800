// Package storetest gives tests a real Postgres. Each test binary has a private cluster, and each
// test has a migrated database to itself.
//
// A package with tests that use storetest has this function:
//
//	func TestMain(m *testing.M) { storetest.Main(m) }
package storetest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/stack"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
)

var (
	cluster   *stack.Postgres
	databases atomic.Int64
)

const template = "dlsms_template"

// Main starts the cluster, runs the tests and stops the cluster. If Postgres is not installed, the
// tests fail with the command that installs it.
func Main(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "storetest:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	if cluster, err = stack.StartPostgres(ctx, stack.PostgresConfig{Unsafe: true}); err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := cluster.Stop(ctx); err == nil {
			err = stopErr
		}
	}()
	if err := admin(ctx, "CREATE DATABASE "+template); err != nil {
		return 1, err
	}
	if err := cheapenLogins(ctx); err != nil {
		return 1, err
	}
	if _, err := migrations.Up(ctx, databaseURL(template)); err != nil {
		return 1, err
	}
	// A copy of the template then counts as a new database and starts its own ids.
	if err := makeNew(ctx, databaseURL(template)); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func admin(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, cluster.AdminURL())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

func makeNew(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err = conn.Exec(ctx, `DELETE FROM database_identity`); err != nil {
		return err
	}
	return startIDsHigh(ctx, conn)
}

func databaseURL(name string) string {
	u, err := url.Parse(cluster.AdminURL())
	if err != nil {
		panic(err)
	}
	u.Path = "/" + name
	return u.String()
}

// DB is the migrated database of one test. It is empty except for one library.
type DB struct {
	// URL is the connection string of the database.
	URL string

	conn    *pgx.Conn
	altered bool
	speed   int // of the clock, as a multiple of real time; 0 means 1
	rules   library.Policy
}

// Altered declares that the test changes more than rows and the clock, for example a constraint. No
// other test then reuses the database.
func (db *DB) Altered() { db.altered = true }

// NewDB gives the test a database. If the test passes, the database is emptied and another test may
// reuse it. If the test fails, its database is kept until the test binary ends, and the test's log
// has its name.
func NewDB(t testing.TB) *DB {
	t.Helper()
	if db := sparePool.take(); db != nil {
		db.recycleAfter(t)
		return db
	}
	return NewUnusedDB(t)
}

// NewUnusedDB is NewDB with a database that no other test has used. Use it for a test that counts the
// rows that Postgres reads: in a reused database, Postgres also reads the deleted rows of other tests
// until they are vacuumed.
func NewUnusedDB(t testing.TB) *DB {
	t.Helper()
	db := &DB{URL: createDatabase(t, template)}
	conn, err := connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	db.conn = conn
	db.recycleAfter(t)
	return db
}

// recycleAfter recycles the database at the end of a test that passes.
func (db *DB) recycleAfter(t testing.TB) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("the test's database was", db.name())
			return
		}
		if err := db.recycle(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// CopyDB copies a database and connects db to the original again. During the copy, no session
// except that of db may be connected to the original.
func CopyDB(t testing.TB, db *DB) *DB {
	t.Helper()
	name := db.name()
	_ = db.conn.Close(t.Context())
	url := createDatabase(t, name)
	db.Reconnect(t)
	copied := &DB{URL: url}
	copied.Reconnect(t)
	t.Cleanup(func() { copied.conn.Close(context.Background()) })
	return copied
}

// Reconnect connects the test to its database again after the server was down.
func (db *DB) Reconnect(t testing.TB) {
	t.Helper()
	conn, err := connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	if db.conn != nil {
		_ = db.conn.Close(t.Context())
	}
	db.conn = conn
}

// UnguardedURL is the connection string for fixtures. Their sessions turn off the guard (the
// triggers of 00004_integrity.sql). The guard would refuse a reservation without an event, and
// fixtures write such reservations.
func (db *DB) UnguardedURL() string { return unguarded(db.URL) }

func unguarded(url string) string { return url + "&dlsms.guard=off" } // the URL already has parameters

func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, unguarded(url))
}

// NewEmptyDB creates a database without a schema and returns its connection string. The options are
// those of CREATE DATABASE, such as "ENCODING 'LATIN1'".
func NewEmptyDB(t testing.TB, options ...string) string {
	t.Helper()
	return createDatabase(t, "template0", options...)
}

func createDatabase(t testing.TB, template string, options ...string) (url string) {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	create := "CREATE DATABASE " + name + " TEMPLATE " + template + " " + strings.Join(options, " ")
	if err := admin(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	return databaseURL(name)
}

// Attach connects to a database that NewEmptyDB created and that has been migrated since.
func Attach(t testing.TB, url string) *DB {
	t.Helper()
	conn, err := connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return &DB{URL: url, conn: conn}
}

// NewCluster starts a Postgres for this test only, with one migrated database. It is for tests that
// stop, kill or restart Postgres.
func NewCluster(t testing.TB) (*DB, *stack.Postgres) {
	t.Helper()
	pg, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Unsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if _, err := migrations.Up(t.Context(), pg.AdminURL()); err != nil {
		t.Fatal(err)
	}
	db := &DB{URL: pg.AdminURL()}
	if db.conn, err = connect(t.Context(), db.URL); err != nil {
		t.Fatal(err)
	}
	if err := startIDsHigh(t.Context(), db.conn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.conn.Close(context.Background()) })
	return db, pg
}

// New creates a database and opens a store on it with the default rules.
func New(t testing.TB) *store.Store {
	t.Helper()
	return NewDB(t).Open(t, library.DefaultPolicy())
}

// Open opens a store on the database. A test calls it several times to simulate several replicas.
func (db *DB) Open(t testing.TB, rules library.Policy) *store.Store {
	t.Helper()
	db.rules = rules
	s, err := store.Open(t.Context(), store.Config{URL: db.URL, MinConns: 1, MaxConns: 16, Policy: rules})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Exec runs a statement. It must not be called concurrently.
func (db *DB) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := db.conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%v: %s", err, sql)
	}
}

// DropChecks drops the CHECK constraints of a table, so that a test can insert rows that they
// refuse.
func (db *DB) DropChecks(t testing.TB, table string) {
	t.Helper()
	db.Altered()
	for _, sql := range Rows[string](t, db, `
		SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint
		WHERE conrelid = $1::text::regclass AND contype = 'c'`, table) {
		db.Exec(t, sql)
	}
	if table == "branches" {
		db.Exec(t, `DROP TRIGGER branches_timezone ON branches`) // this trigger also checks a single row
	}
}

// Rows returns the rows of a query with one column. It must not be called concurrently.
func Rows[T any](t testing.TB, db *DB, sql string, args ...any) []T {
	t.Helper()
	rows, err := db.conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%v: %s", err, sql)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%v: %s", err, sql)
	}
	return out
}

// Eventually waits until done returns true. It fails the test after one minute. what describes the
// condition in the failure message.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(time.Minute); !done(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("not reached within a minute: %s", what)
		}
	}
}

// EventuallyLocked waits until another session of this database waits for a lock in a statement that
// contains the text. In a transaction, Postgres shows the activity of the first look again and again
// until the snapshot of the statistics is cleared:
// https://www.postgresql.org/docs/15/monitoring-stats.html#MONITORING-STATS-VIEWS
func (db *DB) EventuallyLocked(t testing.TB, statement string) {
	t.Helper()
	Eventually(t, fmt.Sprintf("a statement with %q waits for a lock", statement), func() bool {
		db.Exec(t, `SELECT pg_stat_clear_snapshot()`)
		return Value[bool](t, db, `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND strpos(query, $1) > 0)`, statement)
	})
}

// Value returns the only value that a query finds.
func Value[T any](t testing.TB, db *DB, sql string, args ...any) T {
	t.Helper()
	out := Rows[T](t, db, sql, args...)
	if len(out) != 1 {
		t.Fatalf("%d rows, not one: %s", len(out), sql)
	}
	return out[0]
}

// SetClock sets the clock of all sessions of this database. The clock runs on from there.
func (db *DB) SetClock(t testing.TB, now time.Time) {
	t.Helper()
	expression := fmt.Sprintf(`clock_timestamp() + interval '%d microseconds'`, time.Until(now).Microseconds())
	db.Exec(t, clockFunctions(expression))
}

// SpeedClock sets the clock of all sessions of this database and makes it run speed times as fast
// as real time. It returns a function that returns the time of this clock.
func (db *DB) SpeedClock(t testing.TB, now time.Time, speed int) func() time.Time {
	t.Helper()
	db.speed = speed
	c := Clock{From: now, Since: time.Now(), Speed: speed}
	db.Exec(t, c.SQL())
	return func() time.Time { return c.At(time.Now()) }
}

// FreezeClock sets the clock of all sessions of this database and stops it.
func (db *DB) FreezeClock(t testing.TB, now time.Time) {
	t.Helper()
	db.Exec(t, clockFunctions(fmt.Sprintf(`timestamptz '%s'`, now.UTC().Format(time.RFC3339Nano))))
}

// Seats adds a branch that is always open, with n seats, and returns the ids of the seats.
func (db *DB) Seats(t testing.TB, n int) []int64 {
	t.Helper()
	branch := Value[int64](t, db, `INSERT INTO branches (library_id, code, name, timezone)
		SELECT 1, 'branch-' || count(*), 'Branch', 'Europe/Berlin' FROM branches RETURNING id`)
	return Rows[int64](t, db, `INSERT INTO seats (library_id, branch_id, area, label)
		SELECT 1, $1, 'Area', 'A-' || i FROM generate_series(1, $2) i RETURNING id`, branch, n)
}

// Users adds n students and returns their ids.
func (db *DB) Users(t testing.TB, n int) []int64 {
	t.Helper()
	return Rows[int64](t, db, `INSERT INTO users (library_id, student_id, name, email, role, password_hash)
		SELECT 1, 'U' || (SELECT count(*) FROM users) || '-' || i, 'User', 'user@university.example', 'STUDENT', ''
		FROM generate_series(1, $1) i RETURNING id`, n)
}
