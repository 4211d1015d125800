package store_test

import (
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestPlansOfPersonalData counts the rows that Postgres reads for the retention, the export and the
// list of closed accounts, with 100,000 reservations of which nearly all belong to a pseudonym. No
// call may read the rows that were handled before.
func TestPlansOfPersonalData(t *testing.T) {
	t.Parallel()
	db := storetest.NewUnusedDB(t)
	db.FreezeClock(t, noon.AddDate(1, 0, 0))
	const many = 100_000
	seats, users := db.Seats(t, 100), db.Users(t, 1000)
	db.Exec(t, `UPDATE users SET last_login_at = $2 WHERE id = ANY ($1)`, users[:100], noon)
	pseudonym := storetest.Value[int64](t, db, `
		INSERT INTO users (library_id, student_id, name, email, role, password_hash, closed_at, blanked_at, pseudonym)
		VALUES (1, 'anon-1', 'anonymous', 'anonymous', 'STUDENT', '', $1, $1, true) RETURNING id`, noon)
	db.Exec(t, `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
			created_at, ended_at, anonymous)
		SELECT 1, ($1::bigint[])[1 + i % 100], CASE WHEN i % 2000 = 0 THEN ($2::bigint[])[1 + i / 2000] ELSE $3 END,
			tstzrange(d, d + interval '1 hour'), 'CANCELLED', d, d, d, d, i % 2000 <> 0
		FROM generate_series(1, $4) i, LATERAL (SELECT $5::timestamptz + i * interval '1 minute' AS d) x`,
		seats, users, pseudonym, many, noon.AddDate(-1, 0, 0))
	db.WriteHistory(t)
	db.Exec(t, `
		INSERT INTO audit_log (library_id, at, role, action, object, anonymous)
		SELECT 1, $1, 'HOST', 'x', 'user/' || i, i % 2000 <> 0 FROM generate_series(1, $2) i`, noon, many)
	db.Exec(t, `ANALYZE`)

	parts := map[string]func(s *store.Store) (int, error){
		"export": func(s *store.Store) (n int, err error) {
			err = s.ExportUser(t.Context(), users[500], func(part []byte) error { n += len(part); return nil })
			return min(n, 1), err
		},
		"closed accounts": func(s *store.Store) (int, error) {
			_, err := s.ClosedAccounts(t.Context(), 0, 100)
			return 1, err
		},
		"login": func(s *store.Store) (int, error) { return 1, s.SaveLogin(t.Context(), users[600]) },
	}
	for _, part := range store.RetentionParts {
		parts[part.Name] = func(s *store.Store) (int, error) {
			before, err := s.OldBefore(t.Context(), 6)
			if err != nil {
				return 0, err
			}
			rows, err := s.FindOld(t.Context(), part, before, store.OldRow{}, 20)
			var ids []int64
			for _, r := range rows {
				ids = append(ids, r.ID)
			}
			if err == nil && len(ids) > 0 {
				_, _, err = s.Retain(t.Context(), part, before, ids)
			}
			return len(rows), err
		}
	}
	want := map[string]int{ // rows that the call finds
		"export": 1, "closed accounts": 1, "login": 1,
		"reservations": 20, "entries": 0, "suspensions": 0, "audit": 20, "people": 20,
	}
	for name, call := range parts {
		before := workDone(t, db)
		s := db.Open(t, library.DefaultPolicy())
		n, err := call(s)
		if err != nil || n != want[name] {
			t.Errorf("%s: %d rows, %v; want %d", name, n, err, want[name])
		}
		sum, where := workSince(t, db, s, before)
		t.Logf("%s: %d rows from %v", name, sum, where)
		if sum > 3000 { // of 100,000
			t.Errorf("%s reads %d rows from %v", name, sum, where)
		}
	}
}
