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
