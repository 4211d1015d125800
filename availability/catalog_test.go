package availability

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestCatalogEditsShareUnchangedParts checks that an edit creates objects for the changed parts
// only, and shares the rest with the previous world.
func TestCatalogEditsShareUnchangedParts(t *testing.T) {
	t.Parallel()
	const n = 5000
	read := library.Catalog{Branches: []library.Branch{
		{ID: 1, Code: "a", Timezone: "UTC"}, {ID: 2, Code: "b", Timezone: "UTC"},
	}}
	for i := range int64(n) {
		read.Seats = append(read.Seats, library.Seat{ID: i + 1, BranchID: 1 + i%2, Area: "Hall", Label: fmt.Sprint(i)})
	}
	l := newTestBuilder(read)
	l.apply(store.Changes{Now: monday, Events: []library.Event{reservation(1, 1, 77, 60, 120)}})
	edit := func(what string, replaced int, change func(*library.Catalog)) *world {
		old := l.world
		after := library.Catalog{Branches: slices.Clone(read.Branches), Seats: slices.Clone(read.Seats)}
		change(&after)
		w := l.applyCatalog(store.Changes{Now: monday}, &after)
		read = after
		if w.index != old.index || !slices.Equal(w.taken, old.taken) {
			t.Errorf("%s: positions or bookings were copied", what)
		}
		other := 0
		for i, s := range w.seats {
			if s != old.seats[i] {
				other++
			}
		}
		if other != replaced {
			t.Errorf("%s: %d seats are new objects, want %d", what, other, replaced)
		}
		if (w.generation != old.generation) != (w.catalog != old.catalog) {
			t.Errorf("%s: generation %d after %d", what, w.generation, old.generation)
		}
		return w
	}
	edit("nothing", 0, func(*library.Catalog) {})
	edit("out of service", 1, func(c *library.Catalog) { c.Seats[10].OutOfService = true })
	w := edit("an area", 2, func(c *library.Catalog) { c.Seats[11].Area, c.Seats[12].Area = "Attic", "Cellar" })
	if !slices.Equal(w.byCode["a"].areas, []string{"Cellar", "Hall"}) ||
		!slices.Equal(w.byCode["b"].areas, []string{"Attic", "Hall"}) {
		t.Errorf("areas %v and %v", w.byCode["a"].areas, w.byCode["b"].areas)
	}
	w = edit("a name", 0, func(c *library.Catalog) { c.Branches[0].Name = "New" })
	if w.branches[0].Name != "New" || w.byCode["a"] != w.byID[1] {
		t.Errorf("branch %+v", w.branches[0].Branch)
	}
	edit("hours", n/2, func(c *library.Catalog) { c.Branches[1].Hours = nineToFive })
	edit("the same hours", 0, func(c *library.Catalog) { c.Branches[1].Hours = slices.Clone(nineToFive) })
}

// TestCatalogEditDoesNotIndexAgain checks what a new catalog reuses from the previous one. After an
// edit of a seat, it reuses the branches and the positions of the seats. After an edit of a branch,
// it reuses the seats and the other branches. A catalog that was indexed again would have copies.
func TestCatalogEditDoesNotIndexAgain(t *testing.T) {
	t.Parallel()
	l := newTestBuilder(library.Catalog{
		Branches: []library.Branch{{ID: 1, Code: "a", Timezone: "UTC"}, {ID: 2, Code: "b", Timezone: "UTC"}},
		Seats: []library.Seat{
			{ID: 1, BranchID: 1, Area: "Hall", Label: "1"}, {ID: 2, BranchID: 2, Area: "Hall", Label: "2"},
			{ID: 3, BranchID: 1, Area: "Hall", Label: "3"},
		},
	})
	edit := func(change func(*library.Catalog)) (was, is *catalog) {
		was = l.world.catalog
		var read library.Catalog
		for _, b := range was.branches {
			read.Branches = append(read.Branches, b.Branch)
		}
		for _, s := range was.seats {
			read.Seats = append(read.Seats, s.Seat)
		}
		change(&read)
		is = l.applyCatalog(store.Changes{Now: monday}, &read).catalog
		if is == was {
			t.Fatal("the edit did not change the catalog")
		}
		if is.index != was.index {
			t.Error("the positions of the seats were computed again")
		}
		return was, is
	}

	was, is := edit(func(c *library.Catalog) { c.Seats[0].OutOfService = true })
	if is.seats[0] == was.seats[0] || is.seats[1] != was.seats[1] || is.seats[2] != was.seats[2] {
		t.Error("an edit of a seat: want a new object for this seat only")
	}
	if &is.branches[0] != &was.branches[0] {
		t.Error("an edit of a seat copied the list of branches")
	}
	if !slices.Equal(is.branches, was.branches) {
		t.Error("an edit of a seat copied branches")
	}
	if !sameMap(is.byCode, was.byCode) || !sameMap(is.byID, was.byID) {
		t.Error("an edit of a seat copied the maps of branches")
	}

	was, is = edit(func(c *library.Catalog) { c.Seats[1].Area = "Attic" })
	if is.branches[0] != was.branches[0] {
		t.Error("a new area in a branch copied the other branch")
	}

	was, is = edit(func(c *library.Catalog) { c.Branches[0].Name = "New" })
	if is.branches[0] == was.branches[0] || is.branches[1] != was.branches[1] {
		t.Error("an edit of a branch: want a new object for this branch only")
	}
	if &is.seats[0] != &was.seats[0] {
		t.Error("an edit of a branch copied the list of seats")
	}
	if &is.branches[0].seats[0] != &was.branches[0].seats[0] {
		t.Error("an edit of a branch copied the positions of its seats")
	}
}

