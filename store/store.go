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

// DefaultLibrary is the id of the one library that a database begins with.
const DefaultLibrary int64 = 1

// Config says how to open a Store.
type Config struct {
	// URL is a Postgres connection string that ParseURL takes.
	URL string
	// MinConns and MaxConns bound the pool that serves requests.
	MinConns, MaxConns int32
	// LibraryID is the library that this server serves; 0: DefaultLibrary.
	LibraryID int64
	Policy    library.Policy
	// Tracer sees every statement; nil: none.
	Tracer pgx.QueryTracer
	// Observer is told what happens, for metrics.
	Observer Observer
	// Log gets the rows that cannot be read; nil: none.
	Log *slog.Logger
}

// backgroundConns is how many connections the worker has of its own, so that a rush of requests doesn't starve it. The followers of the
// logs have a line each: every fresh look at the seats waits for the log.
const backgroundConns = 3

// statementTimeout bounds every statement and every wait in it. It is the default deadline of a call: past it, nobody waits for the answer.
const statementTimeout = 5 * time.Second

// Store is the truth, for one library. It is safe for concurrent use.
type Store struct {
	pool       *pgxpool.Pool // requests
	background *pgxpool.Pool // the worker
	lib        int64
	policy     library.Policy
	booker     booker
	analyzer   analyzer
	observer   Observer
	unreadable unreadable

	changes, revocations line // on which the logs are followed
}

// Open connects to Postgres and returns when MinConns connections are open and checked, so that the first requests find them warm.
// It fails with ErrUnavailable when Postgres can't be reached.
func Open(ctx context.Context, c Config) (*Store, error) {
	s := &Store{lib: c.LibraryID, policy: c.Policy, observer: c.Observer}
	s.booker.store = s
	s.unreadable.log = c.Log
	if s.lib == 0 {
		s.lib = DefaultLibrary
	}
	for _, p := range []struct {
		pool     **pgxpool.Pool
		min, max int32
		settings map[string]string
	}{
		{&s.pool, c.MinConns, c.MaxConns, sessionSettings()},
		{&s.background, 1, backgroundConns, sessionSettings()},
		{&s.booker.lanes, bookerLanes, bookerLanes, logSettings()},
	} {
		var err error
		if *p.pool, err = openPool(ctx, c, p.min, p.max, p.settings); err != nil {
			s.Close()
			return nil, err
		}
	}
	s.changes.moved = s.revocations.cut
	for _, l := range []*line{&s.changes, &s.revocations} {
		l.config = s.booker.lanes.Config().ConnConfig
		if _, err := l.current(ctx); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func openPool(ctx context.Context, c Config, minConns, maxConns int32, settings map[string]string) (*pgxpool.Pool, error) {
	cfg, err := ParseURL(c.URL)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	cfg.MinConns, cfg.MaxConns = minConns, maxConns
	cfg.MinIdleConns = 0
	cfg.MaxConnLifetime, cfg.MaxConnLifetimeJitter = time.Hour, 10*time.Minute
	// A connection that has been idle is asked whether it still works. Where packets vanish without a word, nothing else would end that wait for
	// a quarter of an hour.
	cfg.PingTimeout = lineTimeout
	cfg.ConnConfig.Tracer = c.Tracer
	cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error { return prepareSession(ctx, conn, settings) }
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	if err := warm(ctx, pool, int(minConns)); err != nil {
		pool.Close()
		return nil, translate(err)
	}
	return pool, nil
}

// connectTimeout bounds how long a new connection, and then its first statement, may take.
const connectTimeout = 3 * time.Second

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

// Close waits for what runs and closes all connections.
func (s *Store) Close() {
	s.analyzer.running.Wait()
	for _, pool := range []*pgxpool.Pool{s.pool, s.background, s.booker.lanes} {
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

// PoolStat returns the state of the pool that serves requests.
func (s *Store) PoolStat() *pgxpool.Stat { return s.pool.Stat() }

// Ping returns nil if Postgres answers, else ErrUnavailable.
func (s *Store) Ping(ctx context.Context) error { return translate(s.background.Ping(ctx)) }

// DurabilityFaults returns the settings of the server under which an acknowledged booking could be lost in a crash, none when all is well.
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

// sorted returns the distinct ids in ascending order: the order in which rows are locked.
func sorted(ids []int64) []int64 {
	return slices.Compact(slices.Sorted(slices.Values(ids)))
}
