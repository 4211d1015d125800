package feed

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dlsms/dlsms/feed/feedtest"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

func TestReadersShareTheNextRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := start(t, r, Options{})
		r.Set(func(r *feedtest.Source) { r.After = func() { time.Sleep(10 * time.Millisecond) } })
		var wg sync.WaitGroup
		read := func(want int, within time.Duration) {
			wg.Go(func() {
				arrived := time.Now()
				if got, _ := free(t, m); got != want {
					t.Errorf("%d seats are free, want %d", got, want)
				}
				if took := time.Since(arrived); took != within {
					t.Errorf("a read took %v, want %v", took, within)
				}
			})
		}
		reads := r.Reads.Load()
		read(4, 10*time.Millisecond)
		pass(3 * time.Millisecond)
		// The running refresh already has its snapshot. Only the next refresh sees the following
		// event.
		r.Happen(taking[0])
		for range 100 {
			read(3, 17*time.Millisecond)
		}
		pass(4 * time.Millisecond)
		for range 100 {
			read(3, 13*time.Millisecond)
		}
		wg.Wait()
		if got := r.Reads.Load() - reads; got != 2 {
			t.Errorf("201 readers cost %d refreshes, want 2", got)
		}
	})
}

// TestManyReadersDelayNextRefresh checks that the next refresh begins 3 ms after a refresh that
// three or more readers shared, and at once after a refresh with fewer readers.
func TestManyReadersDelayNextRefresh(t *testing.T) {
	t.Parallel()
	const us = time.Microsecond
	for readers, wait := range map[int]time.Duration{1: 100 * us, 2: 100 * us, 3: 2950 * us, 50: 2950 * us} {
		synctest.Test(t, func(t *testing.T) {
			r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
			m := start(t, r, Options{})
			r.Set(func(r *feedtest.Source) { r.After = func() { time.Sleep(100 * us) } })
			var wg sync.WaitGroup
			read := func(n int, within time.Duration) {
				for range n {
					wg.Go(func() {
						arrived := time.Now()
						free(t, m)
						if took := time.Since(arrived); took != within {
							t.Errorf("with %d readers of the shared refresh: a read took %v, want %v", readers, took, within)
						}
					})
				}
			}
			read(1, 100*us)
			pass(50 * us)
			read(readers, 150*us) // all of them share the refresh that begins at 100 µs
			pass(200 * us)
			read(1, wait) // called at 250 µs: its refresh begins now, or 3 ms after the shared refresh
			wg.Wait()
			pass(10 * time.Millisecond)
			read(1, 100*us) // only one reader used the last refresh
			wg.Wait()
		})
	}
}

func TestFreshnessReusesRefreshes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := start(t, r, Options{Freshness: 50 * time.Millisecond})
		r.Happen(taking[0])
		reads := r.Reads.Load()
		pass(50 * time.Millisecond)
		if got, _ := free(t, m); got != 4 || r.Reads.Load() != reads {
			t.Errorf("%d free after %d more refreshes: a state of 50 ms ago was fresh enough", got, r.Reads.Load()-reads)
		}
		pass(time.Millisecond)
		r.Set(func(r *feedtest.Source) { r.After = func() { time.Sleep(30 * time.Millisecond) } })
		go free(t, m)
		pass(20 * time.Millisecond)
		r.Happen(taking[1])
		if got, _ := free(t, m); got != 3 || r.Reads.Load() != reads+1 {
			t.Errorf("%d free after %d more refreshes: the running one was fresh enough", got, r.Reads.Load()-reads)
		}
	})
}

func TestAwaitRefreshEndsWithContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := start(t, r, Options{})
		r.Set(func(r *feedtest.Source) { r.Before = func(context.Context) { time.Sleep(time.Minute) } })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := m.read(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("AwaitRefresh returned %v after %v, want DeadlineExceeded after 1 s", err, time.Since(began))
		}
	})
}

// TestOnRefreshReceivesDurationAndError runs a refresh of 7 ms and a refresh that fails, and checks
// the arguments of OnRefresh.
func TestOnRefreshReceivesDurationAndError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type refresh struct {
			took time.Duration
			err  error
		}
		var received []refresh
		r := feedtest.NewSource(store.World{Now: feedtest.Monday, Catalog: feedtest.SmallLibrary("UTC")})
		m := start(t, r, Options{OnRefresh: func(took time.Duration, err error) {
			received = append(received, refresh{took, err})
		}})
		free(t, m)
		synctest.Wait()

		received = nil
		r.Set(func(r *feedtest.Source) { r.After = func() { time.Sleep(7 * time.Millisecond) } })
		free(t, m)
		synctest.Wait()
		if len(received) != 1 || received[0] != (refresh{7 * time.Millisecond, nil}) {
			t.Errorf("OnRefresh received %v, want one refresh of 7 ms", received)
		}

		received = nil
		r.Set(func(r *feedtest.Source) { r.After, r.Err = nil, library.ErrOverloaded })
		if _, err := m.read(t.Context()); err == nil && len(received) == 0 {
			t.Error("OnRefresh did not receive the failed refresh")
		}
		synctest.Wait()
		if len(received) == 0 || !errors.Is(received[0].err, library.ErrOverloaded) {
			t.Errorf("OnRefresh received %v, want a failure", received)
		}
	})
}
