package feed

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dlsms/dlsms/feed/feedtest"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

var errUnreachable = library.ErrUnavailable.WithCause(errors.New("connection refused"))

// TestOneFailureIsNoOutage has a look fail as it does when the whole process stood still: Postgres
// is there, and readers see what is new.
func TestOneFailureIsNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := start(t, r, Options{})
		r.Set(func(r *feedtest.Source) {
			r.Err = errUnreachable
			r.Before = func(context.Context) {
				r.Set(func(r *feedtest.Source) {
					r.Before = func(context.Context) { r.Set(func(r *feedtest.Source) { r.Err = nil }) }
				})
			}
			r.World.Now = feedtest.Minute(1)
			r.World.Taken = []library.TakenWindow{{ReservationID: 1, Version: 1, SeatID: 1, StartTime: feedtest.Monday, EndTime: feedtest.Minute(60)}}
		})
		if got, asOf := free(t, m); got != 3 || !asOf.Equal(feedtest.Minute(1)) || r.Loads.Load() != 2 {
			t.Errorf("%d as of %v after %d loads", got, asOf, r.Loads.Load())
		}
	})
}

func TestFailuresOfAnotherKindLoadNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := start(t, r, Options{})
		r.Set(func(r *feedtest.Source) { r.Err = library.ErrOverloaded })
		free(t, m)
		r.Happen(taking[0])
		r.Set(func(r *feedtest.Source) { r.Err = nil })
		pass(lastRetry)
		if got, _ := free(t, m); got != 3 || r.Loads.Load() != 1 {
			t.Errorf("%d free after %d loads", got, r.Loads.Load())
		}
	})
}

func TestRetriesWhilePostgresIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := start(t, r, Options{})
		r.Set(func(r *feedtest.Source) { r.Err = errUnreachable })
		free(t, m)
		looks := r.Reads.Load()
		pass(10 * time.Second)
		if n := r.Reads.Load() - looks; n < 40 || n > 50 {
			t.Errorf("%d tries in 10 s", n)
		}
		// A hint says that somebody could write: then it is worth a try at once, though not a try a
		// hint.
		looks = r.Reads.Load()
		for range 1000 {
			m.Wake()
			pass(10 * time.Microsecond)
		}
		if n := r.Reads.Load() - looks; n > 2 {
			t.Errorf("%d tries for a thousand hints in 10 ms", n)
		}
		r.Set(func(r *feedtest.Source) { r.Err = nil })
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
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		r.Err = errUnreachable
		m := newModel(r, Options{MaxStaleness: time.Minute})
		unready := func() {
			t.Helper()
			if _, err := m.read(t.Context()); !errors.Is(err, library.ErrUnavailable) {
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
		if r.Loads.Load() < 10 || r.Loads.Load() > 20 {
			t.Errorf("%d tries to load in 3 s", r.Loads.Load())
		}
		r.Set(func(r *feedtest.Source) { r.Err = nil })
		<-m.Ready()
		free(t, m)
	})
}

func TestALongLoadIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Snapshot: store.Snapshot{Xmax: 100}, Catalog: feedtest.SmallLibrary("UTC")})
		m := start(t, r, Options{})
		r.Set(func(r *feedtest.Source) {
			r.Pending = append(r.Pending, store.Changes{Now: feedtest.Monday})
			r.Loading = func() { time.Sleep(10 * time.Second) }
		})
		for _, want := range []time.Duration{reloadWait, 0} {
			began := time.Now()
			if _, asOf := free(t, m); !asOf.Equal(feedtest.Monday) || time.Since(began) != want {
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
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := newModel(r, Options{MaxStaleness: time.Minute})
		var told [][]library.Event
		m.Subscribe(Subscriber{OnEvents: func(d Delta) {
			told = append(told, d.Events)
			if got := m.state.Load().free; got != 4-len(told)+1 || !d.Now.Equal(feedtest.Monday) {
				t.Errorf("told of %d events at %v, %d seats were free", len(d.Events), d.Now, got)
			}
		}})
		run(t, m)
		<-m.Ready()
		for _, e := range taking {
			r.Happen(e)
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
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := start(t, r, Options{})
		looks := r.Reads.Load()
		pass(time.Minute)
		if n := r.Reads.Load() - looks; n != 60 {
			t.Errorf("%d looks in a minute of rest", n)
		}
		r.Set(func(r *feedtest.Source) { r.After = func() { time.Sleep(10 * time.Millisecond) } })
		looks = r.Reads.Load()
		for range 1000 {
			m.Wake()
		}
		pass(time.Millisecond)
		m.Wake() // while a look is under way that may miss what this hint is about
		pass(500 * time.Millisecond)
		if n := r.Reads.Load() - looks; n != 2 {
			t.Errorf("%d looks for a thousand hints at once and one more, want 2", n)
		}
	})
}
