package availability

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlsms/dlsms/store"
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

	updates chan *Update
	// behind says that the next thing to get is a snapshot: at the beginning, and when updates was full.
	behind atomic.Bool
	done   chan struct{}
	err    error     // why it ended; set before done is closed
	last   time.Time // AsOf of what Next returned last
}

var errWatchClosed = errors.New("availability: the watch is closed")

// Watch begins to follow the seats that q asks for; ctx bounds the wait for the beginning only. The first Update is a snapshot, as fresh as
// an answer of Seats. Close must be called in the end. It fails as Seats does.
func (m *Model) Watch(ctx context.Context, q Query) (*Watch, error) {
	about, err := newWindow(q.Start, q.End)
	if err != nil {
		return nil, err
	}
	w, err := m.current(ctx)
	if err != nil {
		return nil, err
	}
	if q.Branch != "" && w.byCode[q.Branch] == nil {
		return nil, store.ErrBranchNotFound.With("branch", q.Branch)
	}
	m.hub.publish(w) // so that the snapshot is at least as fresh, whoever is quicker
	watch := newWatch(m.hub, about, newFilter(q), watchBuffer)
	if err := m.hub.add(watch); err != nil {
		return nil, err
	}
	m.Wake() // its first change may be due before the next look at the log
	return watch, nil
}

func newWatch(h *hub, about window, f filter, buffer int) *Watch {
	w := &Watch{hub: h, about: about, filter: f, updates: make(chan *Update, buffer), done: make(chan struct{})}
	w.behind.Store(true)
	return w
}

// Next waits for the next update. It fails with the error of ctx, or with ErrUnavailable when the model stops or what it knows got older
// than MaxStaleness. A watcher that fell too far behind gets a fresh snapshot instead of what it missed.
func (w *Watch) Next(ctx context.Context) (Update, error) {
	u, err := w.next(ctx)
	if err == nil {
		w.last = u.AsOf
	}
	return u, err
}

func (w *Watch) next(ctx context.Context) (Update, error) {
	select {
	case <-w.done:
		return Update{}, w.err
	default:
	}
	if w.behind.Load() {
		return w.snapshot(), nil
	}
	select {
	case u := <-w.updates:
		return *u, nil
	case <-w.done:
		return Update{}, w.err
	case <-ctx.Done():
		return Update{}, ctx.Err()
	}
}

// snapshot returns what the hub has told everyone up to now. All later updates follow it.
func (w *Watch) snapshot() Update {
	w.hub.mu.Lock()
	told := w.hub.told
	for len(w.updates) > 0 {
		<-w.updates
	}
	w.behind.Store(false)
	w.hub.mu.Unlock()
	p := told.page(question{filter: w.filter, window: w.about, watched: true})
	return Update{Snapshot: true, Seats: p.Seats, AsOf: told.asOf, memo: p.memo}
}

// AsOf returns the time, by Postgres's clock, that all updates together are true of that Next has returned. It is for the goroutine that
// calls Next.
func (w *Watch) AsOf() time.Time {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	if w.behind.Load() || len(w.updates) > 0 {
		return w.last
	}
	return w.hub.told.asOf
}

// Close ends the watch. It may be called more than once.
func (w *Watch) Close() { w.hub.remove(w, errWatchClosed) }

// hub tells watchers what changes. Watchers who ask the same are a group; groups that look at the same window are a class, so that what
// changed in a window is found once for all of them. Nothing is kept of what a watcher was told: since worlds don't change, it is what the
// told world says.
type hub struct {
	mu      sync.Mutex
	told    *world // what all watchers know who are not behind
	classes map[window]*class
	ended   error // nil: it takes watchers
	// How many there are, for who must not wait until all are told.
	watches, groups atomic.Int64

	// due is when the state of each seat of told changes next by the passing of time; nil unless somebody watches the present.
	due     []int64
	nextDue int64 // the first of them
}

type class struct {
	window window
	groups map[filter]*group
}

type group struct {
	filter  filter
	watches map[*Watch]struct{}
}

func newHub() *hub { return &hub{classes: map[window]*class{}} }

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
			h.due = nil
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
	h.due = nil
}

// stop ends all watches and refuses new ones.
func (h *hub) stop(why error) {
	h.mu.Lock()
	h.ended = why
	h.mu.Unlock()
	h.endAll(why)
}
