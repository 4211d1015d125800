package worker

import (
	"context"
	"log/slog"
	"time"

	"github.com/dlsms/dlsms/store"
)

// suspendPause is the shortest time between two passes of the step suspend. Each transition wakes
// the step, and a pass that finds no strike costs one query.
//
// maxUnjudged bounds the strikes of one query.
const (
	suspendPause = time.Second
	maxUnjudged  = 1000
)

// suspendStep decides which users their strikes suspend, one user in a transaction. Its methods are
// called from one goroutine.
type suspendStep struct {
	worker  *Worker
	failing map[int64]*failingSeat // by user
}

const suspendName = "suspend"

// pass is the passFunc of a suspendStep. If the transaction for a user fails, the step skips the
// user for a while, so that one bad row does not delay the others.
func (s *suspendStep) pass(ctx context.Context, _ bool) (next time.Duration, err error) {
	next = s.worker.config.Interval
	for ctx.Err() == nil {
		users, err := s.worker.store.Unjudged(ctx, s.skipped(time.Now()), maxUnjudged)
		if err != nil {
			return 0, err
		}
		busy := 0
		for _, user := range users {
			locked, err := s.judge(ctx, user)
			if err != nil {
				return 0, err
			}
			if locked {
				busy++
			}
		}
		if busy == len(users) { // the next query would find only the same users
			if busy > 0 {
				next = busyPause
			}
			break
		}
	}
	for _, f := range s.failing {
		next = min(next, max(time.Until(f.until), busyPause))
	}
	return next, ctx.Err()
}

// judge decides about one user. busy means that another transaction has locked the user. It returns
// an error only if Postgres is unreachable, or ctx has ended.
func (s *suspendStep) judge(ctx context.Context, user int64) (busy bool, err error) {
	suspended, busy, err := s.worker.store.Judge(ctx, user)
	if err != nil {
		if ctx.Err() != nil || store.Unavailable(err) {
			return false, err
		}
		s.failed(ctx, user, err)
		return false, nil
	}
	if suspended {
		s.worker.config.Done(suspendName, 1)
	}
	if s.failing[user] != nil && !busy {
		delete(s.failing, user)
		s.worker.config.Metrics.Skipped(suspendName, len(s.failing))
	}
	return busy, nil
}

// failed makes the step skip a user for a while, and logs the first failure.
func (s *suspendStep) failed(ctx context.Context, user int64, err error) {
	s.worker.config.Metrics.Failed(suspendName)
	f := s.failing[user]
	if f == nil {
		f = &failingSeat{skip: skipTime / 2}
		s.failing[user] = f
		s.worker.config.Metrics.Skipped(suspendName, len(s.failing))
		s.worker.config.Logger.WarnContext(ctx, "the worker skips a user, and will try it again",
			slog.String("step", suspendName), slog.Int64("user_id", user), slog.Any("error", err))
	}
	f.skip = min(2*f.skip, maxSkipTime)
	f.until = time.Now().Add(f.skip)
}

// skipped returns the users that failed and must not be tried yet.
func (s *suspendStep) skipped(now time.Time) (users []int64) {
	for user, f := range s.failing {
		if f.until.After(now) {
			users = append(users, user)
		}
	}
	return users
}
