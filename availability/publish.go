package availability

import (
	"cmp"
	"slices"
	"time"
)

// publish tells the watchers how w differs from what they were told. A world older than that has nothing new.
func (h *hub) publish(w *world) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.told
	if old != nil && w.number <= old.number {
		return
	}
	h.told = w
	if len(h.classes) == 0 {
		return
	}
	changed := differences(old, w)
	for _, c := range h.classes {
		if c.window == present {
			h.publishPresent(c, old, w, changed)
		} else {
			c.publish(old, w, changed, nil)
		}
	}
}

// publishPresent does it for those who watch the present, where time itself changes seats.
func (h *hub) publishPresent(c *class, old, w *world, changed []pair) {
	switch {
	case old.catalog != w.catalog: // so it is as well when time went back: the world was loaded anew
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
		c.publish(old, w, changed, h.due)
		h.nextDue = earliest(h.due)
	}
}

// publish tells the class what is new of the seats that may have changed. If due is there, it learns when each changes next by itself.
func (c *class) publish(old, w *world, maybe []pair, due []int64) {
	was, is := old.at(c.window), w.at(c.window)
	news := map[*group][]SeatView{}
	for _, p := range maybe {
		var before, after *seat
		var stateBefore, stateAfter state
		if p.before >= 0 {
			before = old.seats[p.before]
			stateBefore, _ = was.look(before, old.taken.at(p.before))
		}
		if p.after >= 0 {
			after = w.seats[p.after]
			var holds int64
			if stateAfter, holds = is.look(after, w.taken.at(p.after)); due != nil {
				due[p.after] = holds
			}
		}
		if before != nil && after != nil && stateBefore == stateAfter && before.looksLike(after) {
			continue
		}
		for _, g := range c.groups {
			switch {
			case after != nil && g.filter.matches(after):
				news[g] = append(news[g], after.view(stateAfter))
			case before != nil && g.filter.matches(before): // gone, or it no longer matches
				news[g] = append(news[g], cmp.Or(after, before).view(state{}))
			}
		}
	}
	for g, seats := range news {
		u := &Update{Seats: seats, AsOf: w.asOf, memo: new(memo)}
		for watch := range g.watches {
			watch.tell(u)
		}
	}
}

// tell never blocks.
func (w *Watch) tell(u *Update) {
	if w.behind.Load() {
		return
	}
	select {
	case w.updates <- u:
	default:
		w.behind.Store(true)
	}
}

// schedule finds out when each seat of told changes next.
func (h *hub) schedule() {
	h.due = make([]int64, len(h.told.seats))
	now := h.told.at(present)
	for i, s := range h.told.seats {
		_, h.due[i] = now.look(s, h.told.taken.at(i))
	}
	h.nextDue = earliest(h.due)
}

// nextChange returns how long after the told world's time a watched seat changes by the passing of time; false: no seat does.
func (h *hub) nextChange() (time.Duration, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.due == nil || h.nextDue == never {
		return 0, false
	}
	return time.Duration(h.nextDue-h.told.now) * time.Microsecond, true
}

func earliest(due []int64) int64 {
	first := int64(never)
	for _, d := range due {
		first = min(first, d)
	}
	return first
}
