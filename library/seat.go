package library

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// Seat is one seat of the catalog.
type Seat struct {
	ID           int64
	BranchID     int64
	Area         string
	Label        string
	Amenities    []int16 // numbers of the enum dlsms.v1.Amenity
	OutOfService bool
	SeatPlace
}

// SeatPlace is the place of a seat on the floor plan of its branch.
type SeatPlace struct {
	// XCm and YCm are in centimetres from the left and from the top. Both are nil, or neither.
	XCm, YCm *int32
	// Angle is the direction in degrees, clockwise, or nil.
	Angle *int32
	Desk  string // empty: none
}

// Equal reports whether both places have the same values.
func (p SeatPlace) Equal(o SeatPlace) bool {
	return p.Desk == o.Desk && sameNumber(p.XCm, o.XCm) && sameNumber(p.YCm, o.YCm) && sameNumber(p.Angle, o.Angle)
}

func sameNumber(a, b *int32) bool { return a == b || a != nil && b != nil && *a == *b }

// SeatRef names the seat of a reservation or of a waitlist entry.
type SeatRef struct {
	SeatID int64
	Branch string // code
	Area   string
	Label  string
}

// LabelSeat is a seat whose label is made.
type LabelSeat struct {
	SeatRef

	BranchName string
}

// Catalog is the set of branches, in the order of their codes, and of seats, in the order of their
// ids.
type Catalog struct {
	Branches []Branch
	Seats    []Seat
}

// TakenWindow is a window in which a reservation occupies its seat, [StartTime, EndTime).
type TakenWindow struct {
	ReservationID int64
	Version       int64
	SeatID        int64
	StartTime     time.Time
	EndTime       time.Time
}

// Validate returns an error if a text of the seat is not UTF-8.
func (s *Seat) Validate() error { return validText(s.Area, s.Label) }

// validText returns an error for text that is not UTF-8. A database with another encoding may hold
// such text.
func validText(texts ...string) error {
	for _, t := range texts {
		if !utf8.ValidString(t) {
			return fmt.Errorf("%q is not UTF-8", t)
		}
	}
	return nil
}
