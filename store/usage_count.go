package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// The figures of reports are sums for each hour. They come from three statements, which count the
// hours from @begins to @ends: countUsage, countOpen and countWaits. CountUsage writes the results
// for hours that have ended, once. Usage runs the same statements for the hours after them.
//
// An hour is counted when it ended usageSettles ago. At that time, all transactions that made
// transitions in the hour have ended: the timeouts of their sessions bound them to less than a
// minute, even if their replica hangs.
const usageSettles = 10 * time.Minute

// MaxUsageHours is the most hours that CountUsage counts in one transaction.
const MaxUsageHours = 24

// hourOf and hourOfEnd enclose a time. The result is the beginning of its hour.
const (
	hourOf    = `date_bin('1 hour', `
	hourOfEnd = `, timestamptz '2000-01-01 00:00:00Z')`
)

// wholeSeconds and wholeSecondsEnd enclose a time. The result is rounded down to a second. So the
// seconds of a span are the sum of the seconds of its parts.
const (
	wholeSeconds    = `floor(extract(epoch FROM `
	wholeSecondsEnd = `))::bigint`
)

// selectOccupied has the seconds for which each reservation took its seat in each hour. A reservation
// counts from its confirmation, and was confirmed if it has a deadline. The inner query runs for each
// seat and reads the index of the reservations of a seat: OFFSET 0 keeps it apart, because a plan
// that begins with the reservations would read all of them. If there are no hours to count, it reads
// no reservation.
const selectOccupied = `
	SELECT p.seat_id, p.user_id, h.hour,
		` + wholeSeconds + `LEAST(p.until, h.hour + interval '1 hour')` + wholeSecondsEnd + `
			- ` + wholeSeconds + `GREATEST(p.since, h.hour)` + wholeSecondsEnd + ` AS reserved,
		CASE WHEN p.arrived < LEAST(p.until, h.hour + interval '1 hour') THEN
			` + wholeSeconds + `LEAST(p.until, h.hour + interval '1 hour')` + wholeSecondsEnd + `
				- ` + wholeSeconds + `GREATEST(p.since, p.arrived, h.hour)` + wholeSecondsEnd + ` ELSE 0 END AS used
	FROM seats s CROSS JOIN LATERAL (
		SELECT r.seat_id, r.user_id, r.checked_in_at AS arrived,
			GREATEST(lower(r.during), @begins::timestamptz, COALESCE((
				SELECT w.ended_at FROM waitlist_entries w WHERE w.library_id = r.library_id AND w.id = r.entry_id),
				r.created_at)) AS since,
			LEAST(upper(r.during), r.ended_at, @ends::timestamptz) AS until
		FROM reservations r
		WHERE r.library_id = s.library_id AND r.seat_id = s.id
			AND lower(r.during) < @ends AND lower(r.during) > @begins::timestamptz - @longest::interval
			AND upper(r.during) > @begins AND r.check_in_deadline IS NOT NULL
			AND (r.ended_at IS NULL OR r.ended_at > @begins)
		OFFSET 0
	) p
	CROSS JOIN LATERAL generate_series(` + hourOf + `p.since` + hourOfEnd + `, p.until - interval '1 microsecond',
		interval '1 hour') h (hour)
	WHERE s.library_id = @library AND @begins < @ends AND p.since < p.until`

