package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Notification is an event that a user is told of.
type Notification struct {
	ID            int64
	Kind          EventKind // one that notifies
	UserID        int64
	ReservationID int64
	EntryID       int64 // 0: the reservation did not come from the waitlist
	SeatRef
	Timezone  string // of the branch, IANA
	StartTime time.Time
	EndTime   time.Time
	// CheckInDeadline and OfferExpiresAt are nil where they don't apply.
	CheckInDeadline *time.Time
	OfferExpiresAt  *time.Time
	CreatedAt       time.Time
}

// Notifications returns at most limit of a user's notifications with ids above afterID, in the order in which they came about.
func (s *Store) Notifications(ctx context.Context, userID, afterID int64, limit int) ([]Notification, error) {
	const after = `
		SELECT r.id, r.kind, r.user_id, r.reservation_id, COALESCE(r.entry_id, 0) AS entry_id, r.seat_id, b.code AS branch, s.area, s.label,
			b.timezone, lower(r.during) AS start_time, upper(r.during) AS end_time, r.check_in_deadline, r.offer_expires_at, r.at AS created_at
		FROM reservation_events r ` + atSeat + `
		WHERE r.library_id = $1 AND r.user_id = $2 AND r.notifies AND r.id > $3 ORDER BY r.id LIMIT $4`
	return query(ctx, s.pool, pgx.RowToStructByName[Notification], after, s.lib, userID, afterID, limit)
}
