package worker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/dlsms/dlsms/store"
)

const (
	retentionName = "retention"

	// retentionPause is the shortest time between two passes of the step retention. Rows become old
	// slowly, and a pass that finds none costs six queries by an index.
	retentionPause = time.Minute
	// retentionFound is the number of rows of one query.
	retentionFound = 1000
	// retentionBatch is the most rows of one transaction. A transaction of 100 reservations with their
	// events takes about 20 ms.
	retentionBatch = 100
	// retentionShare is the part of the time in which the step works: after each transaction, it
	// waits for as many times as long. So bookings have Postgres nearly for themselves, also in the
	// first pass, which may have to handle years.
	retentionShare = 4
)

// retain is the passFunc that removes people from old rows. It goes through the rows of each part
// once, oldest first. It ignores full, because each pass considers all rows.
func (w *Worker) retain(ctx context.Context, _ bool) (time.Duration, error) {
	before, err := w.store.OldBefore(ctx, w.config.RetentionMonths)
	if err != nil {
		return 0, err
	}
	// The retention cannot be undone, so it does not trust one clock alone.
	if latest := time.Now().AddDate(0, -w.config.RetentionMonths, 1); before.After(latest) {
		return retentionPause, fmt.Errorf("the clock of the database is more than a day ahead of that of this machine: "+
			"nothing loses its user until one of them is set right (rows before %s would)", before.Format(time.DateOnly))
	}
	for _, part := range store.RetentionParts {
		busy, err := w.retainPart(ctx, part, before)
		if err != nil || busy {
			return w.config.Interval, err
		}
	}
	return w.config.Interval, nil
}

// retainPart handles all old rows of a part. busy means that another replica works on the retention.
func (w *Worker) retainPart(ctx context.Context, part store.RetentionPart, before time.Time) (busy bool, err error) {
	var after store.OldRow
	for ctx.Err() == nil {
		rows, err := w.store.FindOld(ctx, part, before, after, retentionFound)
		if err != nil || len(rows) == 0 {
			return false, err
		}
		ids := make([]int64, len(rows))
		for i, r := range rows {
			ids[i] = r.ID
		}
		for len(ids) > 0 {
			n := min(retentionBatch, len(ids))
			if busy, err := w.retainBatch(ctx, part, before, ids[:n]); busy || err != nil {
				return busy, err
			}
			ids = ids[n:]
		}
		if after = rows[len(rows)-1]; len(rows) < retentionFound {
			return false, nil
		}
	}
	return false, ctx.Err()
}

// retainBatch handles rows in one transaction, and then lets other transactions work. If the
// transaction fails, retainBatch tries each half of the rows. It leaves out a single row that fails:
// the next pass tries it again.
func (w *Worker) retainBatch(
	ctx context.Context, part store.RetentionPart, before time.Time, ids []int64,
) (busy bool, err error) {
	began := time.Now()
	n, busy, err := w.store.Retain(ctx, part, before, ids)
	if n > 0 {
		w.config.Done(retentionName, n)
	}
	if waitErr := wait(ctx, retentionShare*time.Since(began)); waitErr != nil {
		return false, waitErr
	}
	switch {
	case err == nil:
		return busy, nil
	case store.Unavailable(err):
		return false, err
	case len(ids) == 1:
		w.config.Metrics.Failed(retentionName)
		w.config.Logger.WarnContext(ctx, "the worker skips an old row, and will try it again",
			slog.String("step", retentionName), slog.String("part", part.Name), slog.Int64("id", ids[0]),
			slog.Any("error", err))
		return false, nil
	}
	for _, half := range [][]int64{ids[:len(ids)/2], ids[len(ids)/2:]} {
		if busy, err := w.retainBatch(ctx, part, before, half); busy || err != nil {
			return busy, err
		}
	}
	return false, nil
}

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
