package availability

import (
	"math"
	"time"

	"github.com/dlsms/dlsms/library"
)

// window is a half-open span of time in microseconds since 1970, the resolution of Postgres.
type window struct{ start, end int64 }

// present, as the window of a question, is the instant that the answer is true of.
var present = window{}

// instant is the shortest window there is: what contains it contains the timeOf t.
func instant(t int64) window { return window{t, t + 1} }

// never is later than every time.
const never = math.MaxInt64

// booking is a reservation that takes its seat. A seat's are sorted by their start; Postgres sees to it that they don't overlap.
type booking struct {
	window
	id int64
}

// seat is one seat of the catalog. It never changes: when the catalog does, there is another one.
type seat struct {
	library.Seat
	branch   string    // code
	calendar *calendar // of its branch; nil: open at all hours
	memo     memo
}

// state is what a seat is like in a window. A time of 0 is unset.
type state struct {
	available bool
	until     int64 // while available: when the next booking starts, if one is known
	next      int64 // while not, unless out of service: from when on such a window is free
}

// hours returns the opening hours to look at, nil when the branch never closes.
func (w window) hours(c *calendar) *schedule {
	if c == nil {
		return nil
	}
	if hot := c.hot.Load(); hot.covers(w.start) {
		return hot
	}
	return c.distant(w.start)
}

// look returns what the seat is like in the window, and when that changes by itself, if the window is an instant that moves with the time.
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
	hours := w.hours(seat.calendar)
	holds = never
	if free && hours != nil {
		open := hours.at(w.start)
		free, holds = open.start <= w.start && w.end <= open.end, open.end
	}
	if !free {
		st.next = firstFree(taken[i:], hours, w)
		if st.next == 0 {
			return st, never
		}
		return st, st.next
	}
	st.available = true
	if i < len(taken) {
		st.until = taken[i].start
		holds = min(holds, st.until)
	}
	return st, holds
}

// searchLimit is how far past what is in the way firstFree looks for opening hours that a window fits into: hours repeat each week, but for
// the days on which the clocks change.
const searchLimit = 31 * microsPerDay

// firstFree returns the earliest time from w's start on at which a window as long as w is free and open, 0 when there is none.
func firstFree(taken []booking, hours *schedule, w window) int64 {
	t, length := w.start, w.end-w.start
	for unblocked := t; t < unblocked+searchLimit; {
		for len(taken) > 0 && taken[0].start < t+length {
			t = max(t, taken[0].end)
			unblocked = t
			taken = taken[1:]
		}
		if hours == nil {
			return t
		}
		open := hours.at(t)
		switch from := max(t, open.start); {
		case open.end-from < length:
			t = open.end
		case from > t:
			t = from
		default:
			return t
		}
	}
	return 0
}

// SeatView is one seat, and what it is like in the window that was asked for. It is shared: treat it as read-only.
type SeatView struct {
	ID        int64
	Branch    string // code
	Area      string
	Label     string
	Amenities []int16 // numbers of the enum dlsms.v1.Amenity, sorted
	// OutOfService says that the library has taken it out of service.
	OutOfService bool
	// Available says that it is in service, its branch open and nothing booked for the whole window.
	Available bool
	// AvailableUntil is set while Available: when the next booking at or after the window's end starts, zero if none is known.
	AvailableUntil time.Time
	// NextAvailableAt is set while not Available: the earliest time from the window's start on at which a window as long is free; zero if it
	// is out of service, or no such time was found within 31 days after the bookings that are in the way.
	NextAvailableAt time.Time

	memo *memo
}

// Memo returns what compute returns, computed once for a seat for as long as the catalog has it unchanged: whoever encodes seats keeps the
// bytes of ID, Branch, Area, Label, Amenities and OutOfService here. All callers must compute the same kind of thing.
func (v SeatView) Memo(compute func() any) any { return v.memo.get(compute) }

func (s *seat) view(st state) SeatView {
	return SeatView{
		memo: &s.memo,
		ID:   s.ID, Branch: s.branch, Area: s.Area, Label: s.Label, Amenities: s.Amenities, OutOfService: s.OutOfService,
		Available: st.available, AvailableUntil: timeOf(st.until), NextAvailableAt: timeOf(st.next),
	}
}

// timeOf returns the time of t, the zero time for 0.
func timeOf(t int64) time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.UnixMicro(t).UTC()
}
