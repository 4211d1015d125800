package worker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// confirmed writes a CONFIRMED reservation at each seat, from noon until 14:00, with the check-in
// deadline at 12:15.
func confirmed(t *testing.T, db *storetest.DB, seats, users []int64) {
	t.Helper()
	db.Exec(t, `
		INSERT INTO reservations
			(library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline, created_at)
		SELECT 1, s, u, tstzrange($3, $4), 'CONFIRMED', $5, $6, $5 FROM unnest($1::bigint[], $2::bigint[]) x (s, u)`,
		seats, users, noon, at(120), at(-15), at(15))
	db.WriteHistory(t)
}

func statuses(t *testing.T, db *storetest.DB) string {
	t.Helper()
	return fmt.Sprint(storetest.Rows[string](t, db, `
		SELECT format('%s of %s until %s', count(*), status, to_char(check_in_deadline AT TIME ZONE 'UTC', 'HH24:MI'))
		FROM reservations GROUP BY status, check_in_deadline ORDER BY status, check_in_deadline`))
}

// downtime stops the workers and lets time pass, in minutes after noon. Then it starts as many new
// workers.
func downtime(t *testing.T, db *storetest.DB, workers []*running, from, until int) (started []*running) {
	t.Helper()
	storetest.Eventually(t, "there is a heartbeat", func() bool {
		return storetest.Value[int](t, db, `SELECT count(*) FROM worker_heartbeat`) == 1
	})
	for _, w := range workers {
		w.stop()
	}
	db.Exec(t, `UPDATE worker_heartbeat SET alive_at = $1, seen_at = clock_timestamp() - $2::interval`,
		at(from), time.Duration(until-from)*time.Minute)
	db.FreezeClock(t, at(until))
	for range workers {
		started = append(started, run(t, db.Open(t, library.DefaultPolicy())))
	}
	return started
}

// TestWorkersSettleAnOutage stops two workers for 10 minutes around the deadline of 250
// reservations. The new workers move the deadlines before they mark a no-show. The users can check
// in then, and the others become no-shows at the new deadline.
func TestWorkersSettleAnOutage(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, noon)
	seats, users := db.Seats(t, 250), db.Users(t, 250)
	workers := []*running{run(t, db.Open(t, library.DefaultPolicy())), run(t, db.Open(t, library.DefaultPolicy()))}
	confirmed(t, db, seats, users)
	workers = downtime(t, db, workers, 12, 22)
	storetest.Eventually(t, "all deadlines are moved", func() bool {
		return workers[0].count("outage")+workers[1].count("outage") == len(seats)
	})
	if got, want := statuses(t, db), "[250 of CONFIRMED until 12:25]"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	if told := storetest.Value[int](t, db, `
		SELECT count(*) FROM reservation_events WHERE kind = 'RESCHEDULED' AND notifies AND by_library`); told != len(seats) {
		t.Errorf("%d users are told, want %d", told, len(seats))
	}
	s := db.Open(t, library.DefaultPolicy())
	mine := storetest.Value[int64](t, db, `SELECT id FROM reservations WHERE user_id = $1`, users[0])
	if _, err := s.CheckIn(t.Context(), users[0], mine, nil); err != nil {
		t.Error(err)
	}
	db.FreezeClock(t, at(25))
	workers[0].DueIn(0)
	storetest.Eventually(t, "the others are no-shows", func() bool {
		return workers[0].count("no_show")+workers[1].count("no_show") == len(seats)-1
	})
	storetest.CheckInvariants(t, db)
}

// TestShortDowntimeIsNoOutage restarts a worker within a minute.
func TestShortDowntimeIsNoOutage(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, noon)
	seats, users := db.Seats(t, 3), db.Users(t, 3)
	first := run(t, db.Open(t, library.DefaultPolicy()))
	confirmed(t, db, seats, users)
	workers := downtime(t, db, []*running{first}, 14, 15)
	storetest.Eventually(t, "the no-shows are marked", func() bool { return workers[0].count("no_show") == 3 })
	if got, want := statuses(t, db), "[3 of NO_SHOW until 12:15]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if n := workers[0].count("outage"); n != 0 {
		t.Errorf("%d deadlines moved", n)
	}
}

// TestBadSeatDoesNotBlockNoShows settles an outage with a reservation that cannot be changed. The
// worker skips its seat, and the no-shows at other seats are marked.
func TestBadSeatDoesNotBlockNoShows(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Altered()
	db.FreezeClock(t, noon)
	seats, users := db.Seats(t, 50), db.Users(t, 50)
	first := run(t, db.Open(t, library.DefaultPolicy()))
	confirmed(t, db, seats, users)
	first.awaitRest(t)
	db.Exec(t, fmt.Sprintf(refusingTrigger(`RAISE EXCEPTION 'this row is broken'`), seats[20]))
	workers := downtime(t, db, []*running{first}, 12, 22)
	w := workers[0]
	storetest.Eventually(t, "the outage is settled", func() bool {
		return storetest.Value[int](t, db, `SELECT count(*) FROM outages WHERE done_at IS NOT NULL AND moved = 49`) == 1
	})
	db.FreezeClock(t, at(25))
	w.DueIn(0)
	storetest.Eventually(t, "the no-shows are marked", func() bool { return w.count("no_show") == 49 })
	if n := w.log.count("the check-in deadlines at a seat cannot be moved"); n != 1 {
		t.Errorf("%d lines about the bad seat:\n%s", n, w.log.buf.String())
	}
}
