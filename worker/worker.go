package worker

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/store"
)

// busyPause is the time until a step tries seats again that other transactions had locked.
//
// sweepPause is the shortest time between two passes of the steps offer and forget_revocation. A
// pass of offer reads every waitlist entry: 20,000 entries take 250 ms. It seldom finds a seat,
// because the transaction that frees a seat also serves the waitlist of the seat.
//
// heartbeatPause is the shortest time between two passes of the step outage, which other steps
// wake.
//
// usagePause is the shortest time between two passes of the step usage. An hour is counted ten minutes
// after its end, so a later pass is early enough.
const (
	busyPause      = 20 * time.Millisecond
	sweepPause     = 10 * time.Second
	heartbeatPause = store.HeartbeatInterval / 2
	usagePause     = 30 * time.Second
)

// maxStartDelay bounds the random delay of the first pass of each step, so that replicas that start
// together do not query for the same rows at the same moments.
const maxStartDelay = 200 * time.Millisecond

// Config configures a Worker.
type Config struct {
	// Interval is the longest time between two passes of a step.
	Interval time.Duration
	// RetentionMonths is the age in months at which the step retention removes the person from rows.
	// With 0, there is no such step.
	RetentionMonths int
	// Logger receives failures, and the seats that a step skips.
	Logger *slog.Logger
	// Done is called after each transaction that made transitions. step is the name of their step,
	// and n is their number. If Done is nil, it is not called.
	Done func(step string, n int)
	// Metrics receives figures about the steps.
	Metrics Metrics
}

// Metrics has functions that receive figures about the steps. A nil function is not called.
type Metrics struct {
	// Lag is called after each query for due rows. d is the time since the oldest of them came due,
	// or 0 if no row is due.
	Lag func(step string, d time.Duration)
	// Failed is called for each query and each transaction that failed.
	Failed func(step string)
	// Failing is called after each pass of a step. It says whether the pass failed. A step that fails
	// is tried again ever less often, so the rate of Failed does not tell whether it still fails.
	Failing func(step string, failing bool)
	// Skipped is called when the number of seats that a step skips changes. seats is the new
	// number.
	Skipped func(step string, seats int)
}

// Worker runs the steps. Its methods may be called from any goroutine.
type Worker struct {
	store  *store.Store
	config Config
	steps  []*step

	mu          sync.Mutex
	unreachable map[*step]bool // steps whose last pass found Postgres unreachable

	settling    sync.Mutex    // held while outages are settled
	settleTries map[int64]int // failed transactions for a single seat of the outage, by seat
}

// New returns a worker. Each step makes its first pass when Run is called, or up to maxStartDelay
// later.
func New(s *store.Store, c Config) *Worker {
	if c.Done == nil {
		c.Done = func(string, int) {}
	}
	if c.Metrics.Lag == nil {
		c.Metrics.Lag = func(string, time.Duration) {}
	}
	if c.Metrics.Failed == nil {
		c.Metrics.Failed = func(string) {}
	}
	if c.Metrics.Failing == nil {
		c.Metrics.Failing = func(string, bool) {}
	}
	if c.Metrics.Skipped == nil {
		c.Metrics.Skipped = func(string, int) {}
	}
	w := &Worker{store: s, config: c, unreachable: map[*step]bool{}, settleTries: map[int64]int{}}
	for _, due := range store.DueSteps {
		pass := newSeatStep(w, due).pass
		if due.AfterOutages {
			pass = w.afterOutages(pass)
		}
		w.add(due.Name, 0, pass)
	}
	w.add(store.OfferStep.Name, sweepPause, newSeatStep(w, store.OfferStep).pass)
	w.add(SweepName, 0, newSweeper(w).pass)
	w.add("forget_revocation", sweepPause, w.forgetRevocations)
	w.add(suspendName, suspendPause, (&suspendStep{worker: w, failing: map[int64]*failingSeat{}}).pass)
	w.add(outageStep, heartbeatPause, w.heartbeat)
	w.add(UsageName, usagePause, (&usageStep{worker: w, hours: store.MaxUsageHours}).pass)
	if c.RetentionMonths > 0 {
		w.add(retentionName, retentionPause, w.retain)
	}
	return w
}

func (w *Worker) add(name string, pause time.Duration, pass passFunc) {
	s := &step{worker: w, name: name, pause: pause, pass: pass}
	s.full.Store(true)
	delay := rand.N(maxStartDelay)
	s.at, s.timer = time.Now().Add(delay), time.NewTimer(delay)
	w.steps = append(w.steps, s)
}

// DueIn tells the worker that a row comes due after d. Each step then makes a pass after d at the
// latest. If d <= 0, the row is due already. A normal pass could skip the row, because it skips
// rows that an earlier pass may have seen. So the next pass of each step is full: it skips no rows.
func (w *Worker) DueIn(d time.Duration) {
	for _, s := range w.steps {
		if d <= 0 {
			s.full.Store(true)
		}
		s.dueIn(d)
	}
}

// Schedule sets the timers of the steps to the times at which the reservations in d come due. It is
// meant for the field OnEvents of a feed.Subscriber. If d has a World, events may be missing, so
// each step makes a full pass immediately. If the catalog has changed, staff may have started a
// sweep, or may have lifted a closure.
func (w *Worker) Schedule(d feed.Delta) {
	if d.World != nil {
		w.DueIn(0)
	}
	if d.CatalogChanged {
		for _, s := range w.steps {
			if s.name == SweepName || s.name == store.OfferStep.Name {
				s.dueIn(0)
			}
		}
	}
	for _, e := range d.Events {
		if due := e.DueAt(w.store.Policy()); !due.IsZero() {
			w.DueIn(due.Sub(d.Now))
		}
	}
}

// Run runs the steps until ctx ends. Then it returns after the transactions in progress have ended.
func (w *Worker) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, s := range w.steps {
		running.Go(func() { s.run(ctx) })
	}
	running.Wait()
}

// transitioned is called after each transaction that made n transitions of the step name. It wakes
// the other steps, because a transition may cause other transitions: a no-show frees a seat, and
// the seat can be offered.
func (w *Worker) transitioned(name string, n int) {
	w.config.Done(name, n)
	for _, s := range w.steps {
		if s.name != name {
			s.dueIn(0)
		}
	}
}
