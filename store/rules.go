package store

import "strings"

// bookingRule is one rule of bookings. Its condition is an SQL condition on a booking w of
// wantedBookings, which is true if the booking breaks the rule. All conditions must be safe for
// every booking, because CheckReservation evaluates all of them. For a reversed window, and for one
// that no policy allows, w.during is NULL.
type bookingRule struct {
	outcome   string
	condition string
}

// The outcomes of bookings that code refers to.
const (
	outcomeReserved = "RESERVED"
	outcomeRepeated = "REPEATED"
	outcomeWindow   = "WINDOW"
	outcomeTaken    = "SEAT_TAKEN"
)

// bookingRules are all rules of bookings, in the order in which they are checked. The statement
// reserve takes the first one that a booking breaks, and the statement judge returns all of them.
//
// The condition "the user is busy" is NOT isempty(during * …), here and in other statements. With
// during && …, the planner would choose the index of the exclusion constraint until the table has
// been analyzed, and read all reservations of the library.
var bookingRules = []bookingRule{
	{"TOKEN_INVALID", `w.known IS NULL OR w.wrong_user`},
	{"TOKEN_REVOKED", `w.revoked`},
	{outcomeRepeated, `w.same`},
	{"REQUEST_ID_REUSED", `w.prior_id IS NOT NULL AND NOT w.same`},
	{"SEAT_NOT_FOUND", `w.branch_id IS NULL`},
	{outcomeWindow, `
		NOT (w.start_time >= now.t - @past_tolerance::interval AND w.end_time > now.t
			AND CASE WHEN @by_library::boolean THEN w.end_time > w.start_time
					AND w.end_time - w.start_time <= @longest_by_library::interval
				ELSE w.end_time - w.start_time BETWEEN w.min_duration - w.slack AND w.max_duration + w.slack
					AND CASE WHEN w.bookable_at IS NULL THEN w.start_time <= now.t + w.furthest
						ELSE now.t >= w.bookable_at END
					AND NOT w.start_off_grid AND NOT w.end_off_grid END)`},
	{"SUSPENDED", `NOT @by_library AND w.suspended_until > now.t`},
	{"BOOKING_NOT_ALLOWED", `NOT @by_library AND NOT w.may_book`},
	{"SEAT_OUT_OF_SERVICE", `w.out_of_service`},
	{"CLOSED", `
		(EXISTS (SELECT FROM branch_hours h WHERE h.library_id = @library AND h.branch_id = w.branch_id)
			OR EXISTS (SELECT FROM branch_days x WHERE x.library_id = @library AND x.branch_id = w.branch_id
				AND x.day BETWEEN lower(w.during)::date - 3 AND upper(w.during)::date + 3))
		AND NOT dlsms_open(@library, w.branch_id, w.during)`},
	{"SEAT_CLOSED", `dlsms_closed(@library, w.branch_id, w.area, w.seat_id, w.during)`},
	{outcomeTaken, `
		EXISTS (SELECT FROM reservations r WHERE r.library_id = @library AND r.seat_id = w.seat_id AND r.occupies
			AND r.during && w.during)`},
	{"USER_BUSY", `
		EXISTS (SELECT FROM reservations r WHERE r.library_id = @library AND r.user_id = w.user_id
			AND r.occupies AND r.status <> 'HELD'
			AND NOT isempty(r.during * w.during))`},
	{"TOO_MANY_RESERVATIONS", `
		NOT @by_library AND w.max_upcoming > 0 AND w.max_upcoming <= (SELECT count(*) FROM reservations r
			WHERE r.library_id = @library AND r.user_id = w.user_id AND r.occupies AND r.status <> 'HELD'
			AND upper(r.during) > now.t)`},
	{"max_minutes_per_day", `
		w.max_minutes_per_day > 0
		AND w.day_time + (w.end_time - w.start_time) > w.max_minutes_per_day * interval '1 minute'`},
	{"max_minutes_per_week", `
		w.max_minutes_per_week > 0
		AND w.week_time + (w.end_time - w.start_time) > w.max_minutes_per_week * interval '1 minute'`},
	{"max_reservations_per_day", `w.max_reservations_per_day > 0 AND w.day_count >= w.max_reservations_per_day`},
	{"max_reservations_per_week", `w.max_reservations_per_week > 0 AND w.week_count >= w.max_reservations_per_week`},
}

// firstBroken returns the SQL of the outcome of a booking: the first rule that it breaks, or
// RESERVED.
func firstBroken() string {
	var sql strings.Builder
	sql.WriteString("CASE")
	for _, r := range bookingRules {
		sql.WriteString("\nWHEN " + r.condition + " THEN '" + r.outcome + "'")
	}
	sql.WriteString("\nELSE '" + outcomeReserved + "' END")
	return sql.String()
}

// allBroken returns the SQL of an array of all rules that a booking breaks, in their order.
func allBroken() string {
	var sql strings.Builder
	sql.WriteString("array_remove(ARRAY[")
	for i, r := range bookingRules {
		if i > 0 {
			sql.WriteString(",")
		}
		sql.WriteString("\nCASE WHEN " + r.condition + " THEN '" + r.outcome + "' END")
	}
	sql.WriteString("], NULL)")
	return sql.String()
}

