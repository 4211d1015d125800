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

// Source is the database that a Feed follows. A *store.Store is one.
type Source interface {
	// LoadWorld reads the whole catalog and all taken windows, in one snapshot.
	LoadWorld(ctx context.Context) (store.World, error)
	// Changes returns everything that was committed after a snapshot, and the snapshot for the next call.
	Changes(ctx context.Context, since store.Snapshot) (store.Changes, error)
}

// Delta is the result of one refresh: the state before it with the delta applied is the state as of Now.
type Delta struct {
	// Changes are the events, the changes of the catalog, and Postgres's clock. If the state was loaded anew, only Snapshot and Now
	// are set.
	store.Changes
	// World is the whole state if it was loaded anew, which replaces the state before; nil otherwise. Events that were committed in
	// between are not told. The subscriber that builds a read model from it may reorder its slices.
	World *store.World
}

// Subscriber is called by the goroutine of Run. Its functions must not block; those that are nil are not called.
type Subscriber struct {
	// Apply gets the delta of each refresh, in order, before the readers that wait for the refresh go on.
	Apply func(Delta)
	// OnEvents gets each delta that has events or was loaded anew, after the readers have gone on.
	OnEvents func(Delta)
	// Expire is called when the state is older than Options.MaxStaleness, or the feed stops. The cause is an ErrUnavailable.
	Expire func(cause error)
}

// Options configure a Feed.
type Options struct {
	// Freshness is how long before a reader's call the refresh may have begun that answers it; 0: it must begin after the call.
	Freshness time.Duration
	// MaxStaleness is how long readers are answered from memory while Postgres is unreachable; 0: not at all.
	MaxStaleness time.Duration
	// Logger gets a line when the state is loaded, when Postgres becomes unreachable, and when it answers again; nil: no lines.
	Logger *slog.Logger
	// OnRefresh is called after each refresh with its duration, and with the error if it failed. It must not block.
	OnRefresh func(took time.Duration, err error)
}

// Feed follows the change log. It is safe for concurrent use, except that Subscribe must be called before Run.
type Feed struct {
	source      Source
	options     Options
	log         *slog.Logger
	subscribers []Subscriber
	// started is where elapsed counts from. The Go clock measures ages and waits; Postgres's clock decides what is free when.
	started time.Time

	// Only the goroutine of Run uses these.
	snapshot store.Snapshot // that the subscribers have seen
	arrived  time.Duration  // when the last delta was applied
	// distrust says that Postgres was unreachable since the last refresh, so that the state must be loaded anew.
	distrust bool
	reported bool // the outage is in the log

	wake  chan struct{} // gets a value when a refresh is wanted
	ready chan struct{} // closed when the state is loaded

	// now is Postgres's clock as of the last delta, refreshAt that of the next refresh at the latest; both in microseconds.
	now, refreshAt atomic.Int64

	mu      sync.Mutex
	loaded  bool          // the subscribers have the state
	freshAt time.Duration // when the refresh that made the state began
	// notBefore is when the next refresh may begin, if a crowd shared the last one.
	notBefore time.Duration
	running   *refresh // has begun
	next      *refresh // has not begun, and readers wait for it
	outage    error    // why the last refresh failed; nil while Postgres answers
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

// Subscribe adds a subscriber. Subscribers are called in the order in which they were added. It must not be called after Run.
func (f *Feed) Subscribe(s Subscriber) { f.subscribers = append(f.subscribers, s) }

// Ready is closed when the state is loaded.
func (f *Feed) Ready() <-chan struct{} { return f.ready }

// Wake has the feed refresh at once, since something may have happened. It never blocks; several calls may share one refresh.
func (f *Feed) Wake() {
	select {
	case f.wake <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// RefreshAt has the feed refresh when Postgres's clock reaches t, even if nobody asks; the zero time: it need not. It replaces the
// time of the call before. A read model that changes by the passing of time sets it. A time that is past by the last delta has no
// effect.
func (f *Feed) RefreshAt(t time.Time) {
	at := int64(never)
	if !t.IsZero() {
		at = t.UnixMicro()
	}
	if before := f.refreshAt.Swap(at); at != before && at-f.now.Load() < pollInterval.Microseconds() {
		f.Wake() // Run waits for a later time
	}
}

// Stats are figures about a Feed.
type Stats struct {
	// Age is how long ago the refresh began that made the state; 0: nothing is loaded yet.
	Age time.Duration
	// Reachable says whether Postgres answered the last time.
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
