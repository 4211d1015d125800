package storetest

import (
	"fmt"
	"time"
)

// Clock is a clock for a database. It shows the time From when the clock of the test machine shows
// Since. After that, it runs Speed times as fast as the clock of the test machine.
type Clock struct {
	From, Since time.Time
	Speed       int
}

// SQL returns the statements that make c the clock of all sessions of a database.
func (c Clock) SQL() string {
	return clockFunctions(fmt.Sprintf(`timestamptz '%s' + (clock_timestamp() - timestamptz '%s') * %d`,
		c.From.UTC().Format(time.RFC3339Nano), c.Since.UTC().Format(time.RFC3339Nano), c.Speed))
}

// At returns the time that c shows when the clock of the test machine shows wall.
func (c Clock) At(wall time.Time) time.Time {
	return c.From.Add(wall.Sub(c.Since) * time.Duration(c.Speed))
}

// Real returns the time of the test machine at which c shows the time shown.
func (c Clock) Real(shown time.Time) time.Time {
	return c.Since.Add(shown.Sub(c.From) / time.Duration(c.Speed))
}
