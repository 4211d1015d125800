package store_test

import (
	"cmp"
	"slices"
	"time"

	"github.com/dlsms/dlsms/library"
)

// bruteForce counts the figures of a report hour by hour and event by event, from the generated visits
// alone.
func (p *usagePlace) bruteForce(q library.UsageQuery, now time.Time) []library.UsageRow {
	rows := map[library.UsageKey]*library.UsageFigures{}
	waits := map[library.UsageKey][]int{}
	at := func(when time.Time, seat usageSeat, group string) (library.UsageKey, *library.UsageFigures) {
		key, in := usageKeyOf(q, when, seat, group)
		if !in || when.After(now) {
			return key, &library.UsageFigures{}
		}
		if rows[key] == nil {
			rows[key] = &library.UsageFigures{}
		}
		return key, rows[key]
	}
	for i := range p.visits {
		v := &p.visits[i]
		var confirmed, arrived, ended time.Time
		for _, e := range v.events {
			key, f := at(e.at, v.seat, v.user.group)
			switch e.kind {
			case "RESERVED":
				confirmed = e.at
				f.Reservations++
			case "CLAIMED":
				confirmed = e.at
				f.Reservations++
				f.Claims++
			case "OFFERED":
				f.Offers++
				if _, in := usageKeyOf(q, e.at, v.seat, v.user.group); in {
					waits[key] = append(waits[key], int(e.at.Sub(v.joined)/time.Minute))
				}
			case "CHECKED_IN":
				arrived = e.at
				countCheckIn(f, e.proof)
			case "NO_SHOW":
				ended = e.at
				f.NoShows++
			case "CANCELLED":
				ended = e.at
				if e.byLibrary {
					f.CancelledByLibrary++
				} else {
					f.Cancelled++
				}
			case "CHECKED_OUT", "COMPLETED":
				ended = e.at
			}
		}
		if !v.joined.IsZero() && len(v.events) > 0 {
			_, f := at(v.joined, v.seat, v.user.group)
			f.Joins++
		}
		if confirmed.IsZero() {
			continue
		}
		until := v.end
		for _, limit := range []time.Time{ended, now} {
			if !limit.IsZero() && limit.Before(until) {
				until = limit
			}
		}
		p.addSpan(at, v, latestTime(v.start, confirmed), until,
			func(f *library.UsageFigures) *int64 { return &f.ReservedSeconds })
		if !arrived.IsZero() {
			p.addSpan(at, v, latestTime(v.start, latestTime(confirmed, arrived)), until,
				func(f *library.UsageFigures) *int64 { return &f.UsedSeconds })
		}
	}
	p.bruteForceOpen(q, now, at)
	var out []library.UsageRow
	for key, f := range rows {
		if w := waits[key]; len(w) > 0 {
			slices.Sort(w)
			median := time.Duration(w[(len(w)-1)/2]) * time.Minute
			f.MedianWait = &median
		}
		if *f != (library.UsageFigures{}) {
			out = append(out, library.UsageRow{UsageKey: key, UsageFigures: *f})
		}
	}
	slices.SortFunc(out, func(a, b library.UsageRow) int {
		return cmp.Or(a.StartTime.Compare(b.StartTime), a.Day.Compare(b.Day), a.Weekday-b.Weekday, a.Hour-b.Hour,
			cmp.Compare(a.Branch, b.Branch), cmp.Compare(a.Area, b.Area), cmp.Compare(a.Group, b.Group))
	})
	return out
}

// addSpan adds the seconds of a span to a figure of each hour.
func (p *usagePlace) addSpan(
	at func(time.Time, usageSeat, string) (library.UsageKey, *library.UsageFigures),
	v *usageVisit, from, until time.Time, figure func(*library.UsageFigures) *int64,
) {
	from, until = from.Truncate(time.Second), until.Truncate(time.Second)
	for from.Before(until) {
		next := from.Truncate(time.Hour).Add(time.Hour)
		if next.After(until) {
			next = until
		}
		_, f := at(from, v.seat, v.user.group)
		*figure(f) += int64(next.Sub(from) / time.Second)
		from = next
	}
}

// bruteForceOpen counts the minutes for which seats were open, minute by minute. The opening hours and
// closures of a usagePlace begin and end at whole minutes.
func (p *usagePlace) bruteForceOpen(
	q library.UsageQuery, now time.Time,
	at func(time.Time, usageSeat, string) (library.UsageKey, *library.UsageFigures),
) {
	if q.By == library.UsageByGroup {
		return
	}
	for _, seat := range p.seats {
		for m := q.FirstDay.AddDate(0, 0, -1); m.Before(q.LastDay.AddDate(0, 0, 2)) && m.Before(now); m = m.Add(time.Minute) {
			local := m.In(seat.branch.zone).Hour()
			hours := seat.branch.hours
			open := hours[0] == hours[1] || local >= hours[0] && local < hours[1]
			for _, c := range p.closed {
				if c.branch == seat.branch && (c.area == "" || c.area == seat.area) && !m.Before(c.start) && m.Before(c.end) {
					open = false
				}
			}
			if open {
				_, f := at(m, seat, "")
				f.OpenSeconds += 60
			}
		}
	}
}

func countCheckIn(f *library.UsageFigures, proof string) {
	f.CheckIns++
	switch proof {
	case "SEAT":
		f.CheckInsSeat++
	case "SCREEN":
		f.CheckInsScreen++
	case "SEAT_AND_SCREEN":
		f.CheckInsBoth++
	case "DESK":
		f.CheckInsDesk++
	case "ARRIVAL":
		f.CheckInsArrival++
	}
}

// usageKeyOf returns the row of a report to which a moment belongs, and whether the report has it.
func usageKeyOf(q library.UsageQuery, at time.Time, seat usageSeat, group string) (library.UsageKey, bool) {
	hour := at.UTC().Truncate(time.Hour)
	local := hour.In(seat.branch.zone)
	day := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC)
	in := !day.Before(q.FirstDay) && !day.After(q.LastDay) && (q.Branch == "" || q.Branch == seat.branch.code) &&
		(q.Area == "" || q.Area == seat.area)
	switch q.By {
	case library.UsageByHour:
		return library.UsageKey{StartTime: hour}, in
	case library.UsageByDay:
		return library.UsageKey{Day: day}, in
	case library.UsageByWeekdayHour:
		return library.UsageKey{Weekday: int(local.Weekday()+6)%7 + 1, Hour: local.Hour()}, in
	case library.UsageByArea:
		return library.UsageKey{Branch: seat.branch.code, Area: seat.area}, in
	case library.UsageByGroup:
	}
	return library.UsageKey{Group: group}, in
}
