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

// maxSeats bounds the seats of one transaction, so that a booking does not wait long for a seat
// that the transaction has locked. maxFound bounds the seats of one query for due rows.
const (
	maxSeats = 100
	maxFound = 5000
)

// fullEvery is the longest time between two full passes of a step. A full pass also looks at the
// rows that earlier passes have seen: see store.DueQuery.SkipBefore.
const fullEvery = time.Minute

// If a transaction for one seat fails, the step skips the seat for skipTime. Each further failure
// doubles the time, up to maxSkipTime.
const (
	skipTime    = time.Second
	maxSkipTime = time.Minute
)

// seatStep makes the transitions of one store.Step, for several seats in a transaction. Its methods
// are called from one goroutine.
type seatStep struct {
	worker *Worker
	step   store.Step

	size     int       // most seats in the next transaction
	after    time.Time // SkipBefore of the next store.DueQuery
	lastFull time.Time // the start of the last full pass
	failing  map[int64]*failingSeat
}

// failingSeat is a seat whose transaction failed although it had no other seat. The cause is
// therefore at this seat. The step suspend uses it for users.
type failingSeat struct {
	until time.Time     // the step skips the seat until then
	skip  time.Duration // the last wait; the next one is twice as long
}

func newSeatStep(w *Worker, s store.Step) *seatStep {
	return &seatStep{worker: w, step: s, size: maxSeats, failing: map[int64]*failingSeat{}}
}

// pass is the passFunc of a seatStep: it makes all transitions that are due.
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
			Without: s.skipped(begin), Most: maxFound, Within: s.worker.config.Interval, SkipBefore: s.after,
		})
		if err != nil {
			return 0, err
		}
		s.worker.config.Metrics.Lag(s.step.Name, found.Late)
		if len(found.Seats) == 0 {
			return s.nextPass(ctx, begin, full, found), nil
		}
		if busy, err := s.runAll(ctx, found.Seats); busy || err != nil {
			return busyPause, err
		}
	}
	return 0, ctx.Err()
}

// nextPass returns the time until the next pass. found is the result of the last query of this
// pass, which found no due seat. begin is the start of this pass, and full tells whether it was a
// full pass.
func (s *seatStep) nextPass(ctx context.Context, begin time.Time, full bool, found store.Due) time.Duration {
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
		s.recovered(ctx, seat) // nothing is due at the seat any more
	}
	if len(s.failing) == 0 { // otherwise the next query must find the skipped seats
		s.after = found.Upto
	}
	return next
}

// skipped returns the seats that failed and must not be tried yet.
func (s *seatStep) skipped(now time.Time) (seats []int64) {
	for seat, f := range s.failing {
		if f.until.After(now) {
			seats = append(seats, seat)
		}
	}
	return seats
}

// runAll makes the transitions that are due at these seats. busy is true if it left out a seat
// because another transaction has the seat locked.
func (s *seatStep) runAll(ctx context.Context, seats []int64) (busy bool, err error) {
	var suspects []int64 // failed before: these run last, each alone
	seats = slices.DeleteFunc(seats, func(seat int64) bool {
		if s.failing[seat] != nil {
			suspects = append(suspects, seat)
			return true
		}
		return false
	})
	for len(seats) > 0 && err == nil {
		group := seats[:min(s.size, len(seats))]
		seats = seats[len(group):]
		var locked bool
		locked, err = s.runOnce(ctx, group)
		busy = busy || locked
		if err == nil {
			s.size = min(2*s.size, maxSeats)
		}
	}
	for i := 0; i < len(suspects) && err == nil; i++ {
		var locked bool
		locked, err = s.runOnce(ctx, suspects[i:i+1])
		busy = busy || locked
	}
	return busy, err
}

// runOnce makes the transitions that are due at these seats, in one transaction. If the transaction
// fails, runOnce splits it into smaller transactions, down to one seat each. If the transaction of
// one seat fails, the step skips this seat for a while. runOnce returns an error only if Postgres
// is unreachable, or ctx has ended. For busy, see runAll.
func (s *seatStep) runOnce(ctx context.Context, seats []int64) (busy bool, err error) {
	n, busy, err := s.worker.store.Run(ctx, s.step, seats)
	if err == nil {
		if n > 0 {
			s.worker.transitioned(s.step.Name, n)
		}
		if len(seats) == 1 && !busy && s.failing[seats[0]] != nil {
			s.recovered(ctx, seats[0])
		}
		return busy, nil
	}
	slow := errors.Is(err, library.ErrOverloaded) || errors.Is(err, context.DeadlineExceeded)
	switch {
	case ctx.Err() != nil, store.Unavailable(err) && !slow: // canary: isolation
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
	if slow { // the next transaction must be shorter
		part = (len(seats) + 9) / 10
		s.size = max(1, min(s.size, part))
	}
	for some := range slices.Chunk(seats, part) {
		locked, err := s.runOnce(ctx, some)
		if err != nil {
			return false, err
		}
		busy = busy || locked
	}
	return busy, nil
}

// failed makes the step skip a seat for a while, and logs the first failure.
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

// recovered ends the skipping of a seat.
func (s *seatStep) recovered(ctx context.Context, seat int64) {
	delete(s.failing, seat)
	s.worker.config.Metrics.Skipped(s.step.Name, len(s.failing))
	s.worker.config.Logger.InfoContext(ctx, "the worker skips a seat no more",
		slog.String("step", s.step.Name), slog.Int64("seat_id", seat))
}
