package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// client is one user, who does one thing after the other and notes what came of it.
type client struct {
	*e2e.Client

	number  int
	system  *system
	history *history
	rng     *rand.Rand
	conns   []grpc.ClientConnInterface
	mine    []booking // on the seats of the plan that is checked for linearizability
	visit   visit
	serial  int
}

const (
	// patience is how long one try may take: longer than the server gives itself, but for the worst.
	tryTimeout = 3 * time.Second
	// mostTries is how often a client tries before it gives up and notes that it doesn't know. The last one goes over another connection.
	mostTries = 5
	// retryAfter is how long it waits in between.
	retryAfter = 150 * time.Millisecond
)

// attempt makes a call until it has an answer, and notes it. It reports whether the act was done.
func (c *client) attempt(ctx context.Context, o op, call func(ctx context.Context, api *e2e.Client, o *op) error) (op, bool) {
	o.Client, o.User, o.Call = c.number, c.User.GetId(), c.history.since()
	c.try(ctx, &o, call)
	o.Return = c.history.since()
	part := &c.history.parts[c.number]
	if o.Kind != read {
		part.ops = append(part.ops, o)
	}
	switch {
	case o.Unknown:
		c.history.unknown.Add(1)
	case o.Reason != "":
		c.history.refused.Add(1)
		fallthrough
	default:
		c.history.ops.Add(1)
		if o.Reason != "OVERLOADED" && (o.Kind != read || o.AsOf > o.Call-clockMargin) { // not turned away, and not told what was known earlier
			part.served.Store(int64(o.Return))
		}
	}
	if o.Unsure && !o.Unknown {
		c.history.unsure.Add(1)
	}
	return o, o.done()
}

func (c *client) try(ctx context.Context, o *op, call func(context.Context, *e2e.Client, *op) error) {
	for n := range mostTries {
		if n > 0 {
			sleep(ctx, retryAfter)
		}
		c.history.tries.Add(1)
		o.LastCall = c.history.since()
		tryCtx, end := context.WithTimeout(ctx, tryTimeout)
		err := call(tryCtx, c.WithConn(c.conns[(c.number+n)%len(c.conns)]), o)
		end()
		o.Unknown, o.Reason = false, ""
		if err == nil {
			return
		}
		refusal := e2e.RefusalOf(err)
		switch {
		case refusal.Reason == "OVERLOADED": // before anything was done
			o.Reason = refusal.Reason
		case refusal.Reason != "" && refusal.Reason != "UNAVAILABLE":
			o.Reason = refusal.Reason
			if err := e2e.CheckRefusal(err, refusal.Reason); err != nil {
				c.history.found.add(checkAnswers, "%s: %v", o.Kind, err)
			}
			return
		case lost(refusal):
			o.Unknown = true
			o.Unsure = o.Unsure || n < mostTries-1
		default:
			o.Unknown = true
			c.history.found.add(checkAnswers, "%s got an answer that the contract doesn't know: %v", o.Kind, err)
			return
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// lost reports whether an error says that the answer is not known: the system said that it isn't available, time ran out, or the connection
// broke, which gRPC calls INTERNAL when the answer had begun.
func lost(r e2e.Refusal) bool {
	switch r.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	case codes.Internal:
		return r.Reason == "" && r.Message != "internal error" // which is what a replica says of its own defects
	}
	return false
}

// every does something now and then until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

// pause waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// requestID returns one that this client has not used.
func (c *client) requestID() string {
	c.serial++
	return fmt.Sprintf("c%d-%d", c.number, c.serial)
}

// probe tries what nobody may do.
func (c *client) probe(ctx context.Context, others int64) {
	ctx, end := context.WithTimeout(ctx, tryTimeout)
	defer end()
	nobody := e2e.Anonymous(c.conns[0])
	thief := c.WithConn(c.conns[0])
	_, anonymous := nobody.Reservations.GetReservations(ctx, &dlsmsv1.GetReservationsRequest{})
	c.mustRefuse(anonymous, "TOKEN_MISSING")
	if others == 0 {
		return
	}
	_, stolen := thief.Reservations.CancelReservation(ctx, &dlsmsv1.CancelReservationRequest{ReservationId: others})
	c.mustRefuse(stolen, "RESERVATION_NOT_FOUND")
	_, seen := thief.Reservations.GetReservation(ctx, &dlsmsv1.GetReservationRequest{ReservationId: others})
	c.mustRefuse(seen, "RESERVATION_NOT_FOUND")
}

func (c *client) mustRefuse(err error, reason string) {
	switch r := e2e.RefusalOf(err); {
	case lost(r), r.Reason == reason, r.Reason == "OVERLOADED":
	default:
		c.history.found.add(checkAnswers, "want %s, got %v", reason, err)
	}
}
