package availability

import (
	"maps"
	"slices"

	"github.com/dlsms/dlsms/library"
)

// closed holds the closures of a branch. It is indexed, because a branch may have thousands of
// seats, and a closure may list thousands of them.
type closed struct {
	branch []window            // closures of the whole branch
	areas  map[string][]window // by area
	seats  map[int64][]window  // by seat id
}

// newClosed returns the closures of a branch, or nil if there are none.
func newClosed(closures []library.Closure) *closed {
	if len(closures) == 0 {
		return nil
	}
	c := &closed{areas: map[string][]window{}, seats: map[int64][]window{}}
	for _, o := range closures {
		w := closureWindow(o)
		switch {
		case o.Area != "":
			c.areas[o.Area] = append(c.areas[o.Area], w)
		case len(o.SeatIDs) > 0:
			for _, id := range o.SeatIDs {
				c.seats[id] = append(c.seats[id], w)
			}
		default:
			c.branch = append(c.branch, w)
		}
	}
	c.branch = merge(c.branch)
	return c
}

// closureWindow returns the window of a closure.
func closureWindow(c library.Closure) window {
	w := window{c.StartTime.UnixMicro(), never}
	if !c.EndTime.IsZero() {
		w.end = c.EndTime.UnixMicro()
	}
	return w
}

// of returns the closures of a seat, disjoint and in order. Seats that only the closures of the
// branch close share one slice.
func (c *closed) of(s library.Seat) []window {
	if c == nil {
		return nil
	}
	area, own := c.areas[s.Area], c.seats[s.ID]
	if len(area) == 0 && len(own) == 0 {
		return c.branch
	}
	return merge(slices.Concat(c.branch, area, own))
}

// sameClosures reports whether both lists have the same closures with the same notes.
func sameClosures(a, b []library.Closure) bool {
	return slices.EqualFunc(a, b, func(a, b library.Closure) bool {
		return sameSpan(a, b) && maps.Equal(a.Note, b.Note)
	})
}

// sameSpans reports whether both lists close the same seats at the same times.
func sameSpans(a, b []library.Closure) bool { return slices.EqualFunc(a, b, sameSpan) }

func sameSpan(a, b library.Closure) bool {
	return a.ID == b.ID && a.Area == b.Area && slices.Equal(a.SeatIDs, b.SeatIDs) &&
		a.StartTime.Equal(b.StartTime) && a.EndTime.Equal(b.EndTime)
}
