package availability

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/feed/feedtest"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// viewer is the client of a watch: the last snapshot with the later changes.
type viewer struct {
	watch *Watch
	seats map[int64]SeatView // nil before the first snapshot
}

func (v *viewer) take(u Update) {
	if u.Snapshot {
		v.seats = map[int64]SeatView{}
	}
	for _, s := range u.Seats {
		v.seats[s.ID] = s
	}
}

// catchUp reads all pending updates, and returns the number of snapshots that replaced missed
// updates.
func (v *viewer) catchUp() (resyncs int) {
	for {
		u, ok := v.watch.take()
		if !ok {
			return resyncs
		}
		v.watch.last = u.AsOf
		if u.Snapshot && v.seats != nil {
			resyncs++
		}
		v.take(u)
	}
}

// diff compares the seats of the client with a fresh answer. Seats that were deleted or no longer
// match must be not available.
func (v *viewer) diff(w *world) string {
	want := map[int64]SeatView{}
	for _, s := range w.compute(question{filter: v.watch.filter, window: v.watch.about}).page.Seats {
		want[s.ID] = s
	}
	for id, s := range v.seats {
		if _, ok := want[id]; !ok && !s.Available && s.NextAvailableAt.IsZero() {
			delete(v.seats, id)
		}
	}
	return cmp.Diff(want, v.seats, cmpopts.IgnoreUnexported(SeatView{}))
}

// TestWatchesAgreeWithFreshAnswers opens, reads and closes watches at random, while bookings and
// the catalog change and time passes. Each client must have the same seats as a new query.
func TestWatchesAgreeWithFreshAnswers(t *testing.T) {
	t.Parallel()
	watches, resyncs := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		catalog := smallLibrary("UTC", rapid.SampledFrom([][]library.OpenHours{nil, nineToFive}).Draw(t, "hours")...)
		l := newTestBuilder(catalog)
		hub := newHub()
		hub.publish(l.world)
		h := &history{seats: []int64{1, 2, 3, 4}, live: map[int64]library.Event{}}
		var viewers []*viewer
		now := monday
		for range rapid.IntRange(10, 200).Draw(t, "steps") {
			c := store.Changes{Now: now}
			var read *library.Catalog
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				q := drawQuestion(t, 1200)
				w := newWatch(hub, q.window, q.filter, rapid.IntRange(1, 2).Draw(t, "buffer"))
				if err := hub.add(w); err != nil {
					t.Fatal(err)
				}
				viewers = append(viewers, &viewer{watch: w})
				watches++
				continue
			case 1:
				if len(viewers) > 0 {
					i := rapid.IntRange(0, len(viewers)-1).Draw(t, "leaves")
					viewers[i].watch.Close()
					viewers = slices.Delete(viewers, i, i+1)
				}
				continue
			case 2:
				for _, v := range viewers {
					if rapid.Bool().Draw(t, "reads") {
						resyncs += v.catchUp()
						if diff := v.diff(l.world); diff != "" {
							t.Fatalf("%+v at %v: %s", v.watch.filter, l.world.asOf, diff)
						}
						if !v.watch.AsOf().Equal(l.world.asOf) {
							t.Fatalf("as of %v, not %v", v.watch.AsOf(), l.world.asOf)
						}
					}
				}
				continue
			case 3, 4:
				now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "seconds")) * 6 * time.Second)
				c.Now = now
			case 5:
				catalog.Seats = slices.Clone(catalog.Seats)
				switch i := rapid.IntRange(0, len(catalog.Seats)).Draw(t, "seat"); {
				case i == len(catalog.Seats):
					if last := catalog.Seats[i-1].ID; last < 8 {
						catalog.Seats = append(catalog.Seats, library.Seat{ID: last + 1, BranchID: 2, Area: "Attic"})
					}
				case rapid.Bool().Draw(t, "service"):
					catalog.Seats[i].OutOfService = !catalog.Seats[i].OutOfService
				case rapid.Bool().Draw(t, "moves"):
					catalog.Seats[i].BranchID = 3 - catalog.Seats[i].BranchID
				case len(catalog.Seats) > 1:
					catalog.Seats = slices.Delete(catalog.Seats, i, i+1)
				}
				read = &catalog
			case 6:
				// The state is loaded again, perhaps with an earlier time and without some
				// bookings.
				now = now.Add(time.Duration(rapid.IntRange(-10, 10).Draw(t, "minutes")) * time.Minute)
				world := store.World{Now: now, Catalog: catalog}
				for id, e := range h.live {
					if rapid.Bool().Draw(t, "is lost") {
						delete(h.live, id)
					} else if e.EndTime.After(now) {
						world.Taken = append(world.Taken, library.TakenWindow{
							ReservationID: e.ReservationID, Version: e.Version, SeatID: e.SeatID,
							StartTime: e.StartTime, EndTime: e.EndTime})
					}
				}
				hub.publish(l.load(world))
				continue
			default:
				if e, ok := h.draw(t, 1200); ok {
					c.Events = []library.Event{e}
				}
			}
			hub.publish(l.applyCatalog(c, read))
		}
		for _, v := range viewers {
			resyncs += v.catchUp()
			if diff := v.diff(l.world); diff != "" {
				t.Fatalf("%+v %v at %v: %s", v.watch.filter, v.watch.about, l.world.asOf, diff)
			}
			v.watch.Close()
		}
		if n, groups := hub.size(); n+groups != 0 || len(hub.classes) != 0 || hub.due != nil {
			t.Fatalf("%d watches in %d groups are left", n, groups)
		}
	})
	if watches > 0 && resyncs == 0 {
		t.Error("no watcher missed more updates than its buffer: such a snapshot was not tested")
	}
}

