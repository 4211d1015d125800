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

const selectEntry = `
	SELECT r.id, r.seat_id, b.code AS branch, s.area, s.label, r.user_id,
		lower(r.during) AS start_time, upper(r.during) AS end_time, r.status,
		CASE WHEN r.live THEN 1 + (
			SELECT count(*) FROM waitlist_entries o
			WHERE o.library_id = r.library_id AND o.seat_id = r.seat_id
				AND o.live AND o.id < r.id AND o.during && r.during) ELSE 0 END::int AS position,
		r.offer_expires_at, r.created_at, COALESCE(r.reservation_id, 0) AS reservation_id
	FROM waitlist_entries r ` + atSeat + ` WHERE r.library_id = $1 `

// Waitlist returns a user's live entries, and at most the last 100 of those that ended in the past
// 24 hours. They are in the order in which the user joined.
func (s *Store) Waitlist(ctx context.Context, userID int64) ([]library.WaitlistEntry, error) {
	const mine = selectEntry + `AND r.id IN (
			SELECT id FROM waitlist_entries WHERE library_id = $1 AND user_id = $2 AND ended_at IS NULL
			UNION ALL (
				SELECT id FROM waitlist_entries
				WHERE library_id = $1 AND user_id = $2 AND ended_at > dlsms_now() - interval '24 hours'
				ORDER BY ended_at DESC, id DESC LIMIT 100))
		ORDER BY r.id`
	return query(ctx, s.pool, pgx.RowToStructByName[library.WaitlistEntry], mine, s.lib, userID)
}

// selectJoin reads the facts about waitlists on which JoinWaitlist decides. If the window is reversed
// or longer than $8, JoinWaitlist refuses the call anyway. The query then uses an empty window, so
// that it does not fail.
const selectJoin = `
	SELECT COALESCE((
			SELECT id FROM waitlist_entries
			WHERE library_id = $1 AND user_id = $3 AND request_id = $6), 0) AS prior,
		COALESCE((
			SELECT request_hash = $7 FROM waitlist_entries
			WHERE library_id = $1 AND user_id = $3 AND request_id = $6), false) AS same,
		EXISTS (
			SELECT FROM reservations
			WHERE library_id = $1 AND seat_id = $2 AND user_id = $3 AND occupies
			AND reservations.during && w.during) AS mine,
		own.waiting, own.entries, own.here,
		(SELECT count(*) FROM (
			SELECT FROM waitlist_entries
			WHERE library_id = $1 AND seat_id = $2 AND live LIMIT $9::bigint) l) AS queued
	FROM (SELECT CASE WHEN $4::timestamptz < $5 AND $5 - $4 <= $8 THEN tstzrange($4, $5) ELSE 'empty' END AS during) w
	CROSS JOIN LATERAL (
		SELECT COALESCE(bool_or(e.seat_id = $2 AND e.during && w.during), false) AS waiting, count(*) AS entries,
			count(*) FILTER (WHERE e.seat_id = $2) AS here
		FROM waitlist_entries e WHERE e.library_id = $1 AND e.user_id = $3 AND e.ended_at IS NULL) own`

// outcomesOfJoin are the outcomes of a booking for which JoinWaitlist fails, too.
var outcomesOfJoin = []string{
	"TOKEN_INVALID", "TOKEN_REVOKED", "SEAT_NOT_FOUND", outcomeWindow, "SUSPENDED", "BOOKING_NOT_ALLOWED",
	"SEAT_OUT_OF_SERVICE", "CLOSED", "SEAT_CLOSED",
}

const insertEntry = `
	INSERT INTO waitlist_entries (library_id, seat_id, user_id, during, joined_position, created_at,
		request_id, request_hash)
	SELECT $1, $2, $3, tstzrange($4, $5), 1 + count(*), $6, $7, $8
	FROM waitlist_entries WHERE library_id = $1 AND seat_id = $2 AND live AND during && tstzrange($4, $5)
	RETURNING id`

