package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// lockSeatOf locks the seat of a reservation of the user's. A reservation never changes its seat, so looking it up before the lock is safe.
const lockSeatOf = `
	SELECT 1 FROM seats WHERE library_id = $1 AND id = (
		SELECT seat_id FROM reservations WHERE library_id = $1 AND id = $2 AND user_id = $3) FOR NO KEY UPDATE`

// lockOwnReservation locks the seat of a reservation of the user's, and returns the reservation and the time after that. From here to the end
// of the transaction nobody else changes it. It fails with ErrReservationNotFound.
func (t *tx) lockOwnReservation(ctx context.Context, userID, id int64) (r Reservation, now time.Time, err error) {
	batch := &pgx.Batch{}
	batch.Queue(lockSeatOf, t.s.lib, id, userID)
	batch.Queue(selectNow).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	batch.Queue(selectOwnReservation, t.s.lib, id, userID).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Reservation])
		if err == nil && len(found) == 0 {
			err = ErrReservationNotFound
		}
		if err == nil {
			r = found[0]
		}
		return err
	})
	err = t.SendBatch(ctx, batch).Close()
	return r, now, err
}

// change is one transition of one reservation.
type change struct {
	id          int64
	from, to    Status
	kind        EventKind
	endTime     time.Time  // zero: unchanged
	deadline    *time.Time // nil: unchanged
	checkedInAt *time.Time // nil: unchanged
	endedAt     *time.Time
}

// updateReservation is the one compare and set for transitions that a user makes.
const updateReservation = `
	UPDATE reservations SET status = $4, version = version + 1,
		during = CASE WHEN $5::timestamptz IS NULL THEN during ELSE tstzrange(lower(during), $5) END,
		check_in_deadline = COALESCE($6, check_in_deadline), checked_in_at = COALESCE($7, checked_in_at), ended_at = $8,
		offer_expires_at = NULL
	WHERE library_id = $1 AND id = $2 AND status = $3`

// apply makes a transition and records its event.
func (t *tx) apply(ctx context.Context, c change) error {
	tag, err := t.Exec(ctx, updateReservation, t.s.lib, c.id, c.from, c.to, orNil(c.endTime), c.deadline, c.checkedInAt, c.endedAt)
	if err != nil {
		return err
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("reservation %d changed under the lock of its seat: not %s any more", c.id, c.from)
	}
	t.record(c.kind, c.id)
	return nil
}

// firstAnswer returns a reservation as it was right after it made a transition of that kind.
func (t *tx) firstAnswer(ctx context.Context, id int64, kind EventKind) (Reservation, error) {
	rows, err := t.Query(ctx, selectFirstAnswer, t.s.lib, id, kind)
	if err != nil {
		return Reservation{}, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Reservation])
}

// wrongState is err with the state that the reservation is in, so that the loser of a race learns what it lost to.
func wrongState(err *Error, r Reservation) *Error { return err.With("status", string(r.Status)) }

// Cancel gives up a CONFIRMED reservation and offers its seat to the waitlist. It fails with ErrReservationNotFound or ErrNotConfirmed.
// Repeated, it answers as the first time.
func (s *Store) Cancel(ctx context.Context, userID, id int64) (Reservation, error) {
	var r Reservation
	var freed []int64
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		var now time.Time
		var err error
		if r, now, err = t.lockOwnReservation(ctx, userID, id); err != nil {
			return err
		}
		switch r.Status {
		case Confirmed:
		case Cancelled:
			if r.CheckInDeadline == nil { // an offer that was declined or ran out: it never was the user's to cancel
				return wrongState(ErrNotConfirmed, r)
			}
			return nil
		case Held, CheckedIn, Completed, NoShow:
			return wrongState(ErrNotConfirmed, r)
		}
		if err := t.apply(ctx, change{id: id, from: Confirmed, to: Cancelled, kind: EventCancelled, endedAt: &now}); err != nil {
			return err
		}
		r.Status, r.EndedAt = Cancelled, &now
		freed = []int64{userID}
		return t.tryOffer(ctx, now, r.SeatID)
	})
	s.offerToFreed(ctx, s.pool, err, freed)
	return r, err
}

// CheckIn says that the user is at the seat. It fails with ErrReservationNotFound, ErrNotConfirmed, ErrCheckInTooEarly or ErrCheckInTooLate.
// Repeated, it answers as the first time.
func (s *Store) CheckIn(ctx context.Context, userID, id int64) (Reservation, error) {
	var r Reservation
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		var now time.Time
		var err error
		if r, now, err = t.lockOwnReservation(ctx, userID, id); err != nil {
			return err
		}
		switch r.Status {
		case Confirmed:
		case CheckedIn, Completed:
			r, err = t.firstAnswer(ctx, id, EventCheckedIn)
			return err
		case NoShow:
			return wrongState(ErrCheckInTooLate, r)
		case Held, Cancelled:
			return wrongState(ErrNotConfirmed, r)
		}
		switch {
		case now.Before(r.CheckInOpensAt):
			return ErrCheckInTooEarly.With("check_in_opens_at", r.CheckInOpensAt.Format(time.RFC3339))
		case !now.Before(*r.CheckInDeadline):
			return ErrCheckInTooLate.With("check_in_deadline", r.CheckInDeadline.Format(time.RFC3339))
		}
		r.Status, r.CheckedInAt = CheckedIn, &now
		return t.apply(ctx, change{id: id, from: Confirmed, to: CheckedIn, kind: EventCheckedIn, checkedInAt: &now})
	})
	return r, err
}

