package availability

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/library"
)

// Options configure a Model.
type Options struct {
	// PastTolerance allows queries about a window that has ended, if it ended at most this long
	// ago. It is for clients whose clock is slow.
	PastTolerance time.Duration
}

// Model answers which seat is free when. It is safe for concurrent use. Queries fail until its feed
// has loaded the state.
type Model struct {
	feed    *feed.Feed
	options Options
	hub     *hub
	builder *worldBuilder // only apply uses it
	world   atomic.Pointer[world]
}

// New returns a model that subscribes to f. It must be called before f.Run.
func New(f *feed.Feed, o Options) *Model {
	m := &Model{feed: f, options: o, hub: newHub(), builder: new(worldBuilder)}
	m.hub.refreshAt = f.RefreshAt
	f.Subscribe(feed.Subscriber{Apply: m.apply, Expire: m.hub.endAll})
	return m
}

// apply builds the next world. Readers see the world at once. Watchers see it later, because the
// hub publishes it on a separate goroutine.
func (m *Model) apply(d feed.Delta) {
	var w *world
	if d.World != nil {
		w = m.builder.load(*d.World)
	} else {
		w = m.builder.apply(d.Changes)
	}
	m.world.Store(w)
	m.hub.submit(w)
}

// Run publishes to watches until ctx ends. Then it returns nil, and the watches fail with
// ErrUnavailable. Run must be called exactly once.
func (m *Model) Run(ctx context.Context) error {
	m.hub.run(ctx)
	m.hub.stop(library.ErrUnavailable.WithCause(errStopped))
	return nil
}

// current is the world at the time of a call.
type current struct {
	*world

	// fresh says that the world includes every change that was committed before the call. If it does
	// not, Postgres does not answer: see feed.Feed.AwaitRefresh.
	fresh bool
}

func (m *Model) current(ctx context.Context) (current, error) {
	fresh, err := m.feed.AwaitRefresh(ctx)
	if err != nil {
		return current{}, err
	}
	return current{m.world.Load(), fresh}, nil
}

// Ready is closed when the seats are loaded.
func (m *Model) Ready() <-chan struct{} { return m.feed.Ready() }

// Wake makes the feed refresh immediately. It never blocks. Several calls may share one refresh.
func (m *Model) Wake() { m.feed.Wake() }

// Stats are figures about a Model.
type Stats struct {
	// Seats is the size of the catalog.
	Seats int
	// AsOf is the time of the newest answers, by Postgres's clock; zero before the seats are
	// loaded.
	AsOf time.Time
	// Age is the time since the last successful refresh began; 0 before the seats are loaded.
	Age time.Duration
	// Reachable says whether the last refresh succeeded.
	Reachable bool
	// Watches is the number of open watches, Groups the number of different queries that they
	// follow.
	Watches, Groups int
}

// Stats returns the current figures.
func (m *Model) Stats() Stats {
	f := m.feed.Stats()
	s := Stats{Age: f.Age, Reachable: f.Reachable}
	s.Watches, s.Groups = m.hub.size()
	if w := m.world.Load(); w != nil {
		s.Seats, s.AsOf = len(w.seats), w.asOf
	}
	return s
}
