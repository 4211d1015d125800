package availability

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Publishing costs in proportion to the watches, and thousands of them may want to hear of each booking. So it has a goroutine of its own, which
// readers never wait for: it publishes the newest world there is, with all that changed since the last one that it published, and wakes
// the watchers a few at a time. While it does, what changes waits for the next round. Watchers are told a little later then, and less often.

// The pace at which watchers are woken, each of which costs some 30 microseconds of sending: wakeBatch of them each wakeGap, and no more before
// these have run, but for wakePatience gaps at most. So a reader waits behind a few watchers, however many there are and however busy the
// machine is.
const (
	wakeBatch    = 10
	wakeGap      = time.Millisecond
	wakePatience = 20
)

// offer has a world published, without waiting for it.
func (h *hub) submit(w *world) {
	if h.watches.Load() == 0 && h.mu.TryLock() { // nothing that takes long holds the lock now
		if len(h.classes) == 0 && (h.published == nil || w.number > h.published.number) {
			h.published = w
		}
		h.mu.Unlock()
		return // a watch that comes now publishes a world as fresh, and asks for the next one
	}
	h.latest.Store(w)
	h.signal()
}

func (h *hub) signal() {
	select {
	case h.wakeup <- struct{}{}:
	default: // it knows already
	}
}

// run publishes what is offered, and wakes watchers, until ctx ends.
func (h *hub) run(ctx context.Context) {
	for {
		select {
		case <-h.wakeup:
		case <-ctx.Done():
			return
		}
		if w := h.latest.Swap(nil); w != nil {
			h.publish(w)
		}
		h.wakeAll(ctx)
	}
}

// wakeAll wakes the watchers of all groups that have an update, at the pace.
func (h *hub) wakeAll(ctx context.Context) {
	var watches []*Watch
	h.mu.Lock()
	for _, g := range h.wake {
		g.toWake = false
		for w := range g.watches {
			watches = append(watches, w)
		}
	}
	h.wake = h.wake[:0]
	h.mu.Unlock()
	if len(watches) == 0 {
		return
	}
	tick := time.NewTicker(wakeGap)
	defer tick.Stop()
	h.awake.Store(0)
	for i, w := range watches {
		select {
		case w.woken <- struct{}{}:
			h.awake.Add(1)
		default: // it is awake, or will be
		}
		if (i+1)%wakeBatch > 0 {
			continue
		}
		for gaps := 0; gaps == 0 || h.awake.Load() > 0 && gaps < wakePatience; gaps++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// publish adds how w differs from the told world to what the watchers have not taken yet. A world older than that has nothing new.
func (h *hub) publish(w *world) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.published
	if old != nil && w.number <= old.number {
		return
	}
	h.published = w
	if len(h.classes) == 0 {
		return
	}
	changed := differences(old, w)
	for _, c := range h.classes {
		if c.window == present {
			h.publishPresent(c, old, w, changed)
		} else {
			h.publishClass(c, old, w, changed, nil)
		}
	}
	if len(h.wake) > 0 {
		h.signal()
	}
}

// publishPresent does it for those who watch the present, where time itself changes seats.
func (h *hub) publishPresent(c *class, old, w *world, changed []pair) {
	switch {
	case old.index != w.index, w.now < old.now: // time goes back when the world is loaded anew
		h.due = make([]int64, len(w.seats))
		changed = slices.Collect(pairs(old.catalog, w.catalog))
	case w.now >= h.nextDue:
		changed = slices.Clip(changed)
		for _, p := range changed {
			h.due[p.after] = never // it is on the list already
		}
		for i, due := range h.due {
			if due <= w.now {
				changed = append(changed, pair{i, i})
			}
		}
	}
	if len(changed) > 0 {
		h.publishClass(c, old, w, changed, h.due)
		h.setNextDue()
	}
}

// publishClass tells a class what is new of the seats that may have changed. If due is there, it learns when each changes next by itself.
func (h *hub) publishClass(c *class, old, w *world, maybe []pair, due []int64) {
	was, is := old.at(c.window), w.at(c.window)
	var news map[*group]Update // most windows have none
	tell := func(g *group, s SeatView, removed ...int64) {
		if news == nil {
			news = map[*group]Update{}
		}
		u := news[g]
		u.Seats, u.Removed = append(u.Seats, s), append(u.Removed, removed...)
		news[g] = u
	}
	for _, p := range maybe {
		var before, after *seat
		var stateBefore, stateAfter state
		if p.before >= 0 {
			before = old.seats[p.before]
			stateBefore, _ = was.stateOf(before, old.taken.at(p.before))
		}
		if p.after >= 0 {
			after = w.seats[p.after]
			var holds int64
			if stateAfter, holds = is.stateOf(after, w.taken.at(p.after)); due != nil {
				due[p.after] = holds
			}
		}
		if before != nil && after != nil && stateBefore == stateAfter && before.sameView(after) {
			continue
		}
		for _, g := range c.groups {
			switch {
			case after != nil && g.filter.matches(after):
				tell(g, after.view(stateAfter))
			case before != nil && g.filter.matches(before): // gone, or it no longer matches
				gone := cmp.Or(after, before)
				tell(g, gone.view(state{}), gone.ID)
			}
		}
	}
	for g, u := range news {
		u.AsOf, u.memo = w.asOf, new(memo)
		g.append(u)
		if !g.toWake {
			g.toWake = true
			h.wake = append(h.wake, g)
		}
	}
}

// schedule finds out when each seat of told changes next.
func (h *hub) schedule() {
	h.due = make([]int64, len(h.published.seats))
	now := h.published.at(present)
	for i, s := range h.published.seats {
		_, h.due[i] = now.stateOf(s, h.published.taken.at(i))
	}
	h.setNextDue()
}

func (h *hub) unschedule() {
	h.due = nil
	h.refreshAt(time.Time{})
}

func (h *hub) setNextDue() {
	h.nextDue = earliest(h.due)
	if h.nextDue == never {
		h.refreshAt(time.Time{})
	} else {
		h.refreshAt(timeOf(h.nextDue))
	}
}

func earliest(due []int64) int64 {
	first := int64(never)
	for _, d := range due {
		first = min(first, d)
	}
	return first
}
