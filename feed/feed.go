package feed

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlsms/dlsms/store"
)

// Source is the database that a Feed reads. *store.Store implements it.
type Source interface {
	// LoadWorld reads the whole catalog and all taken windows, in one snapshot.
	LoadWorld(ctx context.Context) (store.World, error)
	// Changes returns everything that was committed after a snapshot, and the snapshot for the next
	// call.
	Changes(ctx context.Context, since store.Snapshot) (store.Changes, error)
}

// Delta is the result of one refresh. A subscriber applies it to the state of the previous refresh,
// and then has the state as of Now.
type Delta struct {
	// Changes are the events, the changes of the catalog, and Postgres's clock. If the whole state
	// was loaded, only Snapshot and Now are set.
	store.Changes
	// World is nil, except after a load. After a load, World is the whole state and replaces the
	// previous state, and the Delta has no events, not even those since the previous refresh. A
	// subscriber may reorder the slices of World in Apply.
	World *store.World
}

// Subscriber has the functions that Run calls, all from one goroutine. They must not block. A nil
// function is not called.
type Subscriber struct {
	// Apply receives the Delta of each refresh before the readers that share the refresh are
	// released.
	Apply func(Delta)
	// OnEvents receives each Delta with events, with changes of the catalog or with a World, after
	// the readers were released.
	OnEvents func(Delta)
	// Expire is called when readers must not use the state any more: after each failed refresh
	// while the state is older than Options.MaxStaleness, and when the feed stops. The cause is a
	// library.ErrUnavailable.
	Expire func(cause error)
}

// Options configure a Feed.
type Options struct {
	// Freshness is the greatest age of a read: a reader may get the result of a refresh that began
	// up to Freshness before the call. With 0 the refresh begins after the call.
	Freshness time.Duration
	// MaxStaleness is how long readers are answered from memory while Postgres does not answer.
	// With 0, readers get an error at once.
	MaxStaleness time.Duration
	// Logger receives a line when the state is loaded, when Postgres stops answering, and when it
	// answers again. If it is nil, nothing is logged.
	Logger *slog.Logger
	// OnRefresh is called after each refresh with its duration, and with the error if the refresh
	// failed. It must not block.
	OnRefresh func(took time.Duration, err error)
}

// Feed follows the change log. It is safe for concurrent use, but Subscribe must not be called
// after Run.
type Feed struct {
	source      Source
	options     Options
	log         *slog.Logger
	subscribers []Subscriber
	// started is when New was called. All times of type time.Duration below count from started. The
	// Go clock is used only for ages and waits: Postgres's clock decides which seat is free.
	started time.Time

	// Only the goroutine of Run uses these.
	snapshot store.Snapshot // of the last delta
	arrived  time.Duration  // when the last delta was applied
	// mustReload says that Postgres was unreachable since the last successful refresh, so the next
	// refresh must load the state.
	mustReload bool
	reported   bool // the log has a line about the outage

	wake  chan struct{} // receives a value when a refresh is wanted
	ready chan struct{} // closed when the state is loaded

	// now is the time of the last delta. refreshAt is the time that RefreshAt has set: the next
	// refresh begins then at the latest. Both are in microseconds of Postgres's clock.
	now, refreshAt atomic.Int64

	mu      sync.Mutex
	loaded  bool          // the subscribers have the state
	freshAt time.Duration // the start of the last refresh that succeeded
	// notBefore is the earliest start of the next refresh. finish sets it if many readers shared
	// the last refresh.
	notBefore time.Duration
	running   *refresh // has begun; nil between two refreshes
	next      *refresh // has readers and has not begun; nil without readers
	outage    error    // the error of the last refresh; nil if it succeeded
	stopped   bool
}

// never is later than every time.
const never = math.MaxInt64

// New returns a feed of the source. It reads nothing before Run.
func New(source Source, o Options) *Feed {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnRefresh == nil {
		o.OnRefresh = func(time.Duration, error) {}
	}
	f := &Feed{
		source:  source,
		options: o,
		log:     o.Logger,
		started: time.Now(),
		wake:    make(chan struct{}, 1),
		ready:   make(chan struct{}),
	}
	f.refreshAt.Store(never)
	return f
}

// Subscribe adds a subscriber. Run calls the subscribers in the order of their Subscribe calls.
func (f *Feed) Subscribe(s Subscriber) { f.subscribers = append(f.subscribers, s) }

// Ready is closed when the state is loaded.
func (f *Feed) Ready() <-chan struct{} { return f.ready }

// Wake makes the feed refresh immediately. It never blocks. Several calls may share one refresh.
func (f *Feed) Wake() {
	select {
	case f.wake <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// RefreshAt makes the feed refresh when Postgres's clock reaches t, even without readers. The read
// model calls it, because a seat becomes free or taken at a known time without an event. Each call
// replaces the time of the previous call, and the zero time clears it. A time that the last refresh
// has already passed causes at most one refresh, at once.
func (f *Feed) RefreshAt(t time.Time) {
	at := int64(never)
	if !t.IsZero() {
		at = t.UnixMicro()
	}
	if before := f.refreshAt.Swap(at); at != before && at-f.now.Load() < pollInterval.Microseconds() {
		f.Wake() // Run may be waiting for a later time
	}
}

// Stats are figures about a Feed.
type Stats struct {
	// Age is the time since the last successful refresh began; 0 before the first one.
	Age time.Duration
	// Reachable says whether the last refresh succeeded.
	Reachable bool
}

// Stats returns the current figures.
func (f *Feed) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.loaded {
		return Stats{}
	}
	return Stats{Age: f.elapsed() - f.freshAt, Reachable: f.outage == nil}
}

func (f *Feed) elapsed() time.Duration { return time.Since(f.started) }
