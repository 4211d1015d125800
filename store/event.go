package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// EventKind is what happened to a reservation.
type EventKind string

// The kinds of events.
const (
	EventReserved     EventKind = "RESERVED"
	EventOffered      EventKind = "OFFERED"
	EventClaimed      EventKind = "CLAIMED"
	EventCheckedIn    EventKind = "CHECKED_IN"
	EventCheckedOut   EventKind = "CHECKED_OUT"
	EventExtended     EventKind = "EXTENDED"
	EventReminded     EventKind = "REMINDED"
	EventCancelled    EventKind = "CANCELLED"
	EventDeclined     EventKind = "DECLINED"
	EventOfferExpired EventKind = "OFFER_EXPIRED"
	EventNoShow       EventKind = "NO_SHOW"
	EventCompleted    EventKind = "COMPLETED"
)

// notifies says of which kinds the user is told; the column of that name says the same.
func (k EventKind) notifies() bool {
	switch k {
	case EventOffered, EventOfferExpired, EventReminded, EventNoShow, EventCompleted, EventCheckedOut:
		return true
	case EventReserved, EventClaimed, EventCheckedIn, EventExtended, EventCancelled, EventDeclined:
		return false
	}
	return false
}

// Event is one row of the change log: a transition of a reservation, with the reservation's whole state after it.
type Event struct {
	ID            int64
	Kind          EventKind
	At            time.Time
	ReservationID int64
	// Version counts the reservation's transitions from 1: of two events of one reservation the higher one is the newer.
	Version int64
	SeatID  int64
	UserID  int64
	// StartTime and EndTime are its window, half open.
	StartTime time.Time
	EndTime   time.Time
	Status    Status
	// Occupies is set where the row says otherwise than Status would, as for a status of a newer version; see TakesSeat.
	Occupies *bool
	// CheckInDeadline is zero while HELD, OfferExpiresAt unless HELD.
	CheckInDeadline time.Time
	OfferExpiresAt  time.Time
}

// TakesSeat reports whether the reservation takes its seat after the event.
func (e Event) TakesSeat() bool {
	if e.Occupies != nil {
		return *e.Occupies
	}
	return e.Status.Occupies()
}

// DueAt is when the worker has to look at the reservation next, by Postgres's clock; zero: never.
func (e Event) DueAt(r Rules) time.Time {
	switch e.Status {
	case Held:
		return e.OfferExpiresAt
	case Confirmed:
		if e.Kind != EventReminded {
			return e.CheckInDeadline.Add(-r.ReminderLead)
		}
		return e.CheckInDeadline
	case CheckedIn:
		return e.EndTime
	case Completed, Cancelled, NoShow:
	}
	return time.Time{}
}

// lockUsersToNotify makes the notifications of a user come about in the order of their ids: an id is drawn under the user's lock, and the
// lock is held until the commit. The locks are the last that a transaction takes, in one order, so they can't deadlock with others.
const lockUsersToNotify = `
	SELECT pg_advisory_xact_lock(k.space, k.key)
	FROM (SELECT DISTINCT hashint8($1) AS space, hashint8(user_id) AS key FROM reservations
	      WHERE library_id = $1 AND id = ANY($2) ORDER BY 2) k`

const insertEvents = `
	INSERT INTO reservation_events (library_id, at, kind, reservation_id, version, seat_id, user_id, entry_id, during, status, occupies,
		check_in_opens_at, check_in_deadline, offer_expires_at, created_at, checked_in_at, ended_at, reason)
	SELECT r.library_id, n.now, t.kind, r.id, r.version, r.seat_id, r.user_id, r.entry_id, r.during, r.status, r.occupies,
		r.check_in_opens_at, r.check_in_deadline, r.offer_expires_at, r.created_at, r.checked_in_at, r.ended_at, t.reason
	FROM (SELECT dlsms_now() AS now OFFSET 0) n
	CROSS JOIN unnest($2::bigint[], $3::text[], $4::text[]) WITH ORDINALITY AS t (reservation_id, kind, reason, place)
	JOIN reservations r ON r.library_id = $1 AND r.id = t.reservation_id
	ORDER BY t.place`

// writeEvents writes what was recorded, as the last thing before the commit.
func (t *tx) writeEvents(ctx context.Context) error {
	if len(t.events) == 0 {
		return nil
	}
	var ids, told []int64
	var kinds []string
	var reasons []*string
	for _, e := range t.events {
		ids, kinds, reasons = append(ids, e.reservationID), append(kinds, string(e.kind)), append(reasons, orNil(e.reason))
		if e.kind.notifies() {
			told = append(told, e.reservationID)
		}
	}
	batch := &pgx.Batch{}
	if len(told) > 0 {
		batch.Queue(lockUsersToNotify, t.s.lib, told)
	}
	batch.Queue(insertEvents, t.s.lib, ids, kinds, reasons)
	return t.SendBatch(ctx, batch).Close()
}
