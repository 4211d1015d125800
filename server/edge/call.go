package edge

import (
	"context"
	"time"

	"github.com/dlsms/dlsms/server/identity"
)

// call is the state of one RPC in the edge.
type call struct {
	method    string // full name, "/dlsms.v1.SeatService/GetSeats"
	rule      rule
	stream    bool
	start     time.Time
	requestID string
	address   string          // of the client, without a port
	caller    identity.Caller // zero for public methods

	notReceived error // the reason why the request did not arrive; nil: it arrived
	// watcher is the user of the token of a call of a public method. A stream counts against this user.
	// 0: the call has no valid token, and its stream counts against the address.
	watcher int64

	finishers []func()
}

// from returns the key by which limits count the client.
func (c *call) from() AddressKey { return addressKeyOf(c.address) }

// hasToken reports whether the call was admitted because of the token of a user.
func (c *call) hasToken() bool { return c.rule.access != public && c.caller.Key == nil }

// onFinish makes finish call f.
func (c *call) onFinish(f func()) { c.finishers = append(c.finishers, f) }

// finish releases the resources of the call in reverse order.
func (c *call) finish() {
	for i := len(c.finishers) - 1; i >= 0; i-- {
		c.finishers[i]()
	}
}

type callKey struct{}

// callOf returns the call of a context.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// Caller returns the authenticated caller of a call. It is set in every handler of a method that is
// not public. On public methods it is zero, even if the client sent a token.
func Caller(ctx context.Context) identity.Caller { return callOf(ctx).caller }

// Watcher returns the id of the user who calls a public method whose rule has knowsWatcher. It is 0
// if the client sent no valid token.
func Watcher(ctx context.Context) int64 { return callOf(ctx).watcher }

// CallID returns the request id of a call, which the log and errors have.
func CallID(ctx context.Context) string { return callOf(ctx).requestID }

type httpKey struct{}

// WithHTTP returns the context of a call that came over HTTP.
func WithHTTP(ctx context.Context) context.Context { return context.WithValue(ctx, httpKey{}, true) }

// IsHTTP reports whether a call came over HTTP. Its client then expects JSON.
func IsHTTP(ctx context.Context) bool { return ctx.Value(httpKey{}) != nil }

// ClientKey returns the key by which limits count the client of a call.
func ClientKey(ctx context.Context) AddressKey { return callOf(ctx).from() }
