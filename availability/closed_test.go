package availability

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/feed/feedtest"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// closedLibrary is smallLibrary with closures of the branch "day", by minutes of monday: of seat 1
// from 60 to 120, of the area Hall from 300 on, and of the branch from 600 to 660.
func closedLibrary() library.Catalog {
	c := smallLibrary("UTC")
	c.Branches[0].Closures = []library.Closure{
		{ID: 1, BranchID: 1, SeatIDs: []int64{1}, StartTime: minute(60), EndTime: minute(120)},
		{ID: 2, BranchID: 1, Area: "Hall", StartTime: minute(300), Note: library.Texts{"en": "Paint"}},
		{ID: 3, BranchID: 1, StartTime: minute(600), EndTime: minute(660)},
	}
	return c
}

func TestClosuresTakeSeats(t *testing.T) {
	t.Parallel()
	m := startModel(t, feedtest.NewSource(store.World{Now: monday, Catalog: closedLibrary()}), feed.Options{})
	type seen struct {
		available   bool
		until, next time.Time
	}
	for _, c := range []struct {
		name       string
		start, end int
		want       [4]seen // of the seats 1 to 4
	}{
		{"before all closures", 0, 60, [4]seen{
			{true, minute(60), time.Time{}}, {true, minute(300), time.Time{}}, {true, minute(600), time.Time{}},
			{true, time.Time{}, time.Time{}}}},
		{"into a closure", 0, 61, [4]seen{
			{false, time.Time{}, minute(120)}, {true, minute(300), time.Time{}}, {true, minute(600), time.Time{}},
			{true, time.Time{}, time.Time{}}}},
		{"too long between two closures", 0, 181, [4]seen{
			{}, {true, minute(300), time.Time{}}, {true, minute(600), time.Time{}}, {true, time.Time{}, time.Time{}}}},
		{"into a closure without an end", 240, 301, [4]seen{
			{}, {}, {true, minute(600), time.Time{}}, {true, time.Time{}, time.Time{}}}},
		{"into a closure of the branch", 590, 610, [4]seen{
			{}, {}, {false, time.Time{}, minute(660)}, {true, time.Time{}, time.Time{}}}},
	} {
		p, err := m.Seats(t.Context(), Query{Start: minute(c.start), End: minute(c.end)})
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range p.Seats {
			if got := (seen{s.Available, s.AvailableUntil, s.NextAvailableAt}); got != c.want[i] {
				t.Errorf("%s, seat %d: %+v, want %+v", c.name, s.ID, got, c.want[i])
			}
		}
	}
	closures := func(seat int64, start, end time.Time) (ids []int64) {
		t.Helper()
		d, err := m.Seat(t.Context(), seat, start, end)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range d.Closures {
			ids = append(ids, c.ID)
		}
		return ids
	}
	none := time.Time{}
	for _, c := range []struct {
		name string
		got  []int64
		want []int64
	}{
		{"seat 1", closures(1, none, none), []int64{1, 2, 3}},
		{"seat 3, in another area", closures(3, none, none), []int64{3}},
		{"seat 4, in another branch", closures(4, none, none), nil},
		{"half open at both ends", closures(1, minute(120), minute(300)), nil},
		{"years later", closures(1, minute(1_000_000), minute(1_000_060)), []int64{2}},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("closures of %s: %s", c.name, diff)
		}
	}
}

