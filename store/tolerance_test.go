package store_test

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
)

// TestClockToleranceOfWindows simulates clients whose clocks are up to 5 s fast or slow, and whose
// calls take up to 4 s to arrive. By its own clock, a client asks for the shortest window that the
// rules allow, the longest, or the one furthest in the future. Such a call must succeed. A window
// that misses a limit by more than the tolerance must be refused.
func TestClockToleranceOfWindows(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, skew := range []time.Duration{-5 * time.Second, 0, 5 * time.Second} {
		for _, late := range []time.Duration{0, 50 * time.Millisecond, 4 * time.Second} {
			b := setup(t)
			theirs := noon.Add(skew - late) // the client's clock at the moment when it sends the call
			reserve := func(what string, seat int, start, end time.Time, want error) library.Reservation {
				t.Helper()
				r, err := b.Reserve(t.Context(), library.Booking{
					UserID: b.users[seat], SeatID: b.seats[seat], StartTime: start, EndTime: end,
				})
				if !errors.Is(err, want) {
					t.Errorf("%v off, %v late: %s: %v, want %v", skew, late, what, err, want)
				}
				return r
			}
			now := time.Time{}
			reserve("the shortest from now", 0, now, theirs.Add(15*time.Minute), nil)
			reserve("the longest from now", 1, now, theirs.Add(12*time.Hour), nil)
			reserve("the furthest", 0, theirs.Add(14*day), theirs.Add(14*day+time.Hour), nil)
			reserve("the shortest from the client's now", 2, theirs, theirs.Add(15*time.Minute), nil)
			reserve("shorter from now", 3, now, noon.Add(15*time.Minute-11*time.Second), library.ErrWindowNotAllowed)
			reserve("longer from now", 3, now, noon.Add(12*time.Hour+11*time.Second), library.ErrWindowNotAllowed)
			reserve("further", 3, noon.Add(14*day+11*time.Second), noon.Add(15*day), library.ErrWindowNotAllowed)
			reserve("a second too short", 3, theirs, theirs.Add(15*time.Minute-time.Second), library.ErrWindowNotAllowed)
			reserve("a second too long", 3, theirs, theirs.Add(12*time.Hour+time.Second), library.ErrWindowNotAllowed)
			reserve("a window that has passed", 3, now, noon.Add(-time.Second), library.Invalid())

			join := library.Booking{
				UserID: b.users[4], SeatID: b.seats[0], StartTime: theirs.Add(14 * day), EndTime: theirs.Add(14*day + time.Hour),
			}
			if _, err := b.JoinWaitlist(t.Context(), join); err != nil {
				t.Errorf("%v off, %v late: join the furthest: %v", skew, late, err)
			}
			r := reserve("to extend", 3, now, noon.Add(time.Hour), nil)
			if _, err := b.Extend(t.Context(), b.users[3], r.ID, theirs.Add(12*time.Hour)); err != nil {
				t.Errorf("%v off, %v late: extend to the longest: %v", skew, late, err)
			}
			_, err := b.Extend(t.Context(), b.users[3], r.ID, noon.Add(12*time.Hour+11*time.Second))
			if !errors.Is(err, library.ErrWindowNotAllowed) {
				t.Errorf("%v off, %v late: extend further: %v", skew, late, err)
			}
		}
	}
}

// TestWindowErrorsNameTheRules checks that the error for a window names each wrong field and states
// all limits.
func TestWindowErrorsNameTheRules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reserve(t, 0, 0, 0, 60)
	b.reserve(t, 1, 1, 0, 60)
	window := library.Booking{UserID: b.users[2], SeatID: b.seats[1], StartTime: at(20200), EndTime: at(20201)}
	_, reserve := b.Reserve(t.Context(), window)
	_, join := b.JoinWaitlist(t.Context(), window)
	_, extend := b.Extend(t.Context(), b.users[0], r.ID, at(721))
	for what, tc := range map[string]struct {
		err    error
		fields []string
	}{
		"reserve": {reserve, []string{"start_time", "end_time"}},
		"join":    {join, []string{"start_time", "end_time"}},
		"extend":  {extend, []string{"end_time"}},
	} {
		e, ok := errors.AsType[*library.Error](tc.err)
		if !ok || e.Reason != "WINDOW_NOT_ALLOWED" || e.Kind != library.KindInvalid {
			t.Errorf("%s: %v", what, tc.err)
			continue
		}
		var fields []string
		for _, f := range e.Fields {
			fields = append(fields, f.Field)
		}
		if !slices.Equal(fields, tc.fields) {
			t.Errorf("%s: faulty fields %q, want %q", what, fields, tc.fields)
		}
		want := map[string]string{
			"min_reservation": "900", "max_reservation": "43200", "max_ahead": "1209600", "now": "2026-03-02T12:00:00Z",
		}
		if !maps.Equal(e.Metadata, want) {
			t.Errorf("%s: rules %v, want %v", what, e.Metadata, want)
		}
	}
}
