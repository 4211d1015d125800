package library

import (
	"slices"
	"time"
)

// Closure is a span in which a branch, an area or some seats cannot be used.
type Closure struct {
	ID       int64
	BranchID int64
	Area     string  // empty: not limited to an area
	SeatIDs  []int64 // empty: not limited to seats
	// StartTime and EndTime are the span, [StartTime, EndTime). A zero EndTime means that the closure
	// has no end.
	StartTime time.Time
	EndTime   time.Time
	Note      Texts
}

// Closes reports whether the closure applies to a seat of its branch.
func (c Closure) Closes(s Seat) bool {
	return s.BranchID == c.BranchID && (c.Area == "" || c.Area == s.Area) &&
		(len(c.SeatIDs) == 0 || slices.Contains(c.SeatIDs, s.ID))
}

// Texts is a text for students, by language. A language is a BCP 47 tag, such as de or pt-BR.
type Texts map[string]string

// ClosureSpec is a closure that staff ask for.
type ClosureSpec struct {
	Branch string // code
	Area   string // empty: not limited to an area
	// SeatIDs are the closed seats. Empty: not limited to seats.
	SeatIDs []int64
	// StartTime is zero for a closure that starts now, EndTime for one without an end.
	StartTime, EndTime time.Time
	// RequestID makes the call safe to repeat. It may be empty.
	RequestID string
	Disruption
}

// ClosureChange is a change of a closure. Zero fields change nothing.
type ClosureChange struct {
	ID                 int64
	StartTime, EndTime time.Time
	NoEnd              bool // the closure has no end any more
	Note               Texts
	Lift               bool // the closure ends now
	// Expected is the number of reservations that the librarian has seen: see Disruption.
	Expected int
}

// ClosureState is a closure as staff see it.
type ClosureState struct {
	Closure

	Branch     string // code
	OnBookings BookingAction
	CreatedAt  time.Time
	LiftedAt   *time.Time     // nil: the closure was not lifted
	Sweep      *SweepProgress // nil: the closure has no sweep
}

// SweepProgress is how far the sweeps of a closure have come.
type SweepProgress struct {
	Done  bool
	Ended int // reservations and offers that were ended or shortened
	Left  int // reservations and offers that are still to be ended
}
