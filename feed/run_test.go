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

// TestSingleFailureIsNotAnOutage lets the first read fail, as after a pause of the whole process.
// Postgres answers the second read, so readers see the new state.
func TestSingleFailureIsNotAnOutage(t *testing.T) {
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
			r.World.Taken = []library.TakenWindow{
				{ReservationID: 1, Version: 1, SeatID: 1, StartTime: feedtest.Monday, EndTime: feedtest.Minute(60)},
			}
		})
		if got, asOf := free(t, m); got != 3 || !asOf.Equal(feedtest.Minute(1)) || r.Loads.Load() != 2 {
			t.Errorf("%d free as of %v after %d loads, want 3 as of minute 1 after 2 loads", got, asOf, r.Loads.Load())
		}
	})
}

// TestOverloadedPostgresCausesNoReload checks that the state is loaded again only after Postgres
// was unreachable, and not after another error.
func TestOverloadedPostgresCausesNoReload(t *testing.T) {
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
			t.Errorf("%d free after %d loads, want 3 after 1 load", got, r.Loads.Load())
		}
	})
}

func TestRetriesWhilePostgresIsUnreachable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := start(t, r, Options{})
		r.Set(func(r *feedtest.Source) { r.Err = errUnreachable })
		free(t, m)
		reads := r.Reads.Load()
		pass(10 * time.Second)
		if n := r.Reads.Load() - reads; n < 40 || n > 50 {
			t.Errorf("%d retries in 10 s, want 40 to 50", n)
		}
		// A hint shows that Postgres accepted a commit, so a hint shortens the pause. But a
		// thousand hints must not cause a thousand retries.
		reads = r.Reads.Load()
		for range 1000 {
			m.Wake()
			pass(10 * time.Microsecond)
		}
		if n := r.Reads.Load() - reads; n > 2 {
			t.Errorf("%d retries for a thousand hints in 10 ms, want at most 2", n)
		}
		r.Set(func(r *feedtest.Source) { r.Err = nil })
		m.Wake()
		pass(firstRetry)
		if s := m.Stats(); !s.Reachable {
			t.Error("a hint did not cause a retry")
		}
	})
}

func TestNotReadyBeforeLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		r.Err = errUnreachable
		m := newModel(r, Options{MaxStaleness: time.Minute})
		unready := func() {
			t.Helper()
			if _, err := m.read(t.Context()); !errors.Is(err, library.ErrUnavailable) {
				t.Errorf("a read before the state is loaded: %v, want ErrUnavailable", err)
			}
			select {
			case <-m.Ready():
				t.Error("the feed is ready")
			default:
			}
		}
		unready()
		run(t, m)
		pass(3 * time.Second)
		unready()
		if r.Loads.Load() < 10 || r.Loads.Load() > 20 {
			t.Errorf("%d attempts to load in 3 s, want 10 to 20", r.Loads.Load())
		}
		r.Set(func(r *feedtest.Source) { r.Err = nil })
		<-m.Ready()
		free(t, m)
	})
}

func TestReadersDoNotWaitForLongReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{
			Now: feedtest.Monday, Snapshot: store.Snapshot{Xmax: 100}, Catalog: feedtest.SmallLibrary("UTC"),
		})
		m := start(t, r, Options{})
		r.Set(func(r *feedtest.Source) {
			// These changes have an older snapshot, so the feed loads the state again.
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
			t.Error("after the load, the feed still answers from memory")
		}
	})
}

func TestOnEventsFollowsApply(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := newModel(r, Options{MaxStaleness: time.Minute})
		var received [][]library.Event
		m.Subscribe(Subscriber{OnEvents: func(d Delta) {
			received = append(received, d.Events)
			if got := m.state.Load().free; got != 4-len(received)+1 || !d.Now.Equal(feedtest.Monday) {
				t.Errorf("OnEvents received %d events at %v, %d seats were free", len(d.Events), d.Now, got)
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
		if len(received) != 4 || received[0] != nil || len(received[1]) != 1 {
			t.Errorf("OnEvents received %v, want the load and three events", received)
		}
	})
}

func TestPollsWhenIdleAndRefreshesOnWake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := start(t, r, Options{})
		reads := r.Reads.Load()
		pass(time.Minute)
		if n := r.Reads.Load() - reads; n != 60 {
			t.Errorf("%d reads in an idle minute, want 60", n)
		}
		r.Set(func(r *feedtest.Source) { r.After = func() { time.Sleep(10 * time.Millisecond) } })
		reads = r.Reads.Load()
		for range 1000 {
			m.Wake()
		}
		pass(time.Millisecond)
		m.Wake() // the running refresh may miss the event of this hint
		pass(500 * time.Millisecond)
		if n := r.Reads.Load() - reads; n != 2 {
			t.Errorf("%d reads for a thousand calls of Wake at once and one call later, want 2", n)
		}
	})
}
