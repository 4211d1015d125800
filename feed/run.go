package feed

import (
	"context"
	"errors"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

const (
	// pollInterval is the longest time between two refreshes.
	pollInterval = time.Second
	// firstRetry and lastRetry bound the wait after a refresh that failed. Each failure doubles the
	// wait.
	firstRetry = 10 * time.Millisecond
	lastRetry  = 250 * time.Millisecond
	// secondRead is the timeout of a second read. The feed makes it at once if a read finds
	// Postgres unreachable, because one failed read may be a false alarm: if this process was
	// stopped for longer than the timeout of a read, the read fails although Postgres answers.
	// Readers are answered from memory only if both reads fail.
	secondRead = time.Second
	// loadTimeout bounds one load of the state, which takes seconds for half a million
	// reservations.
	loadTimeout = time.Minute
	// reloadWait is how long readers wait while the state is loaded again. Then they are answered
	// from the old state.
	reloadWait = 2 * time.Second
)

// Run loads the state and follows the change log until ctx ends. Then it returns nil, and
// AwaitRefresh fails with ErrUnavailable. Run must be called exactly once.
func (f *Feed) Run(ctx context.Context) error {
	defer f.stop()
	retry := firstRetry
	for ctx.Err() == nil {
		switch err := f.refreshOnce(ctx); {
		case ctx.Err() != nil:
		case err != nil:
			f.pause(ctx, retry)
			retry = min(2*retry, lastRetry)
		default:
			retry = firstRetry
			f.idle(ctx)
			f.gather(ctx)
		}
	}
	return nil
}

// idle waits until a refresh is due or wanted.
func (f *Feed) idle(ctx context.Context) {
	f.mu.Lock()
	wait := f.freshAt + pollInterval - f.elapsed()
	f.mu.Unlock()
	if now, at := f.now.Load(), f.refreshAt.Load(); at != never && at > now {
		// Postgres read its clock (now) before the feed applied the delta (arrived). The wait
		// counts from arrived, so the refresh begins a little after at. A refresh that began before
		// at would find no change.
		due := time.Duration(at-now) * time.Microsecond
		wait = min(wait, due-(f.elapsed()-f.arrived))
	}
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.wake:
	case <-ctx.Done():
	}
}

// gather waits until notBefore, so that more readers join the next refresh.
func (f *Feed) gather(ctx context.Context) {
	f.mu.Lock()
	wait := f.notBefore - f.elapsed()
	f.mu.Unlock()
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// pause waits after a failure. Wake shortens the wait, but not below firstRetry: other replicas may
// send a thousand hints a second, and each hint calls Wake.
func (f *Feed) pause(ctx context.Context, wait time.Duration) {
	first := time.NewTimer(firstRetry)
	defer first.Stop()
	select {
	case <-first.C:
	case <-ctx.Done():
		return
	}
	rest := time.NewTimer(wait - firstRetry)
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-f.wake:
	case <-ctx.Done():
	}
}

// refreshOnce reads the change log once, calls the subscribers, and releases the readers.
func (f *Feed) refreshOnce(ctx context.Context) error {
	r := f.begin()
	d, err := f.read(ctx, r)
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err == nil {
		f.apply(d)
	}
	took := f.elapsed() - r.began
	f.options.OnRefresh(took, err)
	if err != nil {
		f.fail(err)
		return err
	}
	f.arrived = f.elapsed()
	f.finish(r)
	if d.World != nil {
		f.log.Info("state loaded", "seats", len(d.World.Seats), "reservations", len(d.World.Taken), "took", took)
	}
	if d.World == nil && len(d.Events) == 0 && !d.CatalogChanged {
		return nil
	}
	for _, s := range f.subscribers {
		if s.OnEvents != nil {
			s.OnEvents(d)
		}
	}
	return nil
}

func (f *Feed) apply(d Delta) {
	f.snapshot = d.Snapshot
	f.now.Store(d.Now.UnixMicro())
	for _, s := range f.subscribers {
		if s.Apply != nil {
			s.Apply(d)
		}
	}
}

// read returns the changes since the last refresh. If they may be incomplete, it returns the whole
// state instead.
func (f *Feed) read(ctx context.Context, r *refresh) (Delta, error) {
	if !f.loaded {
		return f.load(ctx)
	}
	changes, err := f.changes(ctx)
	switch {
	case err != nil:
		return Delta{}, err
	case f.mustReload || f.wentBack(changes):
		return f.reload(ctx, r)
	}
	return Delta{Changes: changes}, nil
}

// wentBack reports whether the changes may be older than the state of the subscribers, as after a
// restore of the database.
func (f *Feed) wentBack(c store.Changes) bool {
	return !c.Snapshot.After(f.snapshot) || c.Now.UnixMicro() < f.now.Load()
}

// changes reads the change log. If Postgres is unreachable and the last refresh succeeded, changes
// reads a second time.
func (f *Feed) changes(ctx context.Context) (store.Changes, error) {
	changes, err := f.source.Changes(ctx, f.snapshot)
	if f.mustReload || !errors.Is(err, library.ErrUnavailable) {
		return changes, err
	}
	// After a crash, Postgres may reuse transaction ids that had not reached the disk. The old
	// snapshot counts these ids as seen, so a read would miss their events. So after an outage the
	// state is loaded again.
	f.mustReload = true
	ctx, cancel := context.WithTimeout(ctx, secondRead)
	defer cancel()
	return f.source.Changes(ctx, f.snapshot)
}

// reload loads the state again. Postgres answers, so readers wait for up to reloadWait.
func (f *Feed) reload(ctx context.Context, r *refresh) (Delta, error) {
	f.mu.Lock()
	f.outage = nil
	f.mu.Unlock()
	timeout := time.AfterFunc(reloadWait, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.running == r {
			f.answerFromMemory(errLoading)
		}
	})
	defer timeout.Stop()
	return f.load(ctx)
}

func (f *Feed) load(ctx context.Context) (Delta, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	w, err := f.source.LoadWorld(ctx)
	if err != nil {
		return Delta{}, err
	}
	return Delta{Changes: store.Changes{Snapshot: w.Snapshot, Now: w.Now}, World: &w}, nil
}
