package library

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The limits of the values of a seat.
const (
	MaxSeatName = 100       // characters of an area and of a label
	MaxDesk     = 50        // characters
	MaxPlace    = 1_000_000 // centimetres
	MaxAngle    = 359       // degrees
)

// SeatSpec is a seat as staff describe it.
type SeatSpec struct {
	Area  string
	Label string
	// Amenities are numbers of the enum dlsms.v1.Amenity.
	Amenities []int16
	// XCm and YCm are the place on the floor plan. Both are nil, or neither.
	XCm, YCm *int
	// Angle is the direction in degrees, or nil.
	Angle        *int
	Desk         string // empty: none
	OutOfService bool
}

// SeatField is a value of a seat that staff may change. It is also the name of a column of a seat
// file.
type SeatField string

// The fields of a seat, in the order of the columns of a seat file.
const (
	SeatArea         SeatField = "area"
	SeatAmenities    SeatField = "amenities"
	SeatX            SeatField = "x_cm"
	SeatY            SeatField = "y_cm"
	SeatAngle        SeatField = "angle"
	SeatDesk         SeatField = "desk"
	SeatOutOfService SeatField = "out_of_service"
	// SeatRetired is no column of a file. It changes if a retired seat returns.
	SeatRetired SeatField = "retired"
)

// SeatFields returns all fields of SeatSpec except the label.
func SeatFields() []SeatField {
	return []SeatField{SeatArea, SeatAmenities, SeatX, SeatY, SeatAngle, SeatDesk, SeatOutOfService}
}

// SeatRow is one row of a seat file: a seat and its branch.
type SeatRow struct {
	Line   int    // of the file, from 1 on
	Branch string // code
	SeatSpec
}

// SeatFile is the content of a seat file.
type SeatFile struct {
	// Fields are the columns of the file, besides branch and label. An import changes no other field
	// of a seat.
	Fields []SeatField
	Rows   []SeatRow
}

// FileFault returns the violation for a cell of a seat file. column may be empty.
func FileFault(line int, column, message string) FieldViolation {
	at := "line " + strconv.Itoa(line)
	if column != "" {
		at += ", column " + column
	}
	return FieldViolation{Field: at, Message: message}
}

// FileLine returns the line in the field of a violation that FileFault has made, and 0 for any other
// field.
func FileLine(field string) int {
	text, ok := strings.CutPrefix(field, "line ")
	if !ok {
		return 0
	}
	text, _, _ = strings.Cut(text, ",")
	line, _ := strconv.Atoi(text)
	return line
}

// SeatAction says what a call or an import does with a seat.
type SeatAction string

// The actions.
const (
	CreateSeat SeatAction = "CREATE"
	UpdateSeat SeatAction = "UPDATE"
	SameSeat   SeatAction = "SAME"
	RetireSeat SeatAction = "RETIRE"
)

// SeatChange is what a call or an import does with one seat.
type SeatChange struct {
	Branch string // code
	Label  string
	SeatID int64 // 0: not created yet
	Action SeatAction
	Fields []FieldChange // only for UpdateSeat
	Line   int           // of a seat file; 0: the file has no such line
}

// FieldChange is the change of one field, as text.
type FieldChange struct {
	Field    SeatField
	From, To string
}

// amenityNames has the names of the enum dlsms.v1.Amenity by number, in lower case and without
// prefix. A test compares them with the enum.
var amenityNames = []string{1: "power_outlet", "monitor", "wheelchair_accessible", "standing_desk", "window"}

// AmenityName returns the name of an amenity in seat files. It returns the number if the amenity has
// no name.
func AmenityName(number int16) string {
	if number >= 1 && int(number) < len(amenityNames) {
		return amenityNames[number]
	}
	return strconv.Itoa(int(number))
}

// AmenityNames returns the names of all amenities.
func AmenityNames() []string { return amenityNames[1:] }

// AmenityNumber returns the number of the amenity with a name, or 0.
func AmenityNumber(name string) int16 {
	if name == "" {
		return 0
	}
	return int16(max(0, slices.Index(amenityNames, name))) //nolint:gosec // below len(amenityNames)
}

