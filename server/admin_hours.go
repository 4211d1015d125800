package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
)

// Limits on opening hours.
const (
	maxWeekSpans = 50
	maxDaySpans  = 10
	maxDays      = 366 // from the first date to the last
)

func (s *adminService) SetWeeklyHours(
	ctx context.Context, req *dlsmsv1.SetWeeklyHoursRequest,
) (*dlsmsv1.SetWeeklyHoursResponse, error) {
	var c check
	order := c.order(ctx, "SetWeeklyHours", req)
	branch := c.text("branch", req.GetBranch(), 1, 64)
	hours := c.weeklyHours(req.GetHours())
	if (len(req.GetHours()) == 0) != req.GetAlwaysOpen() {
		c.fault("hours", "set either hours or always_open")
	}
	d := c.disruption(req)
	if err := c.err(); err != nil {
		return nil, err
	}

	hours, impact, err := s.store.SetWeeklyHours(ctx, order, branch, hours, d)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return &dlsmsv1.SetWeeklyHoursResponse{Hours: hoursProtos(hours), Impact: impactProto(impact)}, nil
}

func (s *adminService) SetDays(ctx context.Context, req *dlsmsv1.SetDaysRequest) (*dlsmsv1.SetDaysResponse, error) {
	var c check
	order := c.order(ctx, "SetDays", req)
	branch := c.text("branch", req.GetBranch(), 1, 64)
	dates := c.dates(req)
	open := c.daySpans(req, dates)
	d := c.disruption(req)
	if err := c.err(); err != nil {
		return nil, err
	}

	days, impact, err := s.store.SetDays(ctx, order, branch, dates, open, req.GetRemove(), d)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	resp := &dlsmsv1.SetDaysResponse{Impact: impactProto(impact)}
	for _, day := range days {
		resp.Days = append(resp.Days, dayHoursProto(day))
	}
	return resp, nil
}

// dayHoursProto converts the opening hours of a date.
func dayHoursProto(d library.DayHours) *dlsmsv1.DayHours {
	out := &dlsmsv1.DayHours{Day: dateOf(d.Day).Format(time.DateOnly)}
	for _, h := range d.Open {
		out.Open = append(out.Open, &dlsmsv1.TimeSpan{Opens: timeOfDay(h.Opens), Closes: timeOfDay(h.Closes)})
	}
	return out
}

// weeklyHours checks the opening hours of a week. They must not overlap, also not over midnight.
func (c *check) weeklyHours(hours []*dlsmsv1.OpeningHours) (out []library.OpenHours) {
	if len(hours) > maxWeekSpans {
		c.fault("hours", fmt.Sprintf("must be at most %d", maxWeekSpans))
		return nil
	}
	before := len(c.faults)
	for i, h := range hours {
		field := fmt.Sprintf("hours[%d]", i)
		if h.GetWeekday() < 1 || h.GetWeekday() > 7 {
			c.fault(field+".weekday", "must be 1 to 7")
		}
		o := c.opening(field, h)
		o.Weekday = time.Weekday(h.GetWeekday() % 7)
		out = append(out, o)
	}
	if len(c.faults) > before {
		return nil
	}
	const week = 7 * 24 * time.Hour
	var spans []localSpan
	for i, h := range out {
		s := newLocalSpan(i, h, time.Duration(h.Weekday)*24*time.Hour)
		spans = append(spans, s, localSpan{i, s.from + week, s.to + week})
	}
	c.disjoint("hours", spans)
	return out
}

// timeSpan is a message with the times of an opening.
type timeSpan interface {
	GetOpens() string
	GetCloses() string
}

// opening checks the times of an opening.
func (c *check) opening(field string, s timeSpan) (h library.OpenHours) {
	var ok bool
	if h.Opens, ok = parseTimeOfDay(s.GetOpens()); !ok || h.Opens == 24*time.Hour {
		c.fault(field+".opens", `must be a time of day as "HH:MM" or "HH:MM:SS"`)
	}
	if h.Closes, ok = parseTimeOfDay(s.GetCloses()); !ok {
		c.fault(field+".closes", `must be a time of day as "HH:MM" or "HH:MM:SS", at most "24:00"`)
	}
	return h
}

