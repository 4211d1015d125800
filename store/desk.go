package store

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

const (
	selectBranchOf = `
		SELECT s.branch_id FROM reservations r JOIN seats s ON s.library_id = r.library_id AND s.id = r.seat_id
		WHERE r.library_id = $1 AND r.id = $2`

	lockSeatOfReservation = `
		SELECT 1 FROM seats WHERE library_id = $1 AND id = (
			SELECT seat_id FROM reservations WHERE library_id = $1 AND id = $2) FOR NO KEY UPDATE`

	selectReservationByID = selectReservation + `AND r.id = $2`
)

// lockReservation locks the seat of a reservation in the scope of the actor. It returns the
// reservation and the time, both read after the lock, and the branch of the seat, which never
// changes. It fails with ErrReservationNotFound or ErrBranchRequired.
func (t *staffTx) lockReservation(
	ctx context.Context, id int64,
) (r library.Reservation, branch int64, now time.Time, err error) {
	err = t.QueryRow(ctx, selectBranchOf, t.s.lib, id).Scan(&branch)
	if errors.Is(err, pgx.ErrNoRows) {
		err = library.ErrReservationNotFound
	}
	if err == nil {
		err = t.includes(branch)
	}
	if err != nil {
		return r, branch, now, err
	}
	batch := &pgx.Batch{}
	batch.Queue(lockSeatOfReservation, t.s.lib, id)
	batch.Queue(selectNow).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	batch.Queue(selectReservationByID, t.s.lib, id).Query(func(rows pgx.Rows) (err error) {
		r, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[library.Reservation])
		return err
	})
	err = t.SendBatch(ctx, batch).Close()
	return r, branch, now, err
}

// auditedReservation is a reservation in the audit log.
type auditedReservation struct {
	Status library.ReservationStatus `json:"status"`
	UserID int64                     `json:"user_id,omitempty"`
	SeatID int64                     `json:"seat_id,omitempty"`
	Start  *time.Time                `json:"start_time,omitempty"`
	End    *time.Time                `json:"end_time,omitempty"`
}

// auditStatus writes the row of the audit log for a transition of a reservation. before is its
// status before, and r the reservation after it.
func (t *staffTx) auditStatus(
	ctx context.Context, branch int64, before library.ReservationStatus, r library.Reservation,
) error {
	return t.audit(ctx, branch, reservationObject(r.ID), auditedReservation{Status: before},
		auditedReservation{Status: r.Status, UserID: r.UserID})
}

const (
	// lockUserToNotify is lockUsersToNotify for a reservation that does not exist yet.
	lockUserToNotify = `SELECT pg_advisory_xact_lock(hashint8($1), hashint8($2))`

	selectOpenUser = `SELECT closed_at IS NULL FROM users WHERE library_id = $1 AND id = $2`
	selectSeatHome = `SELECT branch_id FROM seats WHERE library_id = $1 AND id = $2 AND retired_at IS NULL`
)

// maxStaffAhead is how far ahead staff reserve a seat. See horizon.
const maxStaffAhead = 400 * 24 * time.Hour

// BookFor reserves a seat for a user. The limits of the policy and a suspension do not apply. The
// user gets a notification with the reason of the order. It fails with the errors of Reserve, and
// with ErrPersonNotFound or ErrBranchRequired. If the call is repeated with the same RequestID and
// content, it returns the first answer again.
func (s *Store) BookFor(ctx context.Context, order library.Order, b library.Booking) (library.Reservation, error) {
	b.Token = nil // the token of the actor is not that of the user
	var r library.Reservation
	made := false
	var decidedAt time.Time
	err := s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		branch, err := t.lockForBooking(ctx, b)
		if err != nil {
			return err
		}
		batch := &pgx.Batch{}
		batch.Queue(lockUserToNotify, s.lib, b.UserID)
		d := s.queueReserve(batch, []library.Booking{b}, t.cause())
		if err := t.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		s.complete(ctx, t, d)
		r, err = d.results[0].reservation, d.results[0].err
		made = d.made > 0 && !order.ValidateOnly
		decidedAt = d.results[0].at
		if err != nil || d.made == 0 {
			return err
		}
		return t.audit(ctx, branch, reservationObject(r.ID), nil, auditedReservation{
			Status: r.Status, UserID: r.UserID, SeatID: r.SeatID, Start: &r.StartTime, End: &r.EndTime,
		})
	})
	if err != nil {
		if !order.ValidateOnly {
			s.refusals.count(b, decidedAt, err)
		}
		return library.Reservation{}, err
	}
	if made {
		s.rowAdded(ctx)
	}
	if order.ValidateOnly {
		r.ID = 0
	}
	return r, nil
}

