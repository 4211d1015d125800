package storetest

import (
	"fmt"
	"time"
)

// Clock is a clock for a database, which at the time Since of ours tells From, and from there goes Speed times as fast.
type Clock struct {
	From, Since time.Time
	Speed       int
}

// SQL makes it the clock of everyone on a database.
func (c Clock) SQL() string {
	return clockFunctions(fmt.Sprintf(`timestamptz '%s' + (clock_timestamp() - timestamptz '%s') * %d`,
		c.From.UTC().Format(time.RFC3339Nano), c.Since.UTC().Format(time.RFC3339Nano), c.Speed))
}

// At returns what it tells at a time of ours.
func (c Clock) At(ours time.Time) time.Time {
	return c.From.Add(ours.Sub(c.Since) * time.Duration(c.Speed))
}

// Real returns the time of ours at which it tells a time.
func (c Clock) Real(told time.Time) time.Time {
	return c.Since.Add(told.Sub(c.From) / time.Duration(c.Speed))
}
