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

// maxSettleTries bounds the transactions for a single seat of an outage that fail. After that, the
// step skips the seat, because no no-show is marked until the outage is settled.
const maxSettleTries = 3

// outageStep is the name of the step that writes the heartbeat.
const outageStep = "outage"

// heartbeat is the passFunc that writes the heartbeat, and settles an outage that it ends.
func (w *Worker) heartbeat(ctx context.Context, _ bool) (time.Duration, error) {
	if err := w.settleOutages(ctx); err != nil {
		return 0, err
	}
	return store.HeartbeatInterval, nil
}

// afterOutages returns a passFunc that settles outages before each pass. The store refuses the
// transitions of the pass while an outage is open, so this only avoids useless tries.
func (w *Worker) afterOutages(pass passFunc) passFunc {
	return func(ctx context.Context, full bool) (time.Duration, error) {
		if err := w.settleOutages(ctx); err != nil {
			return 0, err
		}
		return pass(ctx, full)
	}
}

// settleOutages writes the heartbeat if it is due, and moves the check-in deadlines that fell into
// an outage.
func (w *Worker) settleOutages(ctx context.Context) error {
	w.settling.Lock()
	defer w.settling.Unlock()
	open, err := w.store.Beat(ctx)
	for open && err == nil {
		var o *store.Outage
		if o, err = w.store.NextOutage(ctx); err != nil || o == nil {
			return err
		}
		w.config.Logger.WarnContext(ctx, "no worker saw the database for a while: check-in deadlines are moved",
			slog.Time("from", o.StartTime), slog.Time("until", o.EndTime), slog.Int("seats", len(o.Seats)))
		err = w.settle(ctx, o)
	}
	return err
}

func (w *Worker) settle(ctx context.Context, o *store.Outage) error {
	for seats := range slices.Chunk(o.Seats, maxSeats) {
		if err := w.moveDeadlines(ctx, o, seats); err != nil {
			return err
		}
	}
	clear(w.settleTries)
	return w.store.FinishOutage(ctx, o)
}

// moveDeadlines moves the deadlines at seats, in one transaction. If it fails, moveDeadlines splits
// it into smaller ones, down to one seat each. It skips a seat that has failed maxSettleTries
// times. It returns an error if the outage must be tried again later.
func (w *Worker) moveDeadlines(ctx context.Context, o *store.Outage, seats []int64) error {
	n, err := w.store.MoveDeadlines(ctx, o, seats)
	if err == nil {
		if n > 0 {
			w.transitioned(outageStep, n)
		}
		return nil
	}
	slow := errors.Is(err, library.ErrOverloaded) || errors.Is(err, context.DeadlineExceeded)
	if ctx.Err() != nil || store.Unavailable(err) && !slow {
		return err
	}
	if len(seats) > 1 {
		for half := range slices.Chunk(seats, (len(seats)+1)/2) {
			if err := w.moveDeadlines(ctx, o, half); err != nil {
				return err
			}
		}
		return nil
	}
	if w.settleTries[seats[0]]++; w.settleTries[seats[0]] < maxSettleTries {
		return err
	}
	w.config.Logger.WarnContext(ctx, "the check-in deadlines at a seat cannot be moved",
		slog.Int64("seat_id", seats[0]), slog.Any("error", err))
	return w.store.SkipSeat(ctx, o, seats[0])
}