func TestUpdatesHaveOnlyChangedSeats(t *testing.T) {
	t.Parallel()
	l := newTestBuilder(smallLibrary("UTC"))
	hub := newHub()
	hub.publish(l.world)
	afternoon := window{minute(14 * 60).UnixMicro(), minute(16 * 60).UnixMicro()}
	watches := map[string]*Watch{
		"the present":            newWatch(hub, present, filter{}, watchBuffer),
		"the present of an area": newWatch(hub, present, filter{branch: "day", area: "Attic"}, watchBuffer),
		"the afternoon":          newWatch(hub, afternoon, filter{}, watchBuffer),
	}
	for _, w := range watches {
		if err := hub.add(w); err != nil {
			t.Fatal(err)
		}
		if u, err := w.Next(t.Context()); err != nil || !u.Snapshot {
			t.Fatal(u, err)
		}
	}
	e := reservation(1, 1, 3, 60, 15*60)
	free := smallLibrary("UTC")
	broken := smallLibrary("UTC")
	broken.Seats[3].OutOfService = true
	for _, step := range []struct {
		what    string
		changes store.Changes
		catalog *library.Catalog
		want    map[string][]int64 // ids of the seats in the updates
	}{
		{"nothing", store.Changes{Now: minute(1)}, nil, nil},
		{"a booking", store.Changes{Now: minute(1), Events: []library.Event{e}}, nil,
			map[string][]int64{"the present": {3}, "the present of an area": {3}, "the afternoon": {3}}},
		{"a microsecond before its start", store.Changes{Now: minute(60).Add(-time.Microsecond)}, nil, nil},
		{"its start", store.Changes{Now: minute(60)}, nil,
			map[string][]int64{"the present": {3}, "the present of an area": {3}}},
		{"a repeated event", store.Changes{Now: minute(60), Events: []library.Event{e}}, nil, nil},
		{"a seat out of service", store.Changes{Now: minute(60)}, &broken,
			map[string][]int64{"the present": {4}, "the afternoon": {4}}},
		{"a catalog that is the same", store.Changes{Now: minute(60)}, &broken, nil},
		{"a seat back in service", store.Changes{Now: minute(60)}, &free,
			map[string][]int64{"the present": {4}, "the afternoon": {4}}},
		{"its end", store.Changes{Now: minute(15 * 60)}, nil,
			map[string][]int64{"the present": {3}, "the present of an area": {3}}},
		{"its end in the change log", store.Changes{Now: minute(15 * 60), Events: []library.Event{over(e)}}, nil,
			map[string][]int64{"the afternoon": {3}}},
	} {
		hub.publish(l.applyCatalog(step.changes, step.catalog))
		got := map[string][]int64{}
		for name, w := range watches {
			for {
				u, ok := w.take()
				if !ok {
					break
				}
				if u.Snapshot || !u.AsOf.Equal(step.changes.Now) {
					t.Errorf("%s: %s got %+v", step.what, name, u)
				}
				for _, s := range u.Seats {
					got[name] = append(got[name], s.ID)
				}
			}
		}
		if !maps.EqualFunc(got, step.want, slices.Equal) {
			t.Errorf("%s: updates of %v, want %v", step.what, got, step.want)
		}
	}
}

