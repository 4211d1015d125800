package availability

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dlsms/dlsms/store"
)

const (
	// pollInterval is how often the log is looked at when nobody asks and no hint comes.
	pollInterval = time.Second
	// firstRetry and lastRetry are the waits after a look that failed, doubled from one to the next.
	firstRetry = 10 * time.Millisecond
	lastRetry  = 250 * time.Millisecond
	// secondLook bounds the look that follows at once on the first that failed. Only when it fails as well, readers are answered from memory:
	// the first may have failed because this process stood still for longer than a look may take, and its connection alone is broken.
	secondLook = time.Second
	// loadTimeout bounds one try to load the world, which takes seconds for half a million reservations.
	loadTimeout = time.Minute
	// loadPatience is how long readers wait for a world that is loaded anew before they are answered from the old one.
	loadPatience = 2 * time.Second
)

// flight is one look at the log, and who waits for it.
type flight struct {
	done  chan struct{}
	began time.Duration
	// readers is how many wait, or waited, for it. The model's lock guards it.
	readers int
	// world is what it brought; nil if it failed. Set before done is closed.
	world *world
}

func newFlight() *flight { return &flight{done: make(chan struct{})} }

// land ends the wait for f, once. The model's lock is held.
func (f *flight) land(w *world) {
	if f == nil {
		return
	}
	select {
	case <-f.done:
	default:
		f.world = w
		close(f.done)
	}
}

// current returns a world that is as fresh as readers may expect who ask now.
func (m *Model) current(ctx context.Context) (*world, error) {
	m.mu.Lock()
	f, w, err := m.joinOrAnswer()
	m.mu.Unlock()
	if f == nil {
		return w, err
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f.world != nil {
		return f.world, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lastKnown()
}

// joinOrAnswer returns the flight to wait for or, if there is no need or no sense in waiting, the answer.
func (m *Model) joinOrAnswer() (*flight, *world, error) {
	if m.world == nil || m.down != nil || m.stopped {
		w, err := m.lastKnown()
		return nil, w, err
	}
	if m.options.Freshness > 0 {
		oldest := m.elapsed() - m.options.Freshness
		if m.freshAt >= oldest {
			return nil, m.world, nil
		}
		if m.inFlight != nil && m.inFlight.began >= oldest {
			return m.inFlight, nil, nil
		}
	}
	if m.next == nil {
		m.next = newFlight()
		m.Wake()
	}
	m.next.readers++
	return m.next, nil, nil
}

// lastKnown returns what is known, unless it is too old.
func (m *Model) lastKnown() (*world, error) {
	switch {
	case m.stopped:
		return nil, store.ErrUnavailable.Because(errStopped)
	case m.world == nil:
		return nil, store.ErrUnavailable.Because(errNotLoaded)
	case m.elapsed()-m.freshAt > m.options.MaxStaleness:
		return nil, store.ErrUnavailable.Because(m.down)
	}
	return m.world, nil
}

var (
	errNotLoaded = errors.New("availability: the world is not loaded yet")
	errStopped   = errors.New("availability: stopped")
	errLoading   = errors.New("availability: loading the world anew takes long")
)

// Run loads the world and follows the log until ctx ends; then it returns nil, and readers and watchers get ErrUnavailable. It must be
// called once.
func (m *Model) Run(ctx context.Context) error {
	defer m.stop()
	var publishing sync.WaitGroup
	defer publishing.Wait()
	publishing.Go(func() { m.hub.run(ctx) })
	retry := firstRetry
	for ctx.Err() == nil {
		switch err := m.step(ctx); {
		case ctx.Err() != nil:
		case err != nil:
			m.pause(ctx, retry)
			retry = min(2*retry, lastRetry)
		default:
			retry = firstRetry
			m.idle(ctx)
			m.gather(ctx)
		}
	}
	return nil
}

// idle waits until there is a reason to look at the log.
func (m *Model) idle(ctx context.Context) {
	m.mu.Lock()
	wait := m.freshAt + pollInterval - m.elapsed()
	w := m.world
	m.mu.Unlock()
	if due, ok := m.hub.nextChange(w); ok {
		// Counted from when the answer was here, so that it is rather a little late than too early and for nothing.
		wait = min(wait, due-(m.elapsed()-m.arrived))
	}
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.kick:
	case <-ctx.Done():
	}
}

// A look at the log costs the same for one reader as for fifty. So when readers come in numbers, looks are spaced: the more of them shared the
// last one, the later is the next, which serves as many more. One or two readers wait for nothing.
const (
	crowd        = 3 // readers of one look
	gapPerReader = time.Millisecond
	longestGap   = 2 * time.Millisecond
)

// gather waits until the time for the next look has come, if a crowd shared the last one.
func (m *Model) gather(ctx context.Context) {
	m.mu.Lock()
	wait := m.crowdUntil - m.elapsed()
	m.mu.Unlock()
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

// pause waits after a failure. A hint cuts it short, but not below the first wait: hints may come by the thousand.
func (m *Model) pause(ctx context.Context, wait time.Duration) {
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
	case <-m.kick:
	case <-ctx.Done():
	}
}

// found is what a look at the log brought.
type found struct {
	world  *world
	events []store.Event
	anew   bool // the world was loaded, and there may have been events that nobody saw
}

// step looks at the log once, and passes on what it found: to the readers, which wait for it, and to the publisher.
func (m *Model) step(ctx context.Context) error {
	f := m.takeOff()
	found, err := m.look(ctx, f)
	if err != nil && ctx.Err() != nil {
		return err
	}
	m.options.OnRefresh(m.elapsed()-f.began, err)
	if err != nil {
		m.failed(err)
		return err
	}
	m.arrived = m.elapsed()
	m.landed(f, found)
	m.hub.offer(found.world)
	if m.options.OnEvents != nil && (found.anew || len(found.events) > 0) {
		m.options.OnEvents(found.events, found.world.asOf)
	}
	return nil
}

// look reads what happened since the last time, or the whole world when what is known is not to be built upon.
func (m *Model) look(ctx context.Context, f *flight) (found, error) {
	if m.ledger.world == nil {
		return m.load(ctx)
	}
	changes, err := m.changes(ctx)
	switch {
	case err != nil:
		return found{}, err
	case m.lost || m.ledger.wentBack(changes):
		return m.loadAnew(ctx, f)
	}
	return found{world: m.ledger.apply(changes), events: changes.Events}, nil
}

// changes asks what is new, and a second time when there is no answer though there was one the last time.
func (m *Model) changes(ctx context.Context) (store.Changes, error) {
	changes, err := m.source.Changes(ctx, m.ledger.snapshot)
	if m.lost || !errors.Is(err, store.ErrUnavailable) {
		return changes, err
	}
	m.lost = true
	ctx, cancel := context.WithTimeout(ctx, secondLook)
	defer cancel()
	return m.source.Changes(ctx, m.ledger.snapshot)
}

// loadAnew loads the world while there is an old one. Postgres answers, so readers wait for it, within reason.
func (m *Model) loadAnew(ctx context.Context, f *flight) (found, error) {
	m.mu.Lock()
	m.down = nil
	m.mu.Unlock()
	impatient := time.AfterFunc(loadPatience, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.inFlight == f {
			m.answerFromMemory(errLoading)
		}
	})
	defer impatient.Stop()
	return m.load(ctx)
}

