package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// judge finds all rules that bookings break, with the numbers of these rules. It changes nothing
// and takes no locks.
var judge = deciding(`, judged AS (
	SELECT w.place, now.t AS now, w.start_time, COALESCE(w.branch, '') AS branch, COALESCE(w.area, '') AS area,
		COALESCE(w.label, '') AS label, COALESCE(w.prior_id, 0) AS prior_id, w.suspended_until,
		w.min_duration, w.max_duration, w.furthest, COALESCE(w.step, '0') AS step,
		w.start_off_grid, w.end_off_grid, w.bookable_at, w.max_upcoming,
		w.check_in_lead, w.grace, w.check_in,
		`, quotaColumns, `,
		c.closure_id, c.closed_from, c.closed_until,
		`, allBroken(), ` AS broken
	FROM now CROSS JOIN wanted w LEFT JOIN `, closingOf, ` ON true
	)
	SELECT * FROM judged ORDER BY place`)

// facts are what the statement judge finds about a booking.
type facts struct {
	Place          int // of the booking, from 1
	Now            time.Time
	StartTime      time.Time
	Branch         string
	Area           string
	Label          string
	PriorID        int64
	SuspendedUntil *time.Time
	MinDuration    time.Duration
	MaxDuration    time.Duration
	Furthest       time.Duration // how far ahead a start may be, with the tolerance
	Step           time.Duration
	StartOffGrid   bool
	EndOffGrid     bool
	BookableAt     *time.Time
	MaxUpcoming    int
	CheckInLead    time.Duration
	Grace          time.Duration
	CheckIn        library.CheckInRule
	ClosureID      *int64
	ClosedFrom     *time.Time
	ClosedUntil    *time.Time
	Broken         []string // outcomes, in the order of bookingRules
	quotaUse

	booking library.Booking `db:"-"`
	process library.Policy  `db:"-"`
	why     cause           `db:"-"`
}

// judge runs the statement judge. now is the time at which it judges. Zero means the present.
func (s *Store) judge(
	ctx context.Context, q querier, bookings []library.Booking, why cause, now time.Time,
) ([]facts, error) {
	rows, err := q.Query(ctx, judge, s.judgeArgs(bookings, why, now))
	if err != nil {
		return nil, err
	}
	return s.collectFacts(rows, bookings, why)
}

func (s *Store) judgeArgs(bookings []library.Booking, why cause, now time.Time) pgx.NamedArgs {
	args := s.reserveArgs(bookings, why)
	args["now"] = orNil(now)
	return args
}

func (s *Store) collectFacts(rows pgx.Rows, bookings []library.Booking, why cause) ([]facts, error) {
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[facts])
	if err == nil && len(all) != len(bookings) {
		err = fmt.Errorf("%d rows for %d bookings", len(all), len(bookings))
	}
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].booking, all[i].process, all[i].why = bookings[i], s.policy, why
	}
	return all, nil
}

// policy returns the policy that applies to the booking.
func (f facts) policy() library.Policy {
	p := f.process
	p.MinDuration, p.MaxDuration, p.Step = f.MinDuration, f.MaxDuration, f.Step
	p.MaxAhead = f.Furthest - library.ClockTolerance
	p.MaxUpcoming, p.CheckInLead, p.Grace = f.MaxUpcoming, f.CheckInLead, f.Grace
	if f.why.byLibrary {
		p.MinDuration, p.MaxDuration, p.MaxAhead, p.Step = time.Microsecond, maxStaffBooking, horizon, 0
	}
	return p
}

func (f facts) local() library.LocalTimes {
	if f.why.byLibrary {
		return library.LocalTimes{}
	}
	local := library.LocalTimes{StartOffGrid: f.StartOffGrid, EndOffGrid: f.EndOffGrid}
	if f.BookableAt != nil {
		local.BookableAt = *f.BookableAt
	}
	return local
}

