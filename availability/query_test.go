package availability

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/feed/feedtest"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// nineToFive are hours on the first two days of the tests.
var nineToFive = []library.OpenHours{
	{Weekday: time.Monday, Opens: 9 * time.Hour, Closes: 17 * time.Hour},
	{Weekday: time.Tuesday, Opens: 9 * time.Hour, Closes: 17 * time.Hour},
}

func drawQuestion(t *rapid.T, span int) question {
	q := Query{
		Branch:        rapid.SampledFrom([]string{"", "day", "night"}).Draw(t, "branch"),
		Area:          rapid.SampledFrom([]string{"", "", "Hall", "Attic", "Nowhere"}).Draw(t, "area"),
		AvailableOnly: rapid.Bool().Draw(t, "available only"),
		AfterID:       rapid.Int64Range(0, 4).Draw(t, "after"),
		Limit:         rapid.IntRange(0, 3).Draw(t, "limit"),
	}
	if rapid.Bool().Draw(t, "with amenities") {
		q.Amenities = rapid.SliceOfN(rapid.Int16Range(1, 5), 1, 2).Draw(t, "amenities")
	}
	about := present
	if rapid.Bool().Draw(t, "with a window") {
		about = drawWindow(t, span)
	}
	return question{filter: newFilter(q), window: about, availableOnly: q.AvailableOnly, after: q.AfterID, limit: q.Limit}
}

// slowly computes the answer to a question from the definitions and the events.
func slowly(w *world, q question, hours []library.OpenHours, events []library.Event) Page {
	p := Page{AsOf: w.asOf}
	about := q.window
	if about == present {
		about = instant(w.now)
	}
	var openings []window
	for day := range 2 {
		openings = append(openings, window{minute(day*24*60 + 9*60).UnixMicro(), minute(day*24*60 + 17*60).UnixMicro()})
		next := (day + 7) * 24 * 60
		openings = append(openings, window{minute(next + 9*60).UnixMicro(), minute(next + 17*60).UnixMicro()})
	}
	for _, s := range w.seats {
		if q.branch != "" && q.branch != s.branch || q.area != "" && q.area != s.Area {
			continue
		}
		has := true
		for i := 0; i < len(q.amenities); i += 2 {
			has = has && slices.Contains(s.Amenities, int16(q.amenities[i+1]))
		}
		if !has {
			continue
		}
		isOpen := func(window) bool { return true }
		if s.branch == "day" && len(hours) > 0 {
			isOpen = func(w window) bool {
				return slices.ContainsFunc(openings, func(o window) bool { return o.start <= w.start && w.end <= o.end })
			}
		}
		taken := bookingsOf(events, s.ID)
		st := oracle(s.OutOfService, taken, isOpen, about, candidatesOf(taken, about, openings))
		p.Total++
		if st.available {
			p.Available++
		}
		if s.ID > q.after && (st.available || !q.availableOnly) {
			p.Seats = append(p.Seats, s.view(st))
		}
	}
	if q.limit > 0 && len(p.Seats) > q.limit {
		p.Seats = p.Seats[:q.limit]
		p.NextAfterID = p.Seats[q.limit-1].ID
	}
	return p
}

