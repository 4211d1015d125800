package edge

import (
	"context"
	"time"

	"github.com/dlsms/dlsms/server/identity"
)

// call is what the edge knows of one RPC while it runs.
type call struct {
	method    string // full name, "/dlsms.v1.SeatService/GetSeats"
	rule      rule
	stream    bool
	start     time.Time
	requestID string
	address   string          // of the client, without a port
	caller    identity.Caller // zero for public methods

	notReceived error // why there is no request to handle; nil: there is one
	// watcher is the user whom a public stream counts against, by the token that it came with; 0: none, or not a good one.
	watcher int64

	finishers []func()
}

// from returns what limits count the client by.
func (c *call) from() AddressKey { return addressKeyOf(c.address) }

// onFinish has f run when the call is over.
func (c *call) onFinish(f func()) { c.finishers = append(c.finishers, f) }

// finish gives back everything that the call held, the last taken first.
func (c *call) finish() {
	for i := len(c.finishers) - 1; i >= 0; i-- {
		c.finishers[i]()
	}
}

type callKey struct{}

// callOf returns what the edge knows of the call that ctx belongs to.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// Caller returns who makes the call. The policy lets no call reach a handler that needs a caller without one; on public methods it is zero,
// whatever token was sent.
func Caller(ctx context.Context) identity.Caller { return callOf(ctx).caller }

// ClientKey returns what limits count the client by that made the call.
func ClientKey(ctx context.Context) AddressKey { return callOf(ctx).from() }