// first returns the error for the first rule that the booking breaks, of those with these outcomes.
// It returns nil if there is none.
func (f facts) first(outcomes []string) error {
	for _, outcome := range f.Broken {
		if slices.Contains(outcomes, outcome) {
			return f.refusal(outcome)
		}
	}
	return nil
}

// refusal returns the error for an outcome of the booking, with the numbers of its rule.
func (f facts) refusal(outcome string) error {
	if err := plainRefusal(outcome, f.booking.SeatID); err != nil {
		return err
	}
	switch outcome {
	case outcomeWindow:
		err := f.policy().CheckWindow(f.Now, f.booking.StartTime, f.booking.EndTime, f.local())
		if err == nil { // the policy has changed since
			return f.policy().WindowNotAllowed(f.Now, f.local())
		}
		return err
	case "SUSPENDED":
		return library.ErrSuspended.WithTime("suspended_until", f.SuspendedUntil)
	case "SEAT_CLOSED":
		if f.ClosureID == nil {
			return library.ErrSeatClosed
		}
		return closing{*f.ClosureID, f.ClosedFrom, f.ClosedUntil}.refusal()
	case "TOO_MANY_RESERVATIONS":
		return library.ErrTooManyReservations.With("limit", strconv.Itoa(f.MaxUpcoming))
	}
	if i := slices.Index(quotaNames, outcome); i >= 0 {
		return f.quotaUse.refusal(i)
	}
	return fmt.Errorf("reserve: unknown outcome %q", outcome)
}

// CheckReservation returns all rules that the booking would break now, in the order in which Reserve
// checks them, and alternatives if there is a rule. It takes no locks. It fails with
// ErrSeatNotFound, ErrTokenInvalid, or Invalid if the window ends before it starts.
func (s *Store) CheckReservation(ctx context.Context, b library.Booking) (library.Check, error) {
	var check library.Check
	err := s.withConn(ctx, func(ctx context.Context, q querier) error {
		all, err := s.judge(ctx, q, []library.Booking{b}, cause{}, time.Time{})
		if err != nil {
			return err
		}
		f := all[0]
		for _, outcome := range f.Broken {
			err := f.refusal(outcome)
			refused, ok := errors.AsType[*library.Error](err)
			if !ok || cannotCheck(refused) {
				return err
			}
			check.Broken = append(check.Broken, eachField(refused)...)
		}
		if len(check.Broken) > 0 {
			check.Alternatives, err = s.alternatives(ctx, q, f)
		}
		return err
	})
	return check, err
}

// cannotCheck reports whether the error means that the request itself is faulty.
func cannotCheck(err *library.Error) bool {
	return errors.Is(err, library.ErrSeatNotFound) || err.Kind == library.KindUnauthenticated ||
		errors.Is(err, library.Invalid())
}

// eachField returns one error for each field violation of an error, with the message of the field.
func eachField(err *library.Error) []*library.Error {
	if len(err.Fields) == 0 {
		return []*library.Error{err}
	}
	var out []*library.Error
	for _, field := range err.Fields {
		one := err.WithFields(field)
		if errors.Is(err, library.ErrWindowNotAllowed) {
			one.Message = field.Field + ": " + field.Message
		}
		out = append(out, one)
	}
	return out
}

// ValidateReservation makes the checks of Reserve and changes nothing. It returns the reservation
// that Reserve would make, without an id, or the first answer to a repeated request.
func (s *Store) ValidateReservation(ctx context.Context, b library.Booking) (library.Reservation, error) {
	var r library.Reservation
	err := s.withConn(ctx, func(ctx context.Context, q querier) error {
		all, err := s.judge(ctx, q, []library.Booking{b}, cause{}, time.Time{})
		if err != nil {
			return err
		}
		f := all[0]
		if len(f.Broken) == 0 {
			r = f.reservation()
			return nil
		}
		if f.Broken[0] != outcomeRepeated {
			return f.refusal(f.Broken[0])
		}
		r, err = s.firstAnswer(ctx, q, f.PriorID, library.EventReserved)
		return err
	})
	return r, err
}

