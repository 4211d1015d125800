package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// Booking is what a user wants to reserve.
type Booking struct {
	UserID int64
	SeatID int64
	// StartTime is zero for now.
	StartTime time.Time
	EndTime   time.Time
	// RequestID makes the call safe to repeat; empty: it isn't.
	RequestID string
}

const (
	lockUser = `SELECT 1 FROM users WHERE library_id = $1 AND id = $2 FOR NO KEY UPDATE`
	lockSeat = `SELECT 1 FROM seats WHERE library_id = $1 AND id = $2 FOR NO KEY UPDATE`
)

// reserve decides and books in one statement. It has to be a statement of its own after the locks: the parts of one statement share
// a snapshot, which must not be older than the locks. The order of the WHENs is the order in which reasons win.
//
// Whether the user is busy is asked with NOT isempty(during * …), here and elsewhere, and not with &&: as long as nobody has analyzed the
// young table, the planner would answer && by the index that the exclusion constraint has, and walk all bookings of the library then.
const reserve = `
	WITH now AS MATERIALIZED (
		SELECT dlsms_now() AS t
	), wanted AS (
		SELECT t, COALESCE(@start, t) AS start_time, @end::timestamptz AS end_time FROM now
	), prior AS (
		SELECT id, request_hash = @request_hash AS same FROM reservations
		WHERE library_id = @library AND user_id = @user AND request_id = @request_id
	), seat AS (
		SELECT branch_id, out_of_service FROM seats WHERE library_id = @library AND id = @seat
	), verdict AS (
		SELECT CASE
			WHEN EXISTS (SELECT FROM prior WHERE same) THEN 'REPEATED'
			WHEN EXISTS (SELECT FROM prior) THEN 'REQUEST_ID_REUSED'
			WHEN NOT EXISTS (SELECT FROM users WHERE library_id = @library AND id = @user) THEN 'TOKEN_INVALID'
			WHEN NOT EXISTS (SELECT FROM seat) THEN 'SEAT_NOT_FOUND'
			WHEN NOT (w.start_time BETWEEN w.t - @past_tolerance::interval AND w.t + @max_ahead::interval
				AND w.end_time - w.start_time BETWEEN @min_duration::interval AND @max_duration::interval
				AND w.end_time > w.t) THEN 'WINDOW'
			WHEN (SELECT out_of_service FROM seat) THEN 'SEAT_OUT_OF_SERVICE'
			WHEN NOT dlsms_open(@library, (SELECT branch_id FROM seat), tstzrange(w.start_time, w.end_time)) THEN 'CLOSED'
			WHEN EXISTS (SELECT FROM reservations WHERE library_id = @library AND seat_id = @seat AND occupies
				AND during && tstzrange(w.start_time, w.end_time)) THEN 'SEAT_TAKEN'
			WHEN EXISTS (SELECT FROM reservations WHERE library_id = @library AND user_id = @user AND occupies AND status <> 'HELD'
				AND NOT isempty(during * tstzrange(w.start_time, w.end_time))) THEN 'USER_BUSY'
			WHEN @max_upcoming > 0 AND @max_upcoming <= (SELECT count(*) FROM reservations
				WHERE library_id = @library AND user_id = @user AND occupies AND status <> 'HELD' AND upper(during) > w.t) THEN 'TOO_MANY_RESERVATIONS'
			ELSE 'RESERVED' END AS outcome
		FROM wanted w
	), made AS (
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline, created_at, request_id, request_hash)
		SELECT @library, @seat, @user, tstzrange(w.start_time, w.end_time), 'CONFIRMED', w.start_time - @check_in_lead::interval,
			LEAST(GREATEST(w.start_time, w.t) + @grace::interval, w.end_time), w.t, @request_id, @request_hash
		FROM wanted w, verdict WHERE outcome = 'RESERVED'
		ON CONFLICT DO NOTHING
		RETURNING *
	), event AS (
		INSERT INTO reservation_events (library_id, at, kind, reservation_id, version, seat_id, user_id, during, status,
			check_in_opens_at, check_in_deadline, created_at)
		SELECT library_id, created_at, 'RESERVED', id, version, seat_id, user_id, during, status,
			check_in_opens_at, check_in_deadline, created_at
		FROM made
	)
	SELECT verdict.outcome, now.t, COALESCE(made.id, prior.id, 0), lower(made.during), upper(made.during),
		made.check_in_opens_at, made.check_in_deadline, COALESCE(b.code, ''), COALESCE(s.area, ''), COALESCE(s.label, '')
	FROM now CROSS JOIN verdict LEFT JOIN prior ON true LEFT JOIN made ON true
	LEFT JOIN seats s ON s.library_id = @library AND s.id = @seat
	LEFT JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id`

