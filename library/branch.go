package library

import (
	"fmt"
	"time"
)

// Branch is one building of the library.
type Branch struct {
	ID       int64
	Code     string
	Name     string
	Timezone string // IANA name, see LoadZone
	// Hours are the opening hours of the week. A branch without hours is always open, except on Days.
	Hours []OpenHours `db:"-"`
	// Days are the dates with their own opening hours, sorted. They replace Hours on these dates.
	Days []DayHours `db:"-"`
	// Closures have not ended and were not lifted. They are sorted by start.
	Closures []Closure `db:"-"`
	// Announcement is a text for students. It ends at AnnouncedUntil, if that is not zero.
	Announcement   Texts     `db:"-"`
	AnnouncedUntil time.Time `db:"-"`
	// Floors are the floors of the areas that have one, by the name of the area.
	Floors map[string]string `db:"-"`
}

// DayHours is the opening hours of one date of a branch.
type DayHours struct {
	// Day is the date, as the number of days since 1 January 1970.
	Day int
	// Open are the spans in which the branch is open, sorted. Their Weekday is not used. If there is
	// none, the branch is closed.
	Open []OpenHours
}

// OpenHours is one weekly opening of a branch, in the branch's time zone. If Closes is at or before
// Opens, the branch closes on the next day.
type OpenHours struct {
	Weekday time.Weekday
	Opens   time.Duration // after midnight
	Closes  time.Duration // after midnight, at most 24 h
}

// Validate returns an error if a text of the branch is not UTF-8 or its time zone is unknown.
func (b *Branch) Validate() error {
	if _, err := LoadZone(b.Timezone); err != nil {
		return fmt.Errorf("the branch counts as closed, if it has opening hours: %w", err)
	}
	return validText(b.Name, b.Timezone)
}

// LoadZone returns the time zone of a branch. It refuses the empty name and "Local", which
// time.LoadLocation accepts and Postgres does not.
func LoadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("unknown time zone %q", name)
	}
	return time.LoadLocation(name)
}
