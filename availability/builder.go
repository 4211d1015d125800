package availability

import (
	"cmp"
	"slices"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// worldBuilder builds each world from the previous world and the changes of one refresh. One
// goroutine uses it.
type worldBuilder struct {
	world      *world
	known      map[int64]record    // by reservation id
	taken      map[int64][]booking // by seat id; a slice is replaced, never changed
	tombstones []tombstone         // in the order of time
	swept      int64               // time of the last sweep
}

// record is the newest known version of a reservation.
type record struct {
	version int64
	seat    int64 // 0: the reservation takes no seat any more
}

// tombstone says that a reservation takes no seat since an event of this version. at is the time of
// the refresh with the event.
type tombstone struct{ id, version, at int64 }

// retention is how long the builder keeps:
//   - a booking after its end, so that an answer about a window that began a moment ago is right
//   - a tombstone, so that an older event does not bring the booking back
//
// The change log itself never shows an older event after a newer event of the same reservation.
// Events are written under the lock of the seat, so a snapshot that sees version n also sees all
// versions before n. Tombstones are a precaution against a source that repeats events. The
// retention is short, so that a client that books and cancels all day does not fill the memory.
const retention = 60_000_000 // microseconds

// load builds a world from the whole state.
func (b *worldBuilder) load(read store.World) *world {
	b.known = make(map[int64]record, len(read.Taken))
	b.taken = make(map[int64][]booking, len(read.Seats))
	b.tombstones = nil
	slices.SortFunc(read.Taken, func(a, b library.TakenWindow) int {
		return cmp.Or(cmp.Compare(a.SeatID, b.SeatID), a.StartTime.Compare(b.StartTime))
	})
	all := make([]booking, len(read.Taken))
	for i, first := 0, 0; i < len(all); i++ {
		t := read.Taken[i]
		all[i] = booking{window{t.StartTime.UnixMicro(), t.EndTime.UnixMicro()}, t.ReservationID}
		b.known[t.ReservationID] = record{t.Version, t.SeatID}
		if i+1 == len(all) || read.Taken[i+1].SeatID != t.SeatID {
			b.taken[t.SeatID] = all[first : i+1 : i+1]
			first = i + 1
		}
	}
	w := &world{asOf: read.Now, now: read.Now.UnixMicro(), generation: 1, number: 1, answers: newAnswers()}
	var old *catalog
	if b.world != nil {
		old, w.generation, w.number = b.world.catalog, b.world.generation+1, b.world.number+1
	}
	w.catalog = newCatalog(read.Catalog, old)
	w.taken = newOccupancy(w.seats, b.taken)
	b.swept = w.now
	w.warm()
	b.world = w
	return w
}

// apply builds the next world.
func (b *worldBuilder) apply(c store.Changes) *world {
	w := *b.world
	w.asOf, w.now, w.number = c.Now, c.Now.UnixMicro(), b.world.number+1
	changed := map[int64]bool{}
	for _, e := range c.Events {
		b.applyEvent(e, w.now, changed)
	}
	if w.now-b.swept >= retention {
		b.sweep(w.now, changed)
		w.warm()
	}
	if c.CatalogChanged {
		w.catalog = w.catalog.changed(c.Catalog)
		w.warm()
	}
	switch {
	case w.index != b.world.index:
		w.taken = newOccupancy(w.seats, b.taken)
	case len(changed) > 0:
		w.taken = slices.Clone(w.taken)
		for id := range changed {
			if i, ok := w.position[id]; ok {
				w.taken.put(b.world.taken, i, b.taken[id])
			}
		}
	}
	if w.catalog != b.world.catalog || len(changed) > 0 {
		w.generation++
		w.answers = newAnswers()
	}
	b.world = &w
	return b.world
}

// applyEvent applies the event, unless its version or a newer one is known. If the bookings of a
// seat change, applyEvent adds the seat to changed.
func (b *worldBuilder) applyEvent(e library.Event, now int64, changed map[int64]bool) {
	was, ok := b.known[e.ReservationID]
	if ok && e.Version <= was.version {
		return
	}
	next := booking{window{e.StartTime.UnixMicro(), e.EndTime.UnixMicro()}, e.ReservationID}
	takes := e.TakesSeat() && next.end > now-retention
	seat := int64(0)
	if takes {
		seat = e.SeatID
	} else {
		b.tombstones = append(b.tombstones, tombstone{e.ReservationID, e.Version, now})
	}
	b.known[e.ReservationID] = record{e.Version, seat}
	if was.seat != 0 {
		taken := b.taken[was.seat]
		i := slices.IndexFunc(taken, func(t booking) bool { return t.id == e.ReservationID })
		if takes && was.seat == seat && taken[i] == next {
			return // the booking is the same, as after a check-in
		}
		b.set(was.seat, slices.Concat(taken[:i], taken[i+1:]))
		changed[was.seat] = true
	}
	if takes {
		taken := b.taken[seat]
		i, _ := slices.BinarySearchFunc(taken, next, booking.compare)
		b.set(seat, slices.Concat(taken[:i], []booking{next}, taken[i:]))
		changed[seat] = true
	}
}

func (b booking) compare(o booking) int {
	return cmp.Or(cmp.Compare(b.start, o.start), cmp.Compare(b.id, o.id))
}

func (b *worldBuilder) set(seat int64, taken []booking) {
	if len(taken) == 0 {
		delete(b.taken, seat)
		return
	}
	b.taken[seat] = taken
}

// sweep drops the bookings and tombstones that are older than the retention.
func (b *worldBuilder) sweep(now int64, changed map[int64]bool) {
	b.swept = now
	for seat, taken := range b.taken {
		n := 0
		for n < len(taken) && taken[n].end <= now-retention {
			delete(b.known, taken[n].id)
			n++
		}
		if n > 0 {
			b.set(seat, taken[n:])
			changed[seat] = true
		}
	}
	n := 0
	for n < len(b.tombstones) && b.tombstones[n].at <= now-retention {
		if f := b.tombstones[n]; b.known[f.id] == (record{f.version, 0}) {
			delete(b.known, f.id)
		}
		n++
	}
	b.tombstones = slices.Clone(b.tombstones[n:])
}

// warm computes the opening hours of the coming weeks.
func (w *world) warm() {
	for _, b := range w.branches {
		if b.calendar != nil {
			b.calendar.warm(w.now)
		}
	}
}
