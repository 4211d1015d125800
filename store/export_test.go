package store

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Translate is for tests.
var Translate = translate

// PrepareSession is for tests.
var PrepareSession = prepareSession

// SessionSettings returns what the sessions of the pools and of the logs have to have. It is for tests.
func SessionSettings() (pool, log map[string]string) { return sessionSettings(), logSettings() }

// EachSession calls f for a session of each kind that the store has open. It is for tests.
func EachSession(ctx context.Context, t *testing.T, s *Store, f func(kind string, conn *pgx.Conn)) {
	t.Helper()
	for _, p := range []struct {
		kind string
		pool *pgxpool.Pool
	}{{"pool", s.pool}, {"pool", s.background}, {"log", s.booker.lanes}} {
		for _, conn := range p.pool.AcquireAllIdle(ctx) {
			f(p.kind, conn.Conn())
			conn.Release()
		}
	}
	f("log", s.changes.conn)
	f("log", s.revocations.conn)
}

// AskAgain has the store ask whether the database is where it was at the next look. It is for tests.
func AskAgain(s *Store) {
	s.changes.mu.Lock()
	defer s.changes.mu.Unlock()
	s.changes.asked = s.changes.asked.Add(-2 * settleInterval)
}
