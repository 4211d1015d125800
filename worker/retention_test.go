package worker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestRetentionTrustsNoWrongClock sets the clock of the database five years ahead. Nothing loses its
// user, and the step fails until the clock is right.
func TestRetentionTrustsNoWrongClock(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Altered()
	users := db.Users(t, 3)
	db.FreezeClock(t, time.Now().AddDate(5, 0, 0))
	w := runRetaining(t, db.Open(t, library.DefaultPolicy()), 12)
	storetest.Eventually(t, "the step fails", func() bool { _, failing := w.failing.Load("retention"); return failing })
	blanked := func() int {
		return storetest.Value[int](t, db, `SELECT count(*) FROM users WHERE blanked_at IS NOT NULL`)
	}
	if n := blanked(); n != 0 {
		t.Errorf("%d users are blanked", n)
	}
	w.stop()
	db.FreezeClock(t, time.Now())
	db.Exec(t, `UPDATE users SET last_login_at = dlsms_now() - interval '2 years'`)
	w = runRetaining(t, db.Open(t, library.DefaultPolicy()), 12)
	storetest.Eventually(t, "the users are blanked", func() bool { return blanked() == len(users) })
}

// TestWorkersRemovePeopleFromOldRows lets two workers handle 1,050 old reservations, which are more
// than one query finds. One reservation cannot be changed. The workers skip it, handle all others,
// and blank all people but its user.
func TestWorkersRemovePeopleFromOldRows(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Altered()
	db.FreezeClock(t, noon)
	const old, people = 1050, 30
	seats, users := db.Seats(t, 50), db.Users(t, people)
	db.Exec(t, `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
			created_at, ended_at)
		SELECT 1, ($1::bigint[])[1 + i % 50], ($2::bigint[])[1 + i % 30], tstzrange(d, d + interval '1 hour'), 'CANCELLED',
			d, d, d, d
		FROM generate_series(1, $3) i, LATERAL (SELECT $4::timestamptz + i * interval '1 minute' AS d) x`,
		seats, users, old, noon)
	db.Exec(t, `
		INSERT INTO reservation_events (library_id, at, kind, notifies, reservation_id, version, seat_id, user_id, during,
			status, check_in_opens_at, check_in_deadline, created_at, ended_at)
		SELECT library_id, created_at, CASE v WHEN 1 THEN 'RESERVED' ELSE 'CANCELLED' END, false, id, v, seat_id, user_id,
			during, CASE v WHEN 1 THEN 'CONFIRMED' ELSE 'CANCELLED' END, check_in_opens_at, check_in_deadline, created_at,
			CASE v WHEN 2 THEN ended_at END
		FROM reservations, generate_series(1, 2) v ORDER BY id, v`)
	db.Exec(t, `UPDATE reservations SET version = 2`)
	bad := storetest.Value[int64](t, db, `SELECT id FROM reservations ORDER BY id OFFSET 700 LIMIT 1`)
	db.Exec(t, fmt.Sprintf(`
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION 'this row is broken'; END $f$;
		CREATE TRIGGER refuse BEFORE UPDATE ON reservations FOR EACH ROW WHEN (OLD.id = %d) EXECUTE FUNCTION refuse()`, bad))
	db.FreezeClock(t, noon.AddDate(0, 7, 0))

	idle := run(t, db.Open(t, library.DefaultPolicy()))
	idle.awaitRest(t)
	if n := storetest.Value[int](t, db, `SELECT count(*) FROM reservations WHERE anonymous`); n != 0 {
		t.Fatalf("%d reservations moved without a retention", n)
	}
	var workers []*running
	for range 2 {
		workers = append(workers, runRetaining(t, db.Open(t, library.DefaultPolicy()), 6))
	}
	began := time.Now()
	storetest.Eventually(t, "all rows but one are handled", func() bool {
		return storetest.Value[int](t, db, `
			SELECT (SELECT count(*) FROM reservations WHERE anonymous)
				+ (SELECT count(*) FROM users WHERE blanked_at IS NOT NULL AND NOT pseudonym)`) == old-1+people-1
	})
	t.Logf("it took %v", time.Since(began))
	for _, w := range workers {
		w.stop()
	}
	if got := workers[0].count("retention") + workers[1].count("retention"); got != old-1+people-1 {
		t.Errorf("the workers report %d changes, want %d", got, old-1+people-1)
	}
	const skips = "the worker skips an old row"
	if n := workers[0].log.count(skips) + workers[1].log.count(skips); n == 0 || n > 2 {
		t.Errorf("%d lines about the bad row:\n%s%s", n, workers[0].log.buf.String(), workers[1].log.buf.String())
	}
	storetest.CheckInvariants(t, db)
}
