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

	// Every transaction that locks several rows locks them in id order.
	lockUsers = `SELECT 1 FROM users WHERE library_id = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE`
	lockSeats = `SELECT id FROM seats WHERE library_id = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE`

	// setLockTimeout applies until the end of its transaction.
	setLockTimeout = `SELECT set_config('lock_timeout', $1, true)`
)

// millis formats a duration for a setting of Postgres.
func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// reserve decides on several bookings and inserts those that succeed, in one statement. There is at
// most one booking for each user. All parts of a statement share one snapshot. The snapshot must
// not be older than the locks, because it would lack a booking that was committed during the wait
// for a lock. So the locks are taken by earlier statements. The first WHEN that applies gives the
// outcome of a booking. Of several bookings of one seat and time, the first succeeds. The exclusion
// constraint refuses the others, because it also sees rows that the same statement has inserted.
//
// The condition "the user is busy" is NOT isempty(during * …), here and in other statements. With
// during && …, the planner would choose the index of the exclusion constraint until the table has
// been analyzed, and read all reservations of the library. OFFSET 0 makes Postgres look up each row
// by its key.
const reserve = `
	WITH now AS MATERIALIZED (
		SELECT dlsms_now() AS t
	), wanted AS MATERIALIZED (
		SELECT q.place, q.user_id, q.seat_id, COALESCE(q.start_time, now.t) AS start_time,
			CASE WHEN q.start_time IS NULL THEN @clock_tolerance::interval ELSE interval '0' END AS slack,
			q.end_time, q.request_id, q.request_hash,
			u.suspended_until, u.known, u.known AND (q.student_id <> u.student_id OR q.generation > u.token_generation) AS wrong_user,
			q.generation < u.token_generation AS revoked,
			s.branch_id, s.out_of_service, s.area, s.label, s.branch, p.id AS prior_id, p.same
		FROM now CROSS JOIN unnest(@users::bigint[], @seats::bigint[], @starts::timestamptz[], @ends::timestamptz[],
			@request_ids::text[], @request_hashes::bytea[], @student_ids::text[], @generations::bigint[])
			WITH ORDINALITY AS q (user_id, seat_id, start_time, end_time, request_id, request_hash, student_id,
				generation, place)
		LEFT JOIN LATERAL (
			SELECT true AS known, student_id, token_generation, suspended_until FROM users
			WHERE library_id = @library AND id = q.user_id OFFSET 0
		) u ON true
		LEFT JOIN LATERAL (
			SELECT s.branch_id, s.out_of_service, s.area, s.label, b.code AS branch
			FROM seats s JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
			WHERE s.library_id = @library AND s.id = q.seat_id AND s.retired_at IS NULL OFFSET 0
		) s ON true
		LEFT JOIN LATERAL (
			SELECT id, request_hash = q.request_hash AS same FROM reservations
			WHERE library_id = @library AND user_id = q.user_id AND request_id = q.request_id OFFSET 0
		) p ON true
	), decided AS MATERIALIZED (
		SELECT w.*, CASE
			WHEN w.known IS NULL OR w.wrong_user THEN 'TOKEN_INVALID'
			WHEN w.revoked THEN 'TOKEN_REVOKED'
			WHEN w.same THEN 'REPEATED'
			WHEN w.prior_id IS NOT NULL THEN 'REQUEST_ID_REUSED'
			WHEN w.branch_id IS NULL THEN 'SEAT_NOT_FOUND'
			WHEN NOT (w.start_time >= now.t - @past_tolerance::interval AND w.end_time > now.t
				AND CASE WHEN @by_library::boolean THEN w.end_time > w.start_time
						AND w.end_time - w.start_time <= @longest_by_library::interval
					ELSE w.start_time <= now.t + @furthest::interval
						AND w.end_time - w.start_time
							BETWEEN @min_duration::interval - w.slack AND @max_duration::interval + w.slack END) THEN 'WINDOW'
			WHEN NOT @by_library AND w.suspended_until > now.t THEN 'SUSPENDED'
			WHEN w.out_of_service THEN 'SEAT_OUT_OF_SERVICE'
			WHEN (EXISTS (SELECT FROM branch_hours h WHERE h.library_id = @library AND h.branch_id = w.branch_id)
					OR EXISTS (SELECT FROM branch_days x WHERE x.library_id = @library AND x.branch_id = w.branch_id
						AND x.day BETWEEN w.start_time::date - 3 AND w.end_time::date + 3))
				AND NOT dlsms_open(@library, w.branch_id, tstzrange(w.start_time, w.end_time)) THEN 'CLOSED'
			WHEN dlsms_closed(@library, w.branch_id, w.area, w.seat_id, tstzrange(w.start_time, w.end_time))
				THEN 'SEAT_CLOSED'
			WHEN EXISTS (SELECT FROM reservations r WHERE r.library_id = @library AND r.seat_id = w.seat_id AND r.occupies
				AND r.during && tstzrange(w.start_time, w.end_time)) THEN 'SEAT_TAKEN'
			WHEN EXISTS (SELECT FROM reservations r WHERE r.library_id = @library AND r.user_id = w.user_id
				AND r.occupies AND r.status <> 'HELD'
				AND NOT isempty(r.during * tstzrange(w.start_time, w.end_time))) THEN 'USER_BUSY'
			WHEN NOT @by_library AND @max_upcoming::bigint > 0 AND @max_upcoming <= (SELECT count(*) FROM reservations r
				WHERE r.library_id = @library AND r.user_id = w.user_id AND r.occupies AND r.status <> 'HELD'
				AND upper(r.during) > now.t) THEN 'TOO_MANY_RESERVATIONS'
			ELSE 'RESERVED' END AS outcome
		FROM now CROSS JOIN wanted w
	), made AS (
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at,
			check_in_deadline, created_at, request_id, request_hash)
		SELECT @library, d.seat_id, d.user_id, tstzrange(d.start_time, d.end_time), 'CONFIRMED',
			d.start_time - @check_in_lead::interval,
			LEAST(GREATEST(d.start_time, now.t) + @grace::interval, d.end_time), now.t, d.request_id, d.request_hash
		FROM now CROSS JOIN decided d WHERE d.outcome = 'RESERVED' ORDER BY d.place
		ON CONFLICT DO NOTHING
		RETURNING *
	), event AS (
		INSERT INTO reservation_events (library_id, at, kind, notifies, reservation_id, version, seat_id, user_id, during,
			status, occupies, check_in_opens_at, check_in_deadline, created_at, by_library, reason)
		SELECT library_id, created_at, 'RESERVED', @by_library, id, version, seat_id, user_id, during, status, occupies,
			check_in_opens_at, check_in_deadline, created_at, @by_library, @reason::text
		FROM made
	)
	SELECT d.place, d.outcome, now.t, COALESCE(made.id, d.prior_id, 0), lower(made.during), upper(made.during),
		made.check_in_opens_at, made.check_in_deadline,
		COALESCE(d.branch, ''), COALESCE(d.area, ''), COALESCE(d.label, '')
	FROM now CROSS JOIN decided d LEFT JOIN made ON made.user_id = d.user_id`

