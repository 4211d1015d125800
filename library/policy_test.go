package library

import (
	"errors"
	"testing"
	"time"
)

// TestWindowThatEndsInThePast checks that the error names the time that is wrong. The length of such
// a window is wrong, too, but it is not what the user has to change.
func TestWindowThatEndsInThePast(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	err := DefaultPolicy().CheckWindow(now, time.Time{}, now.Add(-time.Hour), LocalTimes{})
	e, ok := errors.AsType[*Error](err)
	if !ok || len(e.Fields) != 1 || e.Fields[0] != (FieldViolation{"end_time", "it is in the past"}) {
		t.Errorf("got %+v", e)
	}
}
