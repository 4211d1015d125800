package worker_test

import (
	"fmt"
	"testing"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// closedBranch returns a database with a reservation at each of n seats, and a store that has closed
// their branch.
func closedBranch(t *testing.T, n int) (db *storetest.DB, seats []int64, s *store.Store) {
	t.Helper()
	db = storetest.NewDB(t)
	db.FreezeClock(t, noon)
	seats = db.Seats(t, n)
	db.Exec(t, `
		INSERT INTO reservations
			(library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline, created_at)
		SELECT 1, s, u, tstzrange($3, $4), 'CONFIRMED', $3, $4, $5 FROM unnest($1::bigint[], $2::bigint[]) x (s, u)`,
		seats, db.Users(t, n), at(60), at(120), noon)
	db.WriteHistory(t)
	return db, seats, db.Open(t, library.DefaultPolicy())
}

// closeAll closes the branch and cancels its n reservations.
func closeAll(t *testing.T, s *store.Store, n int) {
	t.Helper()
	order := library.Order{Actor: library.Host, Action: "CreateClosure"}
	_, _, err := s.CreateClosure(t.Context(), order, library.ClosureSpec{
		Branch: "branch-0", EndTime: at(600), Disruption: library.Disruption{OnBookings: library.CancelBookings, Expected: n},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sweepDone(t *testing.T, db *storetest.DB) bool {
	t.Helper()
	return storetest.Value[bool](t, db, `SELECT bool_and(done_at IS NOT NULL) FROM sweeps`)
}

// wantSwept checks that each of n reservations has ended, and that its user was told once.
func wantSwept(t *testing.T, db *storetest.DB, n int) {
	t.Helper()
	const told = `
		SELECT count(*) || ' ' || count(DISTINCT reservation_id) || ' ' || (SELECT sum(ended) FROM sweeps)
		FROM reservation_events WHERE notifies AND by_library`
	if got, want := storetest.Value[string](t, db, told), fmt.Sprintf("%d %[1]d %[1]d", n); got != want {
		t.Errorf("events, reservations and the count of the sweep are %s, want %s", got, want)
	}
	storetest.CheckInvariants(t, db)
}

// TestWorkersShareSweep gives a sweep to two workers. One of them stops in the middle, and another one
// starts in its place.
func TestWorkersShareSweep(t *testing.T) {
	t.Parallel()
	const n = 2000
	db, _, s := closedBranch(t, n)
	closeAll(t, s, n)
	workers := []*running{run(t, s), run(t, db.Open(t, library.DefaultPolicy()))}
	ended := func() int { return storetest.Value[int](t, db, `SELECT ended FROM sweeps`) }
	storetest.Eventually(t, "a quarter is done", func() bool { return ended() >= n/4 })
	workers[0].stop()
	workers = append(workers, run(t, db.Open(t, library.DefaultPolicy())))
	storetest.Eventually(t, "the sweep is done", func() bool { return sweepDone(t, db) })
	sum := 0
	for _, w := range workers {
		w.stop()
		sum += w.count("sweep")
	}
	if sum != n {
		t.Errorf("the workers report %d, want %d", sum, n)
	}
	wantSwept(t, db, n)
}

// TestSweepStartsWhenCatalogChanges makes a closure while a worker is at rest. The feed tells the
// worker that the catalog has changed.
func TestSweepStartsWhenCatalogChanges(t *testing.T) {
	t.Parallel()
	db, _, s := closedBranch(t, 3)
	w := run(t, s)
	w.awaitRest(t)
	closeAll(t, s, 3)
	w.Schedule(feed.Delta{Changes: store.Changes{CatalogChanged: true}})
	storetest.Eventually(t, "the sweep is done", func() bool { return sweepDone(t, db) })
	wantSwept(t, db, 3)
}

// TestSweepSkipsFailingSeat sweeps 200 seats, of which one fails. The worker ends the reservations of
// the others, reports the seat once, and comes back to it.
func TestSweepSkipsFailingSeat(t *testing.T) {
	t.Parallel()
	const n = 200
	db, seats, s := closedBranch(t, n)
	db.Altered()
	db.Exec(t, fmt.Sprintf(refusingTrigger(`RAISE EXCEPTION 'this row is broken'`), seats[100]))
	closeAll(t, s, n)
	w := run(t, s)
	storetest.Eventually(t, "the other seats are done", func() bool { return w.count("sweep") == n-1 })
	storetest.Eventually(t, "the bad seat is reported", func() bool { return w.skips("sweep") == 1 })
	if sweepDone(t, db) {
		t.Error("the sweep is done without the bad seat")
	}
	db.Exec(t, fmt.Sprintf(dropTrigger, seats[100]))
	storetest.Eventually(t, "the sweep is done", func() bool { return sweepDone(t, db) })
	storetest.Eventually(t, "no seat is skipped", func() bool { return w.skips("sweep") == 0 })
	if lines := w.log.count("the worker skips a seat, "); lines != 1 {
		t.Errorf("the seat was reported %d times", lines)
	}
	w.stop()
	wantSwept(t, db, n)
}