// CheckOut ends a CHECKED_IN reservation now and offers the rest of its window to the waitlist. It fails with ErrReservationNotFound or
// ErrNotCheckedIn. Repeated, it answers as the first time.
func (s *Store) CheckOut(ctx context.Context, userID, id int64) (Reservation, error) {
	var r Reservation
	var freed []int64
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		var now time.Time
		var err error
		if r, now, err = t.lockOwnReservation(ctx, userID, id); err != nil {
			return err
		}
		switch r.Status {
		case CheckedIn:
		case Completed:
			// Completed by the user, or by the worker at the end: either way it is over, and the user wanted it over.
			return nil
		case Held, Confirmed, Cancelled, NoShow:
			return wrongState(ErrNotCheckedIn, r)
		}
		if err := t.apply(ctx, change{id: id, from: CheckedIn, to: Completed, kind: EventCheckedOut, endedAt: &now}); err != nil {
			return err
		}
		r.Status, r.EndedAt = Completed, &now
		freed = []int64{userID}
		return t.tryOffer(ctx, now, r.SeatID)
	})
	s.offerToFreed(ctx, s.pool, err, freed)
	return r, err
}

const selectExtensionConflicts = `
	SELECT EXISTS (SELECT FROM reservations WHERE library_id = $1 AND seat_id = $2 AND id <> $4 AND occupies AND during && tstzrange($5, $6)),
		EXISTS (SELECT FROM reservations WHERE library_id = $1 AND user_id = $3 AND id <> $4 AND occupies AND status <> 'HELD'
			AND NOT isempty(during * tstzrange($5, $6))),
		s.out_of_service, NOT dlsms_open(s.library_id, s.branch_id, tstzrange($5, $6)),
		(SELECT COALESCE(w.ended_at, r.created_at) FROM reservations r
			LEFT JOIN waitlist_entries w ON w.library_id = r.library_id AND w.id = r.entry_id
			WHERE r.library_id = $1 AND r.id = $4) AS confirmed_at
	FROM seats s WHERE s.library_id = $1 AND s.id = $2`

// Extend moves the end of a CONFIRMED or CHECKED_IN reservation to a later time. It fails with ErrReservationNotFound, ErrNotConfirmed,
// ErrSeatTaken, ErrUserBusy, ErrSeatOutOfService, ErrBranchClosed, ErrWindowNotAllowed for a window that is too long, or Invalid for an end
// that is not later. With the end that the reservation has, it changes nothing.
func (s *Store) Extend(ctx context.Context, userID, id int64, end time.Time) (Reservation, error) {
	var r Reservation
	end = end.Truncate(time.Microsecond) // as Postgres has it, so that a repeated call finds the end that it asks for
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		if _, err := t.Exec(ctx, lockUser, s.lib, userID); err != nil {
			return err
		}
		var now time.Time
		var err error
		if r, now, err = t.lockOwnReservation(ctx, userID, id); err != nil {
			return err
		}
		switch {
		case r.Status != Confirmed && r.Status != CheckedIn:
			return wrongState(ErrNotConfirmed, r)
		case !r.EndTime.After(now):
			return wrongState(ErrNotConfirmed, r) // over, though the worker has not come by yet
		case end.Equal(r.EndTime):
			return nil
		case end.Before(r.EndTime):
			return Invalid(Fault{"end_time", "it must be after the present end, " + r.EndTime.UTC().Format(time.RFC3339)})
		case end.Sub(r.StartTime) > s.rules.MaxDuration+clockTolerance:
			return s.rules.notAllowed(now, Fault{"end_time", fmt.Sprintf("the window must be at most %v long", s.rules.MaxDuration)})
		}
		var taken, busy, outOfService, closed bool
		var confirmed time.Time
		err = t.QueryRow(ctx, selectExtensionConflicts, s.lib, r.SeatID, userID, id, r.EndTime, end).
			Scan(&taken, &busy, &outOfService, &closed, &confirmed)
		switch {
		case err != nil:
			return err
		case outOfService:
			return ErrSeatOutOfService.With("seat_id", strconv.FormatInt(r.SeatID, 10))
		case closed:
			return ErrBranchClosed.In(Fault{"end_time", "the branch is closed for a part of the window"})
		case taken:
			return ErrSeatTaken.With("seat_id", strconv.FormatInt(r.SeatID, 10))
		case busy:
			return ErrUserBusy
		}
		if r.Status == Confirmed && r.CheckInDeadline.Equal(r.EndTime) { // cut short by the end that moves now
			deadline := s.rules.checkInDeadline(r.StartTime, end, confirmed)
			r.CheckInDeadline = &deadline
		}
		r.EndTime = end
		return t.apply(ctx, change{id: id, from: r.Status, to: r.Status, kind: EventExtended, endTime: end, deadline: r.CheckInDeadline})
	})
	return r, err
}
