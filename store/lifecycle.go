package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// lockSeatOf locks the seat of one of the user's reservations. A reservation never changes its
// seat, so the statement may look up the seat before it has the lock.
const lockSeatOf = `
	SELECT 1 FROM seats WHERE library_id = $1 AND id = (
		SELECT seat_id FROM reservations WHERE library_id = $1 AND id = $2 AND user_id = $3) FOR NO KEY UPDATE`

// lockOwnReservation locks the seat of one of the user's reservations. It returns the reservation
// and the time, both read after the lock. No other transaction changes the reservation until this
// one ends. more adds statements to the same round trip. It fails with ErrReservationNotFound.
func (t *tx) lockOwnReservation(
	ctx context.Context, userID, id int64, more ...func(*pgx.Batch),
) (r library.Reservation, now time.Time, err error) {
	batch := &pgx.Batch{}
	batch.Queue(lockSeatOf, t.s.lib, id, userID)
	batch.Queue(selectNow).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	batch.Queue(selectOwnReservation, t.s.lib, id, userID).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, pgx.RowToStructByName[library.Reservation])
		if err == nil && len(found) == 0 {
			err = library.ErrReservationNotFound
		}
		if err == nil {
			r = found[0]
		}
		return err
	})
	for _, add := range more {
		add(batch)
	}
	err = t.SendBatch(ctx, batch).Close()
	return r, now, err
}

// statusChange is one transition of one reservation.
type statusChange struct {
	cause

	id          int64
	from, to    library.ReservationStatus
	kind        library.EventKind
	endTime     time.Time  // zero: unchanged
	deadline    *time.Time // nil: unchanged
	checkedInAt *time.Time // nil: unchanged
	endedAt     *time.Time
	presence    library.Presence // zero: unchanged
}

// updateReservation makes a transition that a user or an operator asks for. It changes no row if
// the reservation no longer has the status $3.
const updateReservation = `
	UPDATE reservations SET status = $4, version = version + 1,
		during = CASE WHEN $5::timestamptz IS NULL THEN during ELSE tstzrange(lower(during), $5) END,
		check_in_deadline = COALESCE($6, check_in_deadline), checked_in_at = COALESCE($7, checked_in_at), ended_at = $8,
		proof = COALESCE($9, proof), screen_id = COALESCE($10, screen_id), offer_expires_at = NULL
	WHERE library_id = $1 AND id = $2 AND status = $3`

// apply makes a transition and records its event.
func (t *tx) apply(ctx context.Context, c statusChange) error {
	tag, err := t.Exec(ctx, updateReservation,
		t.s.lib, c.id, c.from, c.to, orNil(c.endTime), c.deadline, c.checkedInAt, c.endedAt,
		orNil(c.presence.Proof), orNil(c.presence.ScreenID))
	if err != nil {
		return err
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("reservation %d changed while its seat was locked: it is no longer %s", c.id, c.from)
	}
	t.record(transition{cause: c.cause, kind: c.kind, reservationID: c.id})
	return nil
}

// firstAnswer returns a reservation as it was right after its first transition of a kind. A
// repeated call returns this state again.
func (s *Store) firstAnswer(
	ctx context.Context, q querier, id int64, kind library.EventKind,
) (library.Reservation, error) {
	return rowOf(ctx, q, pgx.ErrNoRows, pgx.RowToStructByName[library.Reservation], selectFirstAnswer, s.lib, id, kind)
}

// wrongState adds the status of the reservation to err. So the caller learns which other transition
// came first.
func wrongState(err *library.Error, r library.Reservation) *library.Error {
	return err.With("status", string(r.Status))
}

// selectLatestCancellation returns the time until which a reservation can be cancelled, or NULL if
// there is no limit.
const selectLatestCancellation = `
	SELECT lower(r.during) - p.cancel_until FROM reservations r ` + withPolicy + `
	WHERE r.library_id = $1 AND r.id = $2 AND r.user_id = $3`

