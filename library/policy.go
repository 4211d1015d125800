package library

import (
	"fmt"
	"strconv"
	"time"
)

// Policy is the set of limits of a library. The settings of the process give the values. The
// policies that staff set replace some of them: see Rules. A zero MaxUpcoming, MaxWaiting,
// MaxWaitingPerSeat or MaxWaitlist means no limit. PastTolerance, CheckInLead, Grace and
// ReminderLead may be 0. All other fields except Step must be above 0.
type Policy struct {
	MinDuration   time.Duration // shortest window
	MaxDuration   time.Duration // longest window
	Step          time.Duration // windows start and end at multiples of Step after midnight; 0: at any time
	MaxAhead      time.Duration // latest start, from now
	PastTolerance time.Duration // earliest start, before now
	MaxUpcoming   int           // most upcoming reservations of a user
	MaxWaiting    int           // most waitlist entries of a user that are WAITING or OFFERED
	// MaxWaitingPerSeat is the most waitlist entries of one user at one seat, and MaxWaitlist the
	// most of all users at one seat. Both count the entries that are WAITING or OFFERED. They bound
	// the time of a transaction that looks for an entry to which a free seat can be offered.
	MaxWaitingPerSeat int
	MaxWaitlist       int
	CheckInLead       time.Duration // check-in opens this long before the start
	Grace             time.Duration // check-in closes this long after the start or the confirmation, whichever is later
	ClaimTime         time.Duration // how long an offer lasts
	ReminderLead      time.Duration // the reminder comes this long before check-in closes
}

// DefaultPolicy returns the policy of a library that sets none.
func DefaultPolicy() Policy {
	return Policy{
		MinDuration:   15 * time.Minute,
		MaxDuration:   12 * time.Hour,
		MaxAhead:      14 * 24 * time.Hour,
		PastTolerance: time.Minute,
		MaxUpcoming:   10,
		MaxWaiting:    20,

		MaxWaitingPerSeat: 5,
		MaxWaitlist:       100,

		CheckInLead:  15 * time.Minute,
		Grace:        15 * time.Minute,
		ClaimTime:    10 * time.Minute,
		ReminderLead: 5 * time.Minute,
	}
}

// ClockTolerance is how far a window may be outside of these limits of a Policy:
//   - MaxAhead
//   - MinDuration and MaxDuration, if the request has no start: the window then starts when
//     Postgres makes the booking, so its length depends on how long the call takes
//   - MaxDuration, if a reservation is extended
//
// It is the sum of 5 s for the difference between the client's clock and Postgres's clock, and 5 s
// for the call to arrive. If a request has a start and an end, MinDuration and MaxDuration apply
// without a tolerance.
const ClockTolerance = 10 * time.Second

// LocalTimes are facts about a window that depend on the time zone of its branch. Postgres computes
// them.
type LocalTimes struct {
	StartOffGrid bool // the start is not a multiple of Policy.Step after midnight
	EndOffGrid   bool
	// BookableAt is the time from which the day of the start can be reserved. If it is not zero, it
	// replaces Policy.MaxAhead.
	BookableAt time.Time
}

// CheckWindow checks the window of a booking at the time now. A zero start stands for now. It
// returns Invalid if the end is not after the start, ErrWindowNotAllowed if the window breaks
// another rule of the policy, and nil otherwise.
func (p Policy) CheckWindow(now, start, end time.Time, local LocalTimes) error {
	violations, reversed := p.windowViolations(now, start, end, local)
	switch {
	case len(violations) == 0:
		return nil
	case reversed:
		return Invalid(violations...)
	default:
		return p.WindowNotAllowed(now, local, violations...)
	}
}

// windowViolations returns all rules that the window breaks at the time now. reversed is true if
// the end is not after the start.
func (p Policy) windowViolations(
	now, start, end time.Time, local LocalTimes,
) (violations []FieldViolation, reversed bool) {
	slack := time.Duration(0)
	if start.IsZero() {
		start, slack = now, ClockTolerance
	}
	add := func(field, message string) { violations = append(violations, FieldViolation{field, message}) }
	switch {
	case start.Before(now.Add(-p.PastTolerance)):
		add("start_time", "it is in the past")
	case now.Before(local.BookableAt):
		add("start_time", "this day can be reserved from "+local.BookableAt.UTC().Format(time.RFC3339)+" on")
	case local.BookableAt.IsZero() && start.After(now.Add(p.MaxAhead+ClockTolerance)):
		add("start_time", fmt.Sprintf("it is more than %v ahead", p.MaxAhead))
	}
	if local.StartOffGrid {
		add("start_time", fmt.Sprintf("it must be a multiple of %v after midnight", p.Step))
	}
	switch length := end.Sub(start); {
	case !end.After(now):
		add("end_time", "it is in the past")
	case length < p.MinDuration-slack:
		add("end_time", fmt.Sprintf("the window must be at least %v long", p.MinDuration))
	case length > p.MaxDuration+slack:
		add("end_time", fmt.Sprintf("the window must be at most %v long", p.MaxDuration))
	}
	if local.EndOffGrid {
		add("end_time", fmt.Sprintf("it must be a multiple of %v after midnight", p.Step))
	}
	return violations, !end.After(start)
}

// WindowNotAllowed returns the error for a window that breaks the policy. Its metadata has the
// limits.
func (p Policy) WindowNotAllowed(now time.Time, local LocalTimes, violations ...FieldViolation) *Error {
	seconds := func(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
	err := ErrWindowNotAllowed.WithFields(violations...).
		With("min_reservation", seconds(p.MinDuration)).With("max_reservation", seconds(p.MaxDuration)).
		With("max_ahead", seconds(p.MaxAhead)).With("now", now.UTC().Format(time.RFC3339))
	if p.Step > 0 {
		err = err.With("step", seconds(p.Step))
	}
	if !local.BookableAt.IsZero() {
		err = err.WithTime("bookable_at", &local.BookableAt)
	}
	return err
}

// Rules returns the rules of the policy, which hold where no policy of staff sets a rule.
func (p Policy) Rules() Rules {
	mayBook, none, checkIn := true, 0, CheckInNone
	span := func(d time.Duration) *Span { s := Span(d); return &s }
	return Rules{
		MayBook: &mayBook, MinDuration: span(p.MinDuration), MaxDuration: span(p.MaxDuration),
		MaxAhead: span(p.MaxAhead), MaxUpcoming: &p.MaxUpcoming,
		MaxMinutesPerDay: &none, MaxMinutesPerWeek: &none, MaxReservationsPerDay: &none, MaxReservationsPerWeek: &none,
		CheckInLead: span(p.CheckInLead), Grace: span(p.Grace), CheckIn: &checkIn, StrikeLimit: &none,
	}
}

// CheckInDeadline returns the time at which check-in closes for the window from start to end: Grace
// after start or confirmed, whichever is later, but never after end. confirmed is when the
// reservation was confirmed.
func (p Policy) CheckInDeadline(start, end, confirmed time.Time) time.Time {
	deadline := start
	if confirmed.After(start) {
		deadline = confirmed
	}
	deadline = deadline.Add(p.Grace)
	if deadline.After(end) {
		return end
	}
	return deadline
}
