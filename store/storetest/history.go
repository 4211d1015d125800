package storetest

import "testing"

// HistorySQL writes the events of all reservations that have none. See WriteHistory.
const HistorySQL = `
	WITH bare AS (
		SELECT * FROM reservations r WHERE NOT EXISTS (
			SELECT FROM reservation_events e WHERE e.library_id = r.library_id AND e.reservation_id = r.id)
	), first AS (
		SELECT library_id, created_at, CASE WHEN status = 'HELD' THEN 'OFFERED' ELSE 'RESERVED' END AS kind,
			id, seat_id, user_id, entry_id, during,
			CASE WHEN status = 'HELD' THEN 'HELD' ELSE 'CONFIRMED' END AS status,
			check_in_opens_at, check_in_deadline, offer_expires_at
		FROM bare
	), written AS (
		INSERT INTO reservation_events (library_id, at, kind, notifies, reservation_id, version,
			seat_id, user_id, entry_id, during, status,
			check_in_opens_at, check_in_deadline, offer_expires_at, created_at)
		SELECT library_id, created_at, kind, kind = 'OFFERED', id, 1, seat_id, user_id, entry_id, during, status,
			check_in_opens_at, check_in_deadline, offer_expires_at, created_at
		FROM first ORDER BY id
	), checked_in AS (
		INSERT INTO reservation_events (library_id, at, kind, notifies, reservation_id, version, seat_id, user_id, during,
			status, check_in_opens_at, check_in_deadline, created_at, checked_in_at)
		SELECT library_id, checked_in_at, 'CHECKED_IN', false, id, 2, seat_id, user_id, during, status,
			check_in_opens_at, check_in_deadline, created_at, checked_in_at
		FROM bare WHERE status = 'CHECKED_IN' ORDER BY id
	)
	UPDATE reservations r SET version = 2
	FROM bare b
	WHERE r.library_id = b.library_id AND r.id = b.id AND r.status = 'CHECKED_IN'`

// WriteHistory writes the events of reservations that a test inserted into the table directly, and
// sets their versions. The events are those of the shortest way to the status of each reservation.
func (db *DB) WriteHistory(t testing.TB) {
	t.Helper()
	db.Exec(t, HistorySQL)
}
