package availability

import (
	"cmp"
	"slices"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// worldBuilder makes the next world from the last one and what happened. One goroutine uses it.
type worldBuilder struct {
	world      *world
	known      map[int64]record
	taken      map[int64][]booking // by seat; a slice is never changed, only replaced
	tombstones []tombstone         // in the order of time
	swept      int64
}

// record is what is known of a reservation.
type record struct {
	version int64
	seat    int64 // 0: it takes none any more
}

// tombstone says when which event ended a reservation, by Postgres's clock.
type tombstone struct{ id, version, at int64 }

// retention is how long what is over is remembered: a booking after its end, so that a window that began a timeOf ago is told right, and the
// version of a reservation that takes its seat no more, so that an older event cannot bring it back. The log itself never brings an
// older event after a newer one: they are written under the seat's lock, so a snapshot that sees version n sees all before it, however
// long some transactions take. It is a margin for a source that repeats itself, and short, so that whoever books and cancels all day does
// not fill the retention.
const retention = 60_000_000 // microseconds

// load begins anew with what was read.
func (l *worldBuilder) load(read store.World) *world {
	l.known = make(map[int64]record, len(read.Taken))
	l.taken = make(map[int64][]booking, len(read.Seats))
	l.tombstones = nil
	slices.SortFunc(read.Taken, func(a, b library.TakenWindow) int {
		return cmp.Or(cmp.Compare(a.SeatID, b.SeatID), a.StartTime.Compare(b.StartTime))
	})
	all := make([]booking, len(read.Taken))
	for i, first := 0, 0; i < len(all); i++ {
		t := read.Taken[i]
		all[i] = booking{window{t.StartTime.UnixMicro(), t.EndTime.UnixMicro()}, t.ReservationID}
		l.known[t.ReservationID] = record{t.Version, t.SeatID}
		if i+1 == len(all) || read.Taken[i+1].SeatID != t.SeatID {
			l.taken[t.SeatID] = all[first : i+1 : i+1]
			first = i + 1
		}
	}
	w := &world{asOf: read.Now, now: read.Now.UnixMicro(), generation: 1, number: 1, answers: newAnswers()}
	var old *catalog
	if l.world != nil {
		old, w.generation, w.number = l.world.catalog, l.world.generation+1, l.world.number+1
	}
	w.catalog = newCatalog(read.Catalog, old)
	w.taken = newOccupancy(w.seats, l.taken)
	l.swept = w.now
	w.warm()
	l.world = w
	return w
}

// apply makes the next world.
func (l *worldBuilder) apply(c store.Changes) *world {
	w := *l.world
	w.asOf, w.now, w.number = c.Now, c.Now.UnixMicro(), l.world.number+1
	changed := map[int64]bool{}
	for _, e := range c.Events {
		l.applyEvent(e, w.now, changed)
	}
	if w.now-l.swept >= retention {
		l.sweep(w.now, changed)
		w.warm()
	}
	if c.CatalogChanged {
		w.catalog = w.catalog.changed(c.Catalog)
		w.warm()
	}
	switch {
	case w.index != l.world.index:
		w.taken = newOccupancy(w.seats, l.taken)
	case len(changed) > 0:
		w.taken = slices.Clone(w.taken)
		for id := range changed {
			if i, ok := w.position[id]; ok {
				w.taken.put(l.world.taken, i, l.taken[id])
			}
		}
	}
	if w.catalog != l.world.catalog || len(changed) > 0 {
		w.generation++
		w.answers = newAnswers()
	}
	l.world = &w
	return l.world
}

// applyEvent brings what is known of a reservation up to the event, unless it is there already, and marks the seat if its bookings change.
func (l *worldBuilder) applyEvent(e library.Event, now int64, changed map[int64]bool) {
	was, ok := l.known[e.ReservationID]
	if ok && e.Version <= was.version {
		return
	}
	b := booking{window{e.StartTime.UnixMicro(), e.EndTime.UnixMicro()}, e.ReservationID}
	takes := e.TakesSeat() && b.end > now-retention
	seat := int64(0)
	if takes {
		seat = e.SeatID
	} else {
		l.tombstones = append(l.tombstones, tombstone{e.ReservationID, e.Version, now})
	}
	l.known[e.ReservationID] = record{e.Version, seat}
	if was.seat != 0 {
		taken := l.taken[was.seat]
		i := slices.IndexFunc(taken, func(t booking) bool { return t.id == e.ReservationID })
		if takes && was.seat == seat && taken[i] == b {
			return // a check-in, say
		}
		l.set(was.seat, slices.Concat(taken[:i], taken[i+1:]))
		changed[was.seat] = true
	}
	if takes {
		taken := l.taken[seat]
		i, _ := slices.BinarySearchFunc(taken, b, booking.compare)
		l.set(seat, slices.Concat(taken[:i], []booking{b}, taken[i:]))
		changed[seat] = true
	}
}

func (b booking) compare(o booking) int {
	return cmp.Or(cmp.Compare(b.start, o.start), cmp.Compare(b.id, o.id))
}

func (l *worldBuilder) set(seat int64, taken []booking) {
	if len(taken) == 0 {
		delete(l.taken, seat)
		return
	}
	l.taken[seat] = taken
}

// sweep forgets what has been over for long enough.
func (l *worldBuilder) sweep(now int64, changed map[int64]bool) {
	l.swept = now
	for seat, taken := range l.taken {
		n := 0
		for n < len(taken) && taken[n].end <= now-retention {
			delete(l.known, taken[n].id)
			n++
		}
		if n > 0 {
			l.set(seat, taken[n:])
			changed[seat] = true
		}
	}
	n := 0
	for n < len(l.tombstones) && l.tombstones[n].at <= now-retention {
		if f := l.tombstones[n]; l.known[f.id] == (record{f.version, 0}) {
			delete(l.known, f.id)
		}
		n++
	}
	l.tombstones = slices.Clone(l.tombstones[n:])
}

// warm gets the opening hours of the coming weeks ready.
func (w *world) warm() {
	for _, b := range w.branches {
		if b.calendar != nil {
			b.calendar.warm(w.now)
		}
	}
}
