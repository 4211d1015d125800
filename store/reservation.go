package store

import "time"

// Status is where a reservation is in its life.
type Status string

// The states of a reservation. The first three take the seat.
const (
	Held      Status = "HELD"
	Confirmed Status = "CONFIRMED"
	CheckedIn Status = "CHECKED_IN"
	Completed Status = "COMPLETED"
	Cancelled Status = "CANCELLED"
	NoShow    Status = "NO_SHOW"
)

// Occupies reports whether a reservation in this state takes its seat.
func (s Status) Occupies() bool { return s == Held || s == Confirmed || s == CheckedIn }

// Reservation is a seat for a user and a window, [StartTime, EndTime). Times that have not come are zero.
type Reservation struct {
	ID              int64
	SeatID          int64
	Branch          string // code
	Area            string
	Label           string
	UserID          int64
	EntryID         int64 // the waitlist entry that it came from; 0: none
	StartTime       time.Time
	EndTime         time.Time
	Status          Status
	Version         int64
	CheckInOpensAt  time.Time
	CheckInDeadline time.Time
	OfferExpiresAt  time.Time
	CreatedAt       time.Time
	CheckedInAt     time.Time
	EndedAt         time.Time
}
