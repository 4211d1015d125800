package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dlsms/dlsms/library"
)

const (
	lockUser = `SELECT 1 FROM users WHERE library_id = $1 AND id = $2 FOR NO KEY UPDATE`
	lockSeat = `SELECT 1 FROM seats WHERE library_id = $1 AND id = $2 FOR NO KEY UPDATE`

	// In the order of ids, as everybody locks several.
	lockUsers = `SELECT 1 FROM users WHERE library_id = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE`
	lockSeats = `SELECT id FROM seats WHERE library_id = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE`

	// boundLocks is for the transaction that it is in.
	boundLocks = `SELECT set_config('lock_timeout', $1, true)`
)

// millis is a duration as Postgres's settings take it.
func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// reserve decides and books for a number of users in one statement, each with one wish. It has to be a statement of its own after the locks:
// the parts of one statement share a snapshot, which must not be older than the locks. The order of the WHENs is the order in which reasons
// win. Of several wishes for one seat the first is granted: the constraint refuses the others, as rows of the same statement count for it.
//
// Whether the user is busy is asked with NOT isempty(during * …), here and elsewhere, and not with &&: as long as nobody has analyzed the
// young table, the planner would answer && by the index that the exclusion constraint has, and walk all bookings of the library then. And
// OFFSET 0 keeps each look-up one by a key.
const reserve = `
	WITH now AS MATERIALIZED (
		SELECT dlsms_now() AS t
	), wanted AS MATERIALIZED (
		SELECT q.place, q.user_id, q.seat_id, COALESCE(q.start_time, now.t) AS start_time,
			CASE WHEN q.start_time IS NULL THEN @clock_tolerance::interval ELSE interval '0' END AS slack, q.end_time, q.request_id, q.request_hash,
			u.known, u.known AND (q.student_id <> u.student_id OR q.generation > u.token_generation) AS strange,
			q.generation < u.token_generation AS revoked, s.branch_id, s.out_of_service, s.area, s.label, s.branch, p.id AS prior_id, p.same
		FROM now CROSS JOIN unnest(@users::bigint[], @seats::bigint[], @starts::timestamptz[], @ends::timestamptz[], @request_ids::text[],
			@request_hashes::bytea[], @student_ids::text[], @generations::bigint[])
			WITH ORDINALITY AS q (user_id, seat_id, start_time, end_time, request_id, request_hash, student_id, generation, place)
		LEFT JOIN LATERAL (SELECT true AS known, student_id, token_generation FROM users WHERE library_id = @library AND id = q.user_id OFFSET 0) u ON true
		LEFT JOIN LATERAL (
			SELECT s.branch_id, s.out_of_service, s.area, s.label, b.code AS branch
			FROM seats s JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
			WHERE s.library_id = @library AND s.id = q.seat_id OFFSET 0
		) s ON true
		LEFT JOIN LATERAL (
			SELECT id, request_hash = q.request_hash AS same FROM reservations
			WHERE library_id = @library AND user_id = q.user_id AND request_id = q.request_id OFFSET 0
		) p ON true
	), judged AS MATERIALIZED (
		SELECT w.*, CASE
			WHEN w.known IS NULL OR w.strange THEN 'TOKEN_INVALID'
			WHEN w.revoked THEN 'TOKEN_REVOKED'
			WHEN w.same THEN 'REPEATED'
			WHEN w.prior_id IS NOT NULL THEN 'REQUEST_ID_REUSED'
			WHEN w.branch_id IS NULL THEN 'SEAT_NOT_FOUND'
			WHEN NOT (w.start_time BETWEEN now.t - @past_tolerance::interval AND now.t + @furthest::interval
				AND w.end_time - w.start_time BETWEEN @min_duration::interval - w.slack AND @max_duration::interval + w.slack
				AND w.end_time > now.t) THEN 'WINDOW'
			WHEN w.out_of_service THEN 'SEAT_OUT_OF_SERVICE'
			WHEN EXISTS (SELECT FROM branch_hours h WHERE h.library_id = @library AND h.branch_id = w.branch_id)
				AND NOT dlsms_open(@library, w.branch_id, tstzrange(w.start_time, w.end_time)) THEN 'CLOSED'
			WHEN EXISTS (SELECT FROM reservations r WHERE r.library_id = @library AND r.seat_id = w.seat_id AND r.occupies
				AND r.during && tstzrange(w.start_time, w.end_time)) THEN 'SEAT_TAKEN'
			WHEN EXISTS (SELECT FROM reservations r WHERE r.library_id = @library AND r.user_id = w.user_id AND r.occupies AND r.status <> 'HELD'
				AND NOT isempty(r.during * tstzrange(w.start_time, w.end_time))) THEN 'USER_BUSY'
			WHEN @max_upcoming::bigint > 0 AND @max_upcoming <= (SELECT count(*) FROM reservations r
				WHERE r.library_id = @library AND r.user_id = w.user_id AND r.occupies AND r.status <> 'HELD' AND upper(r.during) > now.t)
				THEN 'TOO_MANY_RESERVATIONS'
			ELSE 'RESERVED' END AS outcome
		FROM now CROSS JOIN wanted w
	), made AS (
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline, created_at, request_id, request_hash)
		SELECT @library, j.seat_id, j.user_id, tstzrange(j.start_time, j.end_time), 'CONFIRMED', j.start_time - @check_in_lead::interval,
			LEAST(GREATEST(j.start_time, now.t) + @grace::interval, j.end_time), now.t, j.request_id, j.request_hash
		FROM now CROSS JOIN judged j WHERE j.outcome = 'RESERVED' ORDER BY j.place
		ON CONFLICT DO NOTHING
		RETURNING *
	), event AS (
		INSERT INTO reservation_events (library_id, at, kind, reservation_id, version, seat_id, user_id, during, status, occupies,
			check_in_opens_at, check_in_deadline, created_at)
		SELECT library_id, created_at, 'RESERVED', id, version, seat_id, user_id, during, status, occupies,
			check_in_opens_at, check_in_deadline, created_at
		FROM made
	)
	SELECT j.place, j.outcome, now.t, COALESCE(made.id, j.prior_id, 0), lower(made.during), upper(made.during),
		made.check_in_opens_at, made.check_in_deadline, COALESCE(j.branch, ''), COALESCE(j.area, ''), COALESCE(j.label, '')
	FROM now CROSS JOIN judged j LEFT JOIN made ON made.user_id = j.user_id`

