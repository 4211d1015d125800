package availability

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// The cost of publishing grows with the number of watches, and a booking may concern thousands of
// watches. So the hub publishes on its own goroutine, and readers never wait for it. The hub
// publishes the newest world, with all changes since the last published world, and wakes a few
// watchers at a time. Changes that come meanwhile are published in the next round. Under load,
// watchers get fewer updates, and get them later.

// wakeAll wakes wakeGroup watchers, waits for wakeGap, and wakes the next group when these watchers
// have run. It waits for them for at most maxWakeGaps gaps. To send an update costs about 30 µs for
// each watcher. With the gaps, a reader waits only behind a few watchers, and not behind all of
// them.
const (
	wakeGroup   = 10
	wakeGap     = time.Millisecond
	maxWakeGaps = 20
)

// submit hands a world to run, and does not wait until it is published.
func (h *hub) submit(w *world) {
	if h.watches.Load() == 0 && h.mu.TryLock() { // without watches, the lock is held briefly
		if len(h.classes) == 0 && (h.published == nil || w.number > h.published.number) {
			h.published = w
		}
		h.mu.Unlock()
		// A watch that begins now calls Wake, so the next world brings the changes that it missed.
		return
	}
	h.latest.Store(w)
	h.signal()
}

func (h *hub) signal() {
	select {
	case h.wakeup <- struct{}{}:
	default: // a signal is pending already
	}
}

// run publishes the submitted worlds and wakes watchers until ctx ends.
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

// wakeAll wakes the watchers of all groups with an update.
func (h *hub) wakeAll(ctx context.Context) {
	var watches []*Watch
	h.mu.Lock()
	for _, g := range h.wake {
		g.queued = false
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
		default: // a wake-up is pending already
		}
		if (i+1)%wakeGroup > 0 {
			continue
		}
		for gaps := 0; gaps == 0 || h.awake.Load() > 0 && gaps < maxWakeGaps; gaps++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// publish adds the differences of w from the published world to the updates of the groups. It
// ignores a world that is not newer than the published one.
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

// publishPresent publishes to the class c of the watches without a window. They show the present.
// Besides the seats in changed, the passing of time may change other seats for them: see hub.due.
func (h *hub) publishPresent(c *class, old, w *world, changed []pair) {
	switch {
	case old.index != w.index, w.now < old.now: // time may go backward when the state is loaded again
		h.due = make([]int64, len(w.seats))
		changed = slices.Collect(pairs(old.catalog, w.catalog))
	case w.now >= h.nextDue:
		changed = slices.Clip(changed)
		for _, p := range changed {
			h.due[p.after] = never // the seat is in changed already
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

// publishClass compares the candidates in two states of the read model, old and w. It sends the seats
// that differ to the watches of class c, which all have the same window. If due is not nil, it also
// stores for each candidate when the seat changes next without an event, because time passes.
func (h *hub) publishClass(c *class, old, w *world, candidates []pair, due []int64) {
	was, is := old.at(c.window), w.at(c.window)
	var updates map[*group]Update // stays nil for most windows
	add := func(g *group, s SeatView, removed ...int64) {
		if updates == nil {
			updates = map[*group]Update{}
		}
		u := updates[g]
		u.Seats, u.Removed = append(u.Seats, s), append(u.Removed, removed...)
		updates[g] = u
	}
	for _, p := range candidates {
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
				add(g, after.view(stateAfter))
			case before != nil && g.filter.matches(before): // deleted, or no longer matches
				removed := cmp.Or(after, before)
				add(g, removed.view(state{}), removed.ID)
			}
		}
	}
	for g, u := range updates {
		u.AsOf, u.memo = w.asOf, new(memo)
		g.append(u)
		if !g.queued {
			g.queued = true
			h.wake = append(h.wake, g)
		}
	}
}

// schedule computes when each seat of the published world changes next by the passing of time.
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