// JoinWaitlist puts a user in line for a seat and window. The booking's StartTime must be set. It
// fails with one of these errors:
//   - ErrSeatNotFound, ErrSeatOutOfService, ErrBranchClosed, ErrSeatClosed
//   - ErrSuspended, ErrBookingNotAllowed
//   - ErrSeatAvailable if the seat is free for the whole window
//   - ErrUserBusy if the user has reserved the seat for a part of the window
//   - ErrAlreadyWaiting, ErrTooManyReservations, ErrWaitlistFull
//   - ErrRequestIDReused
//   - ErrWindowNotAllowed, or Invalid if the window ends before it starts
//   - ErrTokenInvalid, ErrTokenRevoked: the booking's Token, if it is set, is not that of the user's row
//
// If the call is repeated with the same RequestID and content, it returns the first answer again.
func (s *Store) JoinWaitlist(ctx context.Context, b library.Booking) (library.WaitlistEntry, error) {
	entry, err := s.join(ctx, b, false)
	if err == nil {
		s.rowAdded(ctx)
	}
	return entry, err
}

// ValidateJoin makes the checks of JoinWaitlist and changes nothing. It returns the entry that
// JoinWaitlist would make, without an id.
func (s *Store) ValidateJoin(ctx context.Context, b library.Booking) (library.WaitlistEntry, error) {
	entry, err := s.join(ctx, b, true)
	entry.ID = 0
	return entry, err
}

func (s *Store) join(ctx context.Context, b library.Booking, validateOnly bool) (library.WaitlistEntry, error) {
	var entry library.WaitlistEntry
	hash := contentHash(b.RequestID, b.SeatID, b.StartTime, b.EndTime)
	wanted := []library.Booking{{
		UserID: b.UserID, SeatID: b.SeatID, StartTime: b.StartTime, EndTime: b.EndTime, Token: b.Token,
	}}
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		batch := &pgx.Batch{}
		batch.Queue(lockUser, s.lib, b.UserID)
		batch.Queue(lockSeat, s.lib, b.SeatID)
		var seat facts
		batch.Queue(judge, s.judgeArgs(wanted, cause{}, time.Time{})).Query(func(rows pgx.Rows) error {
			all, err := s.collectFacts(rows, wanted, cause{})
			if err == nil {
				seat = all[0]
			}
			return err
		})
		var same, mine, waiting bool
		var prior int64
		// Numbers of live entries: entries counts those of the user, here those of the user at this
		// seat, and queued those of all users at this seat.
		var entries, here, queued int
		batch.Queue(selectJoin, s.lib, b.SeatID, b.UserID, b.StartTime, b.EndTime, orNil(b.RequestID), hash,
			s.longestWindow(), s.policy.MaxWaitlist).QueryRow(func(row pgx.Row) error {
			return row.Scan(&prior, &same, &mine, &waiting, &entries, &here, &queued)
		})
		if err := t.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		var err error
		switch refused := seat.first(outcomesOfJoin); {
		case errors.Is(refused, library.ErrTokenInvalid), errors.Is(refused, library.ErrTokenRevoked):
			return refused
		case prior != 0 && same:
			entry, err = t.joinAnswer(ctx, prior)
			return err
		case prior != 0:
			return library.ErrRequestIDReused
		case refused != nil:
			return refused
		case waiting:
			return library.ErrAlreadyWaiting
		case !slices.Contains(seat.Broken, outcomeTaken):
			return library.ErrSeatAvailable.With("seat_id", strconv.FormatInt(b.SeatID, 10))
		case mine:
			return library.ErrUserBusy
		case s.policy.MaxWaiting > 0 && entries >= s.policy.MaxWaiting:
			return library.ErrTooManyReservations.With("limit", strconv.Itoa(s.policy.MaxWaiting))
		case s.policy.MaxWaitingPerSeat > 0 && here >= s.policy.MaxWaitingPerSeat:
			return library.ErrTooManyReservations.With("limit", strconv.Itoa(s.policy.MaxWaitingPerSeat))
		case s.policy.MaxWaitlist > 0 && queued >= s.policy.MaxWaitlist:
			return library.ErrWaitlistFull.With("limit", strconv.Itoa(s.policy.MaxWaitlist))
		}
		var id int64
		err = t.QueryRow(ctx, insertEntry,
			s.lib, b.SeatID, b.UserID, b.StartTime, b.EndTime, seat.Now, orNil(b.RequestID), hash).Scan(&id)
		if err != nil {
			return err
		}
		if entry, err = t.ownEntry(ctx, b.UserID, id); err == nil && validateOnly {
			err = errValidated
		}
		return err
	})
	if errors.Is(err, errValidated) {
		err = nil
	}
	return entry, err
}

