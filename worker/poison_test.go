package worker_test

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

func (r *running) skips(step string) int {
	if counter, ok := r.skipped.Load(step); ok {
		return int(counter.(*atomic.Int64).Load())
	}
	return 0
}

// poison describes a bad row. If a transaction of the step works on the seat of this row, the
// transaction fails.
type poison struct {
	put, mend string        // SQL that writes and repairs the row; %d is the id of the seat
	step      string        // the step that skips the seat
	moves     bool          // the row makes its transition, but the waitlist of its seat is not served
	limit     time.Duration // for the transitions of all other seats
}

func refusingTrigger(action string) string {
	return `
		CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN ` + action + `; RETURN NEW; END $f$;
		CREATE TRIGGER poison BEFORE UPDATE ON reservations FOR EACH ROW WHEN (OLD.seat_id = %d) EXECUTE FUNCTION poison()`
}

const dropTrigger = `DROP FUNCTION poison CASCADE --%d`

var poisons = map[string]poison{
	// The branch has an unknown time zone from before the database refused such zones.
	"the hours of a branch can't be computed": {
		put: `SET session_replication_role = replica;
			INSERT INTO branch_hours SELECT 1, branch_id, d, '0:00', '24:00' FROM seats, generate_series(1, 7) d WHERE id = %d;
			UPDATE branches SET timezone = 'Europe/Berln' WHERE id = (SELECT branch_id FROM branch_hours LIMIT 1);
			SET session_replication_role = DEFAULT`,
		mend: `UPDATE branches SET timezone = 'Europe/Berlin' --%d`, step: "offer", moves: true, limit: 5 * time.Second,
	},
	"a reservation can't be changed": {
		put: refusingTrigger(`RAISE EXCEPTION 'this row is broken'`), mend: dropTrigger,
		step: "no_show", limit: 5 * time.Second,
	},
	// Each attempt runs into the statement timeout.
	"a reservation takes too long": {
		put: refusingTrigger(`PERFORM pg_sleep(60)`), mend: dropTrigger, step: "no_show", limit: 40 * time.Second,
	},
}

// TestBadRowDoesNotDelayOtherSeats writes 200 reservations whose transition is due: 180 no-shows
// and 20 completions, at seats of three branches. 50 of the seats have a waitlist. One seat has a
// bad row. The other seats must make their transitions in time, and the bad seat after its repair.
func TestBadRowDoesNotDelayOtherSeats(t *testing.T) {
	t.Parallel()
	for name, p := range poisons {
		for _, workers := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, %d workers", name, workers), func(t *testing.T) {
				t.Parallel()
				oneBadRow(t, p, workers)
			})
		}
	}
}

