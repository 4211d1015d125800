package availability

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/dlsms/dlsms/library"
)

// microsPerMinute is one minute in microseconds, the unit of windows.
const microsPerMinute = 60_000_000

// oracle computes the state of a seat in a window from the definition. isOpen says whether the
// branch is open in a window. candidates are the times at which a free window may begin.
func oracle(outOfService bool, taken []booking, isOpen func(w window) bool, w window, candidates []int64) state {
	free := func(w window) bool {
		for _, b := range taken {
			if b.start < w.end && w.start < b.end {
				return false
			}
		}
		return isOpen(w)
	}
	var st state
	switch {
	case outOfService:
	case free(w):
		st.available = true
		for _, b := range taken {
			if b.start >= w.end && (st.until == 0 || b.start < st.until) {
				st.until = b.start
			}
		}
	default:
		for _, t := range candidates {
			if t != never && t >= w.start && (st.next == 0 || t < st.next) && free(window{t, t + w.end - w.start}) {
				st.next = t
			}
		}
	}
	return st
}

// candidatesOf returns all times at which the first free window can begin: the start of w, the end
// of a booking, and the start of an opening.
func candidatesOf(taken []booking, w window, openings []window) []int64 {
	out := []int64{w.start}
	for _, b := range taken {
		out = append(out, b.end)
	}
	for _, o := range openings {
		out = append(out, o.start)
	}
	return out
}

func drawWindow(t *rapid.T, span int) window {
	start := minute(rapid.IntRange(-30, span).Draw(t, "window start")).UnixMicro()
	if rapid.Bool().Draw(t, "instant") {
		return instant(start + rapid.Int64Range(0, 1).Draw(t, "micros"))
	}
	return window{start, start + int64(rapid.IntRange(1, 240).Draw(t, "window length"))*microsPerMinute}
}

// drawClosed generates the closures of a seat. They may overlap its bookings, and the last may have
// no end.
func drawClosed(t *rapid.T) (out []window) {
	for range rapid.IntRange(0, 3).Draw(t, "closures") {
		start := minute(rapid.IntRange(-30, 500).Draw(t, "closed from")).UnixMicro()
		out = append(out, window{start, start + int64(rapid.IntRange(1, 120).Draw(t, "closed for"))*microsPerMinute})
	}
	if len(out) > 0 && rapid.IntRange(0, 3).Draw(t, "endless") == 0 {
		out[0].end = never
	}
	return merge(out)
}

func TestStateOfSeat(t *testing.T) {
	t.Parallel()
	always := func(window) bool { return true }
	rapid.Check(t, func(t *rapid.T) {
		h := &history{seats: []int64{1}, live: map[int64]library.Event{}}
		var events []library.Event
		for range rapid.IntRange(0, 12).Draw(t, "events") {
			if e, ok := h.draw(t, 500); ok {
				events = append(events, e)
			}
		}
		taken := bookingsOf(events, 1)
		w := drawWindow(t, 500)
		s := &seat{Seat: library.Seat{OutOfService: rapid.IntRange(0, 9).Draw(t, "condition") == 0}, closed: drawClosed(t)}
		got, holds := w.stateOf(s, taken)
		// A closure takes the seat as a booking does.
		for _, c := range s.closed {
			taken = append(taken, booking{c, 0})
		}
		want := oracle(s.OutOfService, taken, always, w, candidatesOf(taken, w, nil))
		if got != want {
			t.Fatalf("in %v with %v taken, closed %v: %+v, want %+v", w, taken, s.closed, got, want)
		}
		taken = taken[:len(taken)-len(s.closed)]
		// If w is an instant, holds is the time at which the state changes next. At each instant
		// before holds, the state must be equal to got. At holds, it must differ.
		if w.end-w.start > 1 {
			return
		}
		changes := slices.Clone(taken)
		for _, c := range s.closed {
			changes = append(changes, booking{c, 0})
		}
		for _, b := range changes {
			for _, at := range []int64{b.start - 1, b.start, b.end - 1, b.end} {
				later, _ := instant(at).stateOf(s, taken)
				if at >= w.start && at < holds && later != got {
					t.Fatalf("at %d: %+v, but at %d, before %d: %+v", w.start, got, at, holds, later)
				}
				if at == holds && at != never && later == got {
					t.Fatalf("at %d: %+v, and still so at %d", w.start, got, at)
				}
			}
		}
	})
}

