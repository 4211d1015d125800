package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// maxLiveUsage bounds the hours after the sums that a report counts from events. The sums are hardly
// ever more than two hours old. They are older after an update from a release without them, until
// the worker has counted the past.
const maxLiveUsage = 48 * time.Hour

// selectUsageMark returns the time before which all hours have sums. Before the worker has counted for
// the first time, no hour has, and reports begin $2 before now.
const selectUsageMark = `
	SELECT COALESCE((SELECT counted_until FROM usage_progress WHERE library_id = $1),
			` + hourOf + `dlsms_now() - $2::interval` + hourOfEnd + `) AS mark, dlsms_now() AS now`

// usageKeys has the hours of a report, with the number of the row to which each belongs. An hour
// belongs to the local day and hour of its beginning. usageKey names the columns of the key of a row.
const (
	usageKeys = `
		WITH places AS MATERIALIZED (
			SELECT b.id, b.code, b.timezone, @first_day::date::timestamp AT TIME ZONE b.timezone AS begins,
				(@last_day::date + 1)::timestamp AT TIME ZONE b.timezone AS ends
			FROM branches b
			WHERE b.library_id = @library AND (@branches::bigint[] IS NULL OR b.id = ANY (@branches))
		), keys AS MATERIALIZED (
			SELECT p.id AS branch_id, p.code, h.hour, CASE @by::text
				WHEN 'HOUR' THEN extract(epoch FROM h.hour)::bigint / 3600
				WHEN 'DAY' THEN (h.hour AT TIME ZONE p.timezone)::date - date '1970-01-01'
				WHEN 'WEEKDAY_HOUR' THEN extract(isodow FROM h.hour AT TIME ZONE p.timezone)::bigint * 24
					+ extract(hour FROM h.hour AT TIME ZONE p.timezone)::bigint
				ELSE 0 END AS bucket
			FROM places p CROSS JOIN LATERAL generate_series(
				` + hourOf + `p.begins` + hourOfEnd + `, p.ends - interval '1 microsecond', interval '1 hour') h (hour)
			WHERE h.hour >= p.begins
		)`
	usageKey = `
		k.bucket, CASE @by::text WHEN 'AREA' THEN k.code ELSE '' END AS branch, u.area, u.user_group`
	// usagePlace are the columns of the sums by which the rows of a report may differ.
	usagePlace = `
		hour, branch_id, CASE @by::text WHEN 'AREA' THEN area ELSE '' END AS area,
		CASE @by::text WHEN 'GROUP' THEN user_group ELSE '' END AS user_group`
	// usageHours selects the hours of the rows u in the report.
	usageHours = `
		JOIN keys k ON k.branch_id = u.branch_id AND k.hour = u.hour`
	// inSums selects the hours of a table of sums that may be in the report.
	inSums = ` WHERE library_id = @library AND hour >= @earliest AND hour < @latest` + inArea
	// beforeMark are the hours that have sums. All hours after them are counted from events.
	beforeMark = ` AND hour < @mark`
	inArea     = ` AND (@area::text = '' OR area = @area)`
)

