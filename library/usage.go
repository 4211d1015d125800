package library

import "time"

// UsageBy is how a report groups its figures.
type UsageBy string

// The groupings of a report.
const (
	UsageByHour        UsageBy = "HOUR"
	UsageByDay         UsageBy = "DAY"
	UsageByWeekdayHour UsageBy = "WEEKDAY_HOUR"
	UsageByArea        UsageBy = "AREA"
	UsageByGroup       UsageBy = "GROUP"
)

// UsageQuery selects the figures of a report.
type UsageQuery struct {
	// FirstDay and LastDay are dates, at midnight in UTC. They are days in the time zone of each
	// branch, and the report has both.
	FirstDay time.Time
	LastDay  time.Time
	Branch   string // code; empty: all branches in the scope of the actor
	Area     string // empty: all areas
	By       UsageBy
}

// UsageKey names a row of a report. UsageQuery.By says which fields are set.
type UsageKey struct {
	// StartTime is the beginning of an hour.
	StartTime time.Time
	// Day is a date in the time zone of the branch, at midnight in UTC.
	Day time.Time
	// Weekday is 1 for Monday to 7 for Sunday. Hour is 0 to 23. Both are in the time zone of the branch.
	Weekday int
	Hour    int
	Branch  string // code
	Area    string
	Group   string // of users; empty: users without a group
}

// UsageFigures are the figures of one row of a report. A figure counts in the hour in which it
// happened.
type UsageFigures struct {
	// OpenSeconds is the time for which seats were open, summed over the seats. It is 0 in a report
	// by group.
	OpenSeconds int64
	// ReservedSeconds is the time for which seats were reserved, and UsedSeconds the part of it after
	// the check-in. Both end when the reservation ends.
	ReservedSeconds int64
	UsedSeconds     int64
	// Reservations counts the reservations that were made, also those from a claimed offer.
	Reservations int64
	// CheckIns counts all check-ins, the fields after it those with a proof of presence.
	CheckIns        int64
	CheckInsSeat    int64
	CheckInsScreen  int64
	CheckInsBoth    int64 // SEAT_AND_SCREEN
	CheckInsDesk    int64
	CheckInsArrival int64
	NoShows         int64
	// Cancelled counts reservations that their users cancelled, CancelledByLibrary those that staff or
	// a closure ended before the check-in.
	Cancelled          int64
	CancelledByLibrary int64
	// RefusedTaken counts bookings that were refused because the seat was taken.
	RefusedTaken int64
	// Joins, Offers and Claims count what happened on the waitlist.
	Joins  int64
	Offers int64
	Claims int64
	// MedianWait is the median of the times from joining the waitlist to the offer, in whole minutes.
	// It is nil without offers.
	MedianWait *time.Duration
}

// UsageRow is one row of a report.
type UsageRow struct {
	UsageKey
	UsageFigures
}

// Usage is a report.
type Usage struct {
	// Rows are in the order of their keys. Rows in which all figures are 0 are left out.
	Rows []UsageRow
	// CountedUntil is the time up to which the figures are complete. It is the time of the call,
	// unless the worker is far behind.
	CountedUntil time.Time
}

// ExportQuery selects reservations for an export, by the day of their start.
type ExportQuery struct {
	// FirstDay and LastDay are as in UsageQuery.
	FirstDay time.Time
	LastDay  time.Time
	Branch   string // code; empty: all branches in the scope of the actor
}

// ExportedReservation is a reservation in an export.
type ExportedReservation struct {
	UserID      int64 // 0: the retention has removed the user
	Group       string
	Branch      string // code
	Timezone    string // of the branch
	Area        string
	Label       string
	StartTime   time.Time
	EndTime     time.Time
	Status      ReservationStatus
	CreatedAt   time.Time
	CheckedInAt *time.Time
	Proof       Proof // empty without a check-in, and for one from before there were proofs
	EndedAt     *time.Time
}
