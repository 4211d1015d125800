package availability

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

func newTestBuilder(catalog library.Catalog, taken ...library.TakenWindow) *worldBuilder {
	l := new(worldBuilder)
	l.load(store.World{Now: monday, Catalog: catalog, Taken: taken})
	return l
}

// TestEventOrderDoesNotMatter applies the events of a history in random order, some events twice,
// in groups of random size. After each group, the bookings must be those of the newest event of
// each reservation.
func TestEventOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := &history{seats: []int64{1, 2, 3, 4}, live: map[int64]library.Event{}}
		var events []library.Event
		for range rapid.IntRange(0, 40).Draw(t, "events") {
			if e, ok := h.draw(t, 300); ok {
				events = append(events, e)
			}
		}
		sent := slices.Concat(events, events)[:len(events)+rapid.IntRange(0, len(events)).Draw(t, "twice")]
		sent = rapid.Permutation(sent).Draw(t, "order")

		l := newTestBuilder(smallLibrary("UTC"))
		for i := 0; i < len(sent); {
			n := rapid.IntRange(1, len(sent)-i).Draw(t, "group")
			before := *l.world
			beforeTaken := append(occupancy{}, before.taken...)
			old := l.world
			w := l.apply(store.Changes{Now: monday, Events: sent[i : i+n]})
			i += n
			for p, s := range w.seats {
				want := bookingsOf(sent[:i], s.ID)
				if got := w.taken.at(p); !slices.Equal(got, want) {
					t.Fatalf("after %v seat %d has %v, want %v", sent[:i], s.ID, got, want)
				}
				changed := slices.Contains(differences(old, w), pair{p, p})
				if was := bookingsOf(sent[:i-n], s.ID); changed == slices.Equal(was, want) {
					t.Fatalf("seat %d went from %v to %v; differences reports %v", s.ID, was, want, changed)
				}
			}
			if !slices.Equal(beforeTaken, old.taken) {
				t.Fatal("apply changed the previous world")
			}
		}
	})
}

// TestWorldsAreImmutable keeps each world of a history. At the end, each world must still have the
// bookings of its own time.
func TestWorldsAreImmutable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := &history{seats: []int64{1, 2, 3, 4}, live: map[int64]library.Event{}}
		l := newTestBuilder(smallLibrary("UTC"))
		now := monday
		var events []library.Event
		type kept struct {
			w    *world
			want [][]booking
		}
		var all []kept
		for range 30 {
			now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "minutes")) * time.Minute)
			c := store.Changes{Now: now}
			if e, ok := h.draw(t, 300); ok {
				c.Events = []library.Event{e}
				events = append(events, e)
			}
			k := kept{w: l.apply(c)}
			for _, s := range k.w.seats {
				k.want = append(k.want, bookingsOf(events, s.ID))
			}
			all = append(all, k)
		}
		for _, k := range all {
			for p := range k.w.seats {
				// The builder may drop a booking when it ended a minute (retention) ago. It must
				// have dropped a booking that ended two minutes ago.
				got, limit := k.w.taken.at(p), k.w.now-retention
				live := func(b booking) bool { return b.end > limit }
				if !slices.Equal(filtered(got, live), filtered(k.want[p], live)) {
					t.Fatalf("at %d: %v, want %v", k.w.now, got, k.want[p])
				}
				if i := slices.IndexFunc(got, func(b booking) bool { return b.end <= limit-retention }); i >= 0 {
					t.Fatalf("at %d it still has %v", k.w.now, got[i])
				}
			}
		}
		// At the end, each known reservation must have a booking or a tombstone.
		live, fading := 0, map[int64]bool{}
		for _, taken := range l.taken {
			live += len(taken)
		}
		for _, f := range l.tombstones {
			if l.known[f.id] == (record{f.version, 0}) {
				fading[f.id] = true
			}
		}
		if len(l.known) != live+len(fading) {
			t.Fatalf("%d reservations are known, of which %d are live and %d have tombstones", len(l.known), live, len(fading))
		}
	})
}

func filtered(bs []booking, keep func(booking) bool) []booking {
	return slices.DeleteFunc(slices.Clone(bs), func(b booking) bool { return !keep(b) })
}

