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

// client is one user who makes one call at a time and records its result.
type client struct {
	*e2e.Client

	number   int
	system   *system
	history  *history
	rng      *rand.Rand
	conns    []grpc.ClientConnInterface
	http     *httpConns // nil: the client uses gRPC
	bookings []booking  // of seats of the plans branch
	visit    visit
	serial   int
}

// httpConns are the connections of the clients that use HTTP.
type httpConns struct {
	plain []grpc.ClientConnInterface
	// revalidating send If-None-Match with the ETag of the last answer to the same query.
	revalidating []grpc.ClientConnInterface
}

const (
	// tryTimeout bounds one try of a call. Without a fault, the server answers in less time.
	tryTimeout = 3 * time.Second
	// maxTries is the largest number of tries of one operation. If no try has an answer, the client
	// records that the result is unknown. Each try uses the next connection.
	maxTries = 5
	// retryAfter is the pause between two tries.
	retryAfter = 150 * time.Millisecond
)

// attempt repeats a call until it has an answer, at most maxTries times. It records the operation,
// and returns it with the result. The second value reports whether the system has done the
// operation.
func (c *client) attempt(
	ctx context.Context, o op, call func(ctx context.Context, api *e2e.Client, o *op) error,
) (op, bool) {
	return c.attemptOver(ctx, c.conns, o, call)
}

// attemptOver is attempt over other connections than those of the client.
func (c *client) attemptOver(
	ctx context.Context, conns []grpc.ClientConnInterface, o op,
	call func(ctx context.Context, api *e2e.Client, o *op) error,
) (op, bool) {
	o.Client, o.User, o.HTTP, o.Call = c.number, c.User.GetId(), c.http != nil, c.history.since()
	c.try(ctx, conns, &o, call)
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
		if o.HTTP {
			c.history.overHTTP.Add(1)
		}
		if o.NotModified {
			c.history.notModified.Add(1)
		}
		// served is the time of the last answer that shows that the system works. Three answers do
		// not show this: OVERLOADED, a read that a replica answers from memory, and a 304, which has
		// no as_of and may be from memory.
		if o.Reason != "OVERLOADED" && (o.Kind != read || o.AsOf > o.Call-clockMargin) {
			part.served.Store(int64(o.Return))
		}
	}
	if o.Unsure && !o.Unknown {
		c.history.unsure.Add(1)
	}
	return o, o.done()
}

func (c *client) try(
	ctx context.Context, conns []grpc.ClientConnInterface, o *op, call func(context.Context, *e2e.Client, *op) error,
) {
	for n := range maxTries {
		if n > 0 {
			sleep(ctx, retryAfter)
		}
		c.history.tries.Add(1)
		o.LastCall = c.history.since()
		tryCtx, end := context.WithTimeout(ctx, tryTimeout)
		err := call(tryCtx, c.WithConn(conns[(c.number+n)%len(conns)]), o)
		end()
		o.Unknown, o.Reason = false, ""
		if err == nil {
			return
		}
		refusal := e2e.RefusalOf(err)
		switch {
		case refusal.Reason == "OVERLOADED": // nothing was done
			o.Reason = refusal.Reason
		case refusal.Reason != "" && refusal.Reason != "UNAVAILABLE":
			o.Reason = refusal.Reason
			if err := e2e.CheckRefusal(err, refusal.Reason); err != nil {
				c.history.found.add(checkAnswers, "%s: %v", o.Kind, err)
			}
			return
		case noAnswer(refusal):
			o.Unknown = true
			o.Unsure = o.Unsure || n < maxTries-1
		default:
			o.Unknown = true
			c.history.found.add(checkAnswers, "%s had an answer that is not in the contract: %v", o.Kind, err)
			return
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// noAnswer reports whether the result of a call is unknown: the system was unavailable, the call
// timed out, or the connection broke. If the connection breaks after the answer has begun, gRPC
// reports INTERNAL.
func noAnswer(r e2e.Refusal) bool {
	switch r.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	case codes.Internal:
		return r.Reason == "" && r.Message != "internal error" // the text of a replica's own errors
	}
	return false
}

// every calls the function do once in each interval d, until ctx ends.
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

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// requestID returns a new request id.
func (c *client) requestID() string {
	c.serial++
	return fmt.Sprintf("c%d-%d", c.number, c.serial)
}

// probe makes calls that must be refused: without a token, and about the reservation of another
// user.
func (c *client) probe(ctx context.Context, reservation int64) {
	ctx, end := context.WithTimeout(ctx, tryTimeout)
	defer end()
	anonymous := e2e.Anonymous(c.conns[0])
	other := c.WithConn(c.conns[0])
	_, anonymousErr := anonymous.Reservations.GetReservations(ctx, &dlsmsv1.GetReservationsRequest{})
	c.mustRefuse(anonymousErr, "TOKEN_MISSING")
	if reservation == 0 {
		return
	}
	cancelReq := &dlsmsv1.CancelReservationRequest{ReservationId: reservation}
	_, cancelErr := other.Reservations.CancelReservation(ctx, cancelReq)
	c.mustRefuse(cancelErr, "RESERVATION_NOT_FOUND")
	_, getErr := other.Reservations.GetReservation(ctx, &dlsmsv1.GetReservationRequest{ReservationId: reservation})
	c.mustRefuse(getErr, "RESERVATION_NOT_FOUND")
}

func (c *client) mustRefuse(err error, reason string) {
	switch r := e2e.RefusalOf(err); {
	case noAnswer(r), r.Reason == reason, r.Reason == "OVERLOADED":
	default:
		c.history.found.add(checkAnswers, "a forbidden call: want %s, got %v", reason, err)
	}
}