// lockForBooking locks the user and the seat of a booking, and returns the branch of the seat. It
// fails with ErrPersonNotFound, ErrSeatNotFound, ErrBranchRequired, or Invalid if the booking starts
// too far ahead.
func (t *staffTx) lockForBooking(ctx context.Context, b library.Booking) (branch int64, err error) {
	err = t.QueryRow(ctx, selectSeatHome, t.s.lib, b.SeatID).Scan(&branch)
	if errors.Is(err, pgx.ErrNoRows) {
		err = library.ErrSeatNotFound.With("seat_id", strconv.FormatInt(b.SeatID, 10))
	}
	if err == nil {
		err = t.includes(branch)
	}
	if err != nil {
		return 0, err
	}
	var open bool
	var now time.Time
	batch := &pgx.Batch{}
	batch.Queue(lockUser, t.s.lib, b.UserID)
	batch.Queue(lockSeat, t.s.lib, b.SeatID)
	batch.Queue(selectNow).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	batch.Queue(selectOpenUser, t.s.lib, b.UserID).QueryRow(func(row pgx.Row) error { return row.Scan(&open) })
	err = t.SendBatch(ctx, batch).Close()
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && !open:
		return 0, library.ErrPersonNotFound
	case err == nil && b.StartTime.After(now.Add(maxStaffAhead)):
		return 0, library.Invalid(library.FieldViolation{Field: "start_time", Message: "must be at most 400 days ahead"})
	}
	return branch, err
}

// CheckInFor checks a user in until the end of the window, also after the check-in deadline. The user
// gets a notification with the reason of the order. It fails with ErrReservationNotFound,
// ErrBranchRequired, ErrCheckInTooEarly or ErrNotConfirmed. If the call is repeated, it returns the
// first answer again.
func (s *Store) CheckInFor(ctx context.Context, order library.Order, id int64) (library.Reservation, error) {
	var r library.Reservation
	err := s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		var branch int64
		var now time.Time
		var err error
		if r, branch, now, err = t.lockReservation(ctx, id); err != nil {
			return err
		}
		switch {
		case r.Status == library.CheckedIn, r.Status == library.Completed:
			r, err = s.firstAnswer(ctx, t, id, library.EventCheckedIn)
			return err
		case r.Status != library.Confirmed, !now.Before(r.EndTime):
			return wrongState(library.ErrNotConfirmed, r)
		case now.Before(r.CheckInOpensAt):
			return library.ErrCheckInTooEarly.WithTime("check_in_opens_at", &r.CheckInOpensAt)
		}
		return t.checkIn(ctx, branch, now, &r)
	})
	return r, err
}

// checkIn checks in a CONFIRMED reservation, and writes the row of the audit log. The proof is the
// desk, or the program that has seen the user arrive.
func (t *staffTx) checkIn(ctx context.Context, branch int64, now time.Time, r *library.Reservation) error {
	proof := library.ProofDesk
	if t.order.Actor.KeyID != 0 {
		proof = library.ProofArrival
	}
	err := t.apply(ctx, statusChange{
		cause: t.cause(), kind: library.EventCheckedIn,
		id: r.ID, from: library.Confirmed, to: library.CheckedIn, checkedInAt: &now,
		presence: library.Presence{Proof: proof},
	})
	if err != nil {
		return err
	}
	setCheckedIn(r, now, proof)
	return t.auditStatus(ctx, branch, library.Confirmed, *r)
}

