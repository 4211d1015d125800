package store_test

import (
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestPlansOfTheDesk counts the rows that Postgres reads for lists of the desk, with 200,000
// reservations and 200,000 rows in the audit log. The calls are repeated, so that Postgres also uses
// the plans that it keeps.
func TestPlansOfTheDesk(t *testing.T) {
	t.Parallel()
	db := storetest.NewUnusedDB(t)
	db.FreezeClock(t, noon)
	const seats, days, calls = 500, 400, 8
	users, _ := db.Users(t, seats), db.Seats(t, seats)
	db.Exec(t, `
		INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'quiet', 'Quiet', 'UTC')`)
	db.Exec(t, `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
			created_at, checked_in_at, ended_at)
		SELECT 1, s.id, ($2::bigint[])[s.place], tstzrange(d, d + interval '1 hour'), 'COMPLETED',
			d, d + interval '15 minutes', d, d, d + interval '1 hour'
		FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM seats) s,
			generate_series($1::timestamptz - interval '399 days', $1, interval '1 day') d`, noon, users)
	db.Exec(t, `
		INSERT INTO audit_log (library_id, role, action, branch_id, object)
		SELECT 1, 'HOST', 'x', b.id, 'reservation/' || i FROM generate_series(1, 200000) i, branches b
		WHERE b.code <> 'quiet'`)
	db.Exec(t, `
		INSERT INTO audit_log (library_id, role, action, branch_id, object)
		SELECT 1, 'HOST', 'x', b.id, 'y' FROM generate_series(1, 5) i, branches b WHERE b.code = 'quiet'`)
	db.Exec(t, `ANALYZE`)
	for name, tc := range map[string]struct {
		call func(s *store.Store) (rows int, err error)
		rows int // of the result
		most int // that Postgres reads for a call
	}{
		"the arrivals of a day": {func(s *store.Store) (int, error) {
			list, err := s.Arrivals(t.Context(), library.Host, "branch-0", noon.Truncate(24*time.Hour).AddDate(0, 0, -100),
				store.ReservationCursor{}, seats+1)
			return len(list), err
		}, seats, 6 * seats},
		"the last changes": {func(s *store.Store) (int, error) {
			list, err := s.Audit(t.Context(), library.Host, library.AuditQuery{}, 0, 100)
			return len(list), err
		}, 100, 500},
		"the changes of a quiet branch": {func(s *store.Store) (int, error) {
			list, err := s.Audit(t.Context(), library.Host, library.AuditQuery{Branch: "quiet"}, 0, 100)
			return len(list), err
		}, 5, 100},
		"the changes of an object": {func(s *store.Store) (int, error) {
			list, err := s.Audit(t.Context(), library.Host, library.AuditQuery{Object: "reservation/7"}, 0, 100)
			return len(list), err
		}, 1, 100},
	} {
		before := workDone(t, db)
		s := db.Open(t, library.DefaultPolicy())
		began := time.Now()
		for range calls {
			if n, err := tc.call(s); err != nil || n != tc.rows {
				t.Errorf("%s: %d rows, %v; want %d", name, n, err, tc.rows)
			}
		}
		took := time.Since(began) / calls
		sum, where := workSince(t, db, s, before)
		sum /= calls
		t.Logf("%s: %v, %d rows from %v", name, took, sum, where)
		if sum > tc.most {
			t.Errorf("%s reads %d rows from %v; want at most %d", name, sum, where, tc.most)
		}
	}
}
