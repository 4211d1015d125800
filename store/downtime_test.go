package store_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// outage sets the heartbeat as if no worker had run between two times, in minutes after noon. Then
// the clock shows the end of the outage.
func (b bundle) outage(t *testing.T, from, until int) {
	t.Helper()
	b.db.Exec(t, `
		INSERT INTO worker_heartbeat (library_id, alive_at, seen_at) VALUES (1, $1, clock_timestamp() - $2::interval)
		ON CONFLICT (library_id) DO UPDATE SET alive_at = EXCLUDED.alive_at, seen_at = EXCLUDED.seen_at`,
		at(from), time.Duration(until-from)*time.Minute)
	b.clock(t, until)
}

// settle does what a worker does: it writes the heartbeat and settles all outages, a few seats in a
// transaction. It returns the number of changed reservations.
func settle(ctx context.Context, s *store.Store) (n int, err error) {
	open, err := s.Beat(ctx)
	for open && err == nil {
		var o *store.Outage
		if o, err = s.NextOutage(ctx); err != nil || o == nil {
			return n, err
		}
		for _, seat := range o.Seats {
			moved, err := s.MoveDeadlines(ctx, o, []int64{seat})
			if err != nil {
				return n, err
			}
			n += moved
		}
		err = s.FinishOutage(ctx, o)
	}
	return n, err
}

func (b bundle) settle(t *testing.T) int {
	t.Helper()
	n, err := settle(t.Context(), b.Store)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDeadlinesWaitOutAnOutage reserves a seat and then lets an outage pass. All times are minutes
// after noon. Check-in opens 15 minutes before the start, and the grace is 15 minutes.
func TestDeadlinesWaitOutAnOutage(t *testing.T) {
	t.Parallel()
	const cancelled = -1
	for name, c := range map[string]struct {
		from, to       int // the reservation
		outage, until  int
		deadline       int // after the outage; cancelled
		untouched      bool
		checkedInFirst bool
	}{
		"deadline in the outage":         {from: 60, to: 180, outage: 70, until: 100, deadline: 105},
		"deadline after the outage":      {from: 60, to: 180, outage: 50, until: 65, deadline: 90},
		"check-in opens in the outage":   {from: 60, to: 180, outage: 30, until: 55, deadline: 85},
		"the whole period in the outage": {from: 60, to: 300, outage: 30, until: 120, deadline: 150},
		"the end of the outage is at the opening": {
			from: 60, to: 180, outage: 30, until: 45, deadline: 75, untouched: true,
		},
		"the outage begins at the deadline": {
			from: 60, to: 180, outage: 75, until: 90, deadline: 75, untouched: true,
		},
		"the end bounds the deadline": {from: 60, to: 95, outage: 70, until: 92, deadline: 95},
		"the end has passed":          {from: 60, to: 90, outage: 70, until: 120, deadline: cancelled},
		"the window is inside the outage": {
			from: 60, to: 90, outage: 30, until: 120, deadline: cancelled,
		},
		"the end is the end of the outage": {
			from: 60, to: 90, outage: 30, until: 90, deadline: cancelled,
		},
		"two minutes are no outage": {
			from: 60, to: 180, outage: 73, until: 75, deadline: 75, untouched: true,
		},
		"checked in": {
			from: 60, to: 180, outage: 65, until: 90, deadline: 75, untouched: true, checkedInFirst: true,
		},
		"far in the future": {
			from: 600, to: 660, outage: 70, until: 100, deadline: 615, untouched: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.strikePolicy(t, 1, 30, 7)
			r := b.reserve(t, 0, 0, c.from, c.to)
			if c.checkedInFirst {
				b.clock(t, c.outage)
				if _, err := b.CheckIn(t.Context(), b.users[0], r.ID, nil); err != nil {
					t.Fatal(err)
				}
			}
			history := b.history(t, r.ID)
			b.outage(t, c.outage, c.until)
			if c.until-c.outage == 2 { // a moment less than the threshold
				b.db.Exec(t, `UPDATE worker_heartbeat SET seen_at = seen_at + interval '10 s'`)
			}
			if n := b.settle(t); (n == 0) != c.untouched {
				t.Errorf("%d reservations changed", n)
			}
			got := mustRead(t, b, 0, r.ID)
			switch {
			case c.deadline == cancelled:
				wantEqual(t, "status", got.Status, library.Cancelled)
				wantEqual(t, "history", b.history(t, r.ID), append(history, "CANCELLED"))
			case c.untouched:
				wantEqual(t, "history", b.history(t, r.ID), history)
			default:
				wantEqual(t, "history", b.history(t, r.ID), append(history, "RESCHEDULED"))
			}
			if c.deadline != cancelled && !got.CheckInDeadline.Equal(at(c.deadline)) {
				t.Errorf("deadline %v, want %v", got.CheckInDeadline, at(c.deadline))
			}
			wantEqual(t, "events that notify the user", storetest.Value[int](t, b.db, `
				SELECT count(*) FROM reservation_events WHERE notifies AND by_library`), len(b.history(t, r.ID))-len(history))
			wantEqual(t, "changed by a second pass", b.settle(t), 0)
			if !c.untouched && c.deadline != cancelled {
				wantDone(t, 0, b.MarkNoShows)
				b.clock(t, c.deadline-1)
				if _, err := b.CheckIn(t.Context(), b.users[0], r.ID, nil); err != nil {
					t.Errorf("check-in before the new deadline: %v", err)
				}
			}
			strikes := 0
			if c.untouched && c.deadline <= c.until && !c.checkedInFirst {
				strikes = 1
				wantDone(t, 1, b.MarkNoShows)
			}
			wantEqual(t, "strikes", storetest.Value[int](t, b.db, `SELECT count(*) FROM strikes`), strikes)
			b.judge(t)
			storetest.CheckInvariants(t, b.db)
		})
	}
}

