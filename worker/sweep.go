package worker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// SweepName is the name of the step that runs sweeps: see store.SweepNext.
const SweepName = "sweep"

// sweptSeats is the most seats of one transaction of a sweep. Bookings of these seats wait for the
// transaction, which takes about 1 ms for each reservation that it ends.
const sweptSeats = 50

// otherSweep is the pause after which a worker looks again whether another worker has left its
// sweep, because its replica has stopped.
const otherSweep = time.Second

// sweeper runs sweeps, one transaction after another. Its methods are called from one goroutine.
type sweeper struct {
	worker  *Worker
	size    int                    // most seats in the next transaction
	seats   map[int64]bool         // seats that were skipped
	waiting map[int64]*failingSeat // by sweep: its skipped seats are tried again later
}

func newSweeper(w *Worker) *sweeper {
	return &sweeper{worker: w, size: sweptSeats, seats: map[int64]bool{}, waiting: map[int64]*failingSeat{}}
}

// pass is the passFunc of a sweeper: it runs all open sweeps. It ignores full, because each pass
// considers all of them.
func (s *sweeper) pass(ctx context.Context, _ bool) (time.Duration, error) {
	for ctx.Err() == nil {
		without, next := s.notYet()
		done, err := s.worker.store.SweepNext(ctx, s.size, without)
		switch {
		case err != nil:
			if err := s.failed(ctx, done, err); err != nil {
				return 0, err
			}
		case done.Busy:
			return min(next, otherSweep), nil
		case done.SweepID == 0:
			if len(without) == 0 { // another worker may have swept the skipped seats
				clear(s.waiting)
				for seat := range s.seats {
					s.recovered(ctx, seat)
				}
			}
			return next, nil
		default:
			s.succeeded(ctx, done)
		}
	}
	return 0, ctx.Err()
}

// notYet returns the sweeps whose skipped seats must not be tried yet, and the time until the next
// pass.
func (s *sweeper) notYet() (without []int64, next time.Duration) {
	next = s.worker.config.Interval
	for id, f := range s.waiting {
		if wait := time.Until(f.until); wait > 0 {
			without, next = append(without, id), min(next, wait)
		}
	}
	return without, next
}

func (s *sweeper) succeeded(ctx context.Context, done store.Swept) {
	s.size = min(2*s.size, sweptSeats)
	if done.Again {
		delete(s.waiting, done.SweepID)
		for _, seat := range done.Seats {
			s.recovered(ctx, seat)
		}
	}
	if done.Ended > 0 {
		s.worker.transitioned(SweepName, done.Ended)
	}
}

// failed handles a transaction that failed. The next transaction is smaller. If a transaction with
// one seat fails, the sweep skips the seat. failed returns an error if Postgres is unreachable, or if
// no seat is the cause.
func (s *sweeper) failed(ctx context.Context, done store.Swept, err error) error {
	slow := errors.Is(err, library.ErrOverloaded) || errors.Is(err, context.DeadlineExceeded)
	switch n := len(done.Seats); {
	case ctx.Err() != nil, n == 0, store.Unavailable(err) && !slow:
		return err
	case n > 1:
		s.worker.config.Metrics.Failed(SweepName)
		s.size = (n + 1) / 2
		if slow {
			s.size = (n + 9) / 10
		}
		return nil
	}
	s.worker.config.Metrics.Failed(SweepName)
	seat := done.Seats[0]
	if !s.seats[seat] {
		s.seats[seat] = true
		s.worker.config.Metrics.Skipped(SweepName, len(s.seats))
		s.worker.config.Logger.WarnContext(ctx, "the worker skips a seat, and will try it again",
			slog.String("step", SweepName), slog.Int64("seat_id", seat), slog.Any("error", err))
	}
	if done.Again {
		f := s.waiting[done.SweepID]
		if f == nil {
			f = &failingSeat{skip: skipTime / 2}
			s.waiting[done.SweepID] = f
		}
		f.skip = min(2*f.skip, maxSkipTime)
		f.until = time.Now().Add(f.skip)
	}
	return s.worker.store.SkipSweepSeat(ctx, done.SweepID, seat)
}

// recovered ends the report about a seat that was skipped.
func (s *sweeper) recovered(ctx context.Context, seat int64) {
	if !s.seats[seat] {
		return
	}
	delete(s.seats, seat)
	s.worker.config.Metrics.Skipped(SweepName, len(s.seats))
	s.worker.config.Logger.InfoContext(ctx, "the worker skips a seat no more",
		slog.String("step", SweepName), slog.Int64("seat_id", seat))
}
