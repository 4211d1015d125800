package store

import (
	"context"
	"fmt"
	"time"
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
	Status    Status // may be one that this version does not know
	// CheckInDeadline is set unless the reservation is HELD, or was never claimed; OfferExpiresAt while it is HELD.
	CheckInDeadline *time.Time
	OfferExpiresAt  *time.Time
	CreatedAt       time.Time
}

const selectNotifications = `
	SELECT r.id, r.kind, r.user_id, r.reservation_id, COALESCE(r.entry_id, 0) AS entry_id, r.seat_id, b.code AS branch, s.area, s.label,
		b.timezone, lower(r.during) AS start_time, upper(r.during) AS end_time, r.status, r.check_in_deadline, r.offer_expires_at,
		r.at AS created_at
	FROM reservation_events r ` + atSeat + `
	WHERE r.library_id = $1 AND r.user_id = $2 AND r.notifies AND r.id > $3 ORDER BY r.id LIMIT $4`

// Notifications returns at most limit of a user's notifications with ids above afterID, in the order in which they came about. Fewer are
// all that there are: rows that cannot be read are left out, and others are read in their place.
func (s *Store) Notifications(ctx context.Context, userID, afterID int64, limit int) ([]Notification, error) {
	all := []Notification{}
	for {
		read, leftOut, err := queryReadable(ctx, s, tableEvents, (*Notification).check, selectNotifications,
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

// check finds fault with a notification that cannot be told.
func (n *Notification) check() error {
	switch {
	case !n.Kind.notifies():
		return fmt.Errorf("unknown kind %q", n.Kind)
	case n.Kind == EventOffered && n.OfferExpiresAt == nil:
		return fmt.Errorf("%s without offer_expires_at", n.Kind)
	case n.Kind == EventReminded && n.CheckInDeadline == nil:
		return fmt.Errorf("%s without check_in_deadline", n.Kind)
	}
	return validText(n.Branch, n.Area, n.Label)
}
