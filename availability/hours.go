package availability

import (
	"cmp"
	"math"
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

// calendar holds the opening hours of a branch: those of the week, and those of single dates, which
// replace them. It agrees with the database function dlsms_open, which decides about bookings.
type calendar struct {
	timezone string
	hours    []library.OpenHours
	days     []library.DayHours // sorted
	location *time.Location     // nil: unknown

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
	never := neverCloses(b.Hours)
	if never && len(b.Days) == 0 {
		return nil
	}
	c := &calendar{timezone: b.Timezone, hours: b.Hours, days: b.Days}
	location, err := library.LoadZone(b.Timezone)
	if err != nil {
		return c
	}
	c.location = location
	if never {
		c.hot.Store(c.buildAll())
	}
	return c
}

// isOf reports whether newCalendar would return a calendar equal to c for the branch.
func (c *calendar) isOf(b library.Branch) bool {
	if c == nil {
		return neverCloses(b.Hours) && len(b.Days) == 0
	}
	return c.timezone == b.Timezone && slices.Equal(c.hours, b.Hours) && slices.EqualFunc(c.days, b.Days, sameDay)
}

func sameDay(a, b library.DayHours) bool { return a.Day == b.Day && slices.Equal(a.Open, b.Open) }

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

// maxDays bounds the days after its window for which build looks for the next opening. A branch may
// be closed for months, or open day and night for months.
const maxDays = 400

// build returns the schedule for times in [from, to).
func (c *calendar) build(from, to int64) *schedule {
	if c.location == nil {
		return &schedule{calendar: c, window: window{from, to}}
	}
	var open []window
	latest := int64(math.MinInt64) // the latest end of an opening
	last := floorDiv(to, microsPerDay) + margin
	for day := floorDiv(from, microsPerDay) - 3; day <= last+maxDays; day++ {
		openings := c.openingsOn(day)
		if day > last && latest > to && !slices.ContainsFunc(openings, func(w window) bool { return w.start <= latest }) {
			break // the last opening ends before this day begins
		}
		for _, w := range openings {
			open = append(open, w)
			latest = max(latest, w.end)
		}
	}
	return &schedule{calendar: c, window: window{from, to}, open: merge(open)}
}

// buildAll returns the schedule for all times of a branch that closes on the dates of c.days only.
func (c *calendar) buildAll() *schedule {
	var open []window
	first, last := int64(c.days[0].Day)-2, int64(c.days[len(c.days)-1].Day)+2
	for i, d := range c.days { // the branch is open all the time between dates that are far apart
		day := int64(d.Day) - 2
		if i > 0 {
			day = max(day, int64(c.days[i-1].Day)+3)
		}
		if i > 0 && day > int64(c.days[i-1].Day)+3 {
			open = append(open, window{c.midnight(int64(c.days[i-1].Day) + 2), c.midnight(day + 1)})
		}
		for ; day <= int64(d.Day)+2; day++ {
			open = append(open, c.openingsOn(day)...)
		}
	}
	open = append(open, window{math.MinInt64, c.midnight(first + 1)}, window{c.midnight(last), never})
	return &schedule{calendar: c, window: window{math.MinInt64, never}, open: merge(open)}
}

// openingsOn returns the openings that begin on a day, which is a number of days since 1970.
func (c *calendar) openingsOn(day int64) (open []window) {
	add := func(h library.OpenHours) {
		local := openOn(h, day*secondsPerDay)
		open = append(open, window{c.instantOf(local.start) * 1_000_000, c.instantOf(local.end) * 1_000_000})
	}
	i, special := slices.BinarySearchFunc(c.days, day, func(d library.DayHours, day int64) int {
		return cmp.Compare(int64(d.Day), day)
	})
	switch {
	case special:
		for _, h := range c.days[i].Open {
			add(h)
		}
	case len(c.hours) == 0:
		add(library.OpenHours{Closes: 24 * time.Hour})
	default:
		weekday := time.Weekday(((day+4)%7 + 7) % 7) // 1 January 1970 was a Thursday
		for _, h := range c.hours {
			if h.Weekday == weekday {
				add(h)
			}
		}
	}
	return open
}

// midnight returns the time at which a day begins in the time zone of the branch.
func (c *calendar) midnight(day int64) int64 { return c.instantOf(day*secondsPerDay) * 1_000_000 }

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
