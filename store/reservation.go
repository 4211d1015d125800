package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// reservationState lists the columns of a Reservation, which follow from a row of reservations or of
// reservation_events. The table's alias is r. The rule of check-in is that of the present policies,
// and only a reservation that can still be checked in has one. A library without policies reads no
// user for it.
const reservationState = `
	r.seat_id, b.code AS branch, s.area, s.label, r.user_id,
	lower(r.during) AS start_time, upper(r.during) AS end_time, r.status,
	r.check_in_opens_at, r.check_in_deadline, r.created_at, r.checked_in_at, r.ended_at,
	CASE WHEN r.status NOT IN ('HELD', 'CONFIRMED') THEN ''
		WHEN NOT EXISTS (SELECT FROM effective_policies p WHERE p.library_id = r.library_id) THEN 'NONE'
		ELSE COALESCE((
			SELECT p.check_in FROM users v CROSS JOIN LATERAL dlsms_policy(r.library_id, s.branch_id, s.area, v.user_group,
				dlsms_day(lower(r.during), b.timezone)) p
			WHERE v.library_id = r.library_id AND v.id = r.user_id), 'NONE') END AS check_in_rule,
	COALESCE(r.proof, '') AS proof,
	COALESCE((
		SELECT c.name FROM screens c WHERE c.library_id = r.library_id AND c.id = r.screen_id), '') AS screen`

// endedByLibrary is the column of a Reservation that follows from the events of the row r of
// reservations. Only a reservation that has ended reads them.
const endedByLibrary = `
	r.status IN ('CANCELLED', 'COMPLETED') AND EXISTS (
		SELECT FROM reservation_events o WHERE o.library_id = r.library_id AND o.reservation_id = r.id
			AND o.status = r.status AND o.by_library) AS ended_by_library`

// atSeat joins the seat and branch of r.
const atSeat = `
	JOIN seats s ON s.library_id = r.library_id AND s.id = r.seat_id
	JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id`

const (
	selectReservation = `SELECT r.id, ` + reservationState + `, ` + endedByLibrary + `
		FROM reservations r ` + atSeat + ` WHERE r.library_id = $1 `

	selectOwnReservation = selectReservation + `AND r.id = $2 AND r.user_id = $3`

	// selectFirstAnswer reads a reservation as it was right after a transition. This state is the
	// answer to a repeated call.
	selectFirstAnswer = `
		SELECT r.reservation_id AS id, ` + reservationState + `, false AS ended_by_library
		FROM reservation_events r ` + atSeat + `
		WHERE r.library_id = $1 AND r.reservation_id = $2 AND r.kind = $3 ORDER BY r.version LIMIT 1`
)

// Reservation returns one of the user's reservations, or ErrReservationNotFound.
func (s *Store) Reservation(ctx context.Context, userID, id int64) (library.Reservation, error) {
	return queryOne(ctx, s.pool, library.ErrReservationNotFound, pgx.RowToStructByName[library.Reservation],
		selectOwnReservation, s.lib, id, userID)
}

// View selects which of a user's reservations are listed.
type View int

// The views.
const (
	ViewUpcoming View = iota // reservations that take their seat and have not ended
	ViewHistory              // reservations that ended in the past 30 days
	ViewAll
)

// ReservationCursor is the position at which a page of reservations ended. The next page begins
// after it. The zero value is before the first page.
type ReservationCursor struct {
	StartTime time.Time
	ID        int64
}

var selectReservations = map[View]string{
	ViewUpcoming: selectReservation + `
		AND r.user_id = $2 AND r.occupies AND upper(r.during) > dlsms_now()
		AND ($4::bigint = 0 OR (lower(r.during), r.id) > ($3, $4)) ORDER BY lower(r.during), r.id LIMIT $5`,
	ViewHistory: selectReservation + `
		AND r.user_id = $2 AND (NOT r.occupies OR upper(r.during) <= dlsms_now())
		AND LEAST(r.ended_at, upper(r.during)) > dlsms_now() - interval '30 days'
		AND ($4::bigint = 0 OR (lower(r.during), r.id) < ($3, $4)) ORDER BY lower(r.during) DESC, r.id DESC LIMIT $5`,
	ViewAll: selectReservation + `
		AND r.user_id = $2
		AND ($4::bigint = 0 OR (lower(r.during), r.id) > ($3, $4)) ORDER BY lower(r.during), r.id LIMIT $5`,
}

// Reservations returns at most limit of a user's reservations after the cursor, in the order of
// their start. ViewHistory has the reverse order: the latest start comes first.
func (s *Store) Reservations(
	ctx context.Context, userID int64, view View, after ReservationCursor, limit int,
) ([]library.Reservation, error) {
	return query(ctx, s.pool, pgx.RowToStructByName[library.Reservation], selectReservations[view],
		s.lib, userID, after.StartTime, after.ID, limit)
}
