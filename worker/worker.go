package worker

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/store"
)

// busyPause is how long a step leaves seats alone that others had locked. sweepPause is how long the worker does without a sweep: that
// one looks at every user who waits (20,000 of them: a quarter of a second), and finds something only where a seat came back into
// service, or a waitlist could not be served when its seat was freed.
const (
	busyPause  = 20 * time.Millisecond
	sweepPause = 10 * time.Second
)

// A step that fails is tried again after retryPause, then after twice that, and so on up to maxRetryPause.
const (
	retryPause    = time.Second
	maxRetryPause = 4 * time.Second
)

// maxStartDelay bounds the random time after which each step of each replica begins, so that replicas that start together don't look
// for the same things at the same moments.
const maxStartDelay = 200 * time.Millisecond

// Config says how a Worker works.
type Config struct {
	// Interval is the longest time between two looks.
	Interval time.Duration
	Logger   *slog.Logger
	// Done is told after each transaction that made transitions: of which step, and how many. Nil: nobody is.
	Done func(step string, n int)
	// Metrics are told how the steps fare.
	Metrics Metrics
}

// Metrics are told how the steps fare. What is nil is not called.
type Metrics struct {
	// Lag is told after each look how long the longest overdue row has been due; 0: none is.
	Lag func(step string, d time.Duration)
	// Failed is told of each look and each transaction that failed.
	Failed func(step string)
	// Skipped is told how many seats a step leaves out because they failed by themselves, whenever that changes.
	Skipped func(step string, seats int)
}

// Worker looks after what comes due. Its methods may be called from any goroutine.
type Worker struct {
	store  *store.Store
	config Config
	steps  []*step

	mu          sync.Mutex
	unreachable map[*step]bool // steps that found Postgres out of reach
}

// New makes a worker that takes its first look as soon as it runs.
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
	if c.Metrics.Skipped == nil {
		c.Metrics.Skipped = func(string, int) {}
	}
	w := &Worker{store: s, config: c, unreachable: map[*step]bool{}}
	for _, due := range store.DueSteps {
		w.add(due.Name, 0, newSeatStep(w, due).pass)
	}
	w.add(store.OfferStep.Name, sweepPause, newSeatStep(w, store.OfferStep).pass)
	w.add("forget_revocation", sweepPause, w.forgetRevocations)
	return w
}

func (w *Worker) add(name string, pause time.Duration, pass func(ctx context.Context, full bool) (time.Duration, error)) {
	s := &step{worker: w, name: name, pause: pause, pass: pass}
	s.full.Store(true)
	delay := rand.N(maxStartDelay)
	s.at, s.timer = time.Now().Add(delay), time.NewTimer(delay)
	w.steps = append(w.steps, s)
}

// DueIn says that something comes due after d, so that the worker looks then at the latest. What is due already may be behind what the
// worker has looked at, so the next look is at everything then.
func (w *Worker) DueIn(d time.Duration) {
	for _, s := range w.steps {
		if d <= 0 {
			s.full.Store(true)
		}
		s.dueIn(d)
	}
}

// Schedule has the worker look when the reservations that changed come due. If the state was loaded anew, events may have been missed, so
// the worker looks at once.
func (w *Worker) Schedule(d feed.Delta) {
	if d.World != nil {
		w.DueIn(0)
	}
	for _, e := range d.Events {
		if due := e.DueAt(w.store.Policy()); !due.IsZero() {
			w.DueIn(due.Sub(d.Now))
		}
	}
}

// Run works until ctx ends. The transactions under way are finished.
func (w *Worker) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, s := range w.steps {
		running.Go(func() { s.run(ctx) })
	}
	running.Wait()
}

// moved is told after each transaction that made transitions. One transition makes another come due: of an offer, its end.
func (w *Worker) moved(name string, n int) {
	w.config.Done(name, n)
	for _, s := range w.steps {
		if s.name != name {
			s.dueIn(0)
		}
	}
}

// forgetRevocations is a pass of the step of that name.
func (w *Worker) forgetRevocations(ctx context.Context, _ bool) (time.Duration, error) {
	for ctx.Err() == nil {
		n, more, err := w.store.ForgetRevocations(ctx, maxBatch)
		if err != nil {
			return 0, err
		}
		if n > 0 {
			w.config.Done("forget_revocation", n)
		}
		if !more {
			break
		}
	}
	return w.config.Interval, nil
}

// step is the loop of one kind of thing that comes due.
type step struct {
	worker *Worker
	name   string
	pause  time.Duration // least time between two passes
	// pass does everything that is due and returns how long to wait for the next pass. full says that it must not rely on what earlier
	// passes have seen.
	pass func(ctx context.Context, full bool) (time.Duration, error)
	full atomic.Bool // the next pass has to be

	failures  int       // in a row
	notBefore time.Time // the next pass

	mu    sync.Mutex
	timer *time.Timer
	at    time.Time // when the timer fires; zero: it fired, and a pass is under way
}

// dueIn has the step make a pass after d at the latest.
func (s *step) dueIn(d time.Duration) {
	at := time.Now().Add(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || at.Before(s.at) {
		s.at = at
		s.timer.Reset(max(d, 0))
	}
}

func (s *step) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.timer.C:
		}
		s.mu.Lock()
		s.at = time.Time{}
		s.mu.Unlock()
		if wait := time.Until(s.notBefore); wait > 0 {
			s.dueIn(wait)
			continue
		}
		full := s.full.Swap(false)
		next, err := s.pass(ctx, full)
		if ctx.Err() != nil {
			return
		}
		s.notBefore = time.Now().Add(s.pause)
		if err != nil {
			s.full.Store(true) // it is not known what was missed
			next = s.retryIn()
			s.notBefore = time.Now().Add(next)
		}
		s.report(ctx, err)
		s.dueIn(max(next, busyPause))
	}
}

// retryIn returns how long to wait after a failure: longer after each, and never as long as another replica.
func (s *step) retryIn() time.Duration {
	pause := min(retryPause<<min(s.failures, 8), maxRetryPause)
	return pause - rand.N(pause/4)
}

// report counts failures, and logs when the step begins to fail and when it works again. When Postgres is out of reach, that is one line
// for all steps.
func (s *step) report(ctx context.Context, err error) {
	w := s.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	failed := s.failures > 0
	if err == nil {
		s.failures = 0
	} else {
		s.failures++
		w.config.Metrics.Failed(s.name)
	}
	switch unreachable := len(w.unreachable) > 0; {
	case err != nil && store.Unavailable(err):
		w.unreachable[s] = true
		if !unreachable {
			w.config.Logger.WarnContext(ctx, "the worker fails, and will try again", slog.Any("error", err))
		}
	case w.unreachable[s]:
		delete(w.unreachable, s)
		if len(w.unreachable) == 0 {
			w.config.Logger.InfoContext(ctx, "the worker works again")
		}
	case err != nil && !failed:
		w.config.Logger.WarnContext(ctx, "a step of the worker fails, and will be tried again", slog.String("step", s.name), slog.Any("error", err))
	case err == nil && failed:
		w.config.Logger.InfoContext(ctx, "a step of the worker works again", slog.String("step", s.name))
	}
}