func oneBadRow(t *testing.T, p poison, workers int) {
	t.Helper()
	db := storetest.NewDB(t)
	db.Altered()
	db.FreezeClock(t, noon)
	var seats []int64
	for range 3 {
		seats = append(seats, db.Seats(t, 67)...)
	}
	seats = seats[:200]
	users := db.Users(t, 400)
	const visits, waiters = 20, 50
	db.Exec(t, `
		INSERT INTO reservations
			(library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline, created_at, checked_in_at)
		SELECT 1, s, u, tstzrange($3, CASE WHEN i <= $4 THEN $5::timestamptz ELSE $6 END),
			CASE WHEN i <= $4 THEN 'CHECKED_IN' ELSE 'CONFIRMED' END, $3, $7, $3, CASE WHEN i <= $4 THEN $3::timestamptz END
		FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY x (s, u, i)`,
		seats, users[:200], at(-60), visits, at(-1), at(60), at(-45))
	bad := seats[100]
	db.Exec(t, `
		INSERT INTO waitlist_entries (library_id, seat_id, user_id, during, joined_position, created_at)
		SELECT 1, s, u, tstzrange($3, $4), 1, $3 FROM unnest($1::bigint[], $2::bigint[]) x (s, u)`,
		append([]int64{bad}, seats[200-waiters+1:]...), users[200:200+waiters], at(-60), at(60))
	db.WriteHistory(t)
	db.Exec(t, fmt.Sprintf(p.put, bad))

	var all []*running
	begin := time.Now()
	for range workers {
		all = append(all, run(t, db.Open(t, library.DefaultPolicy())))
	}
	status := func(table, status string) int {
		return storetest.Value[int](t, db, `SELECT count(*) FROM `+table+` WHERE status = $1`, status)
	}
	noShows := 200 - visits - 1
	if p.moves {
		noShows++
	}
	storetest.Eventually(t, "the other seats are done", func() bool {
		return status("reservations", "NO_SHOW") == noShows && status("reservations", "COMPLETED") == visits &&
			status("waitlist_entries", "OFFERED") == waiters-1
	})
	took := time.Since(begin)
	t.Logf("the other seats took %v", took)
	if took > p.limit {
		t.Errorf("the other seats took %v, want at most %v", took, p.limit)
	}
	skipping := func(w *running) bool { return w.skips(p.step) == 1 && w.log.count("the worker skips a seat, ") == 1 }
	storetest.Eventually(t, "the bad seat is reported", func() bool {
		return skipping(all[0]) || workers > 1 && (skipping(all[1]) || skipping(all[2]))
	})
	reported := 0
	for _, w := range all {
		reported += w.log.count("seat_id=" + strconv.FormatInt(bad, 10))
		if n := w.log.count("level="); n != w.log.count("the worker skips a seat, ") {
			t.Errorf("%d lines in the log, want only those about the bad seat:\n%s", n, w.log.buf.String())
		}
	}
	if reported == 0 || reported > workers {
		t.Errorf("%d workers reported the bad seat %d times, want 1 to %[1]d", workers, reported)
	}
	if n := status("waitlist_entries", "WAITING"); n != 1 {
		t.Errorf("%d waitlist entries wait, want only that of the bad seat", n)
	}

	db.Exec(t, fmt.Sprintf(p.mend, bad))
	storetest.Eventually(t, "the repaired seat is done", func() bool {
		return status("reservations", "NO_SHOW") == 200-visits && status("waitlist_entries", "OFFERED") == waiters
	})
	for _, w := range all {
		storetest.Eventually(t, "no seat is skipped", func() bool { return w.skips(p.step) == 0 })
		w.stop()
	}
	storetest.CheckInvariants(t, db)
}

// TestFailingSeatIsTriedAfterPauses counts how often a worker tries a seat that always fails. The
// other seats make their transitions, and the pauses between the tries of the failing seat grow.
func TestFailingSeatIsTriedAfterPauses(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Altered()
	db.FreezeClock(t, noon)
	seats, users := db.Seats(t, 3), db.Users(t, 3)
	db.Exec(t, `
		INSERT INTO reservations
			(library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline, created_at)
		SELECT 1, s, u, tstzrange($3, $4), 'CONFIRMED', $3, $5, $3 FROM unnest($1::bigint[], $2::bigint[]) x (s, u)`,
		seats, users, at(-60), at(60), at(-45))
	db.WriteHistory(t)
	// The sequence counts the tries, because a rollback does not undo nextval.
	db.Exec(t, `CREATE SEQUENCE tries MINVALUE 0`)
	db.Exec(t, `SELECT nextval('tries')`)
	db.Exec(t, fmt.Sprintf(refusingTrigger(`PERFORM nextval('tries'); RAISE EXCEPTION 'this row is broken'`), seats[0]))

	begin := time.Now()
	w := run(t, db.Open(t, library.DefaultPolicy()))
	storetest.Eventually(t, "the other seats are done", func() bool { return w.count("no_show") == len(seats)-1 })
	// The first transaction has all three seats, and the worker splits it until the failing seat is
	// alone, which is in the third try at the latest. Pauses of 1 s and 2 s follow, so the fifth
	// try comes after 3 s or later.
	const tries = 5
	count := 0
	storetest.Eventually(t, "the failing seat is tried again", func() bool {
		count = int(storetest.Value[int64](t, db, `SELECT last_value FROM tries`))
		return count >= tries
	})
	if took := time.Since(begin); took < 3*time.Second {
		t.Errorf("the failing seat was tried %d times in %v, want %d times in more than 3 s", count, took, tries)
	}
	if n := w.skips("no_show"); n != 1 {
		t.Errorf("the worker skips %d seats, want 1", n)
	}
}
