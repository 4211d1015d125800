package worker

import (
	"context"
	"errors"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// UsageName is the name of the step that writes the sums of reports: see store.CountUsage.
const UsageName = "usage"

// usageStep writes the sums of the hours that have ended. Its methods are called from one goroutine.
type usageStep struct {
	worker *Worker
	hours  int // most hours in the next transaction
}

// pass is the passFunc of a usageStep. It ignores full, because each pass considers all hours. After
// an update from a release without sums, the first pass counts the past, a day in each transaction.
// It pauses after each transaction for as long as the transaction took, so that it takes at most half
// of a CPU of Postgres.
func (u *usageStep) pass(ctx context.Context, _ bool) (time.Duration, error) {
	for ctx.Err() == nil {
		begin := time.Now()
		done, err := u.worker.store.CountUsage(ctx, u.hours)
		slow := errors.Is(err, library.ErrOverloaded) || errors.Is(err, context.DeadlineExceeded)
		switch {
		case err != nil && slow && u.hours > 1:
			u.hours = (u.hours + 3) / 4
			continue
		case err != nil:
			return 0, err
		}
		if !done.More {
			u.hours = store.MaxUsageHours
			return min(done.Next, maxUsagePause), nil
		}
		pause := time.NewTimer(time.Since(begin))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
	return 0, ctx.Err()
}

// maxUsagePause bounds the time until the next pass, in case the clock of Postgres is set.
const maxUsagePause = time.Minute