// CheckOutFor ends a CHECKED_IN reservation now and offers the rest of its window to the waitlist.
// The user gets a notification with the reason of the order. It fails with ErrReservationNotFound,
// ErrBranchRequired or ErrNotCheckedIn. A repeated call changes nothing.
func (s *Store) CheckOutFor(ctx context.Context, order library.Order, id int64) (library.Reservation, error) {
	var r library.Reservation
	var freed []int64
	err := s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		var branch int64
		var now time.Time
		var err error
		if r, branch, now, err = t.lockReservation(ctx, id); err != nil || r.Status == library.Completed {
			return err
		}
		if r.Status != library.CheckedIn {
			return wrongState(library.ErrNotCheckedIn, r)
		}
		err = t.apply(ctx, statusChange{
			cause: t.cause(), kind: library.EventCheckedOut,
			id: id, from: library.CheckedIn, to: library.Completed, endedAt: &now,
		})
		if err != nil {
			return err
		}
		r.Status, r.EndedAt, r.EndedByLibrary = library.Completed, &now, true
		freed = []int64{r.UserID}
		if err := t.tryOffer(ctx, now, r.SeatID); err != nil {
			return err
		}
		return t.auditStatus(ctx, branch, library.CheckedIn, r)
	})
	s.offerToFreedUsers(ctx, s.pool, err, freed)
	return r, err
}

const (
	selectOpenUserByCard      = `SELECT id FROM users WHERE library_id = $1 AND card = $2 AND closed_at IS NULL`
	selectOpenUserByStudentID = selectUserID + ` AND closed_at IS NULL`

	// selectVisits finds the seats in the branch $3 that a user uses now, or is about to use.
	selectVisits = `
		SELECT r.seat_id FROM reservations r JOIN seats s ON s.library_id = r.library_id AND s.id = r.seat_id
		WHERE r.library_id = $1 AND r.user_id = $2 AND s.branch_id = $3 AND r.occupies AND r.status <> 'HELD'
			AND r.check_in_opens_at <= dlsms_now() AND upper(r.during) > dlsms_now()`

	selectVisitsAtSeats = selectReservation + `
		AND r.user_id = $2 AND r.occupies AND r.status <> 'HELD' AND r.seat_id = ANY ($3)
		AND r.check_in_opens_at <= $4 AND upper(r.during) > $4 ORDER BY lower(r.during), r.id`
)

