package library

import "time"

// ReservationStatus is the state of a reservation. The package comment draws the transitions.
type ReservationStatus string

// The states of a reservation. The first three occupy the seat.
const (
	Held      ReservationStatus = "HELD"
	Confirmed ReservationStatus = "CONFIRMED"
	CheckedIn ReservationStatus = "CHECKED_IN"
	Completed ReservationStatus = "COMPLETED"
	Cancelled ReservationStatus = "CANCELLED"
	NoShow    ReservationStatus = "NO_SHOW"
)

// Occupies reports whether a reservation in this state occupies its seat.
func (s ReservationStatus) Occupies() bool { return s == Held || s == Confirmed || s == CheckedIn }

// Known reports whether this version knows the state. A newer version may write other states.
func (s ReservationStatus) Known() bool {
	switch s {
	case Held, Confirmed, CheckedIn, Completed, Cancelled, NoShow:
		return true
	}
	return false
}

// Reservation is a user's right to a seat for a window, [StartTime, EndTime). A time that has not
// been set yet is nil.
type Reservation struct {
	ID int64
	SeatRef
	UserID          int64
	StartTime       time.Time
	EndTime         time.Time
	Status          ReservationStatus
	CheckInOpensAt  time.Time
	CheckInDeadline *time.Time
	CreatedAt       time.Time
	CheckedInAt     *time.Time
	EndedAt         *time.Time
	// CheckInRule is what the user needs to check in, by the present policies. It is empty unless
	// Status is HELD or CONFIRMED.
	CheckInRule CheckInRule
	// Proof is what the user proved at check-in. It is empty before the check-in, and for a check-in
	// from before there were proofs. Screen is the name of the screen whose code was used, or empty.
	Proof  Proof
	Screen string
	// EndedByLibrary reports that staff or a closure cancelled the reservation, or checked the user out.
	EndedByLibrary bool
}

// Booking is a user's request for a seat and a window.
type Booking struct {
	UserID int64
	SeatID int64
	// StartTime may be zero, which means now.
	StartTime time.Time
	EndTime   time.Time
	// RequestID makes the call safe to repeat. It may be empty: then each call is a new request.
	RequestID string
	// Token is the identity in the caller's token, or nil if the caller was checked before. The SQL
	// statement that makes the booking compares Token with the user's row, so a separate query is
	// not needed. If they differ, the booking fails with ErrTokenInvalid or ErrTokenRevoked.
	Token *Identity
}

// Check is the result of a check of a booking that is not made.
type Check struct {
	// Broken has an error for each rule that the booking would break. The first one is the error with
	// which the booking would fail. It is empty if the booking would succeed.
	Broken []*Error
	// Alternatives are what the user could reserve instead, the best first. They are empty if no rule
	// is broken.
	Alternatives []Alternative
}

// Alternative is a seat and a window, [StartTime, EndTime), that a user could reserve.
type Alternative struct {
	SeatRef

	StartTime time.Time
	EndTime   time.Time
}
