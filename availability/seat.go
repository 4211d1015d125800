package availability

import (
	"math"
	"time"

	"github.com/dlsms/dlsms/library"
)

// window is a half-open span of time in microseconds since 1970, the resolution of Postgres.
type window struct{ start, end int64 }

// present is the window of a question about the present. world.at replaces it with the time of the
// world.
var present = window{}

// instant returns the shortest window that contains the time t.
func instant(t int64) window { return window{t, t + 1} }

// never is later than every time.
const never = math.MaxInt64

// booking is a reservation that takes its seat. The bookings of a seat are sorted by start. A
// constraint in Postgres ensures that they don't overlap.
type booking struct {
	window
	id int64
}

// seat is one seat of the catalog. It never changes: a change of the catalog creates another one.
type seat struct {
	library.Seat
	branch   string    // code
	calendar *calendar // of the branch; nil: never closes
	closed   []window  // the closures of the seat, disjoint, in order; a closure without an end ends at never
	memo     memo
}

// state is the state of a seat in a window. A time of 0 is unset.
type state struct {
	available bool
	until     int64 // if available: the start of the next known booking
	next      int64 // if not available: the start of the next free window of this length
}

// hours returns a schedule that covers the start of w, nil if the branch never closes.
func (w window) hours(c *calendar) *schedule {
	if c == nil {
		return nil
	}
	if hot := c.hot.Load(); hot.covers(w.start) {
		return hot
	}
	return c.distant(w.start)
}

// stateOf returns the state of a seat in the window w. taken has the bookings of the seat. If w is
// the present instant, holds is the time at which the passing of time changes the state next. If
// time does not change it, holds is never.
func (w window) stateOf(seat *seat, taken []booking) (st state, holds int64) {
	if seat.OutOfService {
		return state{}, never
	}
	i, free := 0, true
	for ; i < len(taken) && taken[i].start < w.end; i++ {
		if taken[i].end > w.start {
			free = false
			break
		}
	}
	closes := int64(never) // the start of the next closure
	for _, c := range seat.closed {
		if c.end <= w.start {
			continue
		}
		if closes = c.start; closes < w.end {
			free = false
		}
		break
	}
	hours := w.hours(seat.calendar)
	holds = never
	if free && hours != nil {
		open := hours.at(w.start)
		free, holds = open.start <= w.start && w.end <= open.end, open.end
	}
	if !free {
		st.next = firstFree(taken[i:], seat.closed, hours, w)
		if st.next == 0 {
			return st, never
		}
		return st, st.next
	}
	st.available = true
	if i < len(taken) {
		closes = min(closes, taken[i].start)
	}
	if closes != never {
		st.until = closes
		holds = min(holds, closes)
	}
	return st, holds
}

// searchLimit bounds the search of firstFree for an opening into which the window fits. The search
// begins at the end of the last booking, closure or long holiday that is in the way. Opening hours
// repeat each week, except on the days on which the clocks change, so a longer search would seldom
// find more. A holiday is long if the branch is closed for more than a week.
const (
	searchLimit = 31 * microsPerDay
	longHoliday = 8 * microsPerDay
)

// firstFree returns the earliest time at which the seat is free for as long as w lasts: it has no
// booking and no closure, and its branch is open. The time is not before the start of w. firstFree
// returns 0 if it finds no such time.
func firstFree(taken []booking, closed []window, hours *schedule, w window) int64 {
	t, length := w.start, w.end-w.start
	for unblocked := t; t < unblocked+searchLimit; {
		for moved := true; moved; {
			moved = false
			for len(taken) > 0 && taken[0].start < t+length {
				t = max(t, taken[0].end)
				unblocked = t
				taken = taken[1:]
			}
			for len(closed) > 0 && closed[0].start < t+length {
				end := closed[0].end
				if end == never {
					return 0
				}
				if end > t {
					t, unblocked, moved = end, end, true
				}
				closed = closed[1:]
			}
		}
		if hours == nil {
			return t
		}
		open := hours.at(t)
		switch from := max(t, open.start); {
		case from == never:
			return 0
		case open.end-from < length:
			t = open.end
		case from > t:
			if from-t > longHoliday {
				unblocked = from
			}
			t = from
		default:
			return t
		}
	}
	return 0
}

// SeatView is one seat and its state in the window of a query. It is shared and read-only.
type SeatView struct {
	ID        int64
	Branch    string // code
	Area      string
	Label     string
	Amenities []int16 // numbers of the enum dlsms.v1.Amenity, sorted
	// OutOfService says that the library has taken the seat out of service.
	OutOfService bool
	// Available says that for the whole window the seat is in service, has no booking and no
	// closure, and its branch is open.
	Available bool
	// AvailableUntil is the start of the next booking or closure at or after the window's end. It is
	// zero if the seat is not available, or has no later booking or closure.
	AvailableUntil time.Time
	// NextAvailableAt is the earliest start, from the window's start on, of a free window of the same
	// length. It is zero if the seat is available or out of service, or if there is no such window
	// within 31 days after the last booking, closure or long holiday that conflicts.
	NextAvailableAt time.Time

	memo *memo
}

// Memo returns the result of compute, which encodes ID, Branch, Area, Label, Amenities and
// OutOfService. compute runs once for each seat and encoding, and again only after a change of the
// catalog has replaced the seat. All callers pass the same function for an encoding.
func (v SeatView) Memo(e Encoding, compute func() any) any { return v.memo.get(e, compute) }

func (s *seat) view(st state) SeatView {
	return SeatView{
		memo: &s.memo,
		ID:   s.ID, Branch: s.branch, Area: s.Area, Label: s.Label, Amenities: s.Amenities, OutOfService: s.OutOfService,
		Available: st.available, AvailableUntil: timeOf(st.until), NextAvailableAt: timeOf(st.next),
	}
}

// timeOf returns the time of t in microseconds, the zero time for 0.
func timeOf(t int64) time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.UnixMicro(t).UTC()
}

// timeUnlessNever returns the time of t in microseconds, the zero time for never.
func timeUnlessNever(t int64) time.Time {
	if t == never {
		return time.Time{}
	}
	return timeOf(t)
}
