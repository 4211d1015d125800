package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// judge finds all rules that bookings break, with the numbers of these rules. It changes nothing
// and takes no locks.
//
//nolint:gochecknoglobals // a constant that is built from bookingRules
var judge = deciding(`, judged AS (
	SELECT w.place, now.t AS now, w.start_time, COALESCE(w.branch, '') AS branch, COALESCE(w.area, '') AS area,
		COALESCE(w.label, '') AS label, COALESCE(w.prior_id, 0) AS prior_id, w.suspended_until,
		w.min_duration, w.max_duration, w.furthest, COALESCE(w.step, '0') AS step,
		w.start_off_grid, w.end_off_grid, w.bookable_at, w.max_upcoming,
		w.check_in_lead, w.grace,
		`, quotaColumns, `,
		c.id AS closure_id, c.closed_from, c.closed_until,
		`, allBroken(), ` AS broken
	FROM now CROSS JOIN wanted w LEFT JOIN LATERAL (
		SELECT c.id, lower(c.during) AS closed_from, upper(c.during) AS closed_until FROM closures c
		WHERE c.library_id = @library AND c.branch_id = w.branch_id AND c.lifted_at IS NULL
			AND COALESCE(upper(c.during), 'infinity') > w.start_time AND c.during && w.during
			AND (c.area IS NULL OR c.area = w.area) AND (c.seat_ids IS NULL OR w.seat_id = ANY (c.seat_ids))
		ORDER BY lower(c.during) LIMIT 1
	) c ON true
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
	ClosureID      *int64
	ClosedFrom     *time.Time
	ClosedUntil    *time.Time
	Broken         []string // outcomes, in the order of bookingRules
	quotaUse

	booking library.Booking `db:"-"`
	process library.Policy  `db:"-"`
	staff   staffBooking    `db:"-"`
}

// judge runs the statement judge. now is the time at which it judges. Zero means the present.
func (s *Store) judge(
	ctx context.Context, q querier, bookings []library.Booking, staff staffBooking, now time.Time,
) ([]facts, error) {
	rows, err := q.Query(ctx, judge, s.judgeArgs(bookings, staff, now))
	if err != nil {
		return nil, err
	}
	return s.collectFacts(rows, bookings, staff)
}

func (s *Store) judgeArgs(bookings []library.Booking, staff staffBooking, now time.Time) pgx.NamedArgs {
	args := s.reserveArgs(bookings, staff)
	args["now"] = orNil(now)
	return args
}

func (s *Store) collectFacts(rows pgx.Rows, bookings []library.Booking, staff staffBooking) ([]facts, error) {
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[facts])
	if err == nil && len(all) != len(bookings) {
		err = fmt.Errorf("%d rows for %d bookings", len(all), len(bookings))
	}
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].booking, all[i].process, all[i].staff = bookings[i], s.policy, staff
	}
	return all, nil
}

// policy returns the policy that applies to the booking.
func (f facts) policy() library.Policy {
	p := f.process
	p.MinDuration, p.MaxDuration, p.Step = f.MinDuration, f.MaxDuration, f.Step
	p.MaxAhead = f.Furthest - library.ClockTolerance
	p.MaxUpcoming, p.CheckInLead, p.Grace = f.MaxUpcoming, f.CheckInLead, f.Grace
	if f.staff.byLibrary {
		p.MinDuration, p.MaxDuration, p.MaxAhead, p.Step = time.Microsecond, maxStaffBooking, horizon, 0
	}
	return p
}

func (f facts) local() library.LocalTimes {
	if f.staff.byLibrary {
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
		err := library.ErrSeatClosed
		if f.ClosureID != nil {
			err = err.With("closure_id", strconv.FormatInt(*f.ClosureID, 10))
		}
		return err.WithTime("closed_from", f.ClosedFrom).WithTime("closed_until", f.ClosedUntil)
	case "TOO_MANY_RESERVATIONS":
		return library.ErrTooManyReservations.With("limit", strconv.Itoa(f.MaxUpcoming))
	}
	if i := slices.Index(quotaNames, outcome); i >= 0 {
		return f.quotaUse.refusal(i)
	}
	return fmt.Errorf("reserve: unknown outcome %q", outcome)
}