// ownEntry returns one of the user's entries, or ErrEntryNotFound.
func (t *tx) ownEntry(ctx context.Context, userID, id int64) (library.WaitlistEntry, error) {
	return rowOf(ctx, t, library.ErrEntryNotFound, pgx.RowToStructByName[library.WaitlistEntry],
		selectEntry+`AND r.id = $2 AND r.user_id = $3`, t.s.lib, id, userID)
}

// joinAnswer returns an entry as it was when its user joined. It is the answer to a repeated
// JoinWaitlist.
func (t *tx) joinAnswer(ctx context.Context, id int64) (library.WaitlistEntry, error) {
	const first = `
		SELECT r.id, r.seat_id, b.code AS branch, s.area, s.label, r.user_id,
			lower(r.during) AS start_time, upper(r.during) AS end_time,
			'WAITING' AS status, r.joined_position AS position, NULL::timestamptz AS offer_expires_at,
			r.created_at, 0::bigint AS reservation_id
		FROM waitlist_entries r ` + atSeat + ` WHERE r.library_id = $1 AND r.id = $2`
	return rowOf(ctx, t, pgx.ErrNoRows, pgx.RowToStructByName[library.WaitlistEntry], first, t.s.lib, id)
}

// lockOwnEntry locks a user, then the seat of one of the user's entries. It returns the entry and
// the time, both read after the locks. It fails with ErrEntryNotFound.
func (t *tx) lockOwnEntry(
	ctx context.Context, userID, id int64,
) (entry library.WaitlistEntry, now time.Time, err error) {
	const lockSeatOfEntry = `
		SELECT 1 FROM seats WHERE library_id = $1 AND id = (
			SELECT seat_id FROM waitlist_entries WHERE library_id = $1 AND id = $2 AND user_id = $3) FOR NO KEY UPDATE`
	batch := &pgx.Batch{}
	batch.Queue(lockUser, t.s.lib, userID)
	batch.Queue(lockSeatOfEntry, t.s.lib, id, userID)
	batch.Queue(selectNow).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	if err := t.SendBatch(ctx, batch).Close(); err != nil {
		return entry, now, err
	}
	entry, err = t.ownEntry(ctx, userID, id)
	return entry, now, err
}

const endEntry = `
	UPDATE waitlist_entries SET status = $3, ended_at = $4, offer_expires_at = NULL
	WHERE library_id = $1 AND id = $2 AND live`

// LeaveWaitlist ends a user's waitlist entry. If the entry has an offer, LeaveWaitlist also
// declines the offer, and offers the seat to the next entry that fits. It fails with one of these
// errors:
//   - ErrEntryNotFound
//   - ErrOfferExpired if the entry got an offer, and the offer expired before this call
//   - ErrNotOffered if the user has claimed the offer, or if the entry expired without an offer
//
// If the user has already left the waitlist, LeaveWaitlist changes nothing and returns the entry
// again.
func (s *Store) LeaveWaitlist(ctx context.Context, userID, id int64) (library.WaitlistEntry, error) {
	var entry library.WaitlistEntry
	var freed []int64
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		var now time.Time
		var err error
		if entry, now, err = t.lockOwnEntry(ctx, userID, id); err != nil {
			return err
		}
		switch {
		case entry.Status == library.EntryLeft:
			return nil
		case entry.OfferExpired(now):
			return library.ErrOfferExpired
		case entry.Status == library.EntryClaimed, entry.Status == library.EntryExpired:
			return library.ErrNotOffered.With("status", string(entry.Status))
		case entry.Status == library.EntryOffered:
			err = t.apply(ctx, statusChange{
				id: entry.ReservationID, from: library.Held, to: library.Cancelled, kind: library.EventDeclined, endedAt: &now,
			})
		}
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, endEntry, s.lib, id, library.EntryLeft, now); err != nil {
			return err
		}
		if entry.Status == library.EntryOffered {
			freed = []int64{userID}
			err = t.tryOffer(ctx, now, entry.SeatID)
		}
		entry.Status, entry.Position, entry.OfferExpiresAt = library.EntryLeft, 0, nil
		return err
	})
	s.offerToFreedUsers(ctx, s.pool, err, freed)
	return entry, err
}

