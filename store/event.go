package store

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// lockUsersToNotify ensures that the notifications of a user become visible in the order of their
// ids. A transaction takes the advisory lock of the user before it takes an id from the sequence,
// and holds the lock until the commit. A transaction takes these locks last, and always in the same
// order, so they cannot deadlock.
const lockUsersToNotify = `
	SELECT pg_advisory_xact_lock(k.space, k.key)
	FROM (SELECT DISTINCT hashint8($1) AS space, hashint8(user_id) AS key FROM reservations
	      WHERE library_id = $1 AND id = ANY($2) ORDER BY 2) k`

const insertEvents = `
	INSERT INTO reservation_events (library_id, at, kind, notifies, reservation_id, version, seat_id, user_id, entry_id,
		during, status, occupies,
		check_in_opens_at, check_in_deadline, offer_expires_at, created_at, checked_in_at, ended_at, reason,
		by_library, sweep_id, suggested_seat_id, proof, screen_id)
	SELECT r.library_id, n.now, t.kind, t.notifies, r.id, r.version, r.seat_id, r.user_id, r.entry_id,
		r.during, r.status, r.occupies,
		r.check_in_opens_at, r.check_in_deadline, r.offer_expires_at, r.created_at, r.checked_in_at, r.ended_at, t.reason,
		t.by_library, t.sweep_id, t.suggested_seat_id,
		CASE WHEN t.kind = 'CHECKED_IN' THEN r.proof END, CASE WHEN t.kind = 'CHECKED_IN' THEN r.screen_id END
	FROM (SELECT dlsms_now() AS now OFFSET 0) n
	CROSS JOIN unnest($2::bigint[], $3::text[], $4::text[], $5::boolean[], $6::boolean[], $7::bigint[], $8::bigint[])
		WITH ORDINALITY AS t (reservation_id, kind, reason, notifies, by_library, sweep_id, suggested_seat_id, place)
	JOIN reservations r ON r.library_id = $1 AND r.id = t.reservation_id
	ORDER BY t.place`

// writeEvents writes the recorded events. It is the last step before the commit.
func (t *tx) writeEvents(ctx context.Context) error {
	if len(t.events) == 0 {
		return nil
	}
	var ids, notified []int64
	var kinds []string
	var reasons []*string
	var notifies, byLibrary []bool
	var sweeps, suggested []*int64
	for _, e := range t.events {
		ids, kinds = append(ids, e.reservationID), append(kinds, string(e.kind))
		reasons = append(reasons, orNil(e.reason))
		notifies, byLibrary = append(notifies, e.notifies()), append(byLibrary, e.byLibrary)
		sweeps, suggested = append(sweeps, orNil(e.sweepID)), append(suggested, orNil(e.suggested))
		if e.notifies() {
			notified = append(notified, e.reservationID)
		}
	}
	batch := &pgx.Batch{}
	if len(notified) > 0 {
		batch.Queue(lockUsersToNotify, t.s.lib, notified)
	}
	batch.Queue(insertEvents, t.s.lib, ids, kinds, reasons, notifies, byLibrary, sweeps, suggested)
	return t.SendBatch(ctx, batch).Close()
}
