package store

import "context"

// The trace of a booking has two spans of the store:
//   - "wait for batch", until a worker takes the booking from the queue
//   - "booking batch", one for each transaction that tries the booking
//
// The statements of a batch belong to all its bookings, but a span has one parent: the batch of the
// first booking whose trace is sampled. The batch in each other trace links to it.

// Span describes a span of a part of a call.
type Span struct {
	Name string
	// Bookings is the number of bookings of a batch. 0: the span is not of a batch.
	Bookings int
	// Link is the context of another span, to which this one links; nil: none.
	Link context.Context //nolint:containedctx // it stands for a span
}

// StartSpan starts a span in the trace of ctx. It returns the context of the span, and a function
// that ends it with the error of the part. If the trace is not sampled, this function is nil.
type StartSpan func(ctx context.Context, s Span) (context.Context, func(error))

// bookingTrace is the place of a booking in the trace of its call. The zero value is for a trace that
// is not sampled.
type bookingTrace struct {
	call    context.Context //nolint:containedctx // it stands for the span of the call
	endWait func(error)
}

// startWait starts the wait of a booking for its batch.
func (s *Store) startWait(ctx context.Context) bookingTrace {
	if s == nil || s.startSpan == nil {
		return bookingTrace{}
	}
	_, end := s.startSpan(ctx, Span{Name: "wait for batch"})
	if end == nil {
		return bookingTrace{}
	}
	return bookingTrace{context.WithoutCancel(ctx), end}
}

// leaveQueue ends the wait. err is not nil if the booking is not part of a batch.
func (t bookingTrace) leaveQueue(err error) {
	if t.endWait != nil {
		t.endWait(err)
	}
}

// startBatch starts the span of a batch in the trace of each booking. It returns the context for the
// statements, and a function that ends the spans.
func (s *Store) startBatch(batch []*pending) (ctx context.Context, end func(error)) {
	var spans []context.Context
	var ends []func(error)
	for _, p := range batch {
		if p.trace.call == nil {
			continue
		}
		span := Span{Name: "booking batch", Bookings: len(batch)}
		if len(spans) > 0 {
			span.Link = spans[0]
		}
		own, end := s.startSpan(p.trace.call, span)
		spans, ends = append(spans, own), append(ends, end)
	}
	ctx = context.Background()
	if len(spans) > 0 {
		ctx = spans[0]
	}
	return ctx, func(err error) {
		for _, end := range ends {
			end(err)
		}
	}
}