func TestWatchesOfSameQueryShareUpdates(t *testing.T) {
	t.Parallel()
	l := newTestBuilder(smallLibrary("UTC"))
	hub := newHub()
	hub.publish(l.world)
	a, b := newWatch(hub, present, filter{}, watchBuffer), newWatch(hub, present, filter{}, watchBuffer)
	encoded := 0
	read := func(w *Watch) {
		u, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		u.Memo(JSON, func() any { encoded++; return nil })
	}
	for _, w := range []*Watch{a, b} {
		if err := hub.add(w); err != nil {
			t.Fatal(err)
		}
		read(w)
	}
	hub.publish(l.apply(store.Changes{Now: monday, Events: []library.Event{reservation(1, 1, 1, 0, 60)}}))
	read(a)
	read(b)
	if encoded != 2 {
		t.Errorf("a snapshot and a change were encoded %d times for two watchers", encoded)
	}
}

// TestSlowWatchersDoNotDelayOthers opens two watches. The watch slow does not read until the end,
// and quick reads after each change. quick must get each change, and slow one snapshot of the last
// state.
func TestSlowWatchersDoNotDelayOthers(t *testing.T) {
	t.Parallel()
	r := feedtest.NewSource(store.World{Now: monday, Catalog: smallLibrary("UTC")})
	m := startModel(t, r, feed.Options{})
	slow, err := m.Watch(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	quick, err := m.Watch(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	defer quick.Close()
	for _, w := range []*Watch{slow, quick} {
		if u, err := w.Next(t.Context()); err != nil || !u.Snapshot {
			t.Fatal(u, err)
		}
	}
	const n = 3 * watchBuffer
	for i := range n {
		r.Happen(reservation(int64(i+1), 1, 1, 2*i+10, 2*i+11), over(reservation(int64(i), 1, 1, 2*i+8, 2*i+9)))
		m.Wake()
		if u, err := quick.Next(t.Context()); err != nil || u.Snapshot || !u.Seats[0].AvailableUntil.Equal(minute(2*i+10)) {
			t.Fatal(i, u, err)
		}
	}
	u, err := slow.Next(t.Context())
	if err != nil || !u.Snapshot || !u.Seats[0].AvailableUntil.Equal(minute(2*n+8)) {
		t.Errorf("the slow watch got %+v, %v, want a snapshot of the last state", u, err)
	}
	if _, more := slow.take(); more {
		t.Error("after the snapshot, the slow watch got an older update")
	}
}

// TestWatchersSeeBookingsBeginAndEnd changes nothing: only time passes. The feed must refresh when
// a booking begins or ends.
func TestWatchersSeeBookingsBeginAndEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		at := func(d time.Duration) time.Time { return monday.Add(d) }
		r := feedtest.NewSource(store.World{Catalog: smallLibrary("UTC"), Taken: []library.TakenWindow{
			{ReservationID: 1, Version: 1, SeatID: 1, StartTime: at(300 * time.Millisecond),
				EndTime: at(1500 * time.Millisecond)},
			{ReservationID: 2, Version: 1, SeatID: 2, StartTime: at(1700 * time.Millisecond), EndTime: at(time.Hour)},
		}})
		// Postgres's clock is in another year than Go's clock.
		r.Now = func() time.Time { return at(time.Since(start)).Truncate(time.Microsecond) }
		m := startModel(t, r, feed.Options{})
		w, err := m.Watch(t.Context(), Query{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for _, want := range []time.Duration{
			0, 300 * time.Millisecond, 1500 * time.Millisecond, 1700 * time.Millisecond, time.Hour,
		} {
			u, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if late := time.Since(start) - want; late < 0 || late > time.Millisecond || !u.AsOf.Equal(at(time.Since(start))) {
				t.Errorf("the update of %v came %v late, as of %v", want, late, u.AsOf)
			}
		}
		if w.AsOf(); r.Reads.Load() > 3700 {
			t.Errorf("%d refreshes in an hour, want at most 3700", r.Reads.Load())
		}
	})
}

// TestClosedWatchesLeakNothing runs alone, because goleak sees the goroutines of all tests.
func TestClosedWatchesLeakNothing(t *testing.T) { //nolint:paralleltest // see above
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithCancel(t.Context())
	r := feedtest.NewSource(store.World{Now: monday, Catalog: smallLibrary("UTC")})
	f := feed.New(r, feed.Options{MaxStaleness: time.Minute})
	m := New(f, Options{})
	ended := make(chan error)
	go func() { ended <- m.Run(ctx) }()
	go func() { ended <- f.Run(ctx) }()
	<-m.Ready()
	var open []*Watch
	for i := range 200 {
		w, err := m.Watch(t.Context(), Query{Branch: []string{"", "day", "night"}[i%3], Start: monday, End: minute(i%7 + 1)})
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if _, err := w.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		open = append(open, w)
	}
	m.hub.mu.Lock() // as during a long publish, for which Stats must not wait
	told := m.Stats()
	m.hub.mu.Unlock()
	if n, groups := told.Watches, told.Groups; n != 200 || groups != 21 {
		t.Errorf("%d watches in %d groups, want 200 in 21", n, groups)
	}
	for _, w := range open {
		w.Close()
		w.Close()
		if _, err := w.Next(t.Context()); !errors.Is(err, errWatchClosed) {
			t.Errorf("Next of a closed watch: %v, want errWatchClosed", err)
		}
	}
	if n, groups := m.hub.size(); n+groups != 0 || len(m.hub.classes) != 0 {
		t.Errorf("%d watches in %d groups are left", n, groups)
	}
	left, err := m.Watch(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if _, err := left.Next(t.Context()); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("Next after the model has stopped: %v, want ErrUnavailable", err)
	}
	if _, err := m.Watch(t.Context(), Query{}); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("Watch after the model has stopped: %v, want ErrUnavailable", err)
	}
}

