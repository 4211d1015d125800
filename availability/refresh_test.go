package availability

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dlsms/dlsms/store"
)

// TestRefreshesAreTimed compares what OnRefresh is told with refreshes of known durations, one of which fails.
func TestRefreshesAreTimed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type refresh struct {
			took time.Duration
			err  error
		}
		var told []refresh
		r := newRecording(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, Options{OnRefresh: func(took time.Duration, err error) {
			told = append(told, refresh{took, err})
		}})
		free(t, m)
		synctest.Wait()

		told = nil
		r.set(func(r *recording) { r.after = func() { time.Sleep(7 * time.Millisecond) } })
		free(t, m)
		synctest.Wait()
		if len(told) != 1 || told[0] != (refresh{7 * time.Millisecond, nil}) {
			t.Errorf("told %v, want one refresh of 7 ms", told)
		}

		told = nil
		r.set(func(r *recording) { r.after, r.err = nil, store.ErrOverloaded })
		if _, err := m.Seats(t.Context(), Query{}); err == nil && len(told) == 0 {
			t.Error("a failed refresh was not told")
		}
		synctest.Wait()
		if len(told) == 0 || !errors.Is(told[0].err, store.ErrOverloaded) {
			t.Errorf("told %v, want a failure", told)
		}
	})
}
