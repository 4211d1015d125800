package store

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dlsms/dlsms/library"
)

// DefaultLibrary is the id of the library that the first migration creates.
const DefaultLibrary int64 = 1

// Config has the parameters of Open.
type Config struct {
	// URL is a Postgres connection string that ParseURL takes.
	URL string
	// MinConns and MaxConns bound the number of connections that serve requests.
	MinConns, MaxConns int32
	// LibraryID is the library to serve. 0 means DefaultLibrary.
	LibraryID int64
	Policy    library.Policy
	// Tracer is called for every statement. It may be nil.
	Tracer pgx.QueryTracer
	// StartSpan makes the spans of bookings. It may be nil.
	StartSpan StartSpan
	// Observer has callbacks for metrics.
	Observer Observer
	// Log gets a message for each row that cannot be read. It may be nil.
	Log *slog.Logger
}

// backgroundConns is the size of the worker's pool. This pool is separate from the pool for
// requests, so that many requests cannot starve the worker. The reads of the change log and of the
// revocation list use no pool (see logConn).
const backgroundConns = 3

// statementTimeout bounds every statement, including its waits for locks. It equals the default
// deadline of a call: after the deadline, the client no longer waits for the answer.
const statementTimeout = 5 * time.Second

// bulkConns is the size of the pool for imports and exports of seat files. With one connection, they
// run one after another and delay no other call. The connection is opened when it is first needed.
const bulkConns = 1

// bulkTimeout bounds each transaction of the bulk pool. An import of 10,000 seats takes about 2 s.
const bulkTimeout = 20 * time.Second

// reportConns is the size of the pool for reports. A report and an export of reservations can run at
// the same time. So reports delay no other call, and take at most this number of CPUs of Postgres.
const reportConns = 2

// Store gives access to the data of one library. It is safe for concurrent use.
type Store struct {
	pool       *pgxpool.Pool // for requests
	background *pgxpool.Pool // for the worker
	bulk       *pgxpool.Pool // for imports and exports of seat files
	reports    *pgxpool.Pool // for reports and exports of reservations
	lib        int64
	policy     library.Policy
	reserves   reserveQueue
	analyzer   analyzer
	observer   Observer
	startSpan  StartSpan // nil: none
	unreadable unreadable
	refusals   refusals

	changes, revocations logConn // for the change log and the revocation list
}

// Open connects to Postgres. It opens and checks MinConns connections before it returns, so the
// first requests need not connect. It fails with library.ErrUnavailable if Postgres is unreachable.
func Open(ctx context.Context, c Config) (*Store, error) {
	s := &Store{lib: c.LibraryID, policy: c.Policy, observer: c.Observer, startSpan: c.StartSpan}
	s.reserves.store = s
	s.unreadable.log = c.Log
	if s.lib == 0 {
		s.lib = DefaultLibrary
	}
	for _, p := range []struct {
		pool     **pgxpool.Pool
		min, max int32
		settings map[string]string
		lazy     bool // the first call opens the connection
	}{
		{&s.pool, c.MinConns, c.MaxConns, sessionSettings(), false},
		{&s.background, 1, backgroundConns, sessionSettings(), false},
		{&s.bulk, 0, bulkConns, bulkSettings(), true},
		{&s.reports, 0, reportConns, reportSettings(), true},
		{&s.reserves.pool, reserveWorkers, reserveWorkers, indexPlanSettings(), false},
	} {
		var err error
		if *p.pool, err = openPool(ctx, c, p.min, p.max, p.settings); err != nil {
			s.Close()
			return nil, err
		}
		if p.lazy {
			continue
		}
		if err := warm(ctx, *p.pool, int(p.min)); err != nil {
			s.Close()
			return nil, translate(err)
		}
	}
	s.changes.onIDsMoved = s.revocations.disconnect
	for _, l := range []*logConn{&s.changes, &s.revocations} {
		l.config = s.reserves.pool.Config().ConnConfig
		if _, err := l.ensure(ctx); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func openPool(
	ctx context.Context, c Config, minConns, maxConns int32, settings map[string]string,
) (*pgxpool.Pool, error) {
	cfg, err := ParseURL(c.URL)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	cfg.MinConns, cfg.MaxConns = minConns, maxConns
	cfg.MinIdleConns = 0
	cfg.MaxConnLifetime, cfg.MaxConnLifetimeJitter = time.Hour, 10*time.Minute
	// Before the pool gives an idle connection to a call, it pings Postgres on this connection. If
	// the network drops packets silently, the ping gets no answer. Then PingTimeout ends the ping,
	// and the pool uses another connection. Without it, the ping would wait until TCP gives up,
	// after about 15 minutes.
	cfg.PingTimeout = logConnTimeout
	cfg.ConnConfig.Tracer = c.Tracer
	cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error { return prepareSession(ctx, conn, settings) }
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	return pool, nil
}

// connectTimeout bounds the time to open a connection. After that, prepareSession may take as long
// again.
const connectTimeout = 3 * time.Second

// warm opens n connections, at least one.
func warm(ctx context.Context, pool *pgxpool.Pool, n int) error {
	conns := make([]*pgxpool.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Release()
		}
	}()
	for range max(n, 1) {
		c, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	return nil
}

// Close waits for running calls and closes all connections.
func (s *Store) Close() {
	s.analyzer.running.Wait()
	for _, pool := range []*pgxpool.Pool{s.pool, s.background, s.bulk, s.reports, s.reserves.pool} {
		if pool != nil {
			pool.Close()
		}
	}
	s.changes.close()
	s.revocations.close()
}

// Policy returns the policy that the store was opened with.
func (s *Store) Policy() library.Policy { return s.policy }

// Library returns the id of the library that the store serves.
func (s *Store) Library() int64 { return s.lib }

// PoolStat returns the statistics of the pool that serves requests.
func (s *Store) PoolStat() *pgxpool.Stat { return s.pool.Stat() }

// Ping returns nil if Postgres answers, and library.ErrUnavailable otherwise.
func (s *Store) Ping(ctx context.Context) error { return translate(s.background.Ping(ctx)) }

// DurabilityFaults returns the settings of the Postgres server with which a crash could lose an
// acknowledged booking, such as "fsync is off". It returns no settings if all are safe.
func (s *Store) DurabilityFaults(ctx context.Context) ([]string, error) {
	const query = `
		SELECT name || ' is ' || setting FROM pg_settings
		WHERE (name IN ('fsync', 'full_page_writes') AND setting <> 'on') OR (name = 'synchronous_commit' AND setting = 'off')
		ORDER BY name`
	rows, err := s.background.Query(ctx, query)
	if err != nil {
		return nil, translate(err)
	}
	faults, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return faults, translate(err)
}

// sorted returns the distinct ids in ascending order, which is the lock order.
func sorted(ids []int64) []int64 {
	return slices.Compact(slices.Sorted(slices.Values(ids)))
}
