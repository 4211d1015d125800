package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestUsagePlansAtScale counts the rows that Postgres reads for an hour of sums, for a report and for a
// day of an export. 400 seats have 10 reservations on each of 40 days, with two events each.
func TestUsagePlansAtScale(t *testing.T) {
	t.Parallel()
	db := storetest.NewUnusedDB(t)
	db.Altered()
	db.FreezeClock(t, noon)
	const seats, days, daily = 400, 40, 10
	p := place{now: noon, users: db.Users(t, seats), seats: db.Seats(t, seats)}
	db.Exec(t, `SET session_replication_role = replica`)
	db.Exec(t, `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, version, check_in_opens_at,
			check_in_deadline, created_at, ended_at)
		SELECT 1, s, u, tstzrange(start, start + interval '1 hour'), 'NO_SHOW', 2, start, start, start - interval '1 day',
			start + interval '15 minutes'
		FROM unnest($1::bigint[], $2::bigint[]) x (s, u), generate_series($4::int, 1, -1) d, generate_series(1, $5::int) n,
			LATERAL (SELECT $3::timestamptz - d * interval '1 day' + n * interval '1 hour') y (start)
		ORDER BY start`, p.seats, p.users, noon, days, daily)
	db.Exec(t, `
		INSERT INTO reservation_events (library_id, at, kind, notifies, reservation_id, version, seat_id, user_id, during,
			status, check_in_opens_at, created_at)
		SELECT 1, CASE n WHEN 1 THEN created_at ELSE ended_at END, CASE n WHEN 1 THEN 'RESERVED' ELSE 'NO_SHOW' END, false,
			id, n, seat_id, user_id, during, 'NO_SHOW', check_in_opens_at, created_at
		FROM reservations CROSS JOIN generate_series(1, 2) n ORDER BY 2`)
	db.Exec(t, `INSERT INTO usage_progress (library_id, counted_until) VALUES (1, $1)`, noon.AddDate(0, 0, -days-2))
	db.Exec(t, `ANALYZE`)
	s := openSession(t, db)
	countAll(t, s.Store, store.MaxUsageHours)
	db.Exec(t, `UPDATE usage_progress SET counted_until = $1`, noon.Add(-15*time.Hour)) // an hour with reservations
	db.Exec(t, `DELETE FROM usage_hours WHERE hour >= $1`, noon.Add(-15*time.Hour))
	db.Exec(t, `DELETE FROM usage_open WHERE hour >= $1`, noon.Add(-15*time.Hour))
	s.end(t, db)

	// A reservation is at most a week long, so an hour reads those of a week.
	const week = seats * daily * 8
	for _, call := range []struct {
		name string
		most int
		do   func(s *store.Store) error
	}{
		{"CountUsage", week + 5*seats, func(s *store.Store) error {
			done, err := s.CountUsage(t.Context(), 1)
			if done.Hours != 1 {
				t.Errorf("counted %+v", done)
			}
			return err
		}},
		{"Usage", 3 * week, func(s *store.Store) error {
			_, err := s.Usage(t.Context(), library.Host, library.UsageQuery{
				FirstDay: dateOf(noon).AddDate(0, 0, -days), LastDay: dateOf(noon), By: library.UsageByWeekdayHour,
			})
			return err
		}},
		{"ExportReservations", 3 * seats * daily * 3, func(s *store.Store) error {
			q := library.ExportQuery{FirstDay: dateOf(noon).AddDate(0, 0, -9), LastDay: dateOf(noon).AddDate(0, 0, -9)}
			return s.ExportReservations(t.Context(), library.Host, q, func([]library.ExportedReservation) error { return nil })
		}},
	} {
		s := openSession(t, db)
		db.Exec(t, `SELECT pg_stat_force_next_flush()`)
		before := workDone(t, db)
		if err := call.do(s.Store); err != nil {
			t.Fatalf("%s: %v", call.name, err)
		}
		s.end(t, db)
		rows := 0
		for name, n := range workDone(t, db) {
			if n -= before[name]; n == 0 {
				continue
			}
			rows += n
			t.Logf("%s: %s %d", call.name, name, n)
			if strings.Contains(name, "(scanned)") && (strings.HasPrefix(name, "reservation")) {
				t.Errorf("%s scans a table: %s %d", call.name, name, n)
			}
		}
		if rows > call.most {
			t.Errorf("%s reads %d rows, want at most %d", call.name, rows, call.most)
		}
	}
}