func TestTombstonesLastForRetention(t *testing.T) {
	t.Parallel()
	l := newTestBuilder(smallLibrary("UTC"))
	e := reservation(1, 1, 2, 60, 120)
	l.apply(store.Changes{Now: monday, Events: []library.Event{over(e)}})
	w := l.apply(store.Changes{Now: minute(1).Add(-1), Events: []library.Event{e}})
	if got := w.taken.at(1); len(got) > 0 {
		t.Errorf("an older event brought back %v", got)
	}
	l.apply(store.Changes{Now: minute(1)})
	if len(l.known)+len(l.tombstones) > 0 {
		t.Errorf("after a minute the builder still has %v, %v", l.known, l.tombstones)
	}
}

func TestCheckInKeepsGeneration(t *testing.T) {
	t.Parallel()
	e := reservation(1, 1, 2, 60, 120)
	l := newTestBuilder(smallLibrary("UTC"), library.TakenWindow{
		ReservationID: 1, Version: 1, SeatID: 2, StartTime: e.StartTime, EndTime: e.EndTime,
	})
	generation := l.world.generation
	e.Version, e.Status = 2, library.CheckedIn
	if w := l.apply(store.Changes{Now: monday, Events: []library.Event{e}}); w.generation != generation {
		t.Error("a check-in dropped the cached answers")
	}
	w := l.apply(store.Changes{Now: monday, Events: []library.Event{over(e)}})
	if w.generation == generation || len(w.taken.at(1)) > 0 {
		t.Error("the cancellation after the check-in was ignored")
	}
}

func TestBuilderKeepsBookingOfUnknownSeat(t *testing.T) {
	t.Parallel()
	l := newTestBuilder(smallLibrary("UTC"))
	e := reservation(1, 1, 9, 60, 120)
	l.apply(store.Changes{Now: monday, Events: []library.Event{e}})
	c := smallLibrary("UTC")
	c.Seats = append(c.Seats, library.Seat{ID: 9, BranchID: 1, Label: "D-9"})
	w := l.applyCatalog(store.Changes{Now: monday}, &c)
	if got := w.taken.at(w.position[9]); !slices.Equal(got, bookingsOf([]library.Event{e}, 9)) {
		t.Errorf("seat 9 has %v", got)
	}
}

// TestDifferencesOfCatalogs compares the result of differences, for two random catalogs, with a
// direct comparison of the seats.
func TestDifferencesOfCatalogs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) library.Catalog {
			hours := rapid.SampledFrom([][]library.OpenHours{nil, {{Weekday: 1, Closes: time.Hour}}})
			c := smallLibrary("UTC", hours.Draw(t, label+" hours")...)
			c.Seats = nil
			for id := range int64(6) {
				if rapid.Bool().Draw(t, label+" exists") {
					c.Seats = append(c.Seats, library.Seat{
						ID: id + 1, BranchID: rapid.Int64Range(1, 2).Draw(t, label+" branch"),
						Area:         rapid.SampledFrom([]string{"A", "B"}).Draw(t, label+" area"),
						OutOfService: rapid.Bool().Draw(t, label+" out of service"),
					})
				}
			}
			return c
		}
		before, after := draw("before"), draw("after")
		l := newTestBuilder(before)
		old := l.world
		w := l.applyCatalog(store.Changes{Now: monday}, &after)
		want := map[int64]bool{}
		find := func(c library.Catalog, id int64) (library.Seat, []library.OpenHours) {
			for _, s := range c.Seats {
				if s.ID == id {
					return s, c.Branches[s.BranchID-1].Hours
				}
			}
			return library.Seat{}, nil
		}
		for id := range int64(6) {
			a, aHours := find(before, id+1)
			b, bHours := find(after, id+1)
			if !cmp.Equal(a, b) || !slices.Equal(aHours, bHours) {
				want[id+1] = true
			}
		}
		got := map[int64]bool{}
		for _, p := range differences(old, w) {
			switch {
			case p.after >= 0:
				got[w.seats[p.after].ID] = true
			default:
				got[old.seats[p.before].ID] = true
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}