// maxStaffBooking is the longest window that staff reserve for a user.
const maxStaffBooking = 7 * 24 * time.Hour

// errSeatLocked means that the locks of all users were free, and another transaction held the lock
// of a seat for too long.
var errSeatLocked = errors.New("another transaction holds the lock of a seat")

// reserveAll makes bookings of distinct users in one transaction. The wait for each row lock ends
// after lockTimeout; 0 means the session's lock_timeout. If the lock of a seat is not free by then,
// reserveAll fails with errSeatLocked.
func (s *Store) reserveAll(
	ctx context.Context, conn *pgxpool.Conn, bookings []library.Booking, lockTimeout time.Duration,
) ([]result, error) {
	var users, seats []int64
	for _, b := range bookings {
		users, seats = append(users, b.UserID), append(seats, b.SeatID)
	}
	batch := &pgx.Batch{} // without an explicit BEGIN, the statements of a pgx.Batch are one transaction
	if lockTimeout > 0 {
		batch.Queue(setLockTimeout, millis(lockTimeout))
	}
	usersLocked := false
	batch.Queue(lockUsers, s.lib, users).Exec(func(pgconn.CommandTag) error {
		usersLocked = true
		return nil
	})
	batch.Queue(lockSeats, s.lib, seats)
	d := s.queueReserve(batch, bookings, staffBooking{})
	if err := conn.SendBatch(ctx, batch).Close(); err != nil { // nil only after the commit
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == lockNotAvailable && usersLocked {
			err = fmt.Errorf("%w: %w", errSeatLocked, err)
		}
		return nil, err
	}
	for range d.made {
		s.rowAdded(ctx)
	}
	// The look-ups use the same connection. If many calls each held a connection and waited for a
	// second, all connections of the pool could be held and no call could continue.
	s.complete(ctx, conn, d)
	return d.results, nil
}

