package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// sweepCause says why reservations became impossible.
type sweepCause string

const (
	sweepClosure sweepCause = "CLOSURE" // they overlap a closure
	sweepHours   sweepCause = "HOURS"   // they are outside the opening hours
	sweepSeats   sweepCause = "SEATS"   // their seat is out of service or retired
)

// sweep selects the reservations that a change of the library makes impossible. impact counts them,
// and the worker ends them: see Store.SweepNext.
type sweep struct {
	branchID  int64
	cause     sweepCause
	closureID int64   // set if the cause is sweepClosure
	area      string  // empty: not limited to an area
	seatIDs   []int64 // nil: not limited to seats
	from      time.Time
	until     time.Time // zero: without an end
	planned   bool      // the seats are still in service: the change is only planned
}

// horizon is how far ahead a change of the opening hours looks for reservations. No reservation
// starts later: see PolicyRules.max_ahead.
const horizon = 401 * 24 * time.Hour

// selectAffected finds the reservations of a sweep that take their seat and have not ended. open
// are the opening hours, which only the cause HOURS looks at. No reservation is longer than 8 days,
// so the hours of this margin tell whether a reservation at the edge of the span fits. The cause
// SEATS looks only at seats that are out of service, because a seat may be back in service before
// the sweep comes to it. OFFSET 0 makes Postgres look up the reservations of each seat by index. It
// would otherwise read those of all branches, if it has no statistics: 700 ms for 50 seats of a branch
// of 2,000, instead of 13 ms. The named arguments are those of sweep.args.
const selectAffected = `
	WITH now AS MATERIALIZED (
		SELECT dlsms_now() AS t
	), open AS MATERIALIZED (
		SELECT CASE WHEN @cause = 'HOURS' THEN dlsms_hours(@library, @branch,
			tstzrange(@from::timestamptz - interval '8 days', @until::timestamptz + interval '8 days')) END AS hours
	), affected AS MATERIALIZED (
		SELECT r.* FROM now CROSS JOIN open CROSS JOIN seats s
		CROSS JOIN LATERAL (
			SELECT * FROM reservations o
			WHERE o.library_id = @library AND o.seat_id = s.id AND o.occupies AND o.during && tstzrange(@from, @until)
			OFFSET 0
		) r
		WHERE s.library_id = @library AND s.branch_id = @branch AND (@area = '' OR s.area = @area)
			AND (@seats::bigint[] IS NULL OR s.id = ANY (@seats)) AND upper(r.during) > now.t
			AND (@cause <> 'HOURS' OR NOT COALESCE(open.hours @> (r.during * tstzrange(now.t, NULL)), true))
			AND (@cause <> 'SEATS' OR s.out_of_service OR @planned::boolean)
	)`

func (w sweep) args(lib int64) pgx.NamedArgs {
	return pgx.NamedArgs{
		"library": lib, "branch": w.branchID, "cause": string(w.cause), "area": w.area, "seats": w.seatIDs,
		"from": w.from, "until": orNil(w.until), "planned": w.planned,
	}
}

const (
	countAffected = selectAffected + `
		SELECT (lower(r.during) AT TIME ZONE b.timezone)::date AS day, count(*)::int AS reservations,
			count(*) FILTER (WHERE r.status = 'CHECKED_IN')::int AS checked_in
		FROM affected r JOIN branches b ON b.library_id = @library AND b.id = @branch GROUP BY day ORDER BY day`

	listAffected = selectAffected + `
		SELECT r.id, ` + reservationState + `, false AS ended_by_library, u.student_id, u.name
		FROM affected r ` + atSeat + ` JOIN users u ON u.library_id = r.library_id AND u.id = r.user_id
		ORDER BY lower(r.during), r.id LIMIT @most`

	countWaiting = `
		WITH open AS MATERIALIZED (
			SELECT CASE WHEN @cause = 'HOURS' THEN dlsms_hours(@library, @branch,
				tstzrange(@from::timestamptz - interval '8 days', @until::timestamptz + interval '8 days')) END AS hours
		)
		SELECT count(*)::int
		FROM open CROSS JOIN waitlist_entries w JOIN seats s ON s.library_id = w.library_id AND s.id = w.seat_id
		WHERE s.library_id = @library AND s.branch_id = @branch AND (@area = '' OR s.area = @area)
			AND (@seats::bigint[] IS NULL OR s.id = ANY (@seats)) AND w.live AND w.during && tstzrange(@from, @until)
			AND (@cause <> 'HOURS' OR NOT COALESCE(open.hours @> w.during, true))`
)

// planEachTime makes Postgres plan each statement of the rest of the transaction for its arguments.
// After five executions it would otherwise keep one plan, for one seat as for a branch of thousands.
const planEachTime = `SELECT set_config('plan_cache_mode', 'force_custom_plan', true)`

// impact returns the effect of a change on users. The caller has made the change in the same
// transaction.
func (t *staffTx) impact(ctx context.Context, w sweep) (library.Impact, error) {
	var out library.Impact
	if _, err := t.Exec(ctx, planEachTime); err != nil {
		return out, err
	}
	args := w.args(t.s.lib)
	rows, err := t.Query(ctx, countAffected, args)
	if err != nil {
		return out, err
	}
	var day time.Time
	var count, checkedIn int
	_, err = pgx.ForEachRow(rows, []any{&day, &count, &checkedIn}, func() error {
		out.Days = append(out.Days, library.DayCount{Day: day, Reservations: count})
		out.Reservations += count
		out.CheckedIn += checkedIn
		return nil
	})
	if err != nil {
		return out, err
	}
	if err := t.QueryRow(ctx, countWaiting, args).Scan(&out.Entries); err != nil || out.Reservations == 0 {
		return out, err
	}
	args["most"] = library.MaxAffected
	out.First, err = rowsOf(ctx, t, pgx.RowToStructByName[library.AffectedReservation], listAffected, args)
	return out, err
}

const insertSweep = `
	INSERT INTO sweeps (library_id, branch_id, cause, closure_id, area, seat_ids, during, note)
	VALUES ($1, $2, $3, $4, NULLIF($5, ''), $6, tstzrange($7, $8), $9)`

// disrupt returns the impact of a change that the transaction has made. If the reservations are to
// be cancelled, it starts a sweep. It fails with ErrChangedSinceCheck if their number is not the
// expected one, unless the order is only to be validated.
func (t *staffTx) disrupt(ctx context.Context, w sweep, d library.Disruption) (library.Impact, error) {
	impact, err := t.impact(ctx, w)
	if err != nil || d.OnBookings != library.CancelBookings {
		return impact, err
	}
	if impact.Reservations != d.Expected && !t.order.ValidateOnly {
		return impact, library.UnexpectedImpact(impact.Reservations, d.Expected)
	}
	_, err = t.Exec(ctx, insertSweep, t.s.lib, w.branchID, string(w.cause), orNil(w.closureID), w.area, w.seatIDs,
		w.from, orNil(w.until), textsOrEmpty(d.Note))
	return impact, err
}

// textsOrEmpty returns texts for a column that is not NULL.
func textsOrEmpty(texts library.Texts) library.Texts {
	if texts == nil {
		return library.Texts{}
	}
	return texts
}
