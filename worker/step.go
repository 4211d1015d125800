package worker

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlsms/dlsms/store"
)

// A step that fails runs again after retryPause. Each further failure doubles the pause, up to
// maxRetryPause.
const (
	retryPause    = time.Second
	maxRetryPause = 4 * time.Second
)

// passFunc makes all transitions of a step that are due, and returns the time until the next pass.
// If full is set, it must not skip rows that earlier passes have seen.
type passFunc func(ctx context.Context, full bool) (next time.Duration, err error)

// step is the loop of one kind of transition.
type step struct {
	worker *Worker
	name   string
	pause  time.Duration // shortest time between two passes
	pass   passFunc
	full   atomic.Bool // the next pass must be full

	failures  int       // in a row
	notBefore time.Time // earliest start of the next pass

	mu    sync.Mutex
	timer *time.Timer
	at    time.Time // when the timer fires; zero during a pass
}

// dueIn makes the next pass begin after d at the latest.
func (s *step) dueIn(d time.Duration) {
	at := time.Now().Add(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || at.Before(s.at) {
		s.at = at
		s.timer.Reset(max(d, 0))
	}
}

// run makes passes until ctx ends.
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
			s.full.Store(true) // the pass may have missed rows
			next = s.retryIn()
			s.notBefore = time.Now().Add(next)
		}
		s.report(ctx, err)
		s.dueIn(max(next, busyPause))
	}
}

// retryIn returns the pause after a failure. The pause grows with each failure. A part of it is
// random, so that replicas do not retry together.
func (s *step) retryIn() time.Duration {
	pause := min(retryPause<<min(s.failures, 8), maxRetryPause)
	return pause - rand.N(pause/4)
}

// report counts failures. It logs the first failure of a step, and the first success after it. If
// Postgres is unreachable, it logs one line for all steps.
func (s *step) report(ctx context.Context, err error) {
	w := s.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	failed := s.failures > 0
	w.config.Metrics.Failing(s.name, err != nil)
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
		w.config.Logger.WarnContext(ctx, "a step of the worker fails, and will be tried again",
			slog.String("step", s.name), slog.Any("error", err))
	case err == nil && failed:
		w.config.Logger.InfoContext(ctx, "a step of the worker works again", slog.String("step", s.name))
	}
}
