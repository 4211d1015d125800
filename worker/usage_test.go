package worker_test

import (
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestWorkersCountUsage starts two workers on a database with events from the last ten days. They
// count all hours that have ended, each once.
func TestWorkersCountUsage(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, noon)
	seats, users := db.Seats(t, 20), db.Users(t, 20)
	db.Exec(t, `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
			created_at, checked_in_at, ended_at)
		SELECT 1, s, u, tstzrange(b.at, b.at + interval '2 hours'), 'COMPLETED', b.at, b.at, b.at, b.at,
			b.at + interval '90 minutes'
		FROM unnest($1::bigint[], $2::bigint[]) x (s, u)
		CROSS JOIN generate_series($3::timestamptz, $4::timestamptz, interval '5 hours') b (at)`,
		seats, users, noon.AddDate(0, 0, -10), at(-300))
	db.WriteHistory(t)
	workers := []*running{run(t, db.Open(t, library.DefaultPolicy())), run(t, db.Open(t, library.DefaultPolicy()))}
	storetest.Eventually(t, "all hours are counted", func() bool {
		return storetest.Value[int](t, db, `
			SELECT count(*) FROM usage_progress WHERE counted_until = $1`, noon.Add(-time.Hour)) == 1
	})
	for _, w := range workers {
		w.stop()
	}
	made := storetest.Value[int](t, db, `SELECT count(*) FROM reservations`)
	if got := storetest.Value[int](t, db, `SELECT sum(reservations) FROM usage_hours`); got != made {
		t.Errorf("%d reservations were counted, want %d", got, made)
	}
	if got := storetest.Value[int](t, db, `SELECT sum(used_seconds) FROM usage_hours`); got != made*90*60 {
		t.Errorf("%d s of use were counted, want %d", got, made*90*60)
	}
	if n := workers[0].log.count("level="); n > 0 {
		t.Errorf("the log has %d lines:\n%s", n, workers[0].log.buf.String())
	}
}
