package worker

import (
	"context"
	"time"
)

// maxRevocations bounds the rows of one transaction.
const maxRevocations = 100

// forgetRevocations is the passFunc that deletes expired revocations. It ignores full, because each
// pass considers all rows.
func (w *Worker) forgetRevocations(ctx context.Context, _ bool) (time.Duration, error) {
	for ctx.Err() == nil {
		n, more, err := w.store.ForgetRevocations(ctx, maxRevocations)
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
