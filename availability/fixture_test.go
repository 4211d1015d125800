package availability

import (
	"context"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dlsms/dlsms/store"
)

// monday is the day on which most of the tests happen.
var monday = time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)

// minute returns the time at minute m of monday.
func minute(m int) time.Time { return monday.Add(time.Duration(m) * time.Minute) }

// recording plays back what a log said: a world, and then changes one after another. It is for the parts that have nothing to do with
// Postgres; what has is tested with a real one.
type recording struct {
	mu      sync.Mutex
	world   store.World
	catalog store.Catalog
	changes []store.Changes
	now     func() time.Time // the clock of the looks that find nothing; nil: it stands still
	err     error            // what every call fails with
	// before and after run at both ends of each look: when its snapshot isn't taken yet, and when it is. loading runs in each load.
	before         func(ctx context.Context)
	after, loading func()
	looks, loads   atomic.Int64
}

func newRecording(world store.World) *recording {
	return &recording{world: world, catalog: world.Catalog}
}

func (r *recording) LoadWorld(context.Context) (store.World, error) {
	r.mu.Lock()
	r.loads.Add(1)
	hook(&r.mu, r.loading)
	defer r.mu.Unlock()
	if r.err != nil {
		return store.World{}, r.err
	}
	w := r.world
	w.Taken = slices.Clone(w.Taken)
	if r.now != nil {
		w.Now = r.now()
	}
	return w, nil
}

func (r *recording) Changes(ctx context.Context, since store.Snapshot) (store.Changes, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looks.Add(1)
	if r.before != nil {
		hook(&r.mu, func() { r.before(ctx) })
	}
	if r.err != nil {
		return store.Changes{}, r.err
	}
	c := store.Changes{Snapshot: since, Now: r.world.Now}
	if len(r.changes) > 0 {
		c, r.changes = r.changes[0], r.changes[1:]
	}
	if c.CatalogChanged {
		c = withCatalog(c, r.world.Catalog, r.catalog)
		r.world.Catalog = r.catalog
	}
	if r.now != nil {
		c.Now = r.now()
	}
	r.world.Now = c.Now
	hook(&r.mu, r.after)
	return c, nil
}

// hook runs f without the lock that is held.
func hook(mu *sync.Mutex, f func()) {
	if f != nil {
		mu.Unlock()
		defer mu.Lock()
		f()
	}
}

// withCatalog returns changes in which the catalog became another one, as Postgres would tell them: a seat that is deleted touches its branch,
// and a branch that is deleted touches the others.
func withCatalog(c store.Changes, old, read store.Catalog) store.Changes {
	c.CatalogChanged = true
	before := map[int64]store.Seat{}
	for _, s := range old.Seats {
		before[s.ID] = s
	}
	touched := map[int64]bool{}
	for _, s := range read.Seats {
		if was, ok := before[s.ID]; !ok || !reflect.DeepEqual(was, s) {
			c.Catalog.Seats = append(c.Catalog.Seats, s)
		}
		delete(before, s.ID)
	}
	for _, s := range before {
		touched[s.BranchID] = true
	}
	branches := map[int64]store.Branch{}
	for _, b := range old.Branches {
		branches[b.ID] = b
	}
	for _, b := range read.Branches {
		c.Catalog.BranchIDs = append(c.Catalog.BranchIDs, b.ID)
		if was, ok := branches[b.ID]; !ok || !reflect.DeepEqual(was, b) {
			touched[b.ID] = true
		}
		delete(branches, b.ID)
	}
	for _, b := range read.Branches {
		if touched[b.ID] || len(branches) > 0 {
			touched[b.ID] = true
			c.Catalog.Branches = append(c.Catalog.Branches, b)
		}
	}
	for _, s := range read.Seats {
		if touched[s.BranchID] {
			c.Catalog.SeatIDs = append(c.Catalog.SeatIDs, s.ID)
		}
	}
	return c
}

// become applies changes in which the catalog may have become another one.
func (l *ledger) become(c store.Changes, read *store.Catalog) *world {
	if read != nil {
		old := store.Catalog{}
		for _, b := range l.world.branches {
			old.Branches = append(old.Branches, b.Branch)
		}
		for _, s := range l.world.seats {
			old.Seats = append(old.Seats, s.Seat)
		}
		c = withCatalog(c, old, *read)
	}
	return l.apply(c)
}

