package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
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
// for a lock. So the locks are taken by earlier statements. The first of bookingRules that a booking
// breaks gives its outcome. Of several bookings of one seat and time, the first succeeds. The
// exclusion constraint refuses the others, because it also sees rows that the same statement has
// inserted.
var reserve = deciding(`, decided AS MATERIALIZED (
		SELECT w.*, `, firstBroken(), ` AS outcome
		FROM now CROSS JOIN wanted w
	), made AS (
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at,
			check_in_deadline, created_at, request_id, request_hash)
		SELECT @library, d.seat_id, d.user_id, d.during, 'CONFIRMED', d.start_time - d.check_in_lead,
			LEAST(GREATEST(d.start_time, now.t) + d.grace, d.end_time), now.t, d.request_id, d.request_hash
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
		COALESCE(d.branch, ''), COALESCE(d.area, ''), COALESCE(d.label, ''), d.check_in
	FROM now CROSS JOIN decided d LEFT JOIN made ON made.user_id = d.user_id`)

// maxStaffBooking is the longest window that staff reserve for a user. It is also the longest window
// that a policy can allow.
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
	d := s.queueReserve(batch, bookings, cause{})
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

// decision is the outcome of the statement reserve.
type decision struct {
	bookings    []library.Booking
	why         cause
	now         time.Time // the time at which the bookings were decided
	results     []result
	made        int            // number of new reservations
	repeated    []int          // indexes of the bookings that repeat an earlier request
	unexplained map[int]string // outcomes whose errors have numbers that explain reads, by index
}

// queueReserve adds the statement reserve to batch. The transaction has locked the users and seats.
// The decision is set when the batch has run; then call complete.
func (s *Store) queueReserve(batch *pgx.Batch, bookings []library.Booking, why cause) *decision {
	d := &decision{
		bookings: bookings, why: why, results: make([]result, len(bookings)), unexplained: map[int]string{},
	}
	batch.Queue(reserve, s.reserveArgs(bookings, why)).Query(func(rows pgx.Rows) error {
		var place int
		var outcome string
		var id int64
		var start, end, opens, deadline *time.Time
		var seat library.SeatRef
		var checkIn library.CheckInRule
		columns := []any{&place, &outcome, &d.now, &id, &start, &end, &opens, &deadline,
			&seat.Branch, &seat.Area, &seat.Label, &checkIn}
		_, err := pgx.ForEachRow(rows, columns, func() error {
			b := bookings[place-1]
			seat.SeatID = b.SeatID
			r := library.Reservation{ID: id, SeatRef: seat, UserID: b.UserID, Status: library.Confirmed}
			var err error
			switch {
			case outcome == outcomeRepeated:
				d.repeated = append(d.repeated, place-1)
			case outcome != outcomeReserved:
				r = library.Reservation{}
				if err = plainRefusal(outcome, b.SeatID); err == nil {
					d.unexplained[place-1] = outcome
				}
			case id == 0: // ON CONFLICT DO NOTHING skipped the row
				r, err = library.Reservation{}, library.ErrSeatTaken.With("seat_id", strconv.FormatInt(b.SeatID, 10))
			default:
				d.made++
				r.StartTime, r.EndTime, r.CreatedAt = *start, *end, d.now
				r.CheckInOpensAt, r.CheckInDeadline, r.CheckInRule = *opens, deadline, checkIn
			}
			d.results[place-1] = result{r, err, d.now}
			return nil
		})
		return err
	})
	return d
}

// complete reads the first answers of repeated requests, and the numbers of the rules that refused
// bookings.
func (s *Store) complete(ctx context.Context, q querier, d *decision) {
	for _, place := range d.repeated {
		out := &d.results[place]
		var err error
		out.reservation, err = s.firstAnswer(ctx, q, out.reservation.ID, library.EventReserved)
		out.err = translate(err)
	}
	if len(d.unexplained) > 0 {
		s.explain(ctx, q, d)
	}
}

// explain sets the errors of bookings that were refused by a rule with numbers. It reads the numbers
// after the transaction of the bookings, so they may have changed since, or may have disappeared.
func (s *Store) explain(ctx context.Context, q querier, d *decision) {
	places := slices.Sorted(maps.Keys(d.unexplained))
	bookings := make([]library.Booking, len(places))
	for i, place := range places {
		bookings[i] = d.bookings[place]
	}
	facts, err := s.judge(ctx, q, bookings, d.why, d.now)
	for i, place := range places {
		if err == nil {
			d.results[place].err = facts[i].refusal(d.unexplained[place])
		} else {
			d.results[place].err = translate(err)
		}
	}
}

func (s *Store) reserveArgs(bookings []library.Booking, why cause) pgx.NamedArgs {
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
		"by_library": why.byLibrary, "reason": orNil(why.reason), "longest_by_library": maxStaffBooking,
		"past_tolerance": s.policy.PastTolerance, "furthest": s.policy.MaxAhead + library.ClockTolerance,
		"clock_tolerance": library.ClockTolerance, "max_ahead": s.policy.MaxAhead,
		"longest":      s.longestWindow(),
		"min_duration": s.policy.MinDuration, "max_duration": s.policy.MaxDuration,
		"max_upcoming": s.policy.MaxUpcoming, "check_in_lead": s.policy.CheckInLead, "grace": s.policy.Grace,
		"now": (*time.Time)(nil),
	}
}

// plainRefusal returns the error for the outcome of a booking that was not made, or nil if the error
// has numbers that must be read: see facts.refusal.
func plainRefusal(outcome string, seatID int64) error {
	seat := strconv.FormatInt(seatID, 10)
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
	case outcomeTaken:
		return library.ErrSeatTaken.With("seat_id", seat)
	case "USER_BUSY":
		return library.ErrUserBusy
	case "CLOSED":
		return errClosed
	case "BOOKING_NOT_ALLOWED":
		return library.ErrBookingNotAllowed
	}
	return nil
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