// parseTimeOfDay parses "HH:MM" or "HH:MM:SS", from "00:00" to "24:00".
func parseTimeOfDay(v string) (time.Duration, bool) {
	if v == "24:00" || v == "24:00:00" {
		return 24 * time.Hour, true
	}
	layout := "15:04"
	if strings.Count(v, ":") == 2 {
		layout = "15:04:05"
	}
	t, err := time.Parse(layout, v)
	if err != nil || len(v) != len(layout) {
		return 0, false
	}
	return t.Sub(t.Truncate(24 * time.Hour)), true
}

// localSpan is an opening in local time, from the midnight at which the week or the first day begins.
// place is its place in the request.
type localSpan struct {
	place    int
	from, to time.Duration
}

func newLocalSpan(place int, h library.OpenHours, midnight time.Duration) localSpan {
	s := localSpan{place, midnight + h.Opens, midnight + h.Closes}
	if h.Closes <= h.Opens {
		s.to += 24 * time.Hour
	}
	return s
}

// disjoint adds a field error for the first two openings that overlap.
func (c *check) disjoint(field string, spans []localSpan) {
	slices.SortFunc(spans, func(a, b localSpan) int { return int(a.from - b.from) })
	for i := 1; i < len(spans); i++ {
		if a, b := spans[i-1], spans[i]; b.from < a.to {
			c.fault(fmt.Sprintf("%s[%d]", field, max(a.place, b.place)),
				fmt.Sprintf("must not overlap %s[%d]", field, min(a.place, b.place)))
			return
		}
	}
}

var (
	minDay = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	maxDay = time.Date(2199, 12, 31, 0, 0, 0, 0, time.UTC)
)

// date checks a date in the years 2000 to 2199.
func (c *check) date(field, v string) time.Time {
	day, err := time.Parse(time.DateOnly, v)
	if err != nil || day.Before(minDay) || day.After(maxDay) {
		c.fault(field, `must be a date as "YYYY-MM-DD", in the years 2000 to 2199`)
		return time.Time{}
	}
	return day
}

// dates checks the dates of a request, and returns them as numbers of days since 1 January 1970.
func (c *check) dates(req *dlsmsv1.SetDaysRequest) (dates []int64) {
	first := c.date("first_day", req.GetFirstDay())
	last := first
	if req.GetLastDay() != "" {
		last = c.date("last_day", req.GetLastDay())
	}
	for i, weekday := range req.GetWeekdays() {
		if weekday < 1 || weekday > 7 {
			c.fault(fmt.Sprintf("weekdays[%d]", i), "must be 1 to 7")
		}
	}
	switch {
	case first.IsZero() || last.IsZero():
		return nil
	case last.Before(first):
		c.fault("last_day", "must not be before first_day")
		return nil
	case last.Sub(first) > maxDays*24*time.Hour:
		c.fault("last_day", fmt.Sprintf("must be at most %d days after first_day", maxDays))
		return nil
	}
	for day := first; !day.After(last); day = day.AddDate(0, 0, 1) {
		if len(req.GetWeekdays()) == 0 || slices.Contains(req.GetWeekdays(), isoWeekday(day.Weekday())) {
			dates = append(dates, day.Unix()/(24*60*60))
		}
	}
	if len(dates) == 0 {
		c.fault("weekdays", "must be the weekday of one of the dates")
	}
	return dates
}

// daySpans checks the openings of each of the dates. They must not overlap, also not over midnight
// if two dates follow each other.
func (c *check) daySpans(req *dlsmsv1.SetDaysRequest, dates []int64) (open []library.OpenHours) {
	switch {
	case len(req.GetOpen()) > maxDaySpans:
		c.fault("open", fmt.Sprintf("must be at most %d", maxDaySpans))
		return nil
	case len(req.GetOpen()) > 0 && req.GetRemove():
		c.fault("open", "must be empty if remove is set")
		return nil
	}
	before := len(c.faults)
	for i, s := range req.GetOpen() {
		open = append(open, c.opening(fmt.Sprintf("open[%d]", i), s))
	}
	if len(c.faults) > before {
		return nil
	}
	consecutive := false
	for i := 1; i < len(dates); i++ {
		consecutive = consecutive || dates[i] == dates[i-1]+1
	}
	var spans []localSpan
	for i, h := range open {
		spans = append(spans, newLocalSpan(i, h, 0))
		if consecutive {
			spans = append(spans, newLocalSpan(i, h, 24*time.Hour))
		}
	}
	c.disjoint("open", spans)
	return open
}
