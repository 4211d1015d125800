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

// watchBuffer is how many updates a watcher may fall behind before it gets a fresh snapshot instead of them.
const watchBuffer = 64

// Update is one message to a watcher.
type Update struct {
	// Snapshot says that Seats are all seats that match, in id order, and replace everything that came before. Else each of Seats replaces
	// what came before of that seat. A seat that no longer matches, or is no more, comes as not available once.
	Snapshot bool
	// Seats are shared with other watchers: treat them as read-only.
	Seats []SeatView
	// Removed are the ids of those of Seats that no longer match, or are no more.
	Removed []int64
	// AsOf is the time, by Postgres's clock, that this is true of.
	AsOf time.Time

	memo *memo
}

// Memo returns what compute returns, computed once for all watchers who get the same seats: whoever encodes updates keeps the bytes here. For
// a snapshot the AsOf must not go into it, since that differs among them. All callers must compute the same kind of thing.
func (u Update) Memo(compute func() any) any { return u.memo.get(compute) }

// Watch follows the answers to one query. Next must be called from one goroutine at a time.
type Watch struct {
	hub    *hub
	about  window
	filter filter
	buffer int // how many updates it may fall behind

	woken chan struct{} // gets a value when there may be an update
	done  chan struct{}
	err   error     // why it ended; set before done is closed
	last  time.Time // AsOf of what Next returned last

	// The hub's lock guards these.
	group *group
	seen  int  // number of the last update of the group that Next returned, or that a snapshot had in it
	fresh bool // Next has returned nothing yet
}

var (
	errWatchClosed = errors.New("availability: the watch is closed")
	errStopped     = errors.New("availability: stopped")
)

// Watch begins to follow the seats that q asks for; ctx bounds the wait for the beginning only. The first Update is a snapshot, as fresh as
// an answer of Seats. Close must be called in the end. It fails as Seats does.
func (m *Model) Watch(ctx context.Context, q Query) (*Watch, error) {
	about, w, err := m.resolve(ctx, q.Start, q.End)
	if err != nil {
		return nil, err
	}
	if q.Branch != "" && w.byCode[q.Branch] == nil {
		return nil, library.ErrBranchNotFound.With("branch", q.Branch)
	}
	m.hub.publish(w) // so that the snapshot is at least as fresh
	watch := newWatch(m.hub, about, newFilter(q), watchBuffer)
	if err := m.hub.add(watch); err != nil {
		return nil, err
	}
	m.Wake() // its first change may be due before the next look at the log
	return watch, nil
}

func newWatch(h *hub, about window, f filter, buffer int) *Watch {
	return &Watch{hub: h, about: about, filter: f, buffer: buffer, woken: make(chan struct{}, 1), done: make(chan struct{}), fresh: true}
}

// Next waits for the next update. It fails with the error of ctx, or with ErrUnavailable when the model stops or what it knows got older
// than MaxStaleness. A watcher that fell behind gets what it missed as one update, with the latest state of each seat; one that fell too
// far behind gets a fresh snapshot.
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

// take returns what the hub has told and Next has not returned; false: nothing.
func (w *Watch) take() (Update, bool) {
	w.hub.mu.Lock()
	if !w.pending() {
		w.hub.mu.Unlock()
		return Update{}, false
	}
	missed := w.group.after(w.seen, w.buffer)
	told := w.hub.published
	snapshot := w.fresh || missed == nil
	w.seen, w.fresh = w.group.number, false
	w.hub.mu.Unlock()
	if snapshot {
		p := told.page(question{filter: w.filter, window: w.about, watched: true})
		return Update{Snapshot: true, Seats: p.Seats, AsOf: told.asOf, memo: p.memo}, true
	}
	return missed[len(missed)-1].since(missed), true
}

// pending reports whether take returns something. The hub's lock is held.
func (w *Watch) pending() bool { return w.fresh || w.seen < w.group.number }

// AsOf returns the time, by Postgres's clock, that all updates together are true of that Next has returned. It is for the goroutine that
// calls Next.
func (w *Watch) AsOf() time.Time {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	if w.pending() {
		return w.last
	}
	return w.hub.published.asOf
}

// Close ends the watch. It may be called more than once.
func (w *Watch) Close() { w.hub.remove(w, errWatchClosed) }

// hub tells watchers what changes. Watchers that ask the same are a group; groups that look at the same window are a class, so that what
// changed in a window is found once for all of them. A group keeps the updates that its watchers have not taken yet. Since worlds don't
// change, what a watcher knows is what the told world says, without these.
type hub struct {
	// offered is the newest world; run publishes it.
	latest atomic.Pointer[world]
	wakeup chan struct{} // gets a value when there is an offered world or a group to wake
	// refreshAt tells the feed when a watched seat changes next by the passing of time; zero: none does.
	refreshAt func(time.Time)

	mu        sync.Mutex
	published *world // what all watchers know that have taken all updates
	classes   map[window]*class
	wake      []*group // groups with an update that their watchers have not been woken for
	ended     error    // nil: it takes watchers
	// How many there are, for readers that must not wait for a publish.
	watches, groups atomic.Int64

	// due is when the state of each seat of told changes next by the passing of time; nil unless somebody watches the present.
	due     []int64
	nextDue int64 // the first of them
	// awake is how many watches run has woken in this round that have not run yet.
	awake atomic.Int64
}

type class struct {
	window window
	groups map[filter]*group
}

type group struct {
	filter  filter
	watches map[*Watch]struct{}
	updates []*update // the last ones, as far back as a watcher may still need them
	number  int       // of the last update; they count from 1
	toWake  bool      // it is on the hub's list
}

// update is an update of a group.
type update struct {
	Update

	mu     sync.Mutex
	merged map[*update]Update // this one with all before it, by the first of them
}

// append adds an update, and forgets those that no watcher needs.
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

// after returns the updates after the one with a number; nil if they are more than most, or were forgotten.
func (g *group) after(number, most int) []*update {
	n := g.number - number
	if n > most || n > len(g.updates) {
		return nil
	}
	return g.updates[len(g.updates)-n:]
}

// since returns one update for several in a row, of which u is the last. It has the latest state of each seat, and is made once for all
// watchers that fell behind at the same one.
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

// endAll ends all watches there are.
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