// TestAnswersAgreeWithDefinition compares answers, most of them cached, with the results of slowly,
// while events happen, time passes, and seats change. Some readers have an older world.
func TestAnswersAgreeWithDefinition(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		hours := rapid.SampledFrom([][]library.OpenHours{nil, nineToFive}).Draw(t, "hours")
		catalog := smallLibrary("UTC", hours...)
		l := newTestBuilder(catalog)
		h := &history{seats: []int64{1, 2, 3, 4}, live: map[int64]library.Event{}}
		questions := []question{}
		for range rapid.IntRange(1, 4).Draw(t, "questions") {
			questions = append(questions, drawQuestion(t, 1200))
		}
		type past struct {
			w      *world
			events []library.Event
		}
		var events []library.Event
		now := monday
		worlds := []past{{l.world, nil}}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			c := store.Changes{Now: now}
			var read *library.Catalog
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				catalog.Seats = slices.Clone(catalog.Seats)
				s := &catalog.Seats[rapid.IntRange(0, 3).Draw(t, "seat")]
				s.OutOfService = !s.OutOfService
				read = &catalog
			case 1, 2:
				now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "seconds")) * 6 * time.Second)
				c.Now = now
			default:
				if e, ok := h.draw(t, 1200); ok && e.EndTime.After(now) {
					c.Events = []library.Event{e}
					events = append(slices.Clone(events), e)
				}
			}
			worlds = append(worlds, past{l.applyCatalog(c, read), events})
			for range 4 {
				p := worlds[max(0, len(worlds)-rapid.IntRange(1, 3).Draw(t, "world"))]
				q := rapid.SampledFrom(questions).Draw(t, "question")
				if q.window != present && q.start < p.w.now {
					continue // the builder may have dropped bookings that ended
				}
				got, want := p.w.page(q), slowly(p.w, q, hours, p.events)
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(),
					cmpopts.IgnoreUnexported(Page{}, SeatView{}),
					cmpopts.IgnoreFields(Page{}, "Generation", "ValidUntil")); diff != "" {
					t.Fatalf("%+v at %v: %s", q, p.w.asOf, diff)
				}
				if !got.ValidUntil.IsZero() && !got.ValidUntil.After(p.w.asOf) {
					t.Fatalf("%+v at %v is valid until %v", q, p.w.asOf, got.ValidUntil)
				}
				counts := map[string][2]int{}
				for _, v := range p.w.cached(question{branches: true}, p.w.now, p.w.computeBranches).branches {
					counts[v.Code] = [2]int{v.SeatCount, v.AvailableCount}
				}
				wantCounts := map[string][2]int{}
				for _, code := range []string{"day", "night"} {
					p := slowly(p.w, question{filter: filter{branch: code}}, hours, p.events)
					wantCounts[code] = [2]int{p.Total, p.Available}
				}
				if !maps.Equal(counts, wantCounts) {
					t.Fatalf("branches at %v have %v, want %v", p.w.asOf, counts, wantCounts)
				}
			}
		}
	})
}

func TestCachedAnswersAreShared(t *testing.T) {
	t.Parallel()
	e := reservation(1, 1, 2, 60, 120)
	l := newTestBuilder(smallLibrary("UTC"), library.TakenWindow{
		ReservationID: 1, Version: 1, SeatID: 2, StartTime: e.StartTime, EndTime: e.EndTime,
	})
	computed := 0
	encode := func(w *world) int {
		return w.page(question{availableOnly: true}).Memo(JSON, func() any { computed++; return computed }).(int)
	}
	for _, step := range []struct {
		what    string
		changes store.Changes
		want    int
	}{
		{"the first time", store.Changes{Now: monday}, 1},
		{"when nothing happened", store.Changes{Now: minute(59)}, 1},
		{"at the start of a booking", store.Changes{Now: minute(60)}, 2},
		{"during it", store.Changes{Now: minute(119)}, 2},
		{"when it was cancelled", store.Changes{Now: minute(119), Events: []library.Event{over(e)}}, 3},
	} {
		if got := encode(l.apply(step.changes)); got != step.want {
			t.Errorf("%s: encoded %d times, want %d", step.what, got, step.want)
		}
	}
	for limit := range maxAnswers * 2 {
		l.world.page(question{limit: limit + 1})
	}
	if got := len(l.world.asked); got != maxAnswers {
		t.Errorf("%d answers are cached, want %d", got, maxAnswers)
	}
	if got := l.world.page(question{limit: maxAnswers * 2, availableOnly: true}); len(got.Seats) != 4 {
		t.Errorf("an answer that is not cached has %d seats, want 4", len(got.Seats))
	}
}

