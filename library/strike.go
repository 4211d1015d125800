package library

import "time"

// Strike is a no-show that counts against its user until it expires or is forgiven.
type Strike struct {
	ID            int64
	UserID        int64
	ReservationID int64
	Branch        string // code
	At            time.Time
	ExpiresAt     time.Time
	ForgivenAt    *time.Time
	Reason        string // why it was forgiven
	// Counts says that the strike counts towards the next suspension: it has not expired, was not
	// forgiven, and has led to no suspension yet.
	Counts bool
}
