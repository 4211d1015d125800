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
	// readers counts the readers that joined. The feed's lock guards it.
	readers int
	// ok says that the subscribers have applied the delta. It is set before done is closed.
	ok bool
}

func newRefresh() *refresh { return &refresh{done: make(chan struct{})} }

// release ends the wait of the readers of r. ok tells them whether the refresh succeeded. A second
// call has no effect. The caller holds the feed's lock.
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

// AwaitRefresh waits until the subscribers have applied a refresh that began after the call, or at
// most Options.Freshness before the call. It then returns true. While Postgres does not answer,
// AwaitRefresh returns false without waiting, until the state is older than Options.MaxStaleness.
//
// It fails with ErrUnavailable if the state is too old, if the state is not loaded yet, or if the
// feed has stopped. If ctx ends first, it returns the error of ctx.
func (f *Feed) AwaitRefresh(ctx context.Context) (fresh bool, err error) {
	f.mu.Lock()
	r := f.join()
	f.mu.Unlock()
	select {
	case <-r.done:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if r.ok {
		return true, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return false, f.usable()
}

// join returns the refresh that a reader must wait for. If the state is fresh enough, or no refresh
// will succeed soon, that is one which has ended. The caller holds the feed's lock.
func (f *Feed) join() *refresh {
	if !f.loaded || f.outage != nil || f.stopped {
		return failed
	}
	if f.options.Freshness > 0 { // canary: stale-cache
		oldest := f.elapsed() - f.options.Freshness
		if f.freshAt >= oldest {
			return succeeded
		}
		if f.running != nil && f.running.began >= oldest {
			return f.running
		}
	}
	if f.next == nil {
		f.next = newRefresh()
		f.Wake()
	}
	f.next.readers++
	return f.next
}

// Refreshes that have ended.
var succeeded, failed = ended(true), ended(false)

func ended(ok bool) *refresh {
	r := &refresh{done: make(chan struct{}), ok: ok}
	close(r.done)
	return r
}

// usable returns nil if readers may use the state that is in memory, and ErrUnavailable with the
// reason otherwise. The caller holds the feed's lock.
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
	errLoading   = errors.New("feed: loading the state again takes long")
)

// A refresh costs the same for one reader and for fifty readers. If crowd or more readers shared a
// refresh, the feed delays the next refresh, so that more readers share that one, too: gap is the
// shortest time between the starts of the two refreshes. With fewer readers there is no delay.
const (
	crowd = 3
	gap   = 3 * time.Millisecond
)

// begin starts the next refresh, with or without readers.
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

// finish ends r after the subscribers have applied its delta, and releases its readers.
func (f *Feed) finish(r *refresh) {
	f.mu.Lock()
	if !f.loaded {
		f.loaded = true
		close(f.ready)
	}
	f.freshAt, f.running, f.outage = r.began, nil, nil
	if r.readers >= crowd {
		f.notBefore = r.began + gap
	}
	r.release(true)
	f.mu.Unlock()
	f.mustReload = false
	if f.reported {
		f.reported = false
		f.log.Info("Postgres answers again")
	}
}

// fail makes the feed answer readers from memory until a refresh succeeds.
func (f *Feed) fail(err error) {
	f.mustReload = f.mustReload || errors.Is(err, library.ErrUnavailable)
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

// answerFromMemory releases all readers that wait. Until a refresh succeeds, later readers do not
// wait at all: AwaitRefresh returns at once. The caller holds the feed's lock.
func (f *Feed) answerFromMemory(cause error) {
	f.outage = cause
	f.running.release(false)
	f.next.release(false)
	f.running, f.next = nil, nil
}

// stop releases all readers. Later calls of AwaitRefresh fail.
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