// countUsage has the columns of usage_hours without library_id.
const countUsage = `
	SELECT c.hour, s.branch_id, s.area, u.user_group,
		sum(c.reserved)::int AS reserved_seconds, sum(c.used)::int AS used_seconds,
		(count(*) FILTER (WHERE c.kind IN ('RESERVED', 'CLAIMED')))::int AS reservations,
		(count(*) FILTER (WHERE c.kind = 'CHECKED_IN'))::int AS check_ins,
		(count(*) FILTER (WHERE c.kind = 'CHECKED_IN' AND c.proof = 'SEAT'))::int AS check_ins_seat,
		(count(*) FILTER (WHERE c.kind = 'CHECKED_IN' AND c.proof = 'SCREEN'))::int AS check_ins_screen,
		(count(*) FILTER (WHERE c.kind = 'CHECKED_IN' AND c.proof = 'SEAT_AND_SCREEN'))::int AS check_ins_both,
		(count(*) FILTER (WHERE c.kind = 'CHECKED_IN' AND c.proof = 'DESK'))::int AS check_ins_desk,
		(count(*) FILTER (WHERE c.kind = 'CHECKED_IN' AND c.proof = 'ARRIVAL'))::int AS check_ins_arrival,
		(count(*) FILTER (WHERE c.kind = 'NO_SHOW'))::int AS no_shows,
		(count(*) FILTER (WHERE c.kind = 'CANCELLED' AND NOT c.by_library))::int AS cancelled,
		(count(*) FILTER (WHERE c.kind = 'CANCELLED' AND c.by_library))::int AS cancelled_by_library,
		(count(*) FILTER (WHERE c.kind = 'JOINED'))::int AS joins,
		(count(*) FILTER (WHERE c.kind = 'OFFERED'))::int AS offers,
		(count(*) FILTER (WHERE c.kind = 'CLAIMED'))::int AS claims
	FROM (
		SELECT o.seat_id, o.user_id, o.hour, o.reserved, o.used, '' AS kind, NULL AS proof, false AS by_library
		FROM (` + selectOccupied + `) o
		UNION ALL
		SELECT e.seat_id, e.user_id, ` + hourOf + `e.at` + hourOfEnd + `, 0, 0, e.kind, e.proof, e.by_library
		FROM reservation_events e
		WHERE e.library_id = @library AND e.at >= @begins AND e.at < @ends AND e.kind IN (
			'RESERVED', 'CLAIMED', 'CHECKED_IN', 'NO_SHOW', 'CANCELLED', 'OFFERED')
		UNION ALL
		SELECT w.seat_id, w.user_id, ` + hourOf + `w.created_at` + hourOfEnd + `, 0, 0, 'JOINED', NULL, false
		FROM waitlist_entries w WHERE w.library_id = @library AND w.created_at >= @begins AND w.created_at < @ends
	) c
	JOIN seats s ON s.library_id = @library AND s.id = c.seat_id
	JOIN users u ON u.library_id = @library AND u.id = c.user_id
	GROUP BY c.hour, s.branch_id, s.area, u.user_group`

// countOpen has the columns of usage_open without library_id. A seat is open during the opening hours
// of its branch, without the closures that apply to it. A closure that was lifted applies until then.
// Seats with the same closures are counted together.
//
// Out of service is what a seat is now: its history is not known.
const countOpen = `
	SELECT h.hour, a.branch_id, a.area, sum(a.seats * o.seconds)::int AS open_seconds
	FROM (
		SELECT s.branch_id, s.area, x.closed, count(*) AS seats
		FROM seats s LEFT JOIN LATERAL (
			SELECT range_agg(c.during * tstzrange(NULL, c.lifted_at)) AS closed FROM closures c
			WHERE c.library_id = s.library_id AND c.branch_id = s.branch_id
				AND c.during && tstzrange(@begins::timestamptz, @ends::timestamptz)
				AND (c.area IS NULL OR c.area = s.area) AND (c.seat_ids IS NULL OR s.id = ANY (c.seat_ids))
		) x ON true
		WHERE s.library_id = @library AND NOT s.out_of_service
		GROUP BY s.branch_id, s.area, x.closed
	) a
	JOIN (
		SELECT b.id, COALESCE(
			dlsms_hours_if_known(b.library_id, b.id, tstzrange(@begins::timestamptz, @ends::timestamptz)), '{(,)}') AS open
		FROM branches b WHERE b.library_id = @library OFFSET 0
	) b ON b.id = a.branch_id
	CROSS JOIN generate_series(@begins::timestamptz, @ends::timestamptz - interval '1 microsecond',
		interval '1 hour') h (hour)
	CROSS JOIN LATERAL (
		SELECT sum(extract(epoch FROM upper(p) - lower(p)))::bigint AS seconds
		FROM unnest(tstzmultirange(tstzrange(h.hour, LEAST(h.hour + interval '1 hour', @ends)))
			* b.open - COALESCE(a.closed, '{}')) p
	) o
	WHERE o.seconds > 0
	GROUP BY h.hour, a.branch_id, a.area`

// countWaits has the columns of usage_waits without library_id.
const countWaits = `
	SELECT ` + hourOf + `e.at` + hourOfEnd + ` AS hour, s.branch_id, s.area, u.user_group,
		GREATEST(0, floor(extract(epoch FROM e.at - w.created_at) / 60))::int AS minutes, count(*)::int AS offers
	FROM reservation_events e
	JOIN waitlist_entries w ON w.library_id = e.library_id AND w.id = e.entry_id
	JOIN seats s ON s.library_id = e.library_id AND s.id = e.seat_id
	JOIN users u ON u.library_id = e.library_id AND u.id = e.user_id
	WHERE e.library_id = @library AND e.at >= @begins AND e.at < @ends AND e.kind = 'OFFERED'
	GROUP BY 1, 2, 3, 4, 5`