// Cancel ends a CONFIRMED reservation and offers its seat to the waitlist. It fails with
// ErrReservationNotFound, ErrNotConfirmed or ErrCancelTooLate. If the call is repeated, it returns
// the first answer again.
func (s *Store) Cancel(ctx context.Context, userID, id int64) (library.Reservation, error) {
	var r library.Reservation
	var freed []int64
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		var now time.Time
		var err error
		var latest *time.Time
		r, now, err = t.lockOwnReservation(ctx, userID, id, func(batch *pgx.Batch) {
			batch.Queue(selectLatestCancellation, s.lib, id, userID).QueryRow(func(row pgx.Row) error {
				return row.Scan(&latest)
			})
		})
		if err != nil {
			return err
		}
		switch r.Status {
		case library.Confirmed:
			if latest != nil && now.After(*latest) {
				return library.ErrCancelTooLate.WithTime("latest", latest)
			}
		case library.Cancelled:
			if r.CheckInDeadline == nil { // a declined or expired offer, which was never CONFIRMED
				return wrongState(library.ErrNotConfirmed, r)
			}
			return nil
		case library.Held, library.CheckedIn, library.Completed, library.NoShow:
			return wrongState(library.ErrNotConfirmed, r)
		}
		err = t.apply(ctx, statusChange{
			id: id, from: library.Confirmed, to: library.Cancelled, kind: library.EventCancelled, endedAt: &now,
		})
		if err != nil {
			return err
		}
		r.Status, r.EndedAt, r.CheckInRule = library.Cancelled, &now, ""
		freed = []int64{userID}
		return t.tryOffer(ctx, now, r.SeatID)
	})
	s.offerToFreedUsers(ctx, s.pool, err, freed)
	return r, err
}

// selectBegan reads the time at which the transaction began, before it waited for a lock.
const selectBegan = `SELECT dlsms_began()`

// selectScreensOf reads the screens of the branch of one of the user's reservations.
const selectScreensOf = `
	SELECT c.id, b.code AS branch, c.name, c.off FROM reservations r ` + atSeat + `
	JOIN screens c ON c.library_id = s.library_id AND c.branch_id = s.branch_id
	WHERE r.library_id = $1 AND r.id = $2 AND r.user_id = $3 ORDER BY c.id`

// CheckIn records that the user is at the seat. prove judges the codes of the call, and is called at
// most once. nil stands for a call without codes. CheckIn fails with ErrReservationNotFound,
// ErrNotConfirmed, ErrCheckInTooEarly, ErrCheckInTooLate, ErrPresenceRequired, or the error of prove.
// If the call is repeated, it returns the first answer again.
func (s *Store) CheckIn(ctx context.Context, userID, id int64, prove library.Prove) (library.Reservation, error) {
	if prove == nil {
		prove = withoutCodes
	}
	var r library.Reservation
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		var facts library.CheckInFacts
		var now time.Time
		var err error
		r, now, err = t.lockOwnReservation(ctx, userID, id, func(batch *pgx.Batch) {
			batch.Queue(selectBegan).QueryRow(func(row pgx.Row) error { return row.Scan(&facts.Now) })
			batch.Queue(selectScreensOf, s.lib, id, userID).Query(func(rows pgx.Rows) (err error) {
				facts.Screens, err = pgx.CollectRows(rows, pgx.RowToStructByName[library.Screen])
				return err
			})
		})
		if err != nil {
			return err
		}
		switch r.Status {
		case library.Confirmed:
		case library.CheckedIn, library.Completed:
			r, err = s.firstAnswer(ctx, t, id, library.EventCheckedIn)
			return err
		case library.NoShow:
			return wrongState(library.ErrCheckInTooLate, r)
		case library.Held, library.Cancelled:
			return wrongState(library.ErrNotConfirmed, r)
		}
		switch {
		case now.Before(r.CheckInOpensAt):
			return library.ErrCheckInTooEarly.With("check_in_opens_at", r.CheckInOpensAt.Format(time.RFC3339))
		case !now.Before(*r.CheckInDeadline):
			return library.ErrCheckInTooLate.With("check_in_deadline", r.CheckInDeadline.Format(time.RFC3339))
		}
		facts.Rule, facts.SeatID = r.CheckInRule, r.SeatID
		presence, err := prove(facts)
		if err != nil {
			return err
		}
		setCheckedIn(&r, now, presence.Proof)
		for _, screen := range facts.Screens {
			if screen.ID == presence.ScreenID {
				r.Screen = screen.Name
			}
		}
		return t.apply(ctx, statusChange{
			id: id, from: library.Confirmed, to: library.CheckedIn, kind: library.EventCheckedIn, checkedInAt: &now,
			presence: presence,
		})
	})
	return r, err
}