// Reserve books a seat. It locks the user, then the seat, decides, and commits, in one round trip that it shares with others who book at the
// same time: see booker. It fails with ErrSeatNotFound, ErrSeatOutOfService, ErrSeatTaken, ErrUserBusy, ErrTooManyReservations,
// ErrRequestIDReused, ErrBranchClosed, ErrWindowNotAllowed, Invalid for a window that ends before it starts, and ErrTokenInvalid or
// ErrTokenRevoked for a Token that is not the user's. The same RequestID and content again returns the first answer again.
func (s *Store) Reserve(ctx context.Context, b library.Booking) (library.Reservation, error) {
	return s.booker.book(ctx, b)
}

// booked is what came of one wish.
type booked struct {
	reservation library.Reservation
	err         error
}

// errSeatHeld says that all users could be locked, and one of the seats could not in time.
var errSeatHeld = errors.New("somebody holds a seat")

// reserveAll books for users of whom no two are the same, in one transaction: when it fails, nothing has happened. A wait for a lock
// fails after lockTimeout, 0: after that of the session; where it is for a seat, with errSeatHeld.
func (s *Store) reserveAll(ctx context.Context, conn *pgxpool.Conn, wishes []library.Booking, lockTimeout time.Duration) ([]booked, error) {
	var users, seats []int64
	for _, w := range wishes {
		users, seats = append(users, w.UserID), append(seats, w.SeatID)
	}
	batch := &pgx.Batch{} // without an explicit BEGIN, what is sent in one batch is one transaction
	if lockTimeout > 0 {
		batch.Queue(boundLocks, millis(lockTimeout))
	}
	usersLocked := false
	batch.Queue(lockUsers, s.lib, users).Exec(func(pgconn.CommandTag) error {
		usersLocked = true
		return nil
	})
	batch.Queue(lockSeats, s.lib, seats)
	out := make([]booked, len(wishes))
	var repeated []int // places whose first answer is to be found
	made := 0
	batch.Queue(reserve, s.reserveArgs(wishes, users, seats)).Query(func(rows pgx.Rows) error {
		var place int
		var outcome string
		var now time.Time
		var id int64
		var start, end, opens, deadline *time.Time
		var seat library.SeatRef
		_, err := pgx.ForEachRow(rows, []any{&place, &outcome, &now, &id, &start, &end, &opens, &deadline, &seat.Branch, &seat.Area, &seat.Label}, func() error {
			w := wishes[place-1]
			seat.SeatID = w.SeatID
			r := library.Reservation{ID: id, SeatRef: seat, UserID: w.UserID, Status: library.Confirmed}
			var err error
			switch {
			case outcome == "REPEATED":
				repeated = append(repeated, place-1)
			case outcome != "RESERVED":
				r, err = library.Reservation{}, s.notReserved(outcome, w, now)
			case id == 0: // ON CONFLICT DO NOTHING did nothing
				r, err = library.Reservation{}, library.ErrSeatTaken.With("seat_id", strconv.FormatInt(w.SeatID, 10))
			default:
				made++
				r.StartTime, r.EndTime, r.CheckInOpensAt, r.CheckInDeadline, r.CreatedAt = *start, *end, *opens, deadline, now
			}
			out[place-1] = booked{r, err}
			return nil
		})
		return err
	})
	if err := conn.SendBatch(ctx, batch).Close(); err != nil { // nil only after the commit
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == lockNotAvailable && usersLocked {
			err = fmt.Errorf("%w: %w", errSeatHeld, err)
		}
		return nil, err
	}
	for range made {
		s.rowAdded(ctx)
	}
	// On the connection at hand: a rush of repeats, each holding one and waiting for another, would stand still.
	for _, place := range repeated {
		rows, err := conn.Query(ctx, selectFirstAnswer, s.lib, out[place].reservation.ID, library.EventReserved)
		if err == nil {
			out[place].reservation, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[library.Reservation])
		}
		out[place].err = translate(err)
	}
	return out, nil
}

