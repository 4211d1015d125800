package availability

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlsms/dlsms/library"
)

// watchBuffer is how many updates a watch may miss. A watch that has missed more gets a snapshot
// instead.
const watchBuffer = 64

// Update is one message of a watch.
type Update struct {
	// Snapshot says that Seats are all matching seats, in id order, and replace all seats of
	// earlier updates. Otherwise each of Seats replaces the earlier state of that seat. A seat that
	// was deleted or no longer matches comes once, as not available.
	Snapshot bool
	// Seats are shared with other watches and read-only.
	Seats []SeatView
	// Removed are the ids of the seats in Seats that were deleted or no longer match.
	Removed []int64
	// AsOf is the time of the update, by Postgres's clock.
	AsOf time.Time

	memo *memo
}

// Memo returns the result of compute, which encodes the update. compute runs once for each
// encoding, for all watches that get the same seats. For a snapshot, its result must not depend on
// AsOf, which differs between the watches. All callers pass the same function for an encoding.
func (u Update) Memo(e Encoding, compute func() any) any { return u.memo.get(e, compute) }

// Watch is a stream of the changes of the answer to one query. Next must be called from one
// goroutine at a time.
type Watch struct {
	hub    *hub
	about  window
	filter filter
	buffer int // see watchBuffer

	woken chan struct{} // receives a value when there may be an update
	done  chan struct{}
	err   error     // the cause of the end; set before done is closed
	last  time.Time // AsOf of the last update that Next returned

	// The hub's lock guards these.
	group *group
	seen  int  // number of the last update of the group that is in a result of Next
	fresh bool // Next has returned no update yet
}

var (
	errWatchClosed = errors.New("availability: the watch is closed")
	errStopped     = errors.New("availability: stopped")
)

// Watch begins a watch of the seats that q selects. ctx bounds the call only, not the watch. The
// first Update is a snapshot, as fresh as an answer of Seats. The caller must call Close. Watch
// fails like Seats.
func (m *Model) Watch(ctx context.Context, q Query) (*Watch, error) {
	about, w, err := m.resolve(ctx, q.Start, q.End)
	if err != nil {
		return nil, err
	}
	if q.Branch != "" && w.byCode[q.Branch] == nil {
		return nil, library.BranchNotFound(q.Branch)
	}
	m.hub.publish(w.world) // the snapshot must not be older than w
	watch := newWatch(m.hub, about, newFilter(q), watchBuffer)
	if err := m.hub.add(watch); err != nil {
		return nil, err
	}
	m.Wake() // time may change a watched seat before the next poll of the feed
	return watch, nil
}

func newWatch(h *hub, about window, f filter, buffer int) *Watch {
	return &Watch{
		hub: h, about: about, filter: f, buffer: buffer,
		woken: make(chan struct{}, 1), done: make(chan struct{}), fresh: true,
	}
}

// Next waits for the next update. It fails with the error of ctx, or with ErrUnavailable if the
// model stops or its state is older than the feed's MaxStaleness. If several updates came since the
// last call, Next returns them as one update with the latest state of each seat. If they are more
// than watchBuffer, it returns a snapshot.
func (w *Watch) Next(ctx context.Context) (Update, error) {
	for {
		select {
		case <-w.done:
			return Update{}, w.err
		default:
		}
		if u, ok := w.take(); ok {
			w.last = u.AsOf
			return u, nil
		}
		select {
		case <-w.woken:
			w.hub.awake.Add(-1)
		case <-w.done:
			return Update{}, w.err
		case <-ctx.Done():
			return Update{}, ctx.Err()
		}
	}
}

// take returns the update that Next has not returned yet; false if there is none.
func (w *Watch) take() (Update, bool) {
	w.hub.mu.Lock()
	if !w.pending() {
		w.hub.mu.Unlock()
		return Update{}, false
	}
	missed := w.group.after(w.seen, w.buffer)
	current := w.hub.published
	snapshot := w.fresh || missed == nil
	w.seen, w.fresh = w.group.number, false
	w.hub.mu.Unlock()
	if snapshot {
		p := current.page(question{filter: w.filter, window: w.about, watched: true})
		return Update{Snapshot: true, Seats: p.Seats, AsOf: current.asOf, memo: p.memo}, true
	}
	return missed[len(missed)-1].since(missed), true
}

// pending reports whether take has an update. The caller holds the hub's lock.
func (w *Watch) pending() bool { return w.fresh || w.seen < w.group.number }

// AsOf returns the time, by Postgres's clock, of the state that a client has after all updates
// returned by Next. It must be called from the goroutine that calls Next.
func (w *Watch) AsOf() time.Time {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	if w.pending() {
		return w.last
	}
	return w.hub.published.asOf
}

// Close ends the watch. Further calls have no effect.
func (w *Watch) Close() { w.hub.remove(w, errWatchClosed) }