// RecordArrival checks a user in to each reservation in the branch of the service key whose check-in
// is open. Exactly one of card and studentID is set. It returns these reservations, and those to
// which the user was checked in before. It fails with ErrPersonNotFound.
func (s *Store) RecordArrival(
	ctx context.Context, order library.Order, card, studentID string,
) (visits []library.Reservation, err error) {
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		if order.Actor.KeyID == 0 || len(t.scope.Branches) != 1 {
			return library.ScopeRequired(library.ScopeArrivals)
		}
		branch := t.scope.Branches[0]
		userID, err := t.findArrival(ctx, card, studentID)
		if err != nil {
			return err
		}
		seats, err := rowsOf(ctx, t, pgx.RowTo[int64], selectVisits, s.lib, userID, branch)
		if err != nil || len(seats) == 0 {
			return err
		}
		seats, now, err := t.lockSeatsAfter(ctx, &pgx.Batch{}, seats, "")
		if err != nil {
			return err
		}
		visits, err = rowsOf(ctx, t, pgx.RowToStructByName[library.Reservation],
			selectVisitsAtSeats, s.lib, userID, seats, now)
		if err != nil {
			return err
		}
		visits = slices.DeleteFunc(visits, func(r library.Reservation) bool {
			return r.Status == library.Confirmed && !now.Before(*r.CheckInDeadline)
		})
		for i := range visits {
			if visits[i].Status == library.Confirmed {
				if err := t.checkIn(ctx, branch, now, &visits[i]); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return visits, err
}

// findArrival returns the user with a card or a student id, or ErrPersonNotFound.
func (t *staffTx) findArrival(ctx context.Context, card, studentID string) (userID int64, err error) {
	if card != "" {
		err = t.QueryRow(ctx, selectOpenUserByCard, t.s.lib, card).Scan(&userID)
	} else {
		err = t.QueryRow(ctx, selectOpenUserByStudentID, t.s.lib, studentID).Scan(&userID)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		err = library.ErrPersonNotFound
	}
	return userID, err
}

const (
	// selectDay returns a branch with the start and the end of a date in its time zone. NULL stands
	// for today.
	selectDay = `
		SELECT b.id, d.day::timestamp AT TIME ZONE b.timezone, (d.day + 1)::timestamp AT TIME ZONE b.timezone
		FROM branches b CROSS JOIN LATERAL (
			SELECT COALESCE($3::date, (dlsms_now() AT TIME ZONE b.timezone)::date) AS day) d
		WHERE b.library_id = $1 AND b.code = $2`

	selectArrival = `
		SELECT r.id, ` + reservationState + `, ` + endedByLibrary + `, u.student_id, u.name
		FROM reservations r ` + atSeat + ` JOIN users u ON u.library_id = r.library_id AND u.id = r.user_id
		WHERE s.library_id = $1 AND s.branch_id = $2 `

	// selectArrivals reads the reservations of each seat of the branch that start on the day, with
	// the index reservations_seat.
	selectArrivals = selectArrival + `
		AND lower(r.during) >= $3 AND lower(r.during) < $4
		AND r.status NOT IN ('HELD', 'CANCELLED') AND (lower(r.during), r.id) > ($5, $6::bigint)
		ORDER BY lower(r.during), r.id LIMIT $7`

	selectChangedArrivals = selectArrival + `
		AND r.id = ANY ($3::bigint[]) AND r.status <> 'HELD' ORDER BY lower(r.during), r.id`
)

// arrivalDay returns a branch in the scope of the actor, and the start and the end of a date in its
// time zone. day is midnight UTC of the date; zero stands for today.
func (t *staffTx) arrivalDay(
	ctx context.Context, code string, day time.Time,
) (branch int64, from, until time.Time, err error) {
	err = t.QueryRow(ctx, selectDay, t.s.lib, code, orNil(day)).Scan(&branch, &from, &until)
	if errors.Is(err, pgx.ErrNoRows) {
		err = library.BranchNotFound(code)
	}
	if err == nil {
		err = t.includesCode(branch, code)
	}
	return branch, from, until, err
}

// Arrivals returns at most limit reservations that start in a branch on a date of its time zone, in
// the order of their start, after the cursor. It leaves out offers and cancelled reservations. day
// is midnight UTC of the date; zero stands for today. It fails with ErrBranchNotFound or
// ErrBranchRequired.
func (s *Store) Arrivals(
	ctx context.Context, actor library.Actor, code string, day time.Time, after ReservationCursor, limit int,
) (list []library.AffectedReservation, err error) {
	err = s.readAsStaff(ctx, actor, func(ctx context.Context, t *staffTx) error {
		branch, from, until, err := t.arrivalDay(ctx, code, day)
		if err != nil {
			return err
		}
		list, err = rowsOf(ctx, t, pgx.RowToStructByName[library.AffectedReservation],
			selectArrivals, s.lib, branch, from, until, after.StartTime, after.ID, limit)
		return err
	})
	return list, err
}

// ArrivalDay returns the start and the end of a date in the time zone of a branch. day is as in
// Arrivals, and so are the errors.
func (s *Store) ArrivalDay(
	ctx context.Context, actor library.Actor, code string, day time.Time,
) (from, until time.Time, err error) {
	err = s.readAsStaff(ctx, actor, func(ctx context.Context, t *staffTx) (err error) {
		_, from, until, err = t.arrivalDay(ctx, code, day)
		return err
	})
	return from, until, err
}

// ChangedArrivals returns those of the reservations with the given ids that are in a branch, in the
// order of their start: also cancelled ones, but no offers. Its errors are those of Arrivals.
func (s *Store) ChangedArrivals(
	ctx context.Context, actor library.Actor, code string, ids []int64,
) (list []library.AffectedReservation, err error) {
	err = s.readAsStaff(ctx, actor, func(ctx context.Context, t *staffTx) error {
		branch, _, _, err := t.arrivalDay(ctx, code, time.Time{})
		if err != nil {
			return err
		}
		list, err = rowsOf(ctx, t, pgx.RowToStructByName[library.AffectedReservation],
			selectChangedArrivals, s.lib, branch, ids)
		return err
	})
	return list, err
}