// sameMap reports whether a and b are the same map.
func sameMap[K comparable, V any](a, b map[K]V) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

// places differ from each other in one value each.
var places = []library.SeatPlace{
	{}, {Desk: "D"}, {Angle: new(int32)}, {XCm: new(int32), YCm: new(int32)}, {XCm: new(int32), YCm: number(7)},
	{XCm: number(7), YCm: new(int32)},
}

func number(n int32) *int32 { return &n }

// TestChangedCatalogEqualsFreshLoad changes a catalog at random. Each result must equal the catalog
// that newCatalog returns for the same rows.
func TestChangedCatalogEqualsFreshLoad(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		draw := func() (c library.Catalog) {
			for id := range int64(3) {
				if rapid.IntRange(0, 4).Draw(t, "branch") > 0 {
					c.Branches = append(c.Branches, library.Branch{
						ID: id + 1, Code: fmt.Sprintf("b%d", rapid.IntRange(0, 1).Draw(t, "code")*3+int(id)), Timezone: "UTC",
						Hours:  rapid.SampledFrom([][]library.OpenHours{nil, {{Weekday: 1, Closes: time.Hour}}}).Draw(t, "hours"),
						Floors: rapid.SampledFrom([]map[string]string{nil, {"A": "1"}, {"A": "2"}}).Draw(t, "floors"),
					})
				}
			}
			slices.SortFunc(c.Branches, func(a, b library.Branch) int { return strings.Compare(a.Code, b.Code) })
			for id := range int64(6) {
				s := library.Seat{
					ID: id + 1, BranchID: rapid.Int64Range(1, 3).Draw(t, "of"),
					Area:      rapid.SampledFrom([]string{"A", "B"}).Draw(t, "area"),
					SeatPlace: rapid.SampledFrom(places).Draw(t, "place"),
				}
				exists := slices.ContainsFunc(c.Branches, func(b library.Branch) bool { return b.ID == s.BranchID })
				if exists && rapid.IntRange(0, 4).Draw(t, "seat") > 0 {
					c.Seats = append(c.Seats, s)
				}
			}
			return c
		}
		l := newTestBuilder(draw())
		for range 4 {
			read := draw()
			w := l.applyCatalog(store.Changes{Now: monday}, &read)
			got, want := w.catalog, newCatalog(read, nil)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(catalog{}, index{}, branch{}, seat{}), cmpopts.EquateEmpty(),
				cmpopts.IgnoreTypes(memo{}, sync.Map{}),
				cmp.Comparer(func(a, b *calendar) bool { return (a == nil) == (b == nil) })); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// TestUnreadableRowsAreLeftOut checks that a seat is left out while its row is unreadable, that a
// branch with hours in an unknown time zone is closed, and that queries still answer.
func TestUnreadableRowsAreLeftOut(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	seats := db.Seats(t, 3)
	elsewhere := db.Seats(t, 1)[0]
	db.DropChecks(t, "seats")
	db.DropChecks(t, "branches")
	db.Exec(t, `INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes)
		SELECT 1, branch_id, d, '00:00', '23:59:59' FROM generate_series(1, 7) d,
			(SELECT branch_id FROM seats WHERE id = $1) b`, elsewhere)
	db.FreezeClock(t, minute(12*60))
	m := startModel(t, db.Open(t, freeRules()), feed.Options{})
	look := func(what string, want ...int64) {
		t.Helper()
		fresh := startModel(t, db.Open(t, freeRules()), feed.Options{}) // as a replica that starts now
		for _, m := range []*Model{m, fresh} {
			p, err := m.Seats(t.Context(), Query{AvailableOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			var got []int64
			for _, s := range p.Seats {
				got = append(got, s.ID)
			}
			if !slices.Equal(got, want) || !m.Stats().Reachable {
				t.Errorf("%s: available %v, want %v", what, got, want)
			}
		}
	}
	look("at first", seats[0], seats[1], seats[2], elsewhere)
	db.Exec(t, `UPDATE seats SET amenities = array_append(amenities, NULL) WHERE id = $1`, seats[1])
	look("an amenity is NULL", seats[0], seats[2], elsewhere)
	db.Exec(t, `UPDATE branches SET timezone = 'Europe/Berln'`)
	look("the time zones are unknown", seats[0], seats[2])
	db.Exec(t, `UPDATE seats SET amenities = '{1}' WHERE id = $1`, seats[1])
	db.Exec(t, `UPDATE branches SET timezone = 'Europe/Berlin'`)
	look("mended", seats[0], seats[1], seats[2], elsewhere)
	db.Exec(t, `DELETE FROM seats`)
	db.Exec(t, `DELETE FROM branch_hours`)
	db.Exec(t, `DELETE FROM branches`)
	look("all is deleted")
	if branches, _, err := m.Branches(t.Context()); err != nil || len(branches) != 0 {
		t.Errorf("%+v, %v", branches, err)
	}
}