const selectClaimConflicts = `
	SELECT s.out_of_service, dlsms_closed(s.library_id, s.branch_id, s.area, s.id, r.during) AS in_closure,
		EXISTS (
			SELECT FROM reservations o
			WHERE o.library_id = r.library_id AND o.user_id = r.user_id AND o.occupies AND o.status <> 'HELD'
				AND NOT isempty(o.during * r.during)) AS busy,
		(SELECT count(*) FROM reservations o
			WHERE o.library_id = r.library_id AND o.user_id = r.user_id AND o.occupies AND o.status <> 'HELD'
				AND upper(o.during) > @now) AS upcoming,
		COALESCE(p.may_book, true) AS may_book, COALESCE(p.max_upcoming, @max_upcoming::bigint) AS max_upcoming,
		COALESCE(p.grace, @grace::interval) AS grace, ` + quotaColumns + `
	FROM reservations r ` + withPolicy + withQuotas + ` WHERE r.library_id = @library AND r.id = @id`

// claimConflicts are the facts on which ClaimOffer decides.
type claimConflicts struct {
	OutOfService bool
	InClosure    bool
	Busy         bool
	Upcoming     int
	MayBook      bool
	MaxUpcoming  int
	Grace        time.Duration
	quotaUse
}

// ClaimOffer accepts an offer: its reservation becomes CONFIRMED. It fails with ErrEntryNotFound,
// ErrNotOffered, ErrOfferExpired, ErrUserBusy, ErrTooManyReservations, ErrSeatOutOfService,
// ErrSeatClosed, ErrBookingNotAllowed or ErrQuotaExhausted. If the call is repeated, it returns the
// first answer again.
func (s *Store) ClaimOffer(ctx context.Context, userID, id int64) (library.WaitlistEntry, library.Reservation, error) {
	var entry library.WaitlistEntry
	var r library.Reservation
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		var now time.Time
		var err error
		if entry, now, err = t.lockOwnEntry(ctx, userID, id); err != nil {
			return err
		}
		switch {
		case entry.Status == library.EntryClaimed:
			r, err = s.firstAnswer(ctx, t, entry.ReservationID, library.EventClaimed)
			return err
		case entry.OfferExpired(now):
			return library.ErrOfferExpired
		case entry.Status != library.EntryOffered:
			return library.ErrNotOffered.With("status", string(entry.Status))
		}
		args := pgx.NamedArgs{
			"library": s.lib, "id": entry.ReservationID, "now": now,
			"max_upcoming": s.policy.MaxUpcoming, "grace": s.policy.Grace,
		}
		c, err := rowOf(ctx, t, pgx.ErrNoRows, pgx.RowToStructByName[claimConflicts], selectClaimConflicts, args)
		switch {
		case err != nil:
			return err
		case !c.MayBook:
			return library.ErrBookingNotAllowed
		case c.OutOfService:
			return library.ErrSeatOutOfService
		case c.InClosure:
			return t.seatClosed(ctx, entry.SeatID, entry.StartTime, entry.EndTime)
		case c.Busy:
			return library.ErrUserBusy
		case c.MaxUpcoming > 0 && c.Upcoming >= c.MaxUpcoming:
			return library.ErrTooManyReservations.With("limit", strconv.Itoa(c.MaxUpcoming))
		}
		if err := c.exhausted(entry.EndTime.Sub(entry.StartTime), true); err != nil {
			return err
		}
		policy := s.policy
		policy.Grace = c.Grace
		deadline := policy.CheckInDeadline(entry.StartTime, entry.EndTime, now)
		err = t.apply(ctx, statusChange{
			id: entry.ReservationID, from: library.Held, to: library.Confirmed, kind: library.EventClaimed, deadline: &deadline,
		})
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, endEntry, s.lib, id, library.EntryClaimed, now); err != nil {
			return err
		}
		entry.Status, entry.Position, entry.OfferExpiresAt = library.EntryClaimed, 0, nil
		r, err = t.reservation(ctx, userID, entry.ReservationID)
		return err
	})
	return entry, r, err
}

func (t *tx) reservation(ctx context.Context, userID, id int64) (library.Reservation, error) {
	return rowOf(ctx, t, pgx.ErrNoRows, pgx.RowToStructByName[library.Reservation],
		selectOwnReservation, t.s.lib, id, userID)
}
