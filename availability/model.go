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
	// PastTolerance is how long ago a window may have ended that a query asks about, for clients whose clock is late.
	PastTolerance time.Duration
}

// Model answers which seat is free when. It is safe for concurrent use, and answers once its feed has loaded the state.
type Model struct {
	feed    *feed.Feed
	options Options
	hub     *hub
	builder *worldBuilder // only apply uses it
	world   atomic.Pointer[world]
}

// New returns a model that subscribes to a feed, which must not run yet.
func New(f *feed.Feed, o Options) *Model {
	m := &Model{feed: f, options: o, hub: newHub(), builder: new(worldBuilder)}
	m.hub.refreshAt = f.RefreshAt
	f.Subscribe(feed.Subscriber{Apply: m.apply, Expire: m.hub.endAll})
	return m
}

// apply makes the next world. Readers that find it are ahead of the watchers, which the hub tells later.
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

// Run publishes to watchers until ctx ends; then it returns nil, and watchers get ErrUnavailable. It must be called once.
func (m *Model) Run(ctx context.Context) error {
	m.hub.run(ctx)
	m.hub.stop(library.ErrUnavailable.WithCause(errStopped))
	return nil
}

// current returns a world that is as fresh as a reader may expect that asks now.
func (m *Model) current(ctx context.Context) (*world, error) {
	if err := m.feed.Refresh(ctx); err != nil {
		return nil, err
	}
	return m.world.Load(), nil
}

// Ready is closed when the seats are loaded.
func (m *Model) Ready() <-chan struct{} { return m.feed.Ready() }

// Wake has the feed refresh at once, since something may have happened. It never blocks; several calls may share one refresh.
func (m *Model) Wake() { m.feed.Wake() }

// Stats are figures about a Model.
type Stats struct {
	// Seats is the size of the catalog.
	Seats int
	// AsOf is the time, by Postgres's clock, that the newest answers are true of; zero: nothing is loaded yet.
	AsOf time.Time
	// Age is how long ago that was; 0: nothing is loaded yet.
	Age time.Duration
	// Reachable says whether Postgres answered the last time.
	Reachable bool
	// Watches is how many watches are open, Groups how many different queries they follow.
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
