// Package feedtest has a feed.Source in memory, for tests of the feed and of its subscribers.
package feedtest

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// Monday is the day on which most of the tests happen.
var Monday = time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)

// Minute returns the time at minute m of Monday.
func Minute(m int) time.Time { return Monday.Add(time.Duration(m) * time.Minute) }

// Source is a feed.Source in memory. LoadWorld returns World, and each read returns the next of the
// Pending changes. A test may set the fields before the feed runs, and later only in Set.
type Source struct {
	mu      sync.Mutex
	World   store.World     // the state
	Catalog library.Catalog // replaces World.Catalog at the next changes with CatalogChanged
	Pending []store.Changes // the results of the next reads
	// Now is Postgres's clock. If it is nil, the clock shows the Now of the last result.
	Now func() time.Time
	// Err is returned by each call. If it is nil, calls succeed.
	Err error
	// Before runs in each read before the snapshot is taken. After runs in each read after the
	// snapshot is taken. Loading runs in each load.
	Before         func(ctx context.Context)
	After, Loading func()
	// Reads and Loads count the calls of Changes and LoadWorld.
	Reads, Loads atomic.Int64
}

// NewSource returns a source with a state and no pending changes.
func NewSource(world store.World) *Source {
	return &Source{World: world, Catalog: world.Catalog}
}

// LoadWorld returns the state.
func (s *Source) LoadWorld(context.Context) (store.World, error) {
	s.mu.Lock()
	s.Loads.Add(1)
	hook(&s.mu, s.Loading)
	defer s.mu.Unlock()
	if s.Err != nil {
		return store.World{}, s.Err
	}
	w := s.World
	w.Taken = slices.Clone(w.Taken)
	if s.Now != nil {
		w.Now = s.Now()
	}
	return w, nil
}

// Changes returns the first of the pending changes, or none.
func (s *Source) Changes(ctx context.Context, since store.Snapshot) (store.Changes, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Reads.Add(1)
	if s.Before != nil {
		hook(&s.mu, func() { s.Before(ctx) })
	}
	if s.Err != nil {
		return store.Changes{}, s.Err
	}
	c := store.Changes{Snapshot: since, Now: s.World.Now}
	if len(s.Pending) > 0 {
		c, s.Pending = s.Pending[0], s.Pending[1:]
	}
	if c.CatalogChanged {
		c = WithCatalog(c, s.World.Catalog, s.Catalog)
		s.World.Catalog = s.Catalog
	}
	if s.Now != nil {
		c.Now = s.Now()
	}
	s.World.Now = c.Now
	hook(&s.mu, s.After)
	return c, nil
}

// hook runs f. Meanwhile it unlocks mu, which the caller holds.
func hook(mu *sync.Mutex, f func()) {
	if f != nil {
		mu.Unlock()
		defer mu.Lock()
		f()
	}
}

// WithCatalog returns c with the changes that turn the catalog old into the catalog read. They have
// the form in which store.Changes has them. store.Changes does not list what was deleted. If a seat
// was deleted, it lists the branch of the seat, with the ids of the seats that are left. If a
// branch was deleted, it lists all other branches in this way.
func WithCatalog(c store.Changes, old, read library.Catalog) store.Changes {
	c.CatalogChanged = true
	before := map[int64]library.Seat{}
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
	branches := map[int64]library.Branch{}
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

// Set changes the source under its lock.
func (s *Source) Set(change func(s *Source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// Happen adds events to the end of the change log. One read returns all of them.
func (s *Source) Happen(events ...library.Event) {
	s.Set(func(s *Source) {
		s.Pending = append(s.Pending, store.Changes{Now: s.World.Now, Events: events})
	})
}

// SmallLibrary returns a catalog of two branches. The branch "day" has the given hours and seats 1
// to 3. The branch "night" never closes and has seat 4.
func SmallLibrary(timezone string, hours ...library.OpenHours) library.Catalog {
	return library.Catalog{
		Branches: []library.Branch{
			{ID: 1, Code: "day", Name: "Day", Timezone: timezone, Hours: hours},
			{ID: 2, Code: "night", Name: "Night", Timezone: timezone},
		},
		Seats: []library.Seat{
			{ID: 1, BranchID: 1, Area: "Hall", Label: "D-1", Amenities: []int16{5, 1}},
			{ID: 2, BranchID: 1, Area: "Hall", Label: "D-2"},
			{ID: 3, BranchID: 1, Area: "Attic", Label: "D-3", Amenities: []int16{1}},
			{ID: 4, BranchID: 2, Area: "Hall", Label: "N-1", Amenities: []int16{1, 2}},
		},
	}
}

// Reservation returns an event of a reservation that takes its seat from minute start to minute
// end.
func Reservation(id, version, seat int64, start, end int) library.Event {
	return library.Event{
		ID: id*100 + version, Kind: library.EventReserved, ReservationID: id, Version: version, SeatID: seat,
		StartTime: Minute(start), EndTime: Minute(end), Status: library.Confirmed,
	}
}

// Over returns the event that cancels the reservation of e.
func Over(e library.Event) library.Event {
	e.ID, e.Version, e.Kind, e.Status = e.ID+1, e.Version+1, library.EventCancelled, library.Cancelled
	return e
}