// setCheckedIn makes r the reservation after its check-in.
func setCheckedIn(r *library.Reservation, now time.Time, proof library.Proof) {
	r.Status, r.CheckedInAt, r.CheckInRule, r.Proof = library.CheckedIn, &now, "", proof
}

// withoutCodes judges a check-in without codes.
func withoutCodes(f library.CheckInFacts) (library.Presence, error) {
	if f.Rule != library.CheckInNone {
		return library.Presence{}, library.PresenceRequired(f.Rule, f.Rule)
	}
	return library.Presence{Proof: library.ProofNone}, nil
}

// CheckOut ends a CHECKED_IN reservation now and offers the rest of its window to the waitlist. It
// fails with ErrReservationNotFound or ErrNotCheckedIn. If the call is repeated, it returns the
// first answer again.
func (s *Store) CheckOut(ctx context.Context, userID, id int64) (library.Reservation, error) {
	var r library.Reservation
	var freed []int64
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		var now time.Time
		var err error
		if r, now, err = t.lockOwnReservation(ctx, userID, id); err != nil {
			return err
		}
		switch r.Status {
		case library.CheckedIn:
		case library.Completed:
			// The user or the worker has ended the reservation already. The caller gets the state
			// that it asks for.
			return nil
		case library.Held, library.Confirmed, library.Cancelled, library.NoShow:
			return wrongState(library.ErrNotCheckedIn, r)
		}
		err = t.apply(ctx, statusChange{
			id: id, from: library.CheckedIn, to: library.Completed, kind: library.EventCheckedOut, endedAt: &now,
		})
		if err != nil {
			return err
		}
		r.Status, r.EndedAt = library.Completed, &now
		freed = []int64{userID}
		return t.tryOffer(ctx, now, r.SeatID)
	})
	s.offerToFreedUsers(ctx, s.pool, err, freed)
	return r, err
}

// selectExtensionConflicts reads all facts on which Extend decides. The window @start to @end is the
// added time. If it is longer than @longest, Extend refuses the call anyway. The query then uses an
// empty window, so that it costs little.
const selectExtensionConflicts = `
	SELECT EXISTS (
			SELECT FROM reservations o
			WHERE o.library_id = @library AND o.seat_id = @seat AND o.id <> @id AND o.occupies
				AND o.during && added.during) AS taken,
		EXISTS (
			SELECT FROM reservations o
			WHERE o.library_id = @library AND o.user_id = @user AND o.id <> @id AND o.occupies AND o.status <> 'HELD'
				AND NOT isempty(o.during * added.during)) AS busy,
		s.out_of_service, NOT dlsms_open(s.library_id, s.branch_id, added.during) AS closed,
		dlsms_closed(s.library_id, s.branch_id, s.area, s.id, added.during) AS in_closure,
		COALESCE(e.ended_at, r.created_at) AS confirmed_at,
		COALESCE(p.max_duration, @max_duration::interval) AS max_duration, COALESCE(p.grace, @grace::interval) AS grace,
		COALESCE(p.step, '0') AS step, CASE WHEN p.step IS NOT NULL THEN
			NOT dlsms_off_grid(p.step, lower(r.during), b.timezone) AND dlsms_off_grid(p.step, @end, b.timezone)
			ELSE false END AS off_grid, ` + quotaColumns + `
	FROM (SELECT CASE WHEN @end::timestamptz - @start::timestamptz <= @longest::interval
		THEN tstzrange(@start, @end) ELSE 'empty' END AS during) added
	CROSS JOIN reservations r ` + withPolicy + withQuotas + `
	LEFT JOIN waitlist_entries e ON e.library_id = r.library_id AND e.id = r.entry_id
	WHERE r.library_id = @library AND r.id = @id`

// extensionConflicts are the facts on which Extend decides.
type extensionConflicts struct {
	Taken        bool
	Busy         bool
	OutOfService bool
	Closed       bool
	InClosure    bool
	ConfirmedAt  time.Time
	MaxDuration  time.Duration
	Grace        time.Duration
	Step         time.Duration
	OffGrid      bool // the start is on the grid of times, and the new end is not
	quotaUse
}