// staffBooking says that staff make the bookings. Then the limits of the policy on users do not
// apply, and the user gets a notification with the reason.
type staffBooking struct {
	byLibrary bool
	reason    string
}

// decision is the outcome of the statement reserve.
type decision struct {
	bookings    []library.Booking
	results     []result
	made        int            // number of new reservations
	repeated    []int          // indexes of the bookings that repeat an earlier request
	unexplained map[int]string // outcomes that explain turns into errors, by index
}

// queueReserve adds the statement reserve to batch. The transaction has locked the users and seats.
// The decision is set when the batch has run; then call complete.
func (s *Store) queueReserve(batch *pgx.Batch, bookings []library.Booking, staff staffBooking) *decision {
	d := &decision{bookings: bookings, results: make([]result, len(bookings)), unexplained: map[int]string{}}
	batch.Queue(reserve, s.reserveArgs(bookings, staff)).Query(func(rows pgx.Rows) error {
		var place int
		var outcome string
		var now time.Time
		var id int64
		var start, end, opens, deadline *time.Time
		var seat library.SeatRef
		columns := []any{&place, &outcome, &now, &id, &start, &end, &opens, &deadline,
			&seat.Branch, &seat.Area, &seat.Label}
		_, err := pgx.ForEachRow(rows, columns, func() error {
			b := bookings[place-1]
			seat.SeatID = b.SeatID
			r := library.Reservation{ID: id, SeatRef: seat, UserID: b.UserID, Status: library.Confirmed}
			var err error
			switch {
			case outcome == "REPEATED":
				d.repeated = append(d.repeated, place-1)
			case outcome == "SEAT_CLOSED" || outcome == "SUSPENDED":
				d.unexplained[place-1] = outcome
			case outcome != "RESERVED":
				r, err = library.Reservation{}, s.refusal(outcome, b, now)
			case id == 0: // ON CONFLICT DO NOTHING skipped the row
				r, err = library.Reservation{}, library.ErrSeatTaken.With("seat_id", strconv.FormatInt(b.SeatID, 10))
			default:
				d.made++
				r.StartTime, r.EndTime, r.CreatedAt = *start, *end, now
				r.CheckInOpensAt, r.CheckInDeadline = *opens, deadline
			}
			d.results[place-1] = result{r, err}
			return nil
		})
		return err
	})
	return d
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// complete reads the first answers of repeated requests, and the numbers of the rules that refused
// bookings.
func (s *Store) complete(ctx context.Context, q querier, d *decision) {
	for _, place := range d.repeated {
		out := &d.results[place]
		rows, err := q.Query(ctx, selectFirstAnswer, s.lib, out.reservation.ID, library.EventReserved)
		if err == nil {
			out.reservation, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[library.Reservation])
		}
		out.err = translate(err)
	}
	for place, outcome := range d.unexplained {
		d.results[place] = result{err: translate(s.explain(ctx, q, outcome, d.bookings[place]))}
	}
}