// selectUsage returns the sums for each row of a report. The sums of areas and groups that share a row
// are added before the keys are joined: a year has 400,000 rows of usage_hours in 25,000 hours of
// branches. The rows of usage_open have no group, so a report by group leaves them out.
const selectUsage = usageKeys + `
	SELECT ` + usageKey + `,
		sum(u.open_seconds)::bigint AS open_seconds,
		sum(u.reserved_seconds)::bigint AS reserved_seconds,
		sum(u.used_seconds)::bigint AS used_seconds, sum(u.reservations)::bigint AS reservations,
		sum(u.check_ins)::bigint AS check_ins, sum(u.check_ins_seat)::bigint AS check_ins_seat,
		sum(u.check_ins_screen)::bigint AS check_ins_screen,
		sum(u.check_ins_both)::bigint AS check_ins_both,
		sum(u.check_ins_desk)::bigint AS check_ins_desk,
		sum(u.check_ins_arrival)::bigint AS check_ins_arrival, sum(u.no_shows)::bigint AS no_shows,
		sum(u.cancelled)::bigint AS cancelled,
		sum(u.cancelled_by_library)::bigint AS cancelled_by_library, sum(u.joins)::bigint AS joins,
		sum(u.offers)::bigint AS offers, sum(u.claims)::bigint AS claims,
		sum(u.taken)::bigint AS refused_taken
	FROM (
		SELECT ` + usagePlace + `, sum(reserved_seconds) AS reserved_seconds,
		sum(used_seconds) AS used_seconds, sum(reservations) AS reservations,
		sum(check_ins) AS check_ins, sum(check_ins_seat) AS check_ins_seat,
		sum(check_ins_screen) AS check_ins_screen, sum(check_ins_both) AS check_ins_both,
		sum(check_ins_desk) AS check_ins_desk, sum(check_ins_arrival) AS check_ins_arrival,
		sum(no_shows) AS no_shows, sum(cancelled) AS cancelled,
		sum(cancelled_by_library) AS cancelled_by_library, sum(joins) AS joins, sum(offers) AS offers,
		sum(claims) AS claims,
			0 AS open_seconds, 0 AS taken
		FROM usage_hours` + inSums + beforeMark + `
		GROUP BY 1, 2, 3, 4
		UNION ALL
		SELECT ` + usagePlace + `, reserved_seconds, used_seconds, reservations, check_ins,
		check_ins_seat, check_ins_screen, check_ins_both, check_ins_desk, check_ins_arrival, no_shows, cancelled,
			cancelled_by_library, joins, offers, claims, 0, 0
		FROM (` + countUsage + `) c WHERE true` + inArea + `
		UNION ALL
		SELECT hour, branch_id, CASE @by::text WHEN 'AREA' THEN area ELSE '' END, '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
			0, 0, sum(open_seconds), 0
		FROM usage_open` + inSums + beforeMark + ` AND @by::text <> 'GROUP'
		GROUP BY 1, 2, 3
		UNION ALL
		SELECT hour, branch_id, CASE @by::text WHEN 'AREA' THEN area ELSE '' END, '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
			0, 0, open_seconds, 0
		FROM (` + countOpen + `) c WHERE @by::text <> 'GROUP'` + inArea + `
		UNION ALL
		SELECT ` + usagePlace + `, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, taken
		FROM usage_refusals` + inSums + `
	) u` + usageHours + `
	GROUP BY 1, 2, 3, 4`

// selectWaits returns the median of the waits for each row of a report. Of two values in the middle,
// it is the lower one.
const selectWaits = usageKeys + `
	SELECT bucket, branch, area, user_group, min(minutes)::bigint AS minutes
	FROM (
		SELECT g.*, sum(g.offers) OVER (PARTITION BY bucket, branch, area, user_group ORDER BY minutes) AS upto,
			sum(g.offers) OVER (PARTITION BY bucket, branch, area, user_group) AS total
		FROM (
			SELECT ` + usageKey + `, u.minutes, sum(u.offers) AS offers
			FROM (
				SELECT ` + usagePlace + `, minutes, offers FROM usage_waits` + inSums + beforeMark + `
				UNION ALL
				SELECT ` + usagePlace + `, minutes, offers FROM (` + countWaits + `) w WHERE true` + inArea + `
			) u` + usageHours + `
			GROUP BY 1, 2, 3, 4, 5
		) g
	) x
	WHERE 2 * upto >= total
	GROUP BY bucket, branch, area, user_group`

// usageKeyRow is the key of a row, as the statements return it.
type usageKeyRow struct {
	Bucket    int64
	Branch    string
	Area      string
	UserGroup string
}

type usageSumRow struct {
	usageKeyRow
	library.UsageFigures
}

type usageWaitRow struct {
	usageKeyRow

	Minutes int64
}