// set changes the recording.
func (r *recording) set(change func(r *recording)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

// happened puts events at the end of the recording.
func (r *recording) happened(events ...store.Event) {
	r.set(func(r *recording) {
		r.changes = append(r.changes, store.Changes{Now: r.world.Now, Events: events})
	})
}

// smallLibrary has two branches: day, with seats 1 to 3 and the hours given, and night, with seat 4, which never closes.
func smallLibrary(timezone string, hours ...store.OpenHours) store.Catalog {
	return store.Catalog{
		Branches: []store.Branch{
			{ID: 1, Code: "day", Name: "Day", Timezone: timezone, Hours: hours},
			{ID: 2, Code: "night", Name: "Night", Timezone: timezone},
		},
		Seats: []store.Seat{
			{ID: 1, BranchID: 1, Area: "Hall", Label: "D-1", Amenities: []int16{5, 1}},
			{ID: 2, BranchID: 1, Area: "Hall", Label: "D-2"},
			{ID: 3, BranchID: 1, Area: "Attic", Label: "D-3", Amenities: []int16{1}},
			{ID: 4, BranchID: 2, Area: "Hall", Label: "N-1", Amenities: []int16{1, 2}},
		},
	}
}

// reservation is an event of a reservation that takes its seat from minute start to minute end.
func reservation(id, version, seat int64, start, end int) store.Event {
	return store.Event{
		ID: id*100 + version, Kind: store.EventReserved, ReservationID: id, Version: version, SeatID: seat,
		StartTime: minute(start), EndTime: minute(end), Status: store.Confirmed,
	}
}

// over is the event that ends the reservation of e.
func over(e store.Event) store.Event {
	e.ID, e.Version, e.Kind, e.Status = e.ID+1, e.Version+1, store.EventCancelled, store.Cancelled
	return e
}

// history makes up what happens to reservations, as the store would let it: those that take a seat never overlap.
type history struct {
	seats []int64
	live  map[int64]store.Event // the last event, by reservation, of those that take their seat
	last  int64                 // reservation
}

// draw makes up the next event; none if it would break a rule.
func (h *history) draw(t *rapid.T, span int) (store.Event, bool) {
	ids := slices.Sorted(maps.Keys(h.live))
	if len(ids) > 0 && rapid.Bool().Draw(t, "goes on") {
		e := h.live[rapid.SampledFrom(ids).Draw(t, "reservation")]
		e.ID, e.Version = e.ID+1, e.Version+1
		switch rapid.IntRange(0, 3).Draw(t, "how") {
		case 0: // nothing that shows here
			e.Kind, e.Status = store.EventCheckedIn, store.CheckedIn
		case 1:
			e.Kind = store.EventExtended
			e.EndTime = e.EndTime.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "minutes")) * time.Minute)
			if h.taken(e) {
				return e, false
			}
		default:
			e.Kind, e.Status = store.EventCancelled, store.Cancelled
			delete(h.live, e.ReservationID)
			return e, true
		}
		h.live[e.ReservationID] = e
		return e, true
	}
	start := rapid.IntRange(0, span).Draw(t, "start")
	e := reservation(h.last+1, 1, rapid.SampledFrom(h.seats).Draw(t, "seat"), start, start+rapid.IntRange(1, 90).Draw(t, "length"))
	if h.taken(e) {
		return e, false
	}
	h.last++
	h.live[e.ReservationID] = e
	return e, true
}

func (h *history) taken(e store.Event) bool {
	for id, o := range h.live {
		if id != e.ReservationID && o.SeatID == e.SeatID && o.StartTime.Before(e.EndTime) && e.StartTime.Before(o.EndTime) {
			return true
		}
	}
	return false
}

// bookingsOf returns what takes a seat, in the order of time, given the events known.
func bookingsOf(events []store.Event, seat int64) []booking {
	last := map[int64]store.Event{}
	for _, e := range events {
		if e.Version > last[e.ReservationID].Version {
			last[e.ReservationID] = e
		}
	}
	var out []booking
	for id, e := range last {
		if e.SeatID == seat && e.Status.Occupies() {
			out = append(out, booking{window{e.StartTime.UnixMicro(), e.EndTime.UnixMicro()}, id})
		}
	}
	slices.SortFunc(out, booking.compare)
	return out
}

// startModel returns a model that has loaded the world and follows the source until the test ends.
func startModel(t testing.TB, source Source, o Options) *Model {
	t.Helper()
	if o.MaxStaleness == 0 {
		o.MaxStaleness = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	m := New(source, o)
	run(t, m)
	<-m.Ready()
	return m
}

// run runs a model until the test ends.
func run(t testing.TB, m *Model) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}