// TestWatchBeginsWithNewestWorld opens a watch when readers have a world that the hub has not
// published yet. The watch must begin with this world.
func TestWatchBeginsWithNewestWorld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, feed.Options{Freshness: time.Hour, MaxStaleness: time.Hour})
		synctest.Wait()
		r.Set(func(r *feedtest.Source) { r.World.Now = minute(1) })
		first := m.world.Load()
		m.world.Store(m.builder.apply(store.Changes{Now: minute(1)}))
		w, err := m.Watch(t.Context(), Query{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		m.hub.publish(first) // as a slower goroutine would do
		if u, err := w.Next(t.Context()); err != nil || !u.AsOf.Equal(minute(1)) {
			t.Errorf("the watch begins as of %v, %v", u.AsOf, err)
		}
	})
}

// TestReadersDoNotWaitForPublishing holds the lock of the hub, as a long publish does. Meanwhile
// refreshes must continue, and readers must get answers.
func TestReadersDoNotWaitForPublishing(t *testing.T) {
	t.Parallel()
	r := feedtest.NewSource(store.World{Now: monday, Catalog: smallLibrary("UTC")})
	m := startModel(t, r, feed.Options{})
	w, err := m.Watch(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	m.hub.mu.Lock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 5 {
		r.Happen(reservation(int64(i+1), 1, 1, 10*i, 10*i+5))
		p, err := m.Seats(ctx, Query{Start: minute(10 * i), End: minute(10*i + 5)})
		if err != nil || p.Seats[0].Available {
			t.Errorf("read %d: %+v, %v", i, p.Seats, err)
		}
	}
	m.hub.mu.Unlock()
	for {
		u, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !u.Seats[0].Available {
			break // the update has the first booking, which begins at the time of the world
		}
	}
}

// TestMissedUpdatesAreMerged checks that a watcher that missed several updates gets one update with
// the latest state of each seat. All watchers that missed the same updates must share this update.
func TestMissedUpdatesAreMerged(t *testing.T) {
	t.Parallel()
	l := newTestBuilder(smallLibrary("UTC"))
	hub := newHub()
	hub.publish(l.world)
	watches := make([]*Watch, 3)
	for i := range watches {
		watches[i] = newWatch(hub, present, filter{branch: "day"}, watchBuffer)
		if err := hub.add(watches[i]); err != nil {
			t.Fatal(err)
		}
		watches[i].take()
	}
	booked := reservation(1, 1, 1, 60, 120)
	without, moved := smallLibrary("UTC"), smallLibrary("UTC")
	without.Seats = without.Seats[:2] // without seats 3 and 4
	moved.Seats[1].BranchID = 2
	hub.publish(l.apply(store.Changes{Now: monday, Events: []library.Event{booked}}))
	watches[2].take() // this watch misses fewer updates
	hub.publish(l.apply(store.Changes{Now: monday, Events: []library.Event{over(booked)}}))
	hub.publish(l.applyCatalog(store.Changes{Now: monday}, &without))  // seat 3 is deleted
	hub.publish(l.applyCatalog(store.Changes{Now: minute(1)}, &moved)) // seat 3 is added, seat 2 leaves the branch
	encoded := 0
	for i, w := range watches {
		u, ok := w.take()
		if !ok || u.Snapshot || !u.AsOf.Equal(minute(1)) {
			t.Fatalf("watch %d: %+v", i, u)
		}
		got := map[int64]bool{}
		for _, s := range u.Seats {
			if _, twice := got[s.ID]; twice {
				t.Errorf("watch %d: seat %d comes twice", i, s.ID)
			}
			got[s.ID] = s.Available
		}
		want := map[int64]bool{1: true, 2: false, 3: true}
		if !maps.Equal(got, want) || !slices.Equal(u.Removed, []int64{2}) {
			t.Errorf("watch %d: %v, without %v", i, got, u.Removed)
		}
		if _, more := w.take(); more {
			t.Errorf("watch %d got a second update", i)
		}
		u.Memo(JSON, func() any { encoded++; return nil })
	}
	if encoded != 2 {
		t.Errorf("updates were encoded %d times, want once for watches 0 and 1, and once for watch 2", encoded)
	}
}

// TestWatchersAreWokenInGroups checks that a change wakes about wakeGroup watchers in each wakeGap,
// so that readers run in between. Changes that come meanwhile are published in the next round.
func TestWatchersAreWokenInGroups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const watches, bookings = 20 * wakeGroup, 50
		r := feedtest.NewSource(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, feed.Options{})
		var updates, seats atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range watches {
			w, err := m.Watch(ctx, Query{Start: monday, End: minute(1000)})
			if err != nil {
				t.Fatal(err)
			}
			if u, err := w.Next(ctx); err != nil || !u.Snapshot {
				t.Fatal(u, err)
			}
			go func() {
				defer w.Close()
				for {
					u, err := w.Next(ctx)
					if err != nil {
						return
					}
					updates.Add(1)
					seats.Add(int64(len(u.Seats)))
				}
			}()
		}
		synctest.Wait()
		for i := range bookings { // one each millisecond
			e := reservation(int64(i+1), 1, int64(i%4+1), 10*i, 10*i+5)
			r.Happen(e)
			m.Wake()
			before := updates.Load()
			time.Sleep(wakeGap) //nolint:forbidigo // advances the clock of synctest
			synctest.Wait()
			if n := updates.Load() - before; n > 2*wakeGroup {
				t.Errorf("%d updates in %v", n, wakeGap)
			}
		}
		time.Sleep(3 * watches / wakeGroup * wakeGap) //nolint:forbidigo // advances the clock of synctest
		synctest.Wait()
		if n := updates.Load(); n < watches || n > 5*watches {
			t.Errorf("%d watches got %d updates of %d bookings", watches, n, bookings)
		}
		if n := seats.Load(); n < 4*watches || n > 16*watches {
			t.Errorf("%d watches got updates of %d seats", watches, n)
		}
	})
}