// Usage returns a report about the branches in the scope of the actor. The hours before the mark come
// from sums, and the hours after it are counted from events. It fails with ErrBranchNotFound or
// ErrBranchRequired.
func (s *Store) Usage(ctx context.Context, actor library.Actor, q library.UsageQuery) (library.Usage, error) {
	var report library.Usage
	err := s.asStaffOn(ctx, s.reports, library.Order{Actor: actor}, func(ctx context.Context, t *staffTx) error {
		branches, err := t.branchesOf(ctx, q.Branch)
		if err != nil {
			return err
		}
		var mark, now time.Time
		if err := t.QueryRow(ctx, selectUsageMark, s.lib, maxLiveUsage-time.Hour).Scan(&mark, &now); err != nil {
			return err
		}
		report.CountedUntil = latest(mark, earliest(now, mark.Add(maxLiveUsage)))
		args := s.usageQueryArgs(q, mark, report.CountedUntil)
		args["branches"] = branches
		sums, err := rowsOf(ctx, t, pgx.RowToStructByNameLax[usageSumRow], selectUsage, args)
		if err != nil {
			return err
		}
		waits, err := rowsOf(ctx, t, pgx.RowToStructByName[usageWaitRow], selectWaits, args)
		if err != nil {
			return err
		}
		report.Rows = usageRows(q.By, sums, waits)
		return nil
	})
	return report, err
}

// usageQueryArgs returns the arguments of selectUsage and selectWaits, without the branches. The hours
// from mark to until are counted from events, as far as the report can have them.
func (s *Store) usageQueryArgs(q library.UsageQuery, mark, until time.Time) pgx.NamedArgs {
	// The days of every time zone are in this span: offsets are between -12 and +14 hours.
	begins, ends := q.FirstDay.AddDate(0, 0, -1), q.LastDay.AddDate(0, 0, 2)
	live := latest(mark, begins)
	args := s.usageArgs(live, latest(live, earliest(until, ends)))
	args["earliest"], args["latest"], args["mark"] = begins, ends, mark
	args["first_day"], args["last_day"] = q.FirstDay, q.LastDay
	args["area"], args["by"] = q.Area, q.By
	return args
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// usageRows joins the rows of the two statements, and sorts them by their keys.
func usageRows(by library.UsageBy, sums []usageSumRow, waits []usageWaitRow) []library.UsageRow {
	medians := make(map[usageKeyRow]time.Duration, len(waits))
	for _, w := range waits {
		medians[w.usageKeyRow] = time.Duration(w.Minutes) * time.Minute
	}
	slices.SortFunc(sums, func(a, b usageSumRow) int {
		return cmp.Or(cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.Branch, b.Branch), cmp.Compare(a.Area, b.Area),
			cmp.Compare(a.UserGroup, b.UserGroup))
	})
	rows := make([]library.UsageRow, len(sums))
	for i, sum := range sums {
		rows[i] = library.UsageRow{UsageKey: sum.key(by), UsageFigures: sum.UsageFigures}
		if median, ok := medians[sum.usageKeyRow]; ok {
			rows[i].MedianWait = &median
		}
	}
	return rows
}

// key returns the key of a row in a report.
func (r usageKeyRow) key(by library.UsageBy) library.UsageKey {
	switch by {
	case library.UsageByHour:
		return library.UsageKey{StartTime: time.Unix(r.Bucket*3600, 0).UTC()}
	case library.UsageByDay:
		return library.UsageKey{Day: time.Unix(r.Bucket*24*3600, 0).UTC()}
	case library.UsageByWeekdayHour:
		return library.UsageKey{Weekday: int(r.Bucket / 24), Hour: int(r.Bucket % 24)}
	case library.UsageByArea:
		return library.UsageKey{Branch: r.Branch, Area: r.Area}
	case library.UsageByGroup:
	}
	return library.UsageKey{Group: r.UserGroup}
}
