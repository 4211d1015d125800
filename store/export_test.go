package store

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dlsms/dlsms/library"
)

// Translate is for tests.
var Translate = translate

// PrepareSession is for tests.
var PrepareSession = prepareSession

// BuiltStatements are the statements that are built when the program starts. It is for tests.
var BuiltStatements = map[string]string{"reserve": reserve, "judge": judge}

// SessionSettings returns the settings that the sessions of a store must have. log is for the
// sessions that make bookings, and for those that read the change log and the revocation list. pool
// is for all others, which serve the other requests and the worker. It is for tests.
func SessionSettings() (pool, log map[string]string) { return sessionSettings(), indexPlanSettings() }

// EachSession calls f for each open session of the store. kind is "pool" or "log" and names the
// result of SessionSettings that applies to the session. It is for tests.
func EachSession(ctx context.Context, t *testing.T, s *Store, f func(kind string, conn *pgx.Conn)) {
	t.Helper()
	for _, p := range []struct {
		kind string
		pool *pgxpool.Pool
	}{{"pool", s.pool}, {"pool", s.background}, {"log", s.reserves.pool}} {
		for _, conn := range p.pool.AcquireAllIdle(ctx) {
			f(p.kind, conn.Conn())
			conn.Release()
		}
	}
	f("log", s.changes.conn)
	f("log", s.revocations.conn)
}

// ForceRestoreCheck makes the next read of the change log check whether the database was restored.
// It is for tests.
func ForceRestoreCheck(s *Store) {
	s.changes.mu.Lock()
	defer s.changes.mu.Unlock()
	s.changes.restoreChecked = s.changes.restoreChecked.Add(-2 * restoreCheckInterval)
}

// ReserveForStaff makes a booking for a user like staff do. It is for tests.
func ReserveForStaff(ctx context.Context, s *Store, b library.Booking) (r library.Reservation, err error) {
	err = s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		if _, err := t.Exec(ctx, lockUser, s.lib, b.UserID); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, lockSeat, s.lib, b.SeatID); err != nil {
			return err
		}
		batch := &pgx.Batch{}
		d := s.queueReserve(batch, []library.Booking{b}, cause{byLibrary: true, reason: "test"})
		if err := t.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		s.complete(ctx, t, d)
		r = d.results[0].reservation
		return d.results[0].err
	})
	return r, err
}

// ExportQueries returns the queries of the export of a person. It is for tests.
func ExportQueries() (queries []string) {
	for _, section := range exportSections {
		queries = append(queries, section.query)
	}
	return queries
}
