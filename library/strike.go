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

// Standing is what a user is told about strikes.
type Standing struct {
	// Strikes are those of the past year, newest first.
	Strikes []Strike `db:"-"`
	// SuspendedUntil is the end of the suspension. It is nil if the user is not suspended.
	SuspendedUntil *time.Time
	// AskAtBranch is the code of the branch of the newest strike that counts or has led to the
	// suspension. It is empty if there is none.
	AskAtBranch string
}

// StrikeSelection selects one strike, or all strikes of a branch in a span of time.
type StrikeSelection struct {
	StrikeID int64 // 0: the strikes of Branch in [StartTime, EndTime)

	Branch    string // code
	StartTime time.Time
	EndTime   time.Time
}

// Forgiveness is the effect of forgiving strikes.
type Forgiveness struct {
	Strikes     int // number of strikes that were not forgiven before
	Suspensions int // number of suspensions that end
}