// wantedBookings is the SQL of the bookings that a statement decides on, with all facts that the
// rules need. A rule that no policy sets has the value of the process. @now is NULL, or a time that
// takes the place of the database's clock. OFFSET 0 makes Postgres look up each row by its key.
const wantedBookings = `
	now AS MATERIALIZED (
		SELECT COALESCE(@now::timestamptz, dlsms_now()) AS t
	), wanted AS MATERIALIZED (
		SELECT q.place, q.user_id, q.seat_id, COALESCE(q.start_time, now.t) AS start_time,
			CASE WHEN q.start_time IS NULL THEN @clock_tolerance::interval ELSE interval '0' END AS slack,
			q.end_time, CASE WHEN q.end_time > COALESCE(q.start_time, now.t)
				AND q.end_time - COALESCE(q.start_time, now.t) <= @longest::interval
				THEN tstzrange(COALESCE(q.start_time, now.t), q.end_time) END AS during,
			q.request_id, q.request_hash,
			u.suspended_until, u.known,
			u.known AND NOT u.closed AND (q.student_id <> u.student_id OR q.generation > u.token_generation) AS wrong_user,
			q.generation < u.token_generation OR q.student_id IS NOT NULL AND u.closed AS revoked,
			s.branch_id, s.out_of_service, s.area, s.label, s.branch, p.id AS prior_id, p.same,
			COALESCE(e.may_book, true) AS may_book,
			COALESCE(e.min_duration, @min_duration::interval) AS min_duration,
			COALESCE(e.max_duration, @max_duration::interval) AS max_duration,
			COALESCE(e.max_ahead + @clock_tolerance, @furthest::interval) AS furthest,
			CASE WHEN e.opens_at IS NOT NULL THEN (
				(COALESCE(q.start_time, now.t) AT TIME ZONE s.timezone)::date
				- floor(extract(epoch FROM COALESCE(e.max_ahead, @max_ahead::interval)) / 86400)::int + e.opens_at)
				AT TIME ZONE s.timezone END AS bookable_at,
			e.step, CASE WHEN e.step IS NOT NULL AND q.start_time IS NOT NULL
				THEN dlsms_off_grid(e.step, q.start_time, s.timezone) ELSE false END AS start_off_grid,
			CASE WHEN e.step IS NOT NULL AND q.start_time IS NOT NULL
				THEN dlsms_off_grid(e.step, q.end_time, s.timezone) ELSE false END AS end_off_grid,
			COALESCE(e.max_upcoming, @max_upcoming::bigint) AS max_upcoming,
			COALESCE(e.check_in_lead, @check_in_lead::interval) AS check_in_lead,
			COALESCE(e.grace, @grace::interval) AS grace, COALESCE(e.check_in, 'NONE') AS check_in,
			v.max_minutes_per_day, v.max_minutes_per_week, v.max_reservations_per_day, v.max_reservations_per_week,
			v.day_time, v.week_time, v.day_count, v.week_count
		FROM now CROSS JOIN unnest(@users::bigint[], @seats::bigint[], @starts::timestamptz[], @ends::timestamptz[],
			@request_ids::text[], @request_hashes::bytea[], @student_ids::text[], @generations::bigint[])
			WITH ORDINALITY AS q (user_id, seat_id, start_time, end_time, request_id, request_hash, student_id,
				generation, place)
		LEFT JOIN LATERAL (
			SELECT true AS known, closed_at IS NOT NULL AS closed, student_id, token_generation, suspended_until, user_group
			FROM users
			WHERE library_id = @library AND id = q.user_id OFFSET 0
		) u ON true
		LEFT JOIN LATERAL (
			SELECT s.branch_id, s.out_of_service, s.area, s.label, b.code AS branch, b.timezone
			FROM seats s JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
			WHERE s.library_id = @library AND s.id = q.seat_id AND s.retired_at IS NULL OFFSET 0
		) s ON true
		LEFT JOIN LATERAL (
			SELECT id, request_hash = q.request_hash AS same FROM reservations
			WHERE library_id = @library AND user_id = q.user_id AND request_id = q.request_id OFFSET 0
		) p ON true
		LEFT JOIN LATERAL dlsms_policy(@library, s.branch_id, s.area, u.user_group,
			(COALESCE(q.start_time, now.t) AT TIME ZONE s.timezone)::date) e ON true
		LEFT JOIN LATERAL (
			SELECT e.max_minutes_per_day, e.max_minutes_per_week, e.max_reservations_per_day, e.max_reservations_per_week, g.*
			FROM dlsms_usage(@library, q.user_id, s.timezone, COALESCE(q.start_time, now.t), 0) g
			WHERE NOT @by_library AND GREATEST(e.max_minutes_per_day, e.max_minutes_per_week,
				e.max_reservations_per_day, e.max_reservations_per_week) > 0 OFFSET 0
		) v ON true
	)`

// deciding returns a statement that decides on bookings. The rest of the statement follows
// wantedBookings.
func deciding(rest ...string) string {
	return strings.Join(append([]string{"WITH", wantedBookings}, rest...), " ")
}
