package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/dlsms/dlsms/library"
)

type nameKey struct{}

// TestBatchIsInTheTraceOfEachBooking checks a batch of three bookings, two of which are traced: each
// trace has the wait and the batch, and the second batch links to the first, whose context the
// statements get.
func TestBatchIsInTheTraceOfEachBooking(t *testing.T) {
	t.Parallel()
	var log []string
	s := &Store{startSpan: func(ctx context.Context, s Span) (context.Context, func(error)) {
		call, _ := ctx.Value(nameKey{}).(string)
		if call == "" {
			return ctx, nil
		}
		name := call + " > " + s.Name
		if s.Bookings > 0 {
			name += fmt.Sprintf(" of %d", s.Bookings)
		}
		if s.Link != nil {
			name += fmt.Sprintf(" like %v", s.Link.Value(nameKey{}))
		}
		end := func(err error) { log = append(log, fmt.Sprintf("%s: %v", name, err)) }
		return context.WithValue(ctx, nameKey{}, name), end
	}}
	q := &reserveQueue{store: s, workers: 1}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for i, call := range []string{"", "call 1", "call 2"} {
		ctx := context.WithValue(cancelled, nameKey{}, call)
		q.waiting = append(q.waiting, &pending{trace: s.startWait(ctx), Booking: library.Booking{UserID: int64(i)}})
	}
	batch := q.take()
	ctx, end := s.startBatch(batch)
	if got := ctx.Value(nameKey{}); got != "call 1 > booking batch of 3" || ctx.Err() != nil {
		t.Errorf("the statements are in %v: %v", got, ctx.Err())
	}
	end(errors.New("refused"))
	want := []string{
		"call 1 > wait for batch: <nil>",
		"call 2 > wait for batch: <nil>",
		"call 1 > booking batch of 3: refused",
		"call 2 > booking batch of 3 like call 1 > booking batch of 3: refused",
	}
	if !slices.Equal(log, want) {
		t.Errorf("the spans are %q", log)
	}
}