// SortedAmenities returns the distinct amenities in ascending order, and never nil.
func SortedAmenities(amenities []int16) []int16 {
	return slices.Compact(append(make([]int16, 0, len(amenities)), slices.Sorted(slices.Values(amenities))...))
}

// Text returns the value of a field as seat files have it.
func (s *SeatSpec) Text(f SeatField) string {
	number := func(n *int) string {
		if n == nil {
			return ""
		}
		return strconv.Itoa(*n)
	}
	switch f {
	case SeatArea:
		return s.Area
	case SeatAmenities:
		var names []string
		for _, a := range SortedAmenities(s.Amenities) {
			names = append(names, AmenityName(a))
		}
		return strings.Join(names, "|")
	case SeatX:
		return number(s.XCm)
	case SeatY:
		return number(s.YCm)
	case SeatAngle:
		return number(s.Angle)
	case SeatDesk:
		return s.Desk
	case SeatOutOfService:
		return strconv.FormatBool(s.OutOfService)
	case SeatRetired:
	}
	return ""
}

// Copy sets the value of a field to that of another seat.
func (s *SeatSpec) Copy(f SeatField, from *SeatSpec) {
	switch f {
	case SeatArea:
		s.Area = from.Area
	case SeatAmenities:
		s.Amenities = from.Amenities
	case SeatX:
		s.XCm = from.XCm
	case SeatY:
		s.YCm = from.YCm
	case SeatAngle:
		s.Angle = from.Angle
	case SeatDesk:
		s.Desk = from.Desk
	case SeatOutOfService:
		s.OutOfService = from.OutOfService
	case SeatRetired:
	}
}

// Faults calls report for each field of the seat that is not valid. The name of the label is label.
func (s *SeatSpec) Faults(report func(field, message string)) {
	check := func(field, message string) {
		if message != "" {
			report(field, message)
		}
	}
	check("label", PlainFault(s.Label, MaxSeatName))
	check(string(SeatArea), PlainFault(s.Area, MaxSeatName))
	if s.Desk != "" {
		check(string(SeatDesk), PlainFault(s.Desk, MaxDesk))
	}
	for _, n := range []struct {
		field SeatField
		value *int
		most  int
	}{{SeatX, s.XCm, MaxPlace}, {SeatY, s.YCm, MaxPlace}, {SeatAngle, s.Angle, MaxAngle}} {
		if n.value != nil && (*n.value < 0 || *n.value > n.most) {
			report(string(n.field), fmt.Sprintf("must be 0 to %d", n.most))
		}
	}
	if (s.XCm == nil) != (s.YCm == nil) {
		missing := SeatX
		if s.YCm == nil {
			missing = SeatY
		}
		report(string(missing), "is missing: set both x_cm and y_cm, or neither")
	}
}

// SeatPlan is the effect of a change on seats.
type SeatPlan struct {
	Changes []SeatChange
	Impact  Impact
	// Fingerprint identifies the file, the changes and the number of affected reservations. It is
	// set for imports only.
	Fingerprint string
}

// Count returns the number of changes with an action.
func (p *SeatPlan) Count(a SeatAction) int {
	n := 0
	for _, c := range p.Changes {
		if c.Action == a {
			n++
		}
	}
	return n
}

// SeatImport is an import of a seat file.
type SeatImport struct {
	File SeatFile
	// Faults are those that were found before. The import fails with them, and with those of its own
	// checks of the rows of File.
	Faults []FieldViolation
	// Hash is the SHA-256 hash of the bytes of the file.
	Hash [32]byte
	// RetireMissing retires the seats that the file lacks, in the branches that it names.
	RetireMissing bool
	// Fingerprint is that of the dry run. A dry run has none.
	Fingerprint string
	// OnBookings and Note are for the reservations of seats that go out of service. Those of retired
	// seats are always cancelled.
	OnBookings BookingAction
	Note       Texts
}

// BranchSettings is a branch as its librarian sees it.
type BranchSettings struct {
	Branch

	Areas             []Area
	SeatCount         int // seats that are not retired
	OutOfServiceCount int
}

// Area is an area of a branch.
type Area struct {
	Name      string
	Floor     string // empty: not known
	SeatCount int    // seats that are not retired
}
