package availability

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/dlsms/dlsms/store"
)

// Source is where a Model gets what it knows. A *store.Store is one.
type Source interface {
	// LoadWorld reads the whole catalog and everything that is taken, in one snapshot.
	LoadWorld(ctx context.Context) (store.World, error)
	// Changes returns everything that was committed after a snapshot, and the snapshot to ask with next.
	Changes(ctx context.Context, since store.Snapshot) (store.Changes, error)
}

// Options say how a Model works.
type Options struct {
	// Freshness is how old the look at the log may be that an answer comes from, when the question arrives; 0: it must begin after that.
	Freshness time.Duration
	// MaxStaleness is for how long answers go on from what is known while Postgres can't be reached; 0: not at all.
	MaxStaleness time.Duration
	// PastTolerance is for how long a window may have ended that is asked about, for clients whose clock is late.
	PastTolerance time.Duration
	// Logger hears of what changes: loaded, out of reach, back; nil: nobody does.
	Logger *slog.Logger
	// OnEvents is called with the events of each look at the log that has any, and Postgres's clock, after they are applied; and without
	// events when the world was loaded anew, so that whoever follows the log looks for what it missed. It must not block.
	OnEvents func(events []store.Event, now time.Time)
	// OnRefresh is called after each refresh with its duration, and with the error if it failed. It must not block.
	OnRefresh func(took time.Duration, err error)
}

// Model knows which seat is free when. It is safe for concurrent use, and answers once Run has loaded the world.
type Model struct {
	source  Source
	options Options
	log     *slog.Logger
	// born is where elapsed counts from. The Go clock measures ages and waits here; what is free when, Postgres's clock decides alone.
	born time.Time

	// What Run's goroutine alone uses.
	ledger   *ledger
	arrived  time.Duration // when the last world came
	lost     bool          // Postgres was out of reach since then
	reported bool          // the log says that it can't be followed

	hub   *hub
	kick  chan struct{} // a look at the log is wanted
	ready chan struct{} // closed when the world is loaded

	mu      sync.Mutex
	world   *world        // nil: not loaded yet
	freshAt time.Duration // when the look at the log that made the world began
	// crowdUntil is before when no look begins, since many readers come.
	crowdUntil time.Duration
	inFlight   *flight // the look at the log that is under way
	next       *flight // the one that readers wait for, which has not begun
	down       error   // why the last look failed; nil while Postgres answers
	stopped    bool
}

// New returns a model of what source has. It knows nothing before Run.
func New(source Source, o Options) *Model {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnRefresh == nil {
		o.OnRefresh = func(time.Duration, error) {}
	}
	m := &Model{
		source:  source,
		options: o,
		log:     o.Logger,
		born:    time.Now(),
		ledger:  new(ledger),
		hub:     newHub(),
		kick:    make(chan struct{}, 1),
		ready:   make(chan struct{}),
	}
	m.hub.rearm = m.Wake
	return m
}

func (m *Model) elapsed() time.Duration { return time.Since(m.born) }

// Ready is closed when the world is loaded.
func (m *Model) Ready() <-chan struct{} { return m.ready }

// Wake says that something may have happened: the log is looked at at once. It never blocks; many calls may have one effect.
func (m *Model) Wake() {
	select {
	case m.kick <- struct{}{}:
	default: // somebody woke it already
	}
}

// Stats are figures about a Model.
type Stats struct {
	// Seats is the size of the catalog.
	Seats int
	// AsOf is the time, by Postgres's clock, that the newest answers are true of; zero: nothing is known yet.
	AsOf time.Time
	// Age is how long ago that was; 0: nothing is known yet.
	Age time.Duration
	// Reachable says whether Postgres answered the last time.
	Reachable bool
	// Watches is how many watches are open, Groups how many different questions they ask.
	Watches, Groups int
}

// Stats returns the figures of now.
func (m *Model) Stats() Stats {
	var s Stats
	s.Watches, s.Groups = m.hub.size()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.world != nil {
		s.Seats, s.AsOf, s.Age, s.Reachable = len(m.world.seats), m.world.asOf, m.elapsed()-m.freshAt, m.down == nil
	}
	return s
}