func (s *Store) reserveArgs(wishes []library.Booking, users, seats []int64) pgx.NamedArgs {
	var starts []*time.Time
	var ends []time.Time
	var requestIDs []*string
	var hashes [][]byte
	var studentIDs []*string
	var generations []*int64
	for _, w := range wishes {
		starts, ends = append(starts, orNil(w.StartTime)), append(ends, w.EndTime)
		requestIDs, hashes = append(requestIDs, orNil(w.RequestID)), append(hashes, contentHash(w.RequestID, w.SeatID, w.StartTime, w.EndTime))
		var studentID *string
		var generation *int64
		if w.Token != nil {
			studentID, generation = &w.Token.StudentID, &w.Token.TokenGeneration
		}
		studentIDs, generations = append(studentIDs, studentID), append(generations, generation)
	}
	return pgx.NamedArgs{
		"library": s.lib, "users": users, "seats": seats, "starts": starts, "ends": ends, "request_ids": requestIDs, "request_hashes": hashes,
		"student_ids": studentIDs, "generations": generations,
		"past_tolerance": s.policy.PastTolerance, "furthest": s.policy.MaxAhead + library.ClockTolerance, "clock_tolerance": library.ClockTolerance,
		"min_duration": s.policy.MinDuration, "max_duration": s.policy.MaxDuration,
		"max_upcoming": s.policy.MaxUpcoming, "check_in_lead": s.policy.CheckInLead, "grace": s.policy.Grace,
	}
}

// notReserved says against which rule a booking was.
func (s *Store) notReserved(outcome string, b library.Booking, now time.Time) error {
	seat := strconv.FormatInt(b.SeatID, 10)
	switch outcome {
	case "REQUEST_ID_REUSED":
		return library.ErrRequestIDReused
	case "TOKEN_INVALID":
		return library.ErrTokenInvalid
	case "TOKEN_REVOKED":
		return library.ErrTokenRevoked
	case "SEAT_NOT_FOUND":
		return library.ErrSeatNotFound.With("seat_id", seat)
	case "SEAT_OUT_OF_SERVICE":
		return library.ErrSeatOutOfService.With("seat_id", seat)
	case "SEAT_TAKEN":
		return library.ErrSeatTaken.With("seat_id", seat)
	case "USER_BUSY":
		return library.ErrUserBusy
	case "TOO_MANY_RESERVATIONS":
		return library.ErrTooManyReservations.With("limit", strconv.Itoa(s.policy.MaxUpcoming))
	case "CLOSED":
		return errClosed
	case "WINDOW":
		if err := s.policy.CheckWindow(now, b.StartTime, b.EndTime); err != nil {
			return err
		}
		return fmt.Errorf("window [%v, %v) at %v: Postgres and Go disagree on the rules", b.StartTime, b.EndTime, now)
	}
	return fmt.Errorf("reserve: unknown outcome %q", outcome)
}

var errClosed = library.ErrBranchClosed.WithFields(library.FieldViolation{Field: "start_time", Message: "the branch is closed for a part of the window"})

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
