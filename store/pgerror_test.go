package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestSQLStates makes Postgres report each SQLSTATE, and checks how translate converts it. For some
// SQLSTATEs the test provokes the real error. For the others it uses RAISE.
func TestSQLStates(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Altered()
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), db.URL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	// ended runs statements that make Postgres end the session. It returns the error of the next
	// statement in this session.
	ended := func(statements ...string) error {
		conn := connect()
		for _, sql := range statements {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				return err
			}
		}
		storetest.Eventually(t, "the end of the session", func() bool {
			return storetest.Value[int](t, db, fmt.Sprintf(`SELECT count(*) FROM pg_stat_activity WHERE pid = %d`,
				conn.PgConn().PID())) == 0
		})
		_, err := conn.Exec(t.Context(), `SELECT 1`)
		return err
	}
	exec := func(sql string) error {
		_, err := connect().Exec(t.Context(), sql)
		return err
	}
	check := func(err error, code string, want *library.Error) {
		t.Helper()
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != code {
			t.Errorf("Postgres reports %v, want the SQLSTATE %s", err, code)
			return
		}
		got := store.Translate(err)
		if want == nil && got != err { //nolint:errorlint // the same value, not wrapped
			t.Errorf("%s: %v, want the error unchanged", code, got)
		}
		if want != nil && !errors.Is(got, want) {
			t.Errorf("%s: %v, want %s", code, got, want.Reason)
		}
	}
	check(ended(`SET idle_in_transaction_session_timeout = '50ms'`, `BEGIN`), "25P03", library.ErrUnavailable)
	check(ended(`SET idle_session_timeout = '50ms'`), "57P05", library.ErrUnavailable)
	check(ended(`SET statement_timeout = '50ms'`, `SELECT pg_sleep(60)`), "57014", library.ErrOverloaded)
	check(exec(`SET temp_file_limit = 0; SET work_mem = '64kB'; SELECT count(*) FROM (SELECT i
		FROM generate_series(1, 100000) i ORDER BY i::text) x`), "53400", library.ErrUnavailable)
	check(exec(`SELECT pg_read_file('nowhere')`), "58P01", library.ErrUnavailable)
	check(exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RENAME TO other', current_database()); END $$`),
		"0A000", nil)
	check(exec(`DO $$ DECLARE c CURSOR FOR SELECT * FROM seats; BEGIN OPEN c; ALTER TABLE seats ADD x int; END $$`),
		"55006", library.ErrUnavailable)

	for code, want := range map[string]*library.Error{
		"08000": library.ErrUnavailable, "08001": library.ErrUnavailable, "08003": library.ErrUnavailable,
		"08004": library.ErrUnavailable, "08006": library.ErrUnavailable,
		"25001": nil, "25006": library.ErrUnavailable, "25P02": nil, "25P04": library.ErrUnavailable,
		"40000": library.ErrOverloaded, "40001": library.ErrOverloaded, "40003": library.ErrUnavailable,
		"40P01": library.ErrOverloaded,
		"53000": library.ErrUnavailable, "53100": library.ErrUnavailable, "53200": library.ErrUnavailable,
		"53300": library.ErrUnavailable,
		"55000": nil, "55P02": nil, "55P03": library.ErrOverloaded,
		"57000": library.ErrUnavailable, "57P01": library.ErrUnavailable, "57P02": library.ErrUnavailable,
		"57P03": library.ErrUnavailable, "57P04": library.ErrUnavailable,
		"58000": library.ErrUnavailable, "58030": library.ErrUnavailable,
		"22003": nil, "23514": nil, "42P01": nil, "XX001": nil,
	} {
		check(exec(fmt.Sprintf(`DO $$ BEGIN RAISE EXCEPTION 'a test' USING ERRCODE = '%s'; END $$`, code)), code, want)
	}
}

// freezer is a tracer that simulates a replica that is frozen for longer than
// idle_in_transaction_session_timeout. Before the second statement of a transaction, it waits until
// Postgres has ended the session.
type freezer struct {
	t     *testing.T
	db    *storetest.DB
	armed atomic.Bool
}

func (f *freezer) freeze(ctx context.Context, conn *pgx.Conn) {
	if conn.PgConn().TxStatus() != 'T' || !f.armed.CompareAndSwap(true, false) {
		return
	}
	if _, err := conn.Exec(ctx, `SET LOCAL idle_in_transaction_session_timeout = '50ms'`); err != nil {
		f.t.Error(err)
	}
	storetest.Eventually(f.t, "the end of the session", func() bool {
		return storetest.Value[int](f.t, f.db, fmt.Sprintf(`SELECT count(*) FROM pg_stat_activity WHERE pid = %d`,
			conn.PgConn().PID())) == 0
	})
}

func (f *freezer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	f.freeze(ctx, conn)
	return ctx
}

func (f *freezer) TraceBatchStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	f.freeze(ctx, conn)
	return ctx
}

func (f *freezer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData)     {}
func (f *freezer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (f *freezer) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// TestFrozenTransactionIsUnavailable freezes the replica during a transaction (see freezer). The
// call must fail with ErrUnavailable, and a retry must get an answer.
func TestFrozenTransactionIsUnavailable(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	f := &freezer{t: t, db: db}
	s, err := store.Open(t.Context(), store.Config{URL: db.URL, MinConns: 1, MaxConns: 2,
		Policy: library.DefaultPolicy(), Tracer: f})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	user := db.Users(t, 1)[0]
	f.armed.Store(true)
	_, err = s.Cancel(t.Context(), user, 1)
	if !errors.Is(err, library.ErrUnavailable) || f.armed.Load() {
		t.Errorf("the call during the freeze: %v", err)
	}
	if _, err := s.Cancel(t.Context(), user, 1); !errors.Is(err, library.ErrReservationNotFound) {
		t.Errorf("the retry: %v", err)
	}
}