// TestBookedAfterOutageIsNotMoved makes reservations at the end of an outage, before it is settled.
// One is a claimed offer, which was made before the outage.
func TestBookedAfterOutageIsNotMoved(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.offered(t, 1, 1, 5, 120)
	b.outage(t, 2, 8)
	if open, err := b.Beat(t.Context()); err != nil || !open {
		t.Fatal(open, err)
	}
	r := b.reserve(t, 0, 0, 8, 60)
	_, claimed, err := b.ClaimOffer(t.Context(), b.users[1], e.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "changed", b.settle(t), 0)
	for user, id := range []int64{r.ID, claimed.ID} {
		if got := mustRead(t, b, user, id).CheckInDeadline; !got.Equal(at(23)) {
			t.Errorf("deadline %v, want %v", got, at(23))
		}
	}
}

// TestNoNoShowBeforeOutageIsSettled marks no-shows between the steps that settle an outage: none
// may be marked before the end. The reservations at other seats have deadlines before the outage.
func TestNoNoShowBeforeOutageIsSettled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 0, 120)
	b.reserve(t, 1, 1, 0, 120)
	due := b.reserve(t, 2, 2, 1, 120)
	b.db.Exec(t, `UPDATE reservations SET check_in_deadline = $2 WHERE id = $1`, due.ID, at(5))
	b.outage(t, 10, 40)
	blocked := func(when string) {
		t.Helper()
		n, more, err := b.MarkNoShows(t.Context(), 100)
		if err != nil || n != 0 || !more {
			t.Fatalf("%s: %d no-shows, more %t, %v", when, n, more, err)
		}
	}
	blocked("while the heartbeat is old")
	if open, err := b.Beat(t.Context()); err != nil || !open {
		t.Fatal(open, err)
	}
	blocked("after the heartbeat")
	o, err := b.NextOutage(t.Context())
	if err != nil || len(o.Seats) != 2 || !o.StartTime.Equal(at(10)) || !o.EndTime.Equal(at(40)) {
		t.Fatalf("outage %+v, %v", o, err)
	}
	for _, seat := range o.Seats {
		if n, err := b.MoveDeadlines(t.Context(), o, []int64{seat}); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		blocked("after a seat")
	}
	if err := b.FinishOutage(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	wantDone(t, 1, b.MarkNoShows)
	wantEqual(t, "history", b.history(t, due.ID), []string{"RESERVED", "NO_SHOW"})
	b.clock(t, 45)
	wantDone(t, 2, b.MarkNoShows)
}

// TestReplicasSettleOnce lets four replicas settle one outage at the same time. 40 reservations
// change once each, and no-shows are marked at the same time.
func TestReplicasSettleOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seats, b.users = b.db.Seats(t, rivals), b.db.Users(t, rivals)
	for i := range rivals {
		b.reserve(t, i, i, 60, 180)
	}
	b.outage(t, 70, 100)
	stores := b.replicas(t, 4)
	changed := make([]int, len(stores))
	whileWorking(t, func() {
		var replicas sync.WaitGroup
		for i, s := range stores {
			replicas.Go(func() {
				var err error
				if changed[i], err = settle(t.Context(), s); err != nil {
					t.Error(err)
				}
			})
		}
		replicas.Wait()
	}, stores[0].MarkNoShows, stores[1].MarkNoShows)
	t.Logf("changed by replica: %v", changed)
	sum := 0
	for _, n := range changed {
		sum += n
	}
	wantEqual(t, "changed", sum, rivals)
	wantEqual(t, "outages", storetest.Rows[int](t, b.db, `SELECT moved FROM outages WHERE done_at IS NOT NULL`),
		[]int{rivals})
	wantEqual(t, "deadlines", storetest.Rows[string](t, b.db, `
		SELECT DISTINCT status || ' ' || (check_in_deadline = $1) FROM reservations`, at(105)), []string{"CONFIRMED true"})
	storetest.CheckInvariants(t, b.db)
}