const selectExplanation = `
	SELECT u.suspended_until, c.id, lower(c.during), upper(c.during)
	FROM (SELECT dlsms_now() AS t OFFSET 0) now
	JOIN users u ON u.library_id = $1 AND u.id = $2
	JOIN seats s ON s.library_id = $1 AND s.id = $3
	LEFT JOIN LATERAL (
		SELECT c.id, c.during FROM closures c
		WHERE c.library_id = s.library_id AND c.branch_id = s.branch_id AND c.lifted_at IS NULL
			AND c.during && tstzrange(COALESCE($4, now.t), $5)
			AND (c.area IS NULL OR c.area = s.area) AND (c.seat_ids IS NULL OR s.id = ANY (c.seat_ids))
		ORDER BY lower(c.during) LIMIT 1) c ON true`

// explain returns the error for an outcome, with the numbers of the rule that refused the booking.
// It reads them after the transaction of the booking, so they may have changed since, or may have
// disappeared.
func (s *Store) explain(ctx context.Context, q querier, outcome string, b library.Booking) error {
	var suspended, from, until *time.Time
	var closure *int64
	err := q.QueryRow(ctx, selectExplanation, s.lib, b.UserID, b.SeatID, orNil(b.StartTime), b.EndTime).
		Scan(&suspended, &closure, &from, &until)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if outcome == "SUSPENDED" {
		return library.ErrSuspended.WithTime("suspended_until", suspended)
	}
	refused := library.ErrSeatClosed
	if closure != nil {
		refused = refused.With("closure_id", strconv.FormatInt(*closure, 10))
	}
	return refused.WithTime("closed_from", from).WithTime("closed_until", until)
}

func (s *Store) reserveArgs(bookings []library.Booking, staff staffBooking) pgx.NamedArgs {
	var users, seats []int64
	var starts []*time.Time
	var ends []time.Time
	var requestIDs []*string
	var hashes [][]byte
	var studentIDs []*string
	var generations []*int64
	for _, b := range bookings {
		users, seats = append(users, b.UserID), append(seats, b.SeatID)
		starts, ends = append(starts, orNil(b.StartTime)), append(ends, b.EndTime)
		requestIDs = append(requestIDs, orNil(b.RequestID))
		hashes = append(hashes, contentHash(b.RequestID, b.SeatID, b.StartTime, b.EndTime))
		var studentID *string
		var generation *int64
		if b.Token != nil {
			studentID, generation = &b.Token.StudentID, &b.Token.TokenGeneration
		}
		studentIDs, generations = append(studentIDs, studentID), append(generations, generation)
	}
	return pgx.NamedArgs{
		"library": s.lib, "users": users, "seats": seats, "starts": starts, "ends": ends,
		"request_ids": requestIDs, "request_hashes": hashes, "student_ids": studentIDs, "generations": generations,
		"by_library": staff.byLibrary, "reason": orNil(staff.reason), "longest_by_library": maxStaffBooking,
		"past_tolerance": s.policy.PastTolerance, "furthest": s.policy.MaxAhead + library.ClockTolerance,
		"clock_tolerance": library.ClockTolerance,
		"min_duration":    s.policy.MinDuration, "max_duration": s.policy.MaxDuration,
		"max_upcoming": s.policy.MaxUpcoming, "check_in_lead": s.policy.CheckInLead, "grace": s.policy.Grace,
	}
}

// refusal returns the error for the outcome of a booking that was not made.
func (s *Store) refusal(outcome string, b library.Booking, now time.Time) error {
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
		return fmt.Errorf("window [%v, %v) at %v: Postgres and Go disagree on the rules",
			b.StartTime, b.EndTime, now)
	}
	return fmt.Errorf("reserve: unknown outcome %q", outcome)
}

var errClosed = library.ErrBranchClosed.WithFields(library.FieldViolation{
	Field: "start_time", Message: "the branch is closed for a part of the window",
})

// contentHash returns a hash of the content of a request. It distinguishes requests with the same
// request_id. It returns nil if there is no request_id.
func contentHash(requestID string, seatID int64, start, end time.Time) []byte {
	if requestID == "" {
		return nil
	}
	var b []byte
	b = binary.BigEndian.AppendUint64(b, uint64(seatID)) //nolint:gosec // the same bits
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

// orNil returns nil, which is NULL in SQL, for a zero value.
func orNil[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
