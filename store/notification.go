package store

import (
	"context"

	"github.com/dlsms/dlsms/library"
)

const selectNotifications = `
	SELECT r.id, r.kind, r.user_id, r.reservation_id, COALESCE(r.entry_id, 0) AS entry_id,
		r.seat_id, b.code AS branch, s.area, s.label,
		b.timezone, lower(r.during) AS start_time, upper(r.during) AS end_time, r.status,
		r.check_in_deadline, r.offer_expires_at, r.at AS created_at,
		r.by_library, COALESCE(r.reason, '') AS reason, w.note, f.suggested
	FROM reservation_events r ` + atSeat + `
	LEFT JOIN sweeps w ON w.library_id = r.library_id AND w.id = r.sweep_id
	LEFT JOIN LATERAL (
		SELECT jsonb_build_object('SeatID', f.id, 'Branch', o.code, 'Area', f.area, 'Label', f.label) AS suggested
		FROM seats f JOIN branches o ON o.library_id = f.library_id AND o.id = f.branch_id
		WHERE f.library_id = r.library_id AND f.id = r.suggested_seat_id OFFSET 0
	) f ON true
	WHERE r.library_id = $1 AND r.user_id = $2 AND r.notifies AND r.id > $3 ORDER BY r.id LIMIT $4`

// Notifications returns at most limit of a user's notifications with ids above afterID, in the
// order of their ids. Fewer than limit means that there are no more. Unreadable rows are left out,
// and further rows are read in their place.
func (s *Store) Notifications(ctx context.Context, userID, afterID int64, limit int) ([]library.Notification, error) {
	all := []library.Notification{}
	for {
		read, leftOut, err := queryReadable(ctx, s, tableEvents, (*library.Notification).Validate, selectNotifications,
			s.lib, userID, afterID, limit-len(all))
		if err != nil {
			return nil, err
		}
		last := len(read)+len(leftOut) < limit-len(all)
		all = append(all, read...)
		if last || len(all) == limit {
			return all, nil
		}
		afterID = leftOut[len(leftOut)-1]
		if len(read) > 0 {
			afterID = max(afterID, read[len(read)-1].ID)
		}
	}
}