// TestSeatIsSettledOnce lets two replicas read the outage before one of them settles it.
func TestSeatIsSettledOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 3 {
		b.reserve(t, i, i, 60, 300)
	}
	b.outage(t, 70, 100)
	if open, err := b.Beat(t.Context()); err != nil || !open {
		t.Fatal(open, err)
	}
	move := func(o *store.Outage, seats []int64, want int) {
		t.Helper()
		if n, err := b.MoveDeadlines(t.Context(), o, seats); err != nil || n != want {
			t.Errorf("%d moved, %v; want %d", n, err, want)
		}
	}
	first, err := b.NextOutage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.NextOutage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	move(first, first.Seats[:2], 2)
	move(second, second.Seats, 1)
	move(first, first.Seats[2:], 0)
	for _, o := range []*store.Outage{first, second} {
		if err := b.FinishOutage(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
	wantEqual(t, "deadlines", storetest.Rows[time.Time](t, b.db, `SELECT DISTINCT check_in_deadline FROM reservations`),
		[]time.Time{at(105)})
	storetest.CheckInvariants(t, b.db)
}

// TestSecondOutageBeforeFirstIsSettled lets a second outage begin while one of two seats is
// settled. Each outage moves each deadline once.
func TestSecondOutageBeforeFirstIsSettled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 60, 300)
	b.reserve(t, 1, 1, 60, 300)
	b.outage(t, 70, 100)
	if open, err := b.Beat(t.Context()); err != nil || !open {
		t.Fatal(open, err)
	}
	o, err := b.NextOutage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.MoveDeadlines(t.Context(), o, o.Seats[:1]); err != nil {
		t.Fatal(err)
	}
	b.outage(t, 101, 121)
	wantEqual(t, "changed", b.settle(t), 3)
	for user := range 2 {
		id := storetest.Value[int64](t, b.db, `SELECT id FROM reservations WHERE user_id = $1`, b.users[user])
		if got := mustRead(t, b, user, id).CheckInDeadline; !got.Equal(at(125)) {
			t.Errorf("deadline of user %d: %v, want %v", user, got, at(125))
		}
	}
}

// TestClockJumpIsNoOutage moves the clock by hours while a worker runs, forward and back.
func TestClockJumpIsNoOutage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reserve(t, 0, 0, 300, 420)
	wantEqual(t, "changed", b.settle(t), 0) // the first heartbeat
	for _, minutes := range []int{310, -600, 0, 314} {
		b.clock(t, minutes)
		b.db.Exec(t, `UPDATE worker_heartbeat SET seen_at = seen_at - interval '10 s'`) // due again
		wantEqual(t, "changed", b.settle(t), 0)
	}
	wantEqual(t, "history", b.history(t, r.ID), []string{"RESERVED"})

	// The clock of Postgres is set back by an hour: the heartbeat is in the future.
	b.db.Exec(t, `UPDATE worker_heartbeat SET alive_at = alive_at + interval '1 h', seen_at = seen_at + interval '1 h'`)
	wantEqual(t, "changed", b.settle(t), 0)
	wantEqual(t, "heartbeat in the future", storetest.Value[bool](t, b.db,
		`SELECT seen_at > clock_timestamp() FROM worker_heartbeat`), false)
	b.clock(t, 315)
	wantDone(t, 1, b.MarkNoShows)
	wantEqual(t, "outages", storetest.Value[int](t, b.db, `SELECT count(*) FROM outages`), 0)
}

// TestHeartbeatIsWrittenSeldom calls Beat many times. Only the first call writes.
func TestHeartbeatIsWrittenSeldom(t *testing.T) {
	t.Parallel()
	b := setup(t)
	version := func() string {
		return storetest.Value[string](t, b.db, `SELECT xmin::text FROM worker_heartbeat`)
	}
	b.settle(t)
	first := version()
	for range 20 {
		b.settle(t)
	}
	wantEqual(t, "version of the row", version(), first)
	b.db.Exec(t, `UPDATE worker_heartbeat SET seen_at = seen_at - interval '9 s'`)
	aged := version()
	b.settle(t)
	if version() == aged {
		t.Error("the heartbeat is 9 s old and was not written")
	}
}
