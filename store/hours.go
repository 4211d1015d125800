package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

const (
	deleteHours = `DELETE FROM branch_hours WHERE library_id = $1 AND branch_id = $2`

	// Interval arithmetic cannot give 24:00, which is a time of its own.
	insertHours = `
		INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes)
		SELECT $1, $2, weekday, time '0:00' + opens * interval '1 second',
			CASE closes WHEN 86400 THEN time '24:00' ELSE time '0:00' + closes * interval '1 second' END
		FROM unnest($3::bigint[], $4::bigint[], $5::bigint[]) x (weekday, opens, closes)`

	// selectDaysAmong reads the exceptional days among some dates, selectDaysFromToday those from
	// today on.
	selectDayRows = `
		SELECT d.day - date '1970-01-01' AS day, extract(epoch FROM d.opens)::bigint AS opens,
			extract(epoch FROM d.closes)::bigint AS closes
		FROM branch_days d WHERE d.library_id = $1 AND d.branch_id = $2 `
	selectDaysAmong     = selectDayRows + `AND d.day - date '1970-01-01' = ANY ($3::bigint[]) ORDER BY d.day, d.opens`
	selectDaysFromToday = selectDayRows + `
			AND d.day >= (dlsms_now() AT TIME ZONE (SELECT timezone FROM branches WHERE library_id = $1 AND id = $2))::date
		ORDER BY d.day, d.opens`

	deleteDays = `
		DELETE FROM branch_days
		WHERE library_id = $1 AND branch_id = $2 AND day - date '1970-01-01' = ANY ($3::bigint[])`

	// A day on which the branch is closed has one row, without times.
	insertDays = `
		INSERT INTO branch_days (library_id, branch_id, day, opens, closes)
		SELECT $1, $2, date '1970-01-01' + d::int, time '0:00' + opens * interval '1 second',
			CASE closes WHEN 86400 THEN time '24:00' ELSE time '0:00' + closes * interval '1 second' END
		FROM unnest($3::bigint[]) d
		LEFT JOIN unnest($4::bigint[], $5::bigint[]) x (opens, closes) ON true`

	selectOpenHoursSweep = `
		SELECT EXISTS (
			SELECT FROM sweeps WHERE library_id = $1 AND branch_id = $2 AND cause = 'HOURS' AND done_at IS NULL
			AND during @> tstzrange($3, $4))`
)

// SetWeeklyHours replaces the weekly opening hours of a branch, and returns them in the order of
// weekday (Sunday is 0) and time. The hours must not overlap. The impact has the reservations outside
// the new hours; with CancelBookings, the worker ends them. If the hours are the same already,
// nothing changes. It fails with the errors of asStaff and lockBranch, or ErrChangedSinceCheck.
func (s *Store) SetWeeklyHours(
	ctx context.Context, order library.Order, branch string, hours []library.OpenHours, d library.Disruption,
) (after []library.OpenHours, impact library.Impact, err error) {
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		b, err := t.lockBranch(ctx, branch)
		if err != nil {
			return err
		}
		before, err := t.weeklyHours(ctx, b.ID)
		if err != nil {
			return err
		}
		after = slices.SortedFunc(slices.Values(hours), compareHours)
		changed := !slices.Equal(before, after)
		if changed {
			if err := t.writeHours(ctx, b.ID, after); err != nil {
				return err
			}
		}
		now, err := t.now(ctx)
		if err != nil {
			return err
		}
		var swept bool
		if impact, swept, err = t.disruptHours(ctx, b.ID, now, now.Add(horizon), changed, d); err != nil {
			return err
		}
		if !changed && !swept {
			return nil
		}
		return t.audit(ctx, b.ID, "hours/"+b.Code, auditedHours(before), auditedHours(after))
	})
	return after, impact, err
}

func compareHours(a, b library.OpenHours) int {
	return cmp.Or(cmp.Compare(a.Weekday, b.Weekday), cmp.Compare(a.Opens, b.Opens))
}

