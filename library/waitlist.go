package library

import "time"

// WaitlistStatus is the state of a waitlist entry. The package comment draws the transitions.
type WaitlistStatus string

// The states of a waitlist entry. The first two are live; the others are final.
const (
	EntryWaiting WaitlistStatus = "WAITING"
	EntryOffered WaitlistStatus = "OFFERED"
	EntryClaimed WaitlistStatus = "CLAIMED"
	EntryExpired WaitlistStatus = "EXPIRED"
	EntryLeft    WaitlistStatus = "LEFT"
)

// WaitlistEntry is a user's place in line for a seat and a window, [StartTime, EndTime).
type WaitlistEntry struct {
	ID int64
	SeatRef
	UserID    int64
	StartTime time.Time
	EndTime   time.Time
	Status    WaitlistStatus
	// Position is the place of the entry in line, from 1. The line consists of the live entries of
	// the same seat whose windows overlap the window of this entry. It is 0 when the entry has
	// ended.
	Position       int32
	OfferExpiresAt *time.Time // nil unless OFFERED
	CreatedAt      time.Time
	ReservationID  int64 // the hold; 0 if the entry never got an offer
}

// OfferExpired reports whether the entry got an offer that has expired at now, even if the worker
// has not recorded the expiry yet.
func (e WaitlistEntry) OfferExpired(now time.Time) bool {
	return e.Status == EntryExpired && e.ReservationID != 0 || e.Status == EntryOffered && !now.Before(*e.OfferExpiresAt)
}
