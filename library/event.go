package library

import "time"

// EventKind is a kind of transition of a reservation.
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
	// EventShortened: a closure ends the reservation of a user who is at the seat, before its end.
	EventShortened EventKind = "SHORTENED"
	// EventRescheduled: an outage has moved the check-in deadline.
	EventRescheduled EventKind = "RESCHEDULED"
)

// Notifies reports whether the user gets a notification about every event of this kind. For events
// that staff or a sweep made, the user always gets one: see the column reservation_events.notifies.
func (k EventKind) Notifies() bool {
	switch k {
	case EventOffered, EventOfferExpired, EventReminded, EventNoShow, EventCompleted, EventCheckedOut,
		EventShortened, EventRescheduled:
		return true
	case EventReserved, EventClaimed, EventCheckedIn, EventExtended, EventCancelled, EventDeclined:
		return false
	}
	return false
}

// Event is one row of the change log: a transition of a reservation, with the whole state of the
// reservation after it.
type Event struct {
	ID            int64
	Kind          EventKind
	At            time.Time
	ReservationID int64
	// Version counts the transitions of the reservation from 1. Of two events of one reservation,
	// the one with the higher version is newer.
	Version int64
	SeatID  int64
	UserID  int64
	// StartTime and EndTime are the window, [StartTime, EndTime).
	StartTime time.Time
	EndTime   time.Time
	Status    ReservationStatus
	// Occupies is nil if Status.Occupies is right for the event, which is the normal case. A newer
	// version of DL-SMS may write a Status that this version does not know. Occupies is then the
	// value of the column occupies, which that version wrote. Call TakesSeat, which considers both.
	Occupies *bool
	// CheckInDeadline is zero if Status is HELD. OfferExpiresAt is zero if Status is not HELD.
	CheckInDeadline time.Time
	OfferExpiresAt  time.Time
}

// TakesSeat reports whether the reservation occupies its seat after the event.
func (e Event) TakesSeat() bool {
	if e.Occupies != nil {
		return *e.Occupies
	}
	return e.Status.Occupies()
}

// DueAt returns the time, by Postgres's clock, at which the worker must make the next transition of
// the reservation, or send its reminder. It returns zero for a reservation that has ended.
func (e Event) DueAt(p Policy) time.Time {
	switch e.Status {
	case Held:
		return e.OfferExpiresAt
	case Confirmed:
		if e.Kind != EventReminded {
			return e.CheckInDeadline.Add(-p.ReminderLead)
		}
		return e.CheckInDeadline
	case CheckedIn:
		return e.EndTime
	case Completed, Cancelled, NoShow:
	}
	return time.Time{}
}
