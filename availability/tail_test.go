package availability

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dlsms/dlsms/store"
)

// In these tests the Go clock stands still but when all wait, so what takes no time did not wait for anything.

// free returns how many of the seats of the small library are free, and the time that this is true of.
func free(t *testing.T, m *Model) (int, time.Time) {
	t.Helper()
	p, err := m.Seats(t.Context(), Query{})
	if err != nil {
		t.Error(err) // readers have goroutines of their own
		return -1, time.Time{}
	}
	return p.Available, p.AsOf
}

var taking = []store.Event{reservation(1, 1, 1, -10, 600), reservation(2, 1, 2, -10, 600), reservation(3, 1, 3, -10, 600)}

// pass waits for a time on the Go clock, and until everyone has done what there was to do. The clock of each test here that sleeps is that of
// synctest, where nobody really waits.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestReadersShareTheNextLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, Options{})
		r.set(func(r *recording) { r.after = func() { time.Sleep(10 * time.Millisecond) } })
		var wg sync.WaitGroup
		read := func(want int, within time.Duration) {
			wg.Go(func() {
				arrived := time.Now()
				if got, _ := free(t, m); got != want {
					t.Errorf("%d seats are free, want %d", got, want)
				}
				if took := time.Since(arrived); took != within {
					t.Errorf("it took %v, not %v", took, within)
				}
			})
		}
		looks := r.looks.Load()
		read(4, 10*time.Millisecond)
		pass(3 * time.Millisecond)
		// The look under way has its snapshot already: what happens now is seen by the next one only.
		r.happened(taking[0])
		for range 100 {
			read(3, 17*time.Millisecond)
		}
		pass(4 * time.Millisecond)
		for range 100 {
			read(3, 13*time.Millisecond)
		}
		wg.Wait()
		if got := r.looks.Load() - looks; got != 2 {
			t.Errorf("201 readers cost %d looks, want 2", got)
		}
	})
}

func TestLooksAreSpacedForACrowd(t *testing.T) {
	t.Parallel()
	const us = time.Microsecond
	for crowd, wait := range map[int]time.Duration{1: 100 * us, 2: 100 * us, 3: 1950 * us, 50: 1950 * us} {
		synctest.Test(t, func(t *testing.T) {
			r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
			m := startModel(t, r, Options{})
			r.set(func(r *recording) { r.after = func() { time.Sleep(100 * us) } })
			var wg sync.WaitGroup
			read := func(n int, within time.Duration) {
				for range n {
					wg.Go(func() {
						arrived := time.Now()
						free(t, m)
						if took := time.Since(arrived); took != within {
							t.Errorf("after a crowd of %d, a look took %v, not %v", crowd, took, within)
						}
					})
				}
			}
			read(1, 100*us)
			pass(50 * us)
			read(crowd, 150*us) // they share the look that begins at 100 µs
			pass(200 * us)
			read(1, wait) // at 250 µs: a look begins now, or 2 ms after that of the crowd
			wg.Wait()
			pass(10 * time.Millisecond)
			read(1, 100*us) // the crowd is gone
			wg.Wait()
		})
	}
}

func TestFreshnessSparesLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, Options{Freshness: 50 * time.Millisecond})
		r.happened(taking[0])
		looks := r.looks.Load()
		pass(50 * time.Millisecond)
		if got, _ := free(t, m); got != 4 || r.looks.Load() != looks {
			t.Errorf("%d free after %d more looks: what is 50 ms old would have done", got, r.looks.Load()-looks)
		}
		pass(time.Millisecond)
		r.set(func(r *recording) { r.after = func() { time.Sleep(30 * time.Millisecond) } })
		go free(t, m)
		pass(20 * time.Millisecond)
		r.happened(taking[1])
		if got, _ := free(t, m); got != 3 || r.looks.Load() != looks+1 {
			t.Errorf("%d free after %d more looks: the look under way would have done", got, r.looks.Load()-looks)
		}
	})
}

func TestReadersLeaveWithTheirContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, Options{})
		r.set(func(r *recording) { r.before = func(context.Context) { time.Sleep(time.Minute) } })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := m.Seats(ctx, Query{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

var errGone = store.ErrUnavailable.Because(errors.New("connection refused"))

// stuck is a Postgres that says nothing for as long as it is given to answer.
func stuck(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	<-ctx.Done()
}

// TestOneFailureIsNoOutage has a look fail as it does when the whole process stood still: Postgres is there, and readers see what is new.
func TestOneFailureIsNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, Options{})
		r.set(func(r *recording) {
			r.err = errGone
			r.before = func(context.Context) {
				r.set(func(r *recording) { r.before = func(context.Context) { r.set(func(r *recording) { r.err = nil }) } })
			}
			r.world.Now = minute(1)
			r.world.Taken = []store.Taken{{ReservationID: 1, Version: 1, SeatID: 1, StartTime: monday, EndTime: minute(60)}}
		})
		if got, asOf := free(t, m); got != 3 || !asOf.Equal(minute(1)) || r.loads.Load() != 2 {
			t.Errorf("%d as of %v after %d loads", got, asOf, r.loads.Load())
		}
	})
}

func TestAnswersFromMemoryWhilePostgresIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		var anew []int
		m := startModel(t, r, Options{MaxStaleness: 10 * time.Second, OnEvents: func(events []store.Event, _ time.Time) { anew = append(anew, len(events)) }})
		watch, err := m.Watch(t.Context(), Query{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		// Every look now takes as long as Postgres is given to answer.
		r.set(func(r *recording) { r.err, r.before = errGone, stuck })
		began, lastGood := time.Now(), time.Now()
		if got, asOf := free(t, m); got != 4 || !asOf.Equal(monday) || time.Since(began) != 2*time.Second+secondLook {
			t.Errorf("the first to notice got %d as of %v after %v", got, asOf, time.Since(began))
		}
		for range 7 {
			pass(time.Second)
			began := time.Now()
			if got, asOf := free(t, m); got != 4 || !asOf.Equal(monday) || time.Since(began) != 0 {
				t.Errorf("while it is gone: %d as of %v after %v", got, asOf, time.Since(began))
			}
		}
		if s := m.Stats(); s.Reachable || s.Age != time.Since(lastGood) {
			t.Errorf("%+v", s)
		}
		pass(10*time.Second - time.Since(lastGood))
		free(t, m)
		pass(1)
		if _, err := m.Seats(t.Context(), Query{}); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("past MaxStaleness: %v", err)
		}
		if _, err := m.Watch(t.Context(), Query{}); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a watch past MaxStaleness: %v", err)
		}
		if _, err := watch.Next(t.Context()); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("an open watch past MaxStaleness: %v", err)
		}

		// It comes back with something that its log doesn't tell: after a crash, transaction ids may be used again.
		r.set(func(r *recording) {
			r.err, r.before = nil, nil
			r.world.Now = minute(1)
			r.world.Taken = []store.Taken{{ReservationID: 1, Version: 1, SeatID: 1, StartTime: monday, EndTime: minute(60)}}
		})
		pass(2*time.Second + lastRetry)
		if got, asOf := free(t, m); got != 3 || !asOf.Equal(minute(1)) {
			t.Errorf("back again: %d as of %v", got, asOf)
		}
		if len(anew) != 2 || anew[1] != 0 || r.loads.Load() != 2 {
			t.Errorf("after %d loads, followers were told of %v events", r.loads.Load(), anew)
		}
		if s := m.Stats(); !s.Reachable || s.Watches != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestFailuresOfAnotherKindLoadNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, Options{})
		r.set(func(r *recording) { r.err = store.ErrOverloaded })
		free(t, m)
		r.happened(taking[0])
		r.set(func(r *recording) { r.err = nil })
		pass(lastRetry)
		if got, _ := free(t, m); got != 3 || r.loads.Load() != 1 {
			t.Errorf("%d free after %d loads", got, r.loads.Load())
		}
	})
}

func TestRetriesWhilePostgresIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, Options{})
		r.set(func(r *recording) { r.err = errGone })
		free(t, m)
		looks := r.looks.Load()
		pass(10 * time.Second)
		if n := r.looks.Load() - looks; n < 40 || n > 50 {
			t.Errorf("%d tries in 10 s", n)
		}
		// A hint says that somebody could write: then it is worth a try at once, though not a try a hint.
		looks = r.looks.Load()
		for range 1000 {
			m.Wake()
			pass(10 * time.Microsecond)
		}
		if n := r.looks.Load() - looks; n > 2 {
			t.Errorf("%d tries for a thousand hints in 10 ms", n)
		}
		r.set(func(r *recording) { r.err = nil })
		m.Wake()
		pass(firstRetry)
		if s := m.Stats(); !s.Reachable {
			t.Error("a hint did not bring a try")
		}
	})
}

func TestStarting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		r.err = errGone
		m := New(r, Options{MaxStaleness: time.Minute})
		unready := func() {
			t.Helper()
			if _, err := m.Seats(t.Context(), Query{}); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("before the world is loaded: %v", err)
			}
			select {
			case <-m.Ready():
				t.Error("it claims to be ready")
			default:
			}
		}
		unready()
		run(t, m)
		pass(3 * time.Second)
		unready()
		if r.loads.Load() < 10 || r.loads.Load() > 20 {
			t.Errorf("%d tries to load in 3 s", r.loads.Load())
		}
		r.set(func(r *recording) { r.err = nil })
		<-m.Ready()
		free(t, m)
	})
}