// TestCachedAnswersAreBounded checks that the cache holds at most maxCachedSeats seats, in a
// library of 10,000 seats.
func TestCachedAnswersAreBounded(t *testing.T) {
	t.Parallel()
	catalog := smallLibrary("UTC")
	const seats = maxCachedSeats / 10
	for id := int64(1000); len(catalog.Seats) < seats; id++ {
		s := catalog.Seats[0]
		s.ID, s.Label = id, fmt.Sprint("H-", id)
		catalog.Seats = append(catalog.Seats, s)
	}
	l := newTestBuilder(catalog, library.TakenWindow{
		ReservationID: 1, Version: 1, SeatID: 1, StartTime: minute(60), EndTime: minute(120),
	})
	for m := range 3 { // an answer that replaces another counts once
		l.apply(store.Changes{Now: minute(60 * m)})
		l.world.page(question{})
	}
	for end := range 50 {
		about := window{minute(0).UnixMicro(), minute(end + 1).UnixMicro()}
		if got := l.world.page(question{window: about, watched: true}); len(got.Seats) != seats {
			t.Fatalf("%d seats, want %d", len(got.Seats), seats)
		}
	}
	if got := len(l.world.asked); got != 10 {
		t.Errorf("%d answers of %d seats are cached, want 10", got, seats)
	}
	if got := l.world.size.Load(); got != maxCachedSeats {
		t.Errorf("the cache counts %d seats, want %d", got, maxCachedSeats)
	}
}

func TestSeat(t *testing.T) {
	t.Parallel()
	var taken []library.TakenWindow
	for i, w := range [][2]int{{-10, 5}, {5, 30}, {60, 90}, {13 * 24 * 60, 13*24*60 + 30}, {15 * 24 * 60, 15*24*60 + 30}} {
		taken = append(taken, library.TakenWindow{
			ReservationID: int64(i + 1), Version: 1, SeatID: 1, StartTime: minute(w[0]), EndTime: minute(w[1]),
		})
	}
	m := startModel(t, feedtest.NewSource(store.World{
		Now: monday, Catalog: smallLibrary("UTC", nineToFive...), Taken: taken,
	}), feed.Options{})
	busy := func(ws ...[2]int) (out []Busy) {
		for _, w := range ws {
			out = append(out, Busy{minute(w[0]), minute(w[1])})
		}
		return out
	}
	for _, c := range []struct {
		name       string
		start, end time.Time
		next       time.Time
		busy       []Busy
	}{
		{"now: 14 days", time.Time{}, time.Time{}, minute(9 * 60),
			busy([2]int{-10, 5}, [2]int{5, 30}, [2]int{60, 90}, [2]int{13 * 24 * 60, 13*24*60 + 30})},
		{"half open at both ends", minute(30), minute(60), minute(9 * 60), nil},
		{"bookings that overlap by a minute", minute(29), minute(61), minute(9 * 60), busy([2]int{5, 30}, [2]int{60, 90})},
	} {
		v, err := m.Seat(t.Context(), 1, c.start, c.end)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.busy, v.Busy); diff != "" {
			t.Errorf("%s: busy %s", c.name, diff)
		}
		want := SeatView{ID: 1, Branch: "day", Area: "Hall", Label: "D-1", Amenities: []int16{1, 5}, NextAvailableAt: c.next}
		if diff := cmp.Diff(want, v.SeatView, cmpopts.IgnoreUnexported(SeatView{})); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if !v.AsOf.Equal(monday) {
			t.Errorf("%s: as of %v", c.name, v.AsOf)
		}
	}
}