func (t *staffTx) weeklyHours(ctx context.Context, branchID int64) ([]library.OpenHours, error) {
	rows, err := t.Query(ctx, selectHours, t.s.lib, []int64{branchID})
	if err != nil {
		return nil, err
	}
	b := library.Branch{ID: branchID}
	err = addHours(rows, map[int64]*library.Branch{branchID: &b})
	return b.Hours, err
}

func (t *staffTx) writeHours(ctx context.Context, branchID int64, hours []library.OpenHours) error {
	var weekdays []int64
	for _, h := range hours {
		weekday := int64(h.Weekday)
		if h.Weekday == time.Sunday {
			weekday = 7
		}
		weekdays = append(weekdays, weekday)
	}
	opens, closes := secondsOf(hours)
	batch := &pgx.Batch{}
	batch.Queue(deleteHours, t.s.lib, branchID)
	batch.Queue(insertHours, t.s.lib, branchID, weekdays, opens, closes)
	return t.SendBatch(ctx, batch).Close()
}

// secondsOf returns the times of openings in seconds after midnight.
func secondsOf(hours []library.OpenHours) (opens, closes []int64) {
	for _, h := range hours {
		opens, closes = append(opens, int64(h.Opens/time.Second)), append(closes, int64(h.Closes/time.Second))
	}
	return opens, closes
}

// SetDays sets the opening hours of dates of a branch, in place of its weekly hours. dates are
// numbers of days since 1 January 1970, sorted. Without spans, the branch is closed on these dates.
// With remove, the weekly hours apply again. SetDays returns all exceptional days from today on. The
// impact has the reservations between the first and the last date that are outside the opening hours;
// with CancelBookings, the worker ends them. If the days are the same already, nothing changes. It
// fails with the errors of asStaff and lockBranch, ErrChangedSinceCheck, or Invalid if all dates are
// in the past, unless remove is set.
func (s *Store) SetDays(
	ctx context.Context, order library.Order, branch string, dates []int64, open []library.OpenHours, remove bool,
	d library.Disruption,
) (days []library.DayHours, impact library.Impact, err error) {
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		b, err := t.lockBranch(ctx, branch)
		if err != nil {
			return err
		}
		from, until, err := spanOfDates(b, dates)
		if err != nil {
			return err
		}
		now, err := t.now(ctx)
		if err != nil {
			return err
		}
		if !remove && !until.After(now) {
			return library.Invalid(library.FieldViolation{Field: "first_day", Message: "the dates are in the past"})
		}
		before, err := t.days(ctx, selectDaysAmong, b.ID, dates)
		if err != nil {
			return err
		}
		var after []library.DayHours
		if !remove {
			open = slices.SortedFunc(slices.Values(open), compareHours)
			for _, day := range dates {
				after = append(after, library.DayHours{Day: int(day), Open: open})
			}
		}
		changed := !slices.EqualFunc(before, after, func(a, b library.DayHours) bool {
			return a.Day == b.Day && slices.Equal(a.Open, b.Open)
		})
		if changed {
			if err := t.writeDays(ctx, b.ID, dates, open, remove); err != nil {
				return err
			}
		}
		var swept bool
		if impact, swept, err = t.disruptHours(ctx, b.ID, from, until, changed, d); err != nil {
			return err
		}
		if days, err = t.days(ctx, selectDaysFromToday, b.ID); err != nil || !changed && !swept {
			return err
		}
		return t.audit(ctx, b.ID, "days/"+b.Code, auditedDays(before), auditedDays(after))
	})
	return days, impact, err
}

