package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/dlsms/dlsms/store"
)

// batch is how many rows one transaction moves: few enough that a booking never waits long for a seat that the batch has locked.
const batch = 100

// busyPause is how long the worker leaves seats alone that others had locked. retryPause is how long it leaves Postgres alone after a failure.
// sweepPause is how long it does without a sweep: that one looks at everybody who waits (20,000 of them: a quarter of a second), and finds
// something only where a seat came back into service, or a replica died between ending a reservation and offering its user a seat.
const (
	busyPause  = 20 * time.Millisecond
	retryPause = time.Second
	sweepPause = 10 * time.Second
)

// Config says how a Worker works.
type Config struct {
	// Interval is the longest time between two looks.
	Interval time.Duration
	Logger   *slog.Logger
	// Done is told after each transaction that made transitions: of which step, and how many. Nil: nobody is.
	Done func(step string, n int)
}

// Worker looks after what comes due. Its methods may be called from any goroutine.
type Worker struct {
	store  *store.Store
	config Config

	nextSweep time.Time // of Run's goroutine

	mu    sync.Mutex
	timer *time.Timer
	at    time.Time // when the timer fires; zero: it fired, and a look is under way
}

// New makes a worker that takes its first look as soon as it runs.
func New(s *store.Store, c Config) *Worker {
	if c.Done == nil {
		c.Done = func(string, int) {}
	}
	return &Worker{store: s, config: c, timer: time.NewTimer(0), at: time.Now()}
}

// DueIn says that something comes due after d, so that the worker looks then at the latest.
func (w *Worker) DueIn(d time.Duration) {
	at := time.Now().Add(d)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at.IsZero() || at.Before(w.at) {
		w.at = at
		w.timer.Reset(max(d, 0))
	}
}

// Run works until ctx ends. The transaction under way is finished.
func (w *Worker) Run(ctx context.Context) {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.timer.C:
		}
		w.mu.Lock()
		w.at = time.Time{}
		w.mu.Unlock()

		next, err := w.runOnce(ctx)
		if err != nil {
			w.nextSweep = time.Time{} // who knows what was missed
		}
		if (err != nil) != failing && ctx.Err() == nil {
			failing = err != nil
			w.logChange(ctx, err)
		}
		w.DueIn(next)
	}
}

func (w *Worker) logChange(ctx context.Context, err error) {
	if err != nil {
		w.config.Logger.WarnContext(ctx, "the worker fails, and will try again", slog.Any("error", err))
		return
	}
	w.config.Logger.InfoContext(ctx, "the worker works again")
}

// step is one kind of thing that comes due.
type step struct {
	name string
	run  func(ctx context.Context, limit int) (n int, more bool, err error)
}

// runOnce does everything that is due and returns how long to wait for the next look.
func (w *Worker) runOnce(ctx context.Context) (time.Duration, error) {
	steps := []step{
		{"complete", w.store.CompleteEnded}, // before no-shows: a seat that is free at its end is free for the waitlist
		{"no_show", w.store.MarkNoShows},
		{"offer_expired", w.store.ExpireOffers},
		{"waiting_expired", w.store.ExpireWaiting},
		{"remind", w.store.RemindOfCheckIn},
	}
	sweep := !time.Now().Before(w.nextSweep)
	if sweep {
		steps = append(steps, step{"offer", w.store.OfferFreeSeats}, step{"forget_revocation", w.store.ForgetRevocations})
	}
	busy := false
	for _, s := range steps {
		stepBusy, err := w.drain(ctx, s)
		if err != nil {
			return retryPause, err
		}
		busy = busy || stepBusy
	}
	if busy {
		return busyPause, nil
	}
	if sweep {
		w.nextSweep = time.Now().Add(sweepPause)
	}
	next, ok, err := w.store.NextDue(ctx, w.config.Interval)
	switch {
	case err != nil:
		return retryPause, err
	case !ok:
		return w.config.Interval, nil
	}
	return max(next, busyPause), nil
}

// drain runs a step until nothing is due, or what is due is locked by others: then it is busy.
func (w *Worker) drain(ctx context.Context, s step) (busy bool, err error) {
	for ctx.Err() == nil {
		n, more, err := s.run(ctx, batch)
		if err != nil {
			return false, err
		}
		if n > 0 {
			w.config.Done(s.name, n)
		}
		if !more || n == 0 {
			return more, nil
		}
	}
	return false, ctx.Err()
}