// windowNotAllowed returns the error for a window from start to end that breaks the policy, or nil.
func (c extensionConflicts) windowNotAllowed(policy library.Policy, now, start, end time.Time) error {
	var violations []library.FieldViolation
	add := func(message string) {
		violations = append(violations, library.FieldViolation{Field: "end_time", Message: message})
	}
	if end.Sub(start) > policy.MaxDuration+library.ClockTolerance {
		add(fmt.Sprintf("the window must be at most %v long", policy.MaxDuration))
	}
	if c.OffGrid {
		add(fmt.Sprintf("it must be a multiple of %v after midnight", policy.Step))
	}
	if violations == nil {
		return nil
	}
	return policy.WindowNotAllowed(now, library.LocalTimes{}, violations...)
}

// Extend moves the end of a CONFIRMED or CHECKED_IN reservation to a later time. If the reservation
// already has that end, Extend changes nothing. It fails with one of these errors:
//   - ErrReservationNotFound, ErrNotConfirmed
//   - ErrSeatTaken, ErrUserBusy, ErrSeatOutOfService, ErrBranchClosed, ErrSeatClosed
//   - ErrWindowNotAllowed if the window would be too long
//   - ErrQuotaExhausted
//   - Invalid if the end is earlier than the present end
func (s *Store) Extend(ctx context.Context, userID, id int64, end time.Time) (library.Reservation, error) {
	return s.extend(ctx, userID, id, end, false)
}

// ValidateExtension makes the checks of Extend and changes nothing. It returns the reservation as it
// would be.
func (s *Store) ValidateExtension(ctx context.Context, userID, id int64, end time.Time) (library.Reservation, error) {
	return s.extend(ctx, userID, id, end, true)
}

func (s *Store) extend(
	ctx context.Context, userID, id int64, end time.Time, validateOnly bool,
) (library.Reservation, error) {
	var r library.Reservation
	end = end.Truncate(time.Microsecond) // the precision of Postgres, so that a repeated call finds its end
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
		case r.Status != library.Confirmed && r.Status != library.CheckedIn:
			return wrongState(library.ErrNotConfirmed, r)
		case !r.EndTime.After(now):
			return wrongState(library.ErrNotConfirmed, r) // its window has passed, and the worker has not ended it yet
		case end.Equal(r.EndTime):
			return nil
		case end.Before(r.EndTime):
			return library.Invalid(library.FieldViolation{
				Field: "end_time", Message: "it must be after the present end, " + r.EndTime.UTC().Format(time.RFC3339),
			})
		}
		args := pgx.NamedArgs{
			"library": s.lib, "seat": r.SeatID, "user": userID, "id": id, "start": r.EndTime, "end": end,
			"longest": s.longestWindow(), "max_duration": s.policy.MaxDuration, "grace": s.policy.Grace,
		}
		c, err := rowOf(ctx, t, pgx.ErrNoRows, pgx.RowToStructByName[extensionConflicts], selectExtensionConflicts, args)
		if err != nil {
			return err
		}
		policy := s.policy
		policy.MaxDuration, policy.Grace, policy.Step = c.MaxDuration, c.Grace, c.Step
		if err := c.windowNotAllowed(policy, now, r.StartTime, end); err != nil {
			return err
		}
		switch {
		case c.OutOfService:
			return library.ErrSeatOutOfService.With("seat_id", strconv.FormatInt(r.SeatID, 10))
		case c.Closed:
			return library.ErrBranchClosed.WithFields(library.FieldViolation{
				Field: "end_time", Message: "the branch is closed for a part of the window",
			})
		case c.InClosure:
			return t.seatClosed(ctx, r.SeatID, r.EndTime, end)
		case c.Taken:
			return library.ErrSeatTaken.With("seat_id", strconv.FormatInt(r.SeatID, 10))
		case c.Busy:
			return library.ErrUserBusy
		}
		if err := c.exhausted(end.Sub(r.StartTime), false); err != nil {
			return err
		}
		if r.Status == library.Confirmed && r.CheckInDeadline.Equal(r.EndTime) { // the deadline was limited by the old end
			deadline := policy.CheckInDeadline(r.StartTime, end, c.ConfirmedAt)
			r.CheckInDeadline = &deadline
		}
		r.EndTime = end
		if validateOnly {
			return errValidated
		}
		return t.apply(ctx, statusChange{
			id: id, from: r.Status, to: r.Status, kind: library.EventExtended, endTime: end, deadline: r.CheckInDeadline,
		})
	})
	if errors.Is(err, errValidated) {
		err = nil
	}
	return r, err
}