func TestInvalidQueriesAreRefused(t *testing.T) {
	t.Parallel()
	m := startModel(t, feedtest.NewSource(store.World{Now: monday, Catalog: smallLibrary("UTC")}), feed.Options{})
	seats := func(q Query) error { _, err := m.Seats(t.Context(), q); return err }
	watch := func(q Query) error { _, err := m.Watch(t.Context(), q); return err }
	seat := func(id int64, start, end time.Time) error {
		_, err := m.Seat(t.Context(), id, start, end)
		return err
	}
	invalid := library.Invalid()
	for _, c := range []struct {
		name      string
		got, want error
	}{
		{"seats of an unknown branch", seats(Query{Branch: "attic"}), library.ErrBranchNotFound},
		{"a watch of an unknown branch", watch(Query{Branch: "attic"}), library.ErrBranchNotFound},
		{"an unknown seat", seat(99, time.Time{}, time.Time{}), library.ErrSeatNotFound},
		{"a start alone", seats(Query{Start: monday}), invalid},
		{"an end alone", watch(Query{End: monday}), invalid},
		{"an empty window", seat(1, monday, monday), invalid},
		{"a reversed window", seats(Query{Start: monday, End: monday.Add(-1)}), invalid},
		{"the shortest window", seats(Query{Start: monday, End: monday.Add(1)}), nil},
		{"an area that no seat has", seats(Query{Area: "Moon"}), nil},
		{"a negative limit", seats(Query{Limit: -1}), nil},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
	if n, _ := m.hub.size(); n != 0 {
		t.Errorf("%d refused watches are still open", n)
	}
}

func TestBranches(t *testing.T) {
	t.Parallel()
	taken := []library.TakenWindow{{ReservationID: 1, Version: 1, SeatID: 1, StartTime: monday, EndTime: minute(1)}}
	m := startModel(t, feedtest.NewSource(store.World{
		Now: monday, Catalog: smallLibrary("Europe/Berlin"), Taken: taken,
	}), feed.Options{})
	got, asOf, err := m.Branches(t.Context())
	if err != nil || !asOf.Equal(monday) {
		t.Fatal(asOf, err)
	}
	want := []BranchView{
		{Code: "day", Name: "Day", Timezone: "Europe/Berlin", Areas: []string{"Attic", "Hall"},
			SeatCount: 3, AvailableCount: 2, Open: true},
		{Code: "night", Name: "Night", Timezone: "Europe/Berlin", Areas: []string{"Hall"},
			SeatCount: 1, AvailableCount: 1, Open: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBranchesReturnOpeningTimes(t *testing.T) {
	t.Parallel()
	l := newTestBuilder(smallLibrary("UTC", nineToFive...))
	for _, c := range []struct {
		minute              int
		open                bool
		closesAt, opensAt   time.Time
		available, untilDue int
	}{
		{8 * 60, false, time.Time{}, minute(9 * 60), 0, 9 * 60},
		{9 * 60, true, minute(17 * 60), time.Time{}, 3, 17 * 60},
		{17*60 - 1, true, minute(17 * 60), time.Time{}, 3, 17 * 60},
		{17 * 60, false, time.Time{}, minute((24 + 9) * 60), 0, (24 + 9) * 60},
	} {
		w := l.apply(store.Changes{Now: minute(c.minute)})
		a := w.computeBranches()
		day, night := a.branches[0], a.branches[1]
		if day.Open != c.open || !day.ClosesAt.Equal(c.closesAt) || !day.OpensAt.Equal(c.opensAt) ||
			day.AvailableCount != c.available {
			t.Errorf("minute %d: %+v", c.minute, day)
		}
		if !night.Open || !night.ClosesAt.IsZero() || !night.OpensAt.IsZero() {
			t.Errorf("minute %d: the branch that never closes: %+v", c.minute, night)
		}
		if until := minute(c.untilDue).UnixMicro(); a.until != until {
			t.Errorf("minute %d: the answer is kept until %v", c.minute, timeOf(a.until))
		}
	}
	unknown := smallLibrary("Atlantis/Capital", nineToFive...)
	w := newTestBuilder(unknown).world
	day := w.computeBranches().branches[0]
	if day.Open || !day.ClosesAt.IsZero() || !day.OpensAt.IsZero() || day.AvailableCount != 0 {
		t.Errorf("in an unknown time zone: %+v", day)
	}
}
