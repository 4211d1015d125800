package feed

import (
	"context"
	"errors"
	"time"

	"github.com/dlsms/dlsms/library"
)

// refresh is one read of the change log, and the readers that share it.
type refresh struct {
	done  chan struct{}
	began time.Duration
	// readers counts the readers that wait, or waited, for it. The feed's lock guards it.
	readers int
	// ok says that the subscribers have applied its delta. It is set before done is closed.
	ok bool
}

func newRefresh() *refresh { return &refresh{done: make(chan struct{})} }

// release ends the wait for r, once. The feed's lock is held.
func (r *refresh) release(ok bool) {
	if r == nil {
		return
	}
	select {
	case <-r.done:
	default:
		r.ok = ok
		close(r.done)
	}
}

// Refresh waits until the subscribers have applied a refresh that began after the call, or at most Options.Freshness before it.
// While Postgres is unreachable it returns nil at once, until the state is older than Options.MaxStaleness. It fails with
// ErrUnavailable if the state is too old, not loaded yet, or the feed stopped, and with the error of ctx.
func (f *Feed) Refresh(ctx context.Context) error {
	f.mu.Lock()
	r, err := f.join()
	f.mu.Unlock()
	if r == nil {
		return err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.ok {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.usable()
}

// join returns the refresh that a reader must wait for. If the reader need not wait, or waiting is of no use, it returns nil and the
// result of Refresh. The lock is held.
func (f *Feed) join() (*refresh, error) {
	if !f.loaded || f.outage != nil || f.stopped {
		return nil, f.usable()
	}
	if f.options.Freshness > 0 {
		oldest := f.elapsed() - f.options.Freshness
		if f.freshAt >= oldest {
			return nil, nil
		}
		if f.running != nil && f.running.began >= oldest {
			return f.running, nil
		}
	}
	if f.next == nil {
		f.next = newRefresh()
		f.Wake()
	}
	f.next.readers++
	return f.next, nil
}

// usable returns why the state must not be used, nil if it may. The lock is held.
func (f *Feed) usable() error {
	switch {
	case f.stopped:
		return library.ErrUnavailable.WithCause(errStopped)
	case !f.loaded:
		return library.ErrUnavailable.WithCause(errNotLoaded)
	case f.elapsed()-f.freshAt > f.options.MaxStaleness:
		return library.ErrUnavailable.WithCause(f.outage)
	}
	return nil
}

var (
	errNotLoaded = errors.New("feed: the state is not loaded yet")
	errStopped   = errors.New("feed: stopped")
	errLoading   = errors.New("feed: the state is being loaded anew, which takes long")
)

// A refresh costs the same for one reader as for fifty. So when a crowd of readers shared a refresh, the next one begins later, and
// more readers share it. One or two readers wait for nothing.
const (
	crowd        = 3 // readers of one refresh
	gapPerReader = time.Millisecond
	longestGap   = 2 * time.Millisecond
)

// begin starts the refresh that readers wait for, or one without readers.
func (f *Feed) begin() *refresh {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.next
	if r == nil {
		r = newRefresh()
	}
	r.began = f.elapsed()
	f.running, f.next = r, nil
	return r
}

// finish lets the readers of r go on, now that the subscribers have applied its delta.
func (f *Feed) finish(r *refresh) {
	f.mu.Lock()
	if !f.loaded {
		f.loaded = true
		close(f.ready)
	}
	f.freshAt, f.running, f.outage = r.began, nil, nil
	if r.readers >= crowd {
		f.notBefore = r.began + min(time.Duration(r.readers)*gapPerReader, longestGap)
	}
	r.release(true)
	f.mu.Unlock()
	f.distrust = false
	if f.reported {
		f.reported = false
		f.log.Info("Postgres answers again")
	}
}

// fail has readers answered from memory, at once, until a refresh succeeds.
func (f *Feed) fail(err error) {
	f.distrust = f.distrust || errors.Is(err, library.ErrUnavailable)
	f.mu.Lock()
	f.answerFromMemory(err)
	tooOld := f.usable()
	f.mu.Unlock()
	if !f.reported {
		f.reported = true
		f.log.Warn("can't follow the change log: answering from memory for now", "error", err, "for", f.options.MaxStaleness)
	}
	if tooOld != nil {
		f.expire(tooOld)
	}
}

// answerFromMemory releases all readers that wait. The lock is held.
func (f *Feed) answerFromMemory(cause error) {
	f.outage = cause
	f.running.release(false)
	f.next.release(false)
	f.running, f.next = nil, nil
}

// stop releases all readers and refuses new ones.
func (f *Feed) stop() {
	f.mu.Lock()
	f.stopped = true
	f.answerFromMemory(errStopped)
	f.mu.Unlock()
	f.expire(library.ErrUnavailable.WithCause(errStopped))
}

func (f *Feed) expire(cause error) {
	for _, s := range f.subscribers {
		if s.Expire != nil {
			s.Expire(cause)
		}
	}
}
