package feed

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dlsms/dlsms/feed/feedtest"
	"github.com/dlsms/dlsms/library"
)

// model is a feed with a minimal read model: the number of free seats.
type model struct {
	*Feed
	seats int
	taken map[int64]library.Event // by reservation; only apply uses it
	state atomic.Pointer[state]
}

type state struct {
	free int
	asOf time.Time
}

func newModel(source Source, o Options) *model {
	m := &model{Feed: New(source, o)}
	m.Subscribe(Subscriber{Apply: m.apply})
	return m
}

func (m *model) apply(d Delta) {
	if d.World != nil {
		m.seats, m.taken = len(d.World.Seats), map[int64]library.Event{}
		for _, t := range d.World.Taken {
			m.taken[t.ReservationID] = library.Event{SeatID: t.SeatID, StartTime: t.StartTime, EndTime: t.EndTime}
		}
	}
	for _, e := range d.Events {
		delete(m.taken, e.ReservationID)
		if e.TakesSeat() {
			m.taken[e.ReservationID] = e
		}
	}
	now := map[int64]bool{}
	for _, e := range m.taken {
		if !e.StartTime.After(d.Now) && e.EndTime.After(d.Now) {
			now[e.SeatID] = true
		}
	}
	m.state.Store(&state{m.seats - len(now), d.Now})
}

// read returns the number of free seats and the time of the state.
func (m *model) read(ctx context.Context) (*state, error) {
	if _, err := m.AwaitRefresh(ctx); err != nil {
		return nil, err
	}
	return m.state.Load(), nil
}

// free returns the result of read, and fails the test if read fails.
func free(t *testing.T, m *model) (int, time.Time) {
	t.Helper()
	s, err := m.read(t.Context())
	if err != nil {
		t.Error(err) // not Fatal: readers run on their own goroutines
		return -1, time.Time{}
	}
	return s.free, s.asOf
}

// taking has one event for each seat of the branch "day": a reservation that began 10 minutes
// before feedtest.Monday, and so takes the seat at that time.
var taking = []library.Event{
	feedtest.Reservation(1, 1, 1, -10, 600),
	feedtest.Reservation(2, 1, 2, -10, 600),
	feedtest.Reservation(3, 1, 3, -10, 600),
}

// start returns a model whose feed has loaded the state and follows the source until the test ends.
func start(t *testing.T, source Source, o Options) *model {
	t.Helper()
	if o.MaxStaleness == 0 {
		o.MaxStaleness = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	m := newModel(source, o)
	run(t, m)
	<-m.Ready()
	return m
}

// run runs the feed until the test ends.
func run(t *testing.T, m *model) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// pass advances the clock of synctest, and waits until all goroutines are blocked. The clock stands
// still while a goroutine runs, so a call that took no time did not wait.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