// reservation returns the reservation that Reserve would make.
func (f facts) reservation() library.Reservation {
	deadline := f.policy().CheckInDeadline(f.StartTime, f.booking.EndTime, f.Now)
	return library.Reservation{
		SeatRef:   library.SeatRef{SeatID: f.booking.SeatID, Branch: f.Branch, Area: f.Area, Label: f.Label},
		UserID:    f.booking.UserID,
		StartTime: f.StartTime, EndTime: f.booking.EndTime, Status: library.Confirmed,
		CheckInOpensAt: f.StartTime.Add(-f.CheckInLead), CheckInDeadline: &deadline, CreatedAt: f.Now,
		CheckInRule: f.CheckIn,
	}
}

// withConn runs fn on a connection of the pool for requests. The end of ctx ends only the wait for a
// connection. Once fn runs, budget bounds it.
func (s *Store) withConn(ctx context.Context, fn func(ctx context.Context, q querier) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return translate(err)
	}
	defer conn.Release()
	ctx, cancel := budget(ctx)
	defer cancel()
	return translate(fn(ctx, conn))
}

const (
	maxAlternatives = 5
	maxOtherTimes   = 3
	// Candidates that the statement judge checks. A quota can refuse all times of one day, so the
	// candidates come from several days.
	timesPerDay = 8
	otherSeats  = 16
)

// selectOtherTimes finds windows of the same length at which a seat is free: on the day of the
// booking, and on the days before and after it. They start at multiples of the policy's step, or of
// 15 minutes, in the time zone of the branch. The nearest starts come first.
const selectOtherTimes = `
	WITH span AS MATERIALIZED (
		SELECT s.id, s.branch_id, s.area, b.timezone, x.day, tstzrange(
			GREATEST(@now::timestamptz, (x.day - interval '1 day') AT TIME ZONE b.timezone),
			GREATEST(@now, (x.day + interval '2 days') AT TIME ZONE b.timezone + @length::interval)) AS during
		FROM seats s JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
		CROSS JOIN LATERAL (SELECT date_trunc('day', @start::timestamptz AT TIME ZONE b.timezone) AS day) x
		WHERE s.library_id = @library AND s.id = @seat AND NOT s.out_of_service
	), busy AS MATERIALIZED (
		SELECT COALESCE(range_agg(x.during), '{}') AS during FROM span CROSS JOIN LATERAL (
			SELECT r.during FROM reservations r
			WHERE r.library_id = @library AND r.seat_id = span.id AND r.occupies AND r.during && span.during
			UNION ALL
			SELECT r.during FROM reservations r
			WHERE r.library_id = @library AND r.user_id = @user AND r.occupies AND r.status <> 'HELD'
				AND NOT isempty(r.during * span.during)
			UNION ALL
			SELECT c.during FROM closures c
			WHERE c.library_id = @library AND c.branch_id = span.branch_id AND c.lifted_at IS NULL
				AND COALESCE(upper(c.during), 'infinity') > lower(span.during) AND c.during && span.during
				AND (c.area IS NULL OR c.area = span.area) AND (c.seat_ids IS NULL OR span.id = ANY (c.seat_ids))
		) x
	), open AS MATERIALIZED (
		SELECT dlsms_hours(@library, span.branch_id, span.during) AS hours FROM span
	), candidates AS (
		SELECT c.start_time, row_number() OVER (
			PARTITION BY date_trunc('day', c.start_time AT TIME ZONE span.timezone)
			ORDER BY abs(extract(epoch FROM c.start_time - @start)), c.start_time) AS place
		FROM span CROSS JOIN busy CROSS JOIN open CROSS JOIN LATERAL (
			SELECT DISTINCT d AT TIME ZONE span.timezone AS start_time
			FROM generate_series(span.day - interval '1 day', span.day + interval '2 days' - @step::interval, @step) d
		) c
		WHERE c.start_time >= @now AND c.start_time <> @start
			AND NOT busy.during && tstzrange(c.start_time, c.start_time + @length)
			AND (open.hours @> tstzrange(c.start_time, c.start_time + @length)) IS NOT FALSE
	)
	SELECT start_time FROM candidates WHERE place <= @most::bigint
	ORDER BY abs(extract(epoch FROM start_time - @start)), start_time`

