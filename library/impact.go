package library

import "time"

// BookingAction says what a change of the library does with reservations that it makes impossible.
type BookingAction string

// The actions.
const (
	KeepBookings   BookingAction = "KEEP"
	CancelBookings BookingAction = "CANCEL"
)

// MaxAffected is the most reservations that an Impact lists in full.
const MaxAffected = 200

// Impact is the effect of a change of the library on users.
type Impact struct {
	// Reservations counts the reservations and offers that the change makes impossible, CheckedIn
	// those of them that are CHECKED_IN.
	Reservations int
	CheckedIn    int
	// Entries counts the waitlist entries that wait inside the change. They stay.
	Entries int
	// Days counts the reservations by the day of their start, in the time zone of the branch, in the
	// order of the days.
	Days []DayCount
	// First are the first MaxAffected reservations, in the order of their start.
	First []AffectedReservation
}

// DayCount is the number of reservations on a day.
type DayCount struct {
	Day          time.Time // midnight UTC of the date
	Reservations int
}

// AffectedReservation is a reservation with the user that it belongs to.
type AffectedReservation struct {
	Reservation

	StudentID string
	Name      string
}

// Disruption is a change of the library that makes reservations impossible, with what happens to
// them.
type Disruption struct {
	OnBookings BookingAction
	// Expected is the number of reservations that the librarian has seen. If the number is another
	// one, and OnBookings is CancelBookings, the change fails with ErrChangedSinceCheck.
	Expected int
	Note     Texts // for the users of cancelled reservations
}