func TestStateWithOpeningHours(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		branch := library.Branch{Code: "b", Timezone: rapid.SampledFrom(zones).Draw(t, "zone"), Hours: drawHours(t)}
		c := newCalendar(branch)
		if c == nil {
			return
		}
		if rapid.Bool().Draw(t, "warm") {
			c.warm(monday.UnixMicro())
		}
		isOpen := func(w window) bool {
			open := c.build(w.start, w.end).at(w.start)
			return open.start <= w.start && w.end <= open.end
		}
		h := &history{seats: []int64{1}, live: map[int64]library.Event{}}
		var events []library.Event
		for range rapid.IntRange(0, 6).Draw(t, "events") {
			if e, ok := h.draw(t, 3000); ok {
				events = append(events, e)
			}
		}
		taken := bookingsOf(events, 1)
		w := drawWindow(t, 3000)
		if rapid.IntRange(0, 9).Draw(t, "far") == 0 {
			far := int64(rapid.IntRange(40, 4000).Draw(t, "days")) * microsPerDay
			w = window{w.start + far, w.end + far}
		}
		end := w.start
		if len(taken) > 0 {
			end = max(end, taken[len(taken)-1].end)
		}
		openings := slices.DeleteFunc(c.build(w.start, end+20*microsPerDay).open, func(o window) bool {
			return o.start > end+searchLimit
		})
		s := &seat{calendar: c}
		got, _ := w.stateOf(s, taken)
		want := oracle(false, taken, isOpen, w, candidatesOf(taken, w, openings))
		if got != want {
			t.Fatalf("in %v with %v taken and open %+v: %+v, want %+v", w, taken, branch, got, want)
		}
	})
}

// TestDistantQueriesAreCheap checks that a client cannot keep a replica busy with two kinds of
// windows: windows far from now, which no schedule in memory covers, and windows that are longer
// than each opening.
//
//nolint:paralleltest // it counts allocations
func TestDistantQueriesAreCheap(t *testing.T) {
	var hours []library.OpenHours
	for day := range 7 {
		hours = append(hours, library.OpenHours{Weekday: time.Weekday(day), Opens: 8 * time.Hour, Closes: 22 * time.Hour})
	}
	c := newCalendar(library.Branch{Code: "b", Timezone: "Europe/Berlin", Hours: hours})
	c.warm(monday.UnixMicro())
	s := &seat{calendar: c}
	taken := []booking{{window{minute(600).UnixMicro(), minute(660).UnixMicro()}, 1}}
	day := func(y int, m time.Month, d int, hour int) int64 {
		return time.Date(y, m, d, hour, 0, 0, 0, time.UTC).UnixMicro()
	}
	for name, w := range map[string]window{
		"longer than any opening":               {minute(0).UnixMicro(), minute(25 * 60).UnixMicro()},
		"the same, 40 days ahead":               {day(2027, 4, 10, 0), day(2027, 4, 11, 1)},
		"of two centuries":                      {day(2000, 1, 1, 0), day(2199, 12, 31, 0)},
		"long ago, and longer than any opening": {day(2000, 1, 1, 0), day(2000, 1, 1, 15)},
	} {
		query := func() { _, _ = w.stateOf(s, taken) }
		query()
		if n := testing.AllocsPerRun(10, query); n > 0 {
			t.Errorf("%s: each query builds a schedule: %v allocations", name, n)
		}
	}
	built := 0
	c.cold.Range(func(any, any) bool { built++; return true })
	if built > 5 {
		t.Errorf("%d schedules were built, want at most 5", built)
	}
}

func TestSeatView(t *testing.T) {
	t.Parallel()
	s := &seat{Seat: library.Seat{ID: 7, Area: "Hall", Label: "D-7", Amenities: []int16{1}}, branch: "day"}
	taken := []booking{
		{window{minute(60).UnixMicro(), minute(90).UnixMicro()}, 1},
		{window{minute(90).UnixMicro(), minute(100).UnixMicro()}, 2},
	}
	at := func(start, end int) SeatView {
		st, _ := window{minute(start).UnixMicro(), minute(end).UnixMicro()}.stateOf(s, taken)
		return s.view(st)
	}
	base := SeatView{ID: 7, Branch: "day", Area: "Hall", Label: "D-7", Amenities: []int16{1}}
	with := func(available bool, until, next time.Time) SeatView {
		v := base
		v.Available, v.AvailableUntil, v.NextAvailableAt = available, until, next
		return v
	}
	for _, c := range []struct {
		name       string
		start, end int
		want       SeatView
	}{
		{"free until the first", 0, 60, with(true, minute(60), time.Time{})},
		{"one minute too long, and busy until both bookings end", 0, 61, with(false, time.Time{}, minute(100))},
		{"free between start and the next, but not long enough", 30, 70, with(false, time.Time{}, minute(100))},
		{"free from the end on, nothing known later", 100, 200, with(true, time.Time{}, time.Time{})},
	} {
		if diff := cmp.Diff(c.want, at(c.start, c.end), cmpopts.IgnoreUnexported(SeatView{})); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}