// hub publishes changes to watches. Watches of the same window and filter form a group. Groups with
// the same window form a class, so that the changes in a window are computed once for all of them.
// A group keeps the updates that its watches have not read yet. So the hub stores no separate state
// for each watch: the client of a watch has the state of the published world, except for the
// updates that the watch has not read yet.
type hub struct {
	// latest is a submitted world that run has not published yet.
	latest atomic.Pointer[world]
	wakeup chan struct{} // receives a value when there is a world to publish or a group to wake
	// refreshAt is the method RefreshAt of the feed. The hub calls it with the next time at which a
	// watched seat changes by the passing of time, or with the zero time if there is none.
	refreshAt func(time.Time)

	mu        sync.Mutex
	published *world // the state of a watch that has read all updates
	classes   map[window]*class
	wake      []*group // groups with watches to wake
	ended     error    // the error of add; nil while the hub accepts watches
	// watches and groups count the watches and groups for Stats. They are atomic, because Stats
	// must not wait for the lock: publish may hold the lock for long.
	watches, groups atomic.Int64

	// due has, for each seat of published, the time at which the seat changes next by the passing
	// of time. It is nil if no watch is about the present.
	due     []int64
	nextDue int64 // the earliest time in due
	// awake is the number of watches that wakeAll woke in this round and that have not run yet.
	awake atomic.Int64
}

type class struct {
	window window
	groups map[filter]*group
}

type group struct {
	filter  filter
	watches map[*Watch]struct{}
	updates []*update // the last updates, as many as a watch may still need
	number  int       // of the last update; numbers begin with 1
	queued  bool      // the group is in hub.wake
}

// update is one Update of a group, with the results of merging it with earlier updates.
type update struct {
	Update

	mu sync.Mutex
	// merged has the results of since, by the first of the missed updates.
	merged map[*update]Update
}

// append adds an update, and drops the updates that no watch needs any more.
func (g *group) append(u Update) {
	g.number++
	g.updates = append(g.updates, &update{Update: u})
	if len(g.updates) < 4 {
		return
	}
	oldest := g.number
	for w := range g.watches {
		if !w.fresh {
			oldest = min(oldest, w.seen)
		}
	}
	needed := min(g.number-oldest, watchBuffer)
	if n := len(g.updates) - needed; n > 0 {
		g.updates = append([]*update(nil), g.updates[n:]...)
	}
}

// after returns the updates that followed the update with this number. most is the largest number
// of updates that it returns. If more updates followed, or if the group has dropped some of them,
// after returns nil.
func (g *group) after(number, most int) []*update {
	n := g.number - number
	if n > most || n > len(g.updates) {
		return nil
	}
	return g.updates[len(g.updates)-n:]
}

// since merges the missed updates, of which u is the last, into one update with the latest state of
// each seat. All watches that missed the same updates share the result.
func (u *update) since(missed []*update) Update {
	if len(missed) == 1 {
		return u.Update
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if m, ok := u.merged[missed[0]]; ok {
		return m
	}
	last := map[int64]int{}
	m := Update{AsOf: u.AsOf, memo: new(memo)}
	removed := map[int64]bool{}
	for _, o := range missed {
		for _, s := range o.Seats {
			if i, ok := last[s.ID]; ok {
				m.Seats[i] = s
			} else {
				last[s.ID] = len(m.Seats)
				m.Seats = append(m.Seats, s)
			}
			removed[s.ID] = slices.Contains(o.Removed, s.ID)
		}
	}
	for _, s := range m.Seats {
		if removed[s.ID] {
			m.Removed = append(m.Removed, s.ID)
		}
	}
	if u.merged == nil {
		u.merged = map[*update]Update{}
	}
	u.merged[missed[0]] = m
	return m
}

func newHub() *hub {
	return &hub{wakeup: make(chan struct{}, 1), classes: map[window]*class{}, refreshAt: func(time.Time) {}}
}

func (h *hub) size() (watches, groups int) { return int(h.watches.Load()), int(h.groups.Load()) }

func (h *hub) add(w *Watch) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended != nil {
		return h.ended
	}
	c := h.classes[w.about]
	if c == nil {
		c = &class{window: w.about, groups: map[filter]*group{}}
		h.classes[w.about] = c
		if w.about == present {
			h.schedule()
		}
	}
	g := c.groups[w.filter]
	if g == nil {
		g = &group{filter: w.filter, watches: map[*Watch]struct{}{}}
		c.groups[w.filter] = g
		h.groups.Add(1)
	}
	g.watches[w] = struct{}{}
	w.group, w.seen = g, g.number
	h.watches.Add(1)
	return nil
}

func (h *hub) remove(w *Watch, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.classes[w.about]
	if c == nil || c.groups[w.filter] == nil {
		return
	}
	g := c.groups[w.filter]
	if _, ok := g.watches[w]; !ok {
		return
	}
	delete(g.watches, w)
	h.watches.Add(-1)
	if len(g.watches) == 0 {
		delete(c.groups, w.filter)
		h.groups.Add(-1)
	}
	if len(c.groups) == 0 {
		delete(h.classes, w.about)
		if w.about == present {
			h.unschedule()
		}
	}
	w.err = why
	close(w.done)
}

// endAll ends all watches.
func (h *hub) endAll(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.classes {
		for _, g := range c.groups {
			for w := range g.watches {
				w.err = why
				close(w.done)
			}
		}
	}
	clear(h.classes)
	h.watches.Store(0)
	h.groups.Store(0)
	h.wake = nil
	h.unschedule()
}

// stop ends all watches and refuses new ones.
func (h *hub) stop(why error) {
	h.mu.Lock()
	h.ended = why
	h.mu.Unlock()
	h.endAll(why)
}
