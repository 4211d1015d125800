package library

import "time"

// Person is a user as the desk sees them.
type Person struct {
	ID        int64
	StudentID string
	Name      string
	Email     string
	Card      string // number of the library card; empty: none
	UserGroup string // selects the policies of the user; empty: none
	Role      Role
	// SuspendedUntil is the end of the suspension. It is nil if the user is not suspended.
	SuspendedUntil *time.Time
}