// selectOtherSeats finds seats of the same branch that are free for the window of the booking. Seats
// of the same area come first, and then those that share most amenities. The subquery is sorted
// before the reservations are looked up, so that Postgres looks up only as many as needed.
const selectOtherSeats = `
	SELECT o.id FROM (
		SELECT o.id, o.branch_id, o.area
		FROM seats s JOIN seats o ON o.library_id = s.library_id AND o.branch_id = s.branch_id
		WHERE s.library_id = @library AND s.id = @seat AND o.id <> s.id AND NOT o.out_of_service
			AND o.retired_at IS NULL
		ORDER BY o.area <> s.area, (SELECT count(*) FROM unnest(o.amenities) a WHERE a = ANY (s.amenities)) DESC, o.id
		OFFSET 0
	) o
	WHERE NOT EXISTS (
			SELECT FROM reservations r
			WHERE r.library_id = @library AND r.seat_id = o.id AND r.occupies
				AND r.during && tstzrange(@start, @end))
		AND NOT dlsms_closed(@library, o.branch_id, o.area, o.id, tstzrange(@start, @end))
	LIMIT @most::bigint`

// alternatives returns seats and windows that the user could reserve instead. The statement judge
// has checked each of them.
func (s *Store) alternatives(ctx context.Context, q querier, f facts) ([]library.Alternative, error) {
	length := f.booking.EndTime.Sub(f.StartTime)
	if length <= 0 || length > s.longestWindow() {
		return nil, nil
	}
	args := pgx.NamedArgs{
		"library": s.lib, "user": f.booking.UserID, "seat": f.booking.SeatID, "now": f.Now, "start": f.StartTime,
		"end": f.booking.EndTime, "length": length, "step": candidateStep(f.Step), "most": timesPerDay,
	}
	starts, err := rowsOf(ctx, q, pgx.RowTo[time.Time], selectOtherTimes, args)
	if err != nil {
		return nil, err
	}
	args["most"] = otherSeats
	seats, err := rowsOf(ctx, q, pgx.RowTo[int64], selectOtherSeats, args)
	if err != nil {
		return nil, err
	}
	var wanted []library.Booking
	for _, start := range starts {
		wanted = append(wanted, library.Booking{
			UserID: f.booking.UserID, SeatID: f.booking.SeatID, StartTime: start, EndTime: start.Add(length),
		})
	}
	for _, seat := range seats {
		wanted = append(wanted, library.Booking{
			UserID: f.booking.UserID, SeatID: seat, StartTime: f.booking.StartTime, EndTime: f.booking.EndTime,
		})
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	judged, err := s.judge(ctx, q, wanted, cause{}, f.Now)
	if err != nil {
		return nil, err
	}
	return chooseAlternatives(judged, len(starts)), nil
}

// chooseAlternatives returns the first of the judged bookings that break no rule. The first times
// of them are other times of the same seat.
func chooseAlternatives(judged []facts, times int) (out []library.Alternative) {
	for i, f := range judged {
		if len(f.Broken) > 0 || i < times && len(out) == maxOtherTimes || len(out) == maxAlternatives {
			continue
		}
		out = append(out, library.Alternative{
			SeatRef:   library.SeatRef{SeatID: f.booking.SeatID, Branch: f.Branch, Area: f.Area, Label: f.Label},
			StartTime: f.StartTime, EndTime: f.booking.EndTime,
		})
	}
	return out
}

// candidateStep returns the distance of the starts that alternatives may have: the smallest multiple
// of step that is 15 minutes or more.
func candidateStep(step time.Duration) time.Duration {
	const least = 15 * time.Minute
	if step <= 0 {
		return least
	}
	multiples := int64((least + step - 1) / step)
	return time.Duration(multiples * int64(step))
}