const (
	insertUsage = `
		INSERT INTO usage_hours (library_id, hour, branch_id, area, user_group, reserved_seconds, used_seconds,
			reservations, check_ins, check_ins_seat, check_ins_screen, check_ins_both, check_ins_desk, check_ins_arrival,
			no_shows, cancelled, cancelled_by_library, joins, offers, claims)
		SELECT @library, c.* FROM (` + countUsage + `) c`
	insertOpen = `
		INSERT INTO usage_open (library_id, hour, branch_id, area, open_seconds)
		SELECT @library, c.* FROM (` + countOpen + `) c`
	insertWaits = `
		INSERT INTO usage_waits (library_id, hour, branch_id, area, user_group, minutes, offers)
		SELECT @library, c.* FROM (` + countWaits + `) c`

	// beginUsage inserts the row of usage_progress at the hour of the oldest event.
	beginUsage = `
		INSERT INTO usage_progress (library_id, counted_until)
		SELECT $1, ` + hourOf + `LEAST(dlsms_now(),
			(SELECT min(at) FROM reservation_events WHERE library_id = $1),
			(SELECT min(created_at) FROM waitlist_entries WHERE library_id = $1))` + hourOfEnd + `
		WHERE NOT EXISTS (SELECT FROM usage_progress WHERE library_id = $1)
		ON CONFLICT (library_id) DO NOTHING`

	// lockUsage returns the first hour to count, and the end of the last hour that can be counted.
	lockUsage = `
		SELECT counted_until AS begins, ` + hourOf + `dlsms_now() - $2::interval` + hourOfEnd + ` AS ends,
			dlsms_now() AS now
		FROM usage_progress WHERE library_id = $1 FOR NO KEY UPDATE SKIP LOCKED`

	updateUsage = `UPDATE usage_progress SET counted_until = @ends WHERE library_id = @library`

	// The statements are long, and run once an hour. It is not worth to compile them.
	noJIT = `SELECT set_config('jit', 'off', true)`
)

// deleteUsage removes the sums from an hour on.
var deleteUsage = []string{
	`DELETE FROM usage_hours WHERE library_id = @library AND hour >= @begins`,
	`DELETE FROM usage_open WHERE library_id = @library AND hour >= @begins`,
	`DELETE FROM usage_waits WHERE library_id = @library AND hour >= @begins`,
}

// UsageCount is the result of CountUsage.
type UsageCount struct {
	// Hours is the number of hours that were counted.
	Hours int
	// More says that more hours can be counted now.
	More bool
	// Next is the time until the next hour can be counted, if More is false.
	Next time.Duration
}

// errUsageBusy means that another replica counts.
var errUsageBusy = errors.New("another replica counts")

// CountUsage writes the sums of at most maxHours hours that have ended, the oldest first, in one
// transaction. If another replica counts at the moment, it does nothing, and the next pass is due a
// minute later.
func (s *Store) CountUsage(ctx context.Context, maxHours int) (UsageCount, error) {
	var done UsageCount
	err := s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		if _, err := t.Exec(ctx, beginUsage, s.lib); err != nil {
			return err
		}
		type span struct{ Begins, Ends, Now time.Time }
		todo, err := rowOf(ctx, t, errUsageBusy, pgx.RowToStructByName[span], lockUsage, s.lib, usageSettles)
		if err != nil {
			return err
		}
		if todo.Begins.After(todo.Now) { // the clock of the database was ahead, and was set back
			args := s.usageArgs(todo.Ends, todo.Ends)
			batch := &pgx.Batch{}
			for _, sql := range append(slices.Clone(deleteUsage), updateUsage) {
				batch.Queue(sql, args)
			}
			done.More = true
			return t.SendBatch(ctx, batch).Close()
		}
		ends := todo.Begins.Add(time.Duration(maxHours) * time.Hour)
		if ends.After(todo.Ends) {
			ends = todo.Ends
		}
		if !ends.After(todo.Begins) {
			done.Next = todo.Begins.Add(time.Hour + usageSettles).Sub(todo.Now)
			return nil
		}
		batch := &pgx.Batch{}
		batch.Queue(noJIT)
		args := s.usageArgs(todo.Begins, ends)
		for _, sql := range []string{insertUsage, insertOpen, insertWaits, updateUsage} {
			batch.Queue(sql, args)
		}
		done = UsageCount{
			Hours: int(ends.Sub(todo.Begins) / time.Hour), More: ends.Before(todo.Ends),
			Next: ends.Add(time.Hour + usageSettles).Sub(todo.Now),
		}
		return t.SendBatch(ctx, batch).Close()
	})
	if errors.Is(err, errUsageBusy) {
		return UsageCount{Next: time.Minute}, nil
	}
	return done, err
}

// usageArgs returns the arguments of the statements that count the hours from begins to ends.
func (s *Store) usageArgs(begins, ends time.Time) pgx.NamedArgs {
	return pgx.NamedArgs{"library": s.lib, "begins": begins, "ends": ends, "longest": s.longestWindow()}
}