// Reserve books a seat, in one round trip: it locks the user, then the seat, decides, and commits. It fails with ErrSeatNotFound,
// ErrSeatOutOfService, ErrSeatTaken, ErrUserBusy, ErrTooManyReservations, ErrRequestIDReused, or with Invalid for a window against the rules.
// The same RequestID and content again returns the first answer again.
func (s *Store) Reserve(ctx context.Context, b Booking) (Reservation, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return Reservation{}, translate(err)
	}
	defer conn.Release()
	ctx, cancel := budget(ctx)
	defer cancel()

	batch := &pgx.Batch{} // without an explicit BEGIN, what is sent in one batch is one transaction
	batch.Queue(lockUser, s.lib, b.UserID)
	batch.Queue(lockSeat, s.lib, b.SeatID)
	outcome, now, r := "", time.Time{}, Reservation{SeatRef: SeatRef{SeatID: b.SeatID}, UserID: b.UserID, Status: Confirmed}
	var start, end, opens *time.Time
	batch.Queue(reserve, s.reserveArgs(b)).QueryRow(func(row pgx.Row) error {
		return row.Scan(&outcome, &now, &r.ID, &start, &end, &opens, &r.CheckInDeadline, &r.Branch, &r.Area, &r.Label)
	})
	if err := conn.SendBatch(ctx, batch).Close(); err != nil { // nil only after the commit
		return Reservation{}, translate(err)
	}
	switch {
	case outcome == "REPEATED":
		// On the connection at hand: a rush of repeats, each holding one and waiting for another, would stand still.
		rows, err := conn.Query(ctx, selectFirstAnswer, s.lib, r.ID, EventReserved)
		if err != nil {
			return Reservation{}, translate(err)
		}
		first, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Reservation])
		return first, translate(err)
	case outcome != "RESERVED":
		return Reservation{}, s.notReserved(outcome, b, now)
	}
	if r.ID == 0 { // ON CONFLICT DO NOTHING did nothing
		return Reservation{}, ErrSeatTaken.With("seat_id", strconv.FormatInt(b.SeatID, 10))
	}
	r.StartTime, r.EndTime, r.CheckInOpensAt, r.CreatedAt = *start, *end, *opens, now
	s.grew(ctx)
	return r, nil
}

func (s *Store) reserveArgs(b Booking) pgx.NamedArgs {
	return pgx.NamedArgs{
		"library": s.lib, "user": b.UserID, "seat": b.SeatID,
		"start": orNil(b.StartTime), "end": b.EndTime,
		"request_id": orNil(b.RequestID), "request_hash": contentHash(b.RequestID, b.SeatID, b.StartTime, b.EndTime),
		"past_tolerance": s.rules.PastTolerance, "max_ahead": s.rules.MaxAhead,
		"min_duration": s.rules.MinDuration, "max_duration": s.rules.MaxDuration,
		"max_upcoming": s.rules.MaxUpcoming, "check_in_lead": s.rules.CheckInLead, "grace": s.rules.Grace,
	}
}

// notReserved says against which rule a booking was.
func (s *Store) notReserved(outcome string, b Booking, now time.Time) error {
	seat := strconv.FormatInt(b.SeatID, 10)
	switch outcome {
	case "REQUEST_ID_REUSED":
		return ErrRequestIDReused
	case "TOKEN_INVALID":
		return ErrTokenInvalid
	case "SEAT_NOT_FOUND":
		return ErrSeatNotFound.With("seat_id", seat)
	case "SEAT_OUT_OF_SERVICE":
		return ErrSeatOutOfService.With("seat_id", seat)
	case "SEAT_TAKEN":
		return ErrSeatTaken.With("seat_id", seat)
	case "USER_BUSY":
		return ErrUserBusy
	case "TOO_MANY_RESERVATIONS":
		return ErrTooManyReservations.With("limit", strconv.Itoa(s.rules.MaxUpcoming))
	case "CLOSED":
		return errClosed
	case "WINDOW":
		return s.rules.windowError(now, b.StartTime, b.EndTime)
	}
	return fmt.Errorf("reserve: unknown outcome %q", outcome)
}

var errClosed = Invalid(Fault{"start_time", "the branch is closed for a part of the window"})

// windowFaults returns what is wrong with a window at a time; a zero start means now.
func (r Rules) windowFaults(now, start, end time.Time) []Fault {
	var faults []Fault
	if start.IsZero() {
		start = now
	}
	switch {
	case start.Before(now.Add(-r.PastTolerance)):
		faults = append(faults, Fault{"start_time", "it is in the past"})
	case start.After(now.Add(r.MaxAhead)):
		faults = append(faults, Fault{"start_time", fmt.Sprintf("it is more than %v ahead", r.MaxAhead)})
	}
	switch length := end.Sub(start); {
	case length < r.MinDuration:
		faults = append(faults, Fault{"end_time", fmt.Sprintf("the window must be at least %v long", r.MinDuration)})
	case length > r.MaxDuration:
		faults = append(faults, Fault{"end_time", fmt.Sprintf("the window must be at most %v long", r.MaxDuration)})
	case !end.After(now):
		faults = append(faults, Fault{"end_time", "it is in the past"})
	}
	return faults
}

// windowError is the error for a window that Postgres found against the rules.
func (r Rules) windowError(now, start, end time.Time) error {
	faults := r.windowFaults(now, start, end)
	if len(faults) == 0 {
		return fmt.Errorf("window [%v, %v) at %v: Postgres and Go disagree on the rules", start, end, now)
	}
	return Invalid(faults...)
}

// contentHash tells requests with the same request_id apart; nil when there is no request_id.
func contentHash(requestID string, seatID int64, start, end time.Time) []byte {
	if requestID == "" {
		return nil
	}
	var b []byte
	b = binary.BigEndian.AppendUint64(b, uint64(seatID)) //nolint:gosec // its bits, whichever they are
	for _, t := range []time.Time{start, end} {
		if t.IsZero() {
			b = append(b, 0)
			continue
		}
		b = binary.BigEndian.AppendUint64(append(b, 1), uint64(t.UnixMicro()))
	}
	hash := sha256.Sum256(b)
	return hash[:]
}

// orNil returns nil, a NULL, for a zero value.
func orNil[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