func TestADatabaseThatWentBackIsLoadedAnew(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what    string
		changes store.Changes
	}{
		{"its snapshot is older", store.Changes{Snapshot: store.Snapshot{Xmax: 99}, Now: minute(1)}},
		{"its clock went back", store.Changes{Snapshot: store.Snapshot{Xmax: 101}, Now: monday.Add(-1)}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRecording(store.World{Now: monday, Snapshot: store.Snapshot{Xmax: 100}, Catalog: smallLibrary("UTC"), Taken: []store.Taken{
					{ReservationID: 1, Version: 5, SeatID: 1, StartTime: monday, EndTime: minute(60)},
				}})
				m := startModel(t, r, Options{})
				watch, err := m.Watch(t.Context(), Query{})
				if err != nil {
					t.Fatal(err)
				}
				defer watch.Close()
				if _, err := watch.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
				restored := []store.Taken{{ReservationID: 2, Version: 1, SeatID: 2, StartTime: monday.Add(-time.Hour), EndTime: minute(60)}}
				r.set(func(r *recording) {
					c.changes.Events = []store.Event{taking[2]} // of another life
					r.changes = append(r.changes, c.changes)
					r.world.Taken, r.world.Snapshot = restored, c.changes.Snapshot
					r.loading = func() { time.Sleep(time.Second) }
				})
				began := time.Now()
				p, err := m.Seats(t.Context(), Query{AvailableOnly: true})
				if err != nil || len(p.Seats) != 3 || p.Seats[0].ID != 1 || p.Seats[1].ID != 3 || time.Since(began) != time.Second {
					t.Errorf("%+v, %v after %v", p, err, time.Since(began))
				}
				u, err := watch.Next(t.Context())
				if err != nil || u.Snapshot || len(u.Seats) != 2 || !u.Seats[0].Available || u.Seats[1].Available {
					t.Errorf("the watch got %+v, %v", u, err)
				}
			})
		})
	}
}

func TestALongLoadIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Snapshot: store.Snapshot{Xmax: 100}, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, Options{})
		r.set(func(r *recording) {
			r.changes = append(r.changes, store.Changes{Now: monday})
			r.loading = func() { time.Sleep(10 * time.Second) }
		})
		for _, want := range []time.Duration{loadPatience, 0} {
			began := time.Now()
			if _, asOf := free(t, m); !asOf.Equal(monday) || time.Since(began) != want {
				t.Errorf("an answer as of %v after %v, want %v", asOf, time.Since(began), want)
			}
		}
		pass(10 * time.Second)
		if s := m.Stats(); !s.Reachable {
			t.Error("when the load was done, it still answers from memory")
		}
	})
}

func TestEventsAreToldAfterTheyAreApplied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		var m *Model
		var told [][]store.Event
		m = New(r, Options{MaxStaleness: time.Minute, OnEvents: func(events []store.Event, now time.Time) {
			told = append(told, events)
			m.mu.Lock()
			defer m.mu.Unlock()
			if got := m.world.ask(question{}).page.Available; got != 4-len(told)+1 || !now.Equal(monday) {
				t.Errorf("told of %d events at %v, %d seats were free", len(events), now, got)
			}
		}})
		run(t, m)
		<-m.Ready()
		for _, e := range taking {
			r.happened(e)
			m.Wake()
			synctest.Wait()
		}
		pass(time.Minute)
		if len(told) != 4 || told[0] != nil || len(told[1]) != 1 {
			t.Errorf("told of %v", told)
		}
	})
}

func TestRestAndHints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, Options{})
		looks := r.looks.Load()
		pass(time.Minute)
		if n := r.looks.Load() - looks; n != 60 {
			t.Errorf("%d looks in a minute of rest", n)
		}
		r.set(func(r *recording) { r.after = func() { time.Sleep(10 * time.Millisecond) } })
		looks = r.looks.Load()
		for range 1000 {
			m.Wake()
		}
		pass(time.Millisecond)
		m.Wake() // while a look is under way that may miss what this hint is about
		pass(500 * time.Millisecond)
		if n := r.looks.Load() - looks; n != 2 {
			t.Errorf("%d looks for a thousand hints at once and one more, want 2", n)
		}
	})
}

func TestCatalogChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, Options{})
		r.set(func(r *recording) {
			r.catalog.Seats = append(r.catalog.Seats[:2:2], store.Seat{ID: 9, BranchID: 2}, store.Seat{ID: 10, BranchID: 99})
			e := reservation(1, 1, 9, 0, 60)
			r.changes = append(r.changes, store.Changes{Now: monday, CatalogChanged: true, Events: []store.Event{e}})
		})
		p, err := m.Seats(t.Context(), Query{})
		if err != nil || p.Total != 3 || p.Available != 2 || p.Seats[2].ID != 9 || p.Seats[2].Branch != "night" {
			t.Errorf("%+v, %v", p, err)
		}
	})
}
