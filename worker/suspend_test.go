package worker_test

import (
	"fmt"
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestWorkersSuspendUsers lets three workers mark 300 no-shows under a policy that suspends users
// after one strike. The row of one user cannot be changed. Each other user must be suspended once,
// and this user after the repair.
func TestWorkersSuspendUsers(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Altered()
	db.FreezeClock(t, at(15))
	const n = 300
	seats, users := db.Seats(t, n), db.Users(t, n)
	db.Exec(t, `INSERT INTO effective_policies (library_id, branch_id, area, user_group, dates, strike_limit)
		VALUES (1, 0, '', '', '(,)', 1)`)
	confirmed(t, db, seats, users)
	bad := users[100]
	db.Exec(t, fmt.Sprintf(`
		CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION 'this row is broken'; END $f$;
		CREATE TRIGGER poison BEFORE UPDATE ON users FOR EACH ROW WHEN (OLD.id = %d) EXECUTE FUNCTION poison()`, bad))

	var workers []*running
	for range 3 {
		workers = append(workers, run(t, db.Open(t, library.DefaultPolicy())))
	}
	sum := func(step string) (n int) {
		for _, w := range workers {
			n += w.count(step)
		}
		return n
	}
	suspended := func() int {
		return storetest.Value[int](t, db, `SELECT count(*) FROM users WHERE suspended_until = $1`, at(15+7*24*60))
	}
	storetest.Eventually(t, "the other users are suspended", func() bool { return sum("suspend") == n-1 })
	if got := suspended(); got != n-1 || sum("no_show") != n {
		t.Errorf("%d users are suspended after %d no-shows, want %d after %d", got, sum("no_show"), n-1, n)
	}
	storetest.Eventually(t, "a worker skips the bad user", func() bool {
		return workers[0].skips("suspend")+workers[1].skips("suspend")+workers[2].skips("suspend") > 0
	})
	for _, w := range workers {
		if lines := w.log.count("level="); lines != w.log.count("the worker skips a user, ") || lines > 1 {
			t.Errorf("the log is\n%s", w.log.buf.String())
		}
	}

	db.Exec(t, `DROP FUNCTION poison CASCADE`)
	storetest.Eventually(t, "the repaired user is suspended", func() bool { return suspended() == n })
	if got := storetest.Value[int](t, db, `SELECT count(*) FROM suspensions`); got != n {
		t.Errorf("%d suspensions, want one for each of %d users", got, n)
	}
	if open := storetest.Value[int](t, db, `
		SELECT count(*) FROM strikes WHERE NOT judged OR suspension_id IS NULL`); open != 0 {
		t.Errorf("%d strikes led to no suspension", open)
	}
	storetest.CheckInvariants(t, db)
}