func (m *Model) load(ctx context.Context) (found, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	began := m.elapsed()
	read, err := m.source.LoadWorld(ctx)
	if err != nil {
		return found{}, err
	}
	taken := len(read.Taken)
	w := m.ledger.load(read)
	m.log.Info("world loaded", "seats", len(w.seats), "reservations", taken, "took", m.elapsed()-began)
	return found{world: w, anew: true}, nil
}

// takeOff begins the flight that readers wait for.
func (m *Model) takeOff() *flight {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.next
	if f == nil {
		f = newFlight()
	}
	f.began = m.elapsed()
	m.inFlight, m.next = f, nil
	return f
}

// landed hands the world to all who wait for it.
func (m *Model) landed(f *flight, found found) {
	m.mu.Lock()
	if m.world == nil {
		close(m.ready)
	}
	m.world, m.freshAt, m.inFlight, m.down = found.world, f.began, nil, nil
	if f.readers >= crowd {
		m.crowdUntil = f.began + min(time.Duration(f.readers)*gapPerReader, longestGap)
	}
	f.land(found.world)
	m.mu.Unlock()
	m.lost = false
	if m.reported {
		m.reported = false
		m.log.Info("Postgres answers again")
	}
}

// failed lets readers be answered from memory from now on, at once, until a look succeeds.
func (m *Model) failed(err error) {
	// After a crash, Postgres may use transaction ids again of which nothing had reached the disk: to the snapshot they look seen. So when
	// it was out of reach, nothing that is known is built upon.
	m.lost = m.lost || errors.Is(err, store.ErrUnavailable)
	m.mu.Lock()
	m.answerFromMemory(err)
	_, tooOld := m.lastKnown()
	m.mu.Unlock()
	if !m.reported {
		m.reported = true
		m.log.Warn("can't follow the log: answering from memory for now", "error", err, "for", m.options.MaxStaleness)
	}
	if tooOld != nil {
		m.hub.endAll(tooOld)
	}
}

// answerFromMemory sends off all who wait. The lock is held.
func (m *Model) answerFromMemory(why error) {
	m.down = why
	m.inFlight.land(nil)
	m.next.land(nil)
	m.inFlight, m.next = nil, nil
}

func (m *Model) stop() {
	m.mu.Lock()
	m.stopped = true
	m.answerFromMemory(errStopped)
	m.mu.Unlock()
	m.hub.stop(store.ErrUnavailable.Because(errStopped))
}
