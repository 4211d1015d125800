package availability

import (
	"cmp"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlsms/dlsms/library"
)

const (
	secondsPerDay = 24 * 60 * 60
	microsPerDay  = secondsPerDay * 1_000_000

	// hotDays is the length of a schedule. warm renews a schedule when half of it has passed, so it
	// always covers the next 32 days. Bookings start at most 14 days ahead by default.
	hotDays   = 64
	hotMicros = hotDays * microsPerDay
)

// calendar holds the opening hours of a branch. It agrees with the database function dlsms_open,
// which decides about bookings.
type calendar struct {
	timezone string
	hours    []library.OpenHours
	location *time.Location // nil: unknown

	// hot covers the coming weeks, which nearly all questions are about. warm renews it.
	hot atomic.Pointer[schedule]
	// cold has the schedules for the times that queries asked about and that the schedule hot does
	// not cover. Each covers hotDays. The schedule that begins in 1970 has the key 0, the next one
	// the key 1, and so on. The times of a request are in the years 2000 to 2199, so cold has at
	// most about a thousand schedules of 2 KB.
	cold sync.Map
}

// newCalendar returns the calendar of a branch. It returns nil if the branch never closes. If the
// branch has hours in an unknown time zone, its calendar has no openings, because the database
// refuses to book there.
func newCalendar(b library.Branch) *calendar {
	if neverCloses(b.Hours) {
		return nil
	}
	location, err := library.LoadZone(b.Timezone)
	if err != nil {
		return &calendar{timezone: b.Timezone, hours: b.Hours}
	}
	return &calendar{timezone: b.Timezone, hours: b.Hours, location: location}
}

// isOf reports whether newCalendar would return a calendar equal to c for the branch.
func (c *calendar) isOf(b library.Branch) bool {
	if c == nil {
		return neverCloses(b.Hours)
	}
	return c.timezone == b.Timezone && slices.Equal(c.hours, b.Hours)
}

// neverCloses reports whether the hours are empty or leave no gap in the week. A branch with other
// hours closes at least once a week.
func neverCloses(hours []library.OpenHours) bool {
	if len(hours) == 0 {
		return true
	}
	const week = 7 * secondsPerDay
	var open []window
	for _, h := range hours {
		w := openOn(h, int64(h.Weekday)*secondsPerDay)
		open = append(open, w, window{w.start - week, w.end - week})
	}
	return slices.ContainsFunc(merge(open), func(w window) bool { return w.start <= 0 && w.end >= week })
}

// openOn returns the opening of h on the day that begins at midnight, in seconds of local time.
func openOn(h library.OpenHours, midnight int64) window {
	opens, closes := int64(h.Opens/time.Second), int64(h.Closes/time.Second)
	if closes <= opens {
		closes += secondsPerDay
	}
	return window{midnight + opens, midnight + closes}
}

// merge sorts windows and joins those that touch or overlap. It drops empty and reversed windows.
func merge(ws []window) []window {
	slices.SortFunc(ws, func(a, b window) int { return cmp.Compare(a.start, b.start) })
	out := ws[:0]
	for _, w := range ws {
		switch {
		case w.end <= w.start:
		case len(out) > 0 && w.start <= out[len(out)-1].end:
			out[len(out)-1].end = max(out[len(out)-1].end, w.end)
		default:
			out = append(out, w)
		}
	}
	return out
}

// schedule holds the openings of a branch in a window.
type schedule struct {
	calendar *calendar
	window            // the times that the schedule covers
	open     []window // disjoint, in order; the last openings are beyond the window
}

// margin is the number of days after its window for which a schedule also has openings. So it has
// the next opening after each time in the window. One week is not enough: if the clocks change,
// they may skip the only opening of a week.
const margin = 17

// build returns the schedule for times in [from, to).
func (c *calendar) build(from, to int64) *schedule {
	if c.location == nil {
		return &schedule{calendar: c, window: window{from, to}}
	}
	var open []window
	last := floorDiv(to, microsPerDay) + margin
	for day := floorDiv(from, microsPerDay) - 3; day <= last; day++ {
		weekday := time.Weekday(((day+4)%7 + 7) % 7) // 1 January 1970 was a Thursday
		for _, h := range c.hours {
			if h.Weekday == weekday {
				local := openOn(h, day*secondsPerDay)
				open = append(open, window{c.instantOf(local.start) * 1_000_000, c.instantOf(local.end) * 1_000_000})
			}
		}
	}
	return &schedule{calendar: c, window: window{from, to}, open: merge(open)}
}

// warm computes the schedule of the weeks after now, if half of the hot schedule has passed.
func (c *calendar) warm(now int64) {
	if hot := c.hot.Load(); !hot.covers(now) || hot.end-now < hotMicros/2 {
		c.hot.Store(c.build(now-microsPerDay, now+hotMicros))
	}
}

// distant returns a schedule that covers the time t. It builds each schedule once.
func (c *calendar) distant(t int64) *schedule {
	n := floorDiv(t, hotMicros)
	s, ok := c.cold.Load(n)
	if !ok {
		s, _ = c.cold.LoadOrStore(n, c.build(n*hotMicros, (n+1)*hotMicros))
	}
	return s.(*schedule) // cold holds schedules only
}

// covers reports whether s has the opening at the time t, or the next one.
func (s *schedule) covers(t int64) bool { return s != nil && s.start <= t && t < s.end }

// at returns the first opening that ends after t. The opening may begin before t. If the schedule
// has no such opening, at returns an empty opening at the time never.
func (s *schedule) at(t int64) window {
	if !s.covers(t) {
		s = s.calendar.distant(t)
	}
	i := sort.Search(len(s.open), func(i int) bool { return s.open[i].end > t })
	if i == len(s.open) {
		return window{never, never}
	}
	return s.open[i]
}

// instantOf converts a local time of the branch to Unix time. Both are in seconds. When the clocks
// change, they show some local times twice, and skip others. Then instantOf agrees with AT TIME
// ZONE of Postgres, because Postgres decides about bookings. For a local time that occurs twice, it
// returns the later instant. For a skipped local time, it uses the offset before the change.
func (c *calendar) instantOf(local int64) int64 {
	dayBefore := time.Unix(local-secondsPerDay, 0).In(c.location)
	_, offset := dayBefore.Zone()
	before := local - int64(offset)
	_, change := dayBefore.ZoneBounds()
	if change.IsZero() {
		return before
	}
	_, offset = change.Zone()
	after := local - int64(offset)
	switch boundary := change.Unix(); {
	case before < boundary && after < boundary:
		return before
	case before > boundary && after >= boundary:
		return after
	}
	return max(before, after)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