// TestWatchersSeeClosuresBeginAndEnd changes nothing: only time passes. The feed must refresh when a
// closure begins or ends.
func TestWatchersSeeClosuresBeginAndEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := feedtest.NewSource(store.World{Catalog: closedLibrary()})
		r.Now = func() time.Time { return monday.Add(time.Since(start)).Truncate(time.Microsecond) }
		m := startModel(t, r, feed.Options{})
		w, err := m.Watch(t.Context(), Query{Branch: "day"})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for _, want := range []struct {
			minute int
			free   []int64 // of the seats in the update
			taken  []int64
		}{
			{0, []int64{1, 2, 3}, nil}, {60, nil, []int64{1}}, {120, []int64{1}, nil}, {300, nil, []int64{1, 2}},
			{600, nil, []int64{3}}, {660, []int64{3}, nil},
		} {
			u, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var free, taken []int64
			for _, s := range u.Seats {
				if s.Available {
					free = append(free, s.ID)
				} else {
					taken = append(taken, s.ID)
				}
			}
			if late := time.Since(start) - time.Duration(want.minute)*time.Minute; late < 0 || late > time.Millisecond {
				t.Errorf("the update of minute %d came %v late", want.minute, late)
			}
			if !slices.Equal(free, want.free) || !slices.Equal(taken, want.taken) {
				t.Errorf("minute %d: free %v, taken %v", want.minute, free, taken)
			}
		}
	})
}

// TestBranchNotices checks what GetBranches tells about exceptional days, closures and announcements,
// and until when.
func TestBranchNotices(t *testing.T) {
	t.Parallel()
	read := closedLibrary()
	day := &read.Branches[0]
	day.Timezone = "Europe/Berlin" // one hour ahead
	today := int(monday.Unix() / secondsPerDay)
	day.Days = []library.DayHours{{Day: today - 1}, {Day: today + 1}}
	day.Announcement, day.AnnouncedUntil = library.Texts{"en": "Soon closed"}, minute(100)
	l := newTestBuilder(read)
	for _, c := range []struct {
		minute, days, closures int
		announced              bool
		until                  int
	}{
		{0, 1, 3, true, 60},         // seat 1 closes
		{60, 1, 3, true, 100},       // the announcement ends
		{100, 1, 3, false, 120},     // a closure ends
		{120, 1, 2, false, 300},     // seats close
		{659, 1, 2, false, 660},     // a closure ends
		{700, 1, 1, false, 23 * 60}, // midnight in Berlin
		{23 * 60, 1, 1, false, 47 * 60},
		{47 * 60, 0, 1, false, -1},
	} {
		a := l.apply(store.Changes{Now: minute(c.minute)}).computeBranches()
		b := a.branches[0]
		if len(b.Days) != c.days || len(b.Closures) != c.closures || (b.Announcement != nil) != c.announced {
			t.Errorf("minute %d: %+v", c.minute, b)
		}
		want := int64(never)
		if c.until >= 0 {
			want = minute(c.until).UnixMicro()
		}
		if a.until != want {
			t.Errorf("minute %d: the answer is kept until %v", c.minute, timeUnlessNever(a.until))
		}
	}
}

// TestClosureEditsShareUnchangedParts changes the closures of a branch. Only the seats that they
// close become new objects, and an edit of a note changes no seat.
func TestClosureEditsShareUnchangedParts(t *testing.T) {
	t.Parallel()
	l := newTestBuilder(smallLibrary("UTC"))
	edit := func(what string, replaced int, closures []library.Closure) {
		t.Helper()
		old := l.world
		read := smallLibrary("UTC")
		read.Branches[0].Closures = closures
		w := l.applyCatalog(store.Changes{Now: monday}, &read)
		if w.catalog == old.catalog || w.index != old.index {
			t.Errorf("%s: the catalog is the same, or was indexed again", what)
		}
		n := 0
		for i := range w.seats {
			if w.seats[i] != old.seats[i] {
				n++
			}
		}
		if n != replaced {
			t.Errorf("%s: %d seats are new objects, want %d", what, n, replaced)
		}
	}
	all := closedLibrary().Branches[0].Closures
	edit("a closure of a seat", 1, all[:1:1])
	edit("a closure of the branch", 3, all)
	reworded := slices.Clone(all)
	reworded[0].Note = library.Texts{"en": "Dust"}
	edit("a note", 0, reworded)
	edit("a closure of the branch ends", 1, all[:2]) // the seats of the Hall stay closed
	edit("all closures end", 2, nil)
}
