package worker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// maxBatch is how many seats one transaction serves: few enough that a booking never waits long for a seat that the batch has locked.
// maxFound is how many one look finds.
const (
	maxBatch = 100
	maxFound = 5000
)

// fullEvery is how often a step looks at everything, whatever it has seen before.
const fullEvery = time.Minute

// A seat that fails by itself is left out for skipTime, then for twice that, and so on up to maxSkipTime.
const (
	skipTime    = time.Second
	maxSkipTime = time.Minute
)

// seatStep is a step that makes transitions at seats. Its methods are called from one goroutine.
type seatStep struct {
	worker *Worker
	step   store.Step

	size     int       // of a batch
	after    time.Time // see store.DueQuery
	lastFull time.Time
	failing  map[int64]*failingSeat
}

// failingSeat is a seat that failed by itself.
type failingSeat struct {
	until time.Time // left out
	skip  time.Duration
}

func newSeatStep(w *Worker, s store.Step) *seatStep {
	return &seatStep{worker: w, step: s, size: maxBatch, failing: map[int64]*failingSeat{}}
}

// pass does everything that is due.
func (s *seatStep) pass(ctx context.Context, full bool) (next time.Duration, err error) {
	begin := time.Now()
	full = full || begin.Sub(s.lastFull) >= fullEvery
	for _, f := range s.failing {
		full = full || !f.until.After(begin)
	}
	if full {
		s.after = time.Time{}
	}
	for ctx.Err() == nil {
		found, err := s.worker.store.FindDue(ctx, s.step, store.DueQuery{
			Without: s.leftOut(begin), Most: maxFound, Within: s.worker.config.Interval, After: s.after,
		})
		if err != nil {
			return 0, err
		}
		s.worker.config.Metrics.Lag(s.step.Name, found.Late)
		if len(found.Seats) == 0 {
			return s.rest(ctx, begin, full, found), nil
		}
		if busy, err := s.runAll(ctx, found.Seats); busy || err != nil {
			return busyPause, err
		}
	}
	return 0, ctx.Err()
}

// rest returns when to look again, after a look that found nothing.
func (s *seatStep) rest(ctx context.Context, begin time.Time, full bool, found store.Due) time.Duration {
	next := s.worker.config.Interval
	if found.Next > 0 {
		next = min(next, found.Next)
	}
	if full {
		s.lastFull = begin
	}
	for seat, f := range s.failing {
		if f.until.After(begin) {
			next = min(next, time.Until(f.until))
			continue
		}
		s.recovered(ctx, seat) // nothing is due there any more
	}
	if len(s.failing) == 0 { // what was left out must be found by the next look
		s.after = found.Upto
	}
	return next
}

// leftOut are the seats that failed and are not to be tried yet.
func (s *seatStep) leftOut(now time.Time) (seats []int64) {
	for seat, f := range s.failing {
		if f.until.After(now) {
			seats = append(seats, seat)
		}
	}
	return seats
}

// runAll makes what is due at seats, and reports whether others have some of them locked.
func (s *seatStep) runAll(ctx context.Context, seats []int64) (busy bool, err error) {
	var suspects []int64 // failed before: each by itself, and last
	seats = slices.DeleteFunc(seats, func(seat int64) bool {
		if s.failing[seat] != nil {
			suspects = append(suspects, seat)
			return true
		}
		return false
	})
	for len(seats) > 0 && err == nil {
		batch := seats[:min(s.size, len(seats))]
		seats = seats[len(batch):]
		var locked bool
		locked, err = s.runBatch(ctx, batch)
		busy = busy || locked
		if err == nil {
			s.size = min(2*s.size, maxBatch)
		}
	}
	for i := 0; i < len(suspects) && err == nil; i++ {
		var locked bool
		locked, err = s.runBatch(ctx, suspects[i:i+1])
		busy = busy || locked
	}
	return busy, err
}

// runBatch makes what is due at seats in one transaction. If it fails, its parts are tried, down to single seats, and those that fail are
// left out for a while. err says that Postgres can't be reached.
func (s *seatStep) runBatch(ctx context.Context, seats []int64) (busy bool, err error) {
	n, busy, err := s.worker.store.Run(ctx, s.step, seats)
	if err == nil {
		if n > 0 {
			s.worker.moved(s.step.Name, n)
		}
		if len(seats) == 1 && !busy && s.failing[seats[0]] != nil {
			s.recovered(ctx, seats[0])
		}
		return busy, nil
	}
	slow := errors.Is(err, library.ErrOverloaded) || errors.Is(err, context.DeadlineExceeded)
	switch {
	case ctx.Err() != nil, store.Unavailable(err) && !slow:
		return false, err
	case len(seats) == 1:
		s.failed(ctx, seats[0], err)
		if store.Unavailable(err) {
			return false, err
		}
		return false, nil
	}
	s.worker.config.Metrics.Failed(s.step.Name)
	part := (len(seats) + 1) / 2
	if slow { // the next one must not take as long
		part = (len(seats) + 9) / 10
		s.size = max(1, min(s.size, part))
	}
	for some := range slices.Chunk(seats, part) {
		locked, err := s.runBatch(ctx, some)
		if err != nil {
			return false, err
		}
		busy = busy || locked
	}
	return busy, nil
}

// failed has a seat left out for a while, and reports it once.
func (s *seatStep) failed(ctx context.Context, seat int64, err error) {
	s.worker.config.Metrics.Failed(s.step.Name)
	f := s.failing[seat]
	if f == nil {
		f = &failingSeat{skip: skipTime / 2}
		s.failing[seat] = f
		s.worker.config.Metrics.Skipped(s.step.Name, len(s.failing))
		s.worker.config.Logger.WarnContext(ctx, "the worker skips a seat, and will try it again",
			slog.String("step", s.step.Name), slog.Int64("seat_id", seat), slog.Any("error", err))
	}
	f.skip = min(2*f.skip, maxSkipTime)
	f.until = time.Now().Add(f.skip)
}

// recovered ends what failed began.
func (s *seatStep) recovered(ctx context.Context, seat int64) {
	delete(s.failing, seat)
	s.worker.config.Metrics.Skipped(s.step.Name, len(s.failing))
	s.worker.config.Logger.InfoContext(ctx, "the worker skips a seat no more", slog.String("step", s.step.Name), slog.Int64("seat_id", seat))
}