// days reads exceptional days of a branch.
func (t *staffTx) days(
	ctx context.Context, sql string, branchID int64, args ...any,
) (days []library.DayHours, err error) {
	rows, err := t.Query(ctx, sql, append([]any{t.s.lib, branchID}, args...)...)
	if err != nil {
		return nil, err
	}
	var day int
	var opens, closes *int64
	_, err = pgx.ForEachRow(rows, []any{&day, &opens, &closes}, func() error {
		days = appendDay(days, day, opens, closes)
		return nil
	})
	return days, err
}

func (t *staffTx) writeDays(
	ctx context.Context, branchID int64, dates []int64, open []library.OpenHours, remove bool,
) error {
	batch := &pgx.Batch{}
	batch.Queue(deleteDays, t.s.lib, branchID, dates)
	if !remove {
		opens, closes := secondsOf(open)
		batch.Queue(insertDays, t.s.lib, branchID, dates, opens, closes)
	}
	return t.SendBatch(ctx, batch).Close()
}

// spanOfDates returns the span in which the opening hours of dates count. The hours of a date may end
// on the next day.
func spanOfDates(b branchRef, dates []int64) (from, until time.Time, err error) {
	zone, err := library.LoadZone(b.Timezone)
	if err != nil {
		return from, until, fmt.Errorf("branch %s: %w", b.Code, err)
	}
	midnight := func(day int64) time.Time { return time.Date(1970, 1, 1+int(day), 0, 0, 0, 0, zone) }
	return midnight(dates[0]), midnight(dates[len(dates)-1] + 2), nil
}

// disruptHours returns the reservations in a span that are outside the opening hours, and starts
// their sweep if they are to be cancelled. If the hours have not changed and a sweep of the span is
// under way, or nothing is left to end, the call repeats an earlier one: then disruptHours starts no
// sweep and swept is false.
func (t *staffTx) disruptHours(
	ctx context.Context, branchID int64, from, until time.Time, changed bool, d library.Disruption,
) (impact library.Impact, swept bool, err error) {
	w := sweep{branchID: branchID, cause: sweepHours, from: from, until: until}
	if !changed && d.OnBookings == library.CancelBookings {
		var underWay bool
		now, err := t.now(ctx)
		if err != nil {
			return impact, false, err
		}
		if from.Before(now) {
			from = now
		}
		// A sweep of the weekly hours ends at the horizon of its own time, which is a little earlier.
		if end := until.Add(-time.Hour); from.Before(end) {
			err := t.QueryRow(ctx, selectOpenHoursSweep, t.s.lib, branchID, from, end).Scan(&underWay)
			if err != nil {
				return impact, false, err
			}
		}
		if impact, err = t.impact(ctx, w); err != nil || underWay || impact.Reservations == 0 {
			return impact, false, err
		}
	}
	impact, err = t.disrupt(ctx, w, d)
	return impact, d.OnBookings == library.CancelBookings, err
}

// spanAudit is an opening in the audit log.
type spanAudit struct {
	Weekday string `json:"weekday,omitempty"`
	Opens   string `json:"opens"`
	Closes  string `json:"closes"`
}

func auditedSpan(h library.OpenHours) spanAudit {
	clock := func(d time.Duration) string {
		return fmt.Sprintf("%02d:%02d:%02d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
	}
	return spanAudit{Opens: clock(h.Opens), Closes: clock(h.Closes)}
}

func auditedHours(hours []library.OpenHours) []spanAudit {
	out := []spanAudit{}
	for _, h := range hours {
		a := auditedSpan(h)
		a.Weekday = h.Weekday.String()
		out = append(out, a)
	}
	return out
}

// auditedDays returns exceptional days for the audit log, by date. A date on which the branch is
// closed has an empty list.
func auditedDays(days []library.DayHours) map[string][]spanAudit {
	out := map[string][]spanAudit{}
	for _, d := range days {
		date := time.Unix(0, 0).UTC().AddDate(0, 0, d.Day).Format(time.DateOnly)
		out[date] = []spanAudit{}
		for _, h := range d.Open {
			out[date] = append(out[date], auditedSpan(h))
		}
	}
	return out
}
