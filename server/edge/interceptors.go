package edge

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/telemetry"
)

// unary is the interceptor of unary calls.
func (e *Edge) unary(
	ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (resp any, err error) {
	c := callOf(ctx)
	err = e.run(ctx, c, func(ctx context.Context) (err error) {
		if IsMalformed(req) {
			return errMalformed
		}
		resp, err = handler(ctx, req)
		return err
	})
	if err != nil {
		// Only failed calls carry the request id, for a report to the operator. In every answer,
		// this header would cost the replica, nginx and the client 2 µs each.
		_ = grpc.SetHeader(ctx, metadata.Pairs(requestIDHeader, c.requestID))
		return nil, err
	}
	return resp, nil
}

// serverStream is the interceptor of streams.
func (e *Edge) serverStream(
	srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	c := e.begin(ss.Context(), info.FullMethod)
	c.stream = true
	_ = ss.SetHeader(metadata.Pairs(requestIDHeader, c.requestID))
	return e.run(context.WithValue(ss.Context(), callKey{}, c), c, func(ctx context.Context) error {
		ctx, s := newEdgeStream(ctx, ss, e.streams.maxSend)
		if !info.IsClientStream { // the client sends one request after the headers
			s.receive = func(m any) error { return e.incoming.receive(ctx, c, ss.RecvMsg, m) }
		}
		return untilEnded(ctx, func(context.Context) error { return handler(srv, s) })
	})
}

// begin returns the state of a new call. start is the time of its headers.
func (e *Edge) begin(ctx context.Context, method string) *call {
	return &call{
		method:    method,
		rule:      policy[method],
		start:     time.Now(),
		requestID: requestID(ctx),
		address:   clientAddress(ctx, e.trusted),
	}
}

// run takes a call through the edge to its handler, and turns the result into a status. The steps,
// outermost first: log, map errors, recover, gate, deadline, authenticate, limit, admit.
func (e *Edge) run(ctx context.Context, c *call, handle func(context.Context) error) error {
	e.running.Add(1)
	defer e.running.Add(-1)
	defer c.finish()
	telemetry.SetRequestID(ctx, c.requestID)
	ctx, err := e.enter(ctx, c)
	if err == nil {
		err = guard(ctx, handle)
		if c.rule.checksUser {
			e.users.RecordRefusal(c.caller, err, c.start)
		}
	}
	// conclude must see whether the client cancelled ctx. It runs before c.finish, because c.finish
	// cancels ctx, too.
	o := conclude(ctx, err, c.rule.duringStartup)
	e.logCall(ctx, c, o)
	if o.reason != "" {
		e.refused(c.method, o.reason)
	}
	return o.status.Err()
}

// enter admits a call and returns the context for its handler, or the error that refuses the call.
// c.finish releases the resources that the call acquired.
func (e *Edge) enter(ctx context.Context, c *call) (_ context.Context, err error) {
	defer recovered(&err)
	if c.notReceived != nil {
		return ctx, c.notReceived
	}
	if err := ctx.Err(); err != nil { // the client cancelled before the call started
		return ctx, err
	}
	if err := e.gate.check(c.rule); err != nil {
		return ctx, err
	}
	if !c.stream && !c.rule.noDeadline {
		ctx = withDeadline(ctx, c)
	}
	if err := e.authenticate(ctx, c); err != nil {
		return ctx, err
	}
	if err := e.limits.check(ctx, c); err != nil {
		return ctx, err
	}
	if c.stream {
		return e.enterStream(ctx, c)
	}
	return ctx, e.admission.enter(ctx, c)
}

// authenticate sets the caller of a call, unless the method is public.
func (e *Edge) authenticate(ctx context.Context, c *call) error {
	if c.rule.access == public {
		if c.rule.knowsWatcher {
			c.watcher = e.watcher(ctx)
		}
		return nil
	}
	token, err := Bearer(ctx)
	if err != nil {
		return err
	}
	if identity.IsKey(token) && e.keys != nil {
		if c.caller, err = e.keys.Verify(ctx, token); err != nil {
			return err
		}
		return c.rule.allows(c.caller)
	}
	if c.caller, err = e.tokens.Verify(token); err != nil {
		return err
	}
	if c.rule.checksUser {
		err = e.checkKnown(c.caller)
	} else {
		err = e.InForce(ctx, c.caller)
	}
	if err != nil {
		return err
	}
	return c.rule.allows(c.caller)
}

// checkKnown checks the caller's token like InForce, but without a query to Postgres. It is for
// methods that check the user in their own transaction (rule.checksUser). It refuses revoked
// tokens, and tokens that were refused within the last minute.
func (e *Edge) checkKnown(c identity.Caller) error {
	if err := e.revoked.Check(c); err != nil {
		return err
	}
	return e.users.Refusal(c)
}

// InForce returns nil if the caller's token is not revoked, and belongs to the user that now has
// the user id of the token: see identity.Users.
func (e *Edge) InForce(ctx context.Context, c identity.Caller) error {
	if err := e.revoked.Check(c); err != nil {
		return err
	}
	return e.users.Check(ctx, c)
}

// Bearer returns the token of a call. It fails with ErrTokenMissing or ErrTokenInvalid.
func Bearer(ctx context.Context) (string, error) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(values) == 0 {
		return "", library.ErrTokenMissing
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if len(values) > 1 || !ok || !strings.EqualFold(scheme, "bearer") {
		return "", library.ErrTokenInvalid
	}
	return strings.TrimSpace(token), nil
}

// enterStream counts a stream, and ends it when its token expires or is revoked.
func (e *Edge) enterStream(ctx context.Context, c *call) (context.Context, error) {
	if c.rule.access == public && !c.rule.duringStartup {
		c.watcher = e.watcher(ctx)
	}
	open, err := e.streams.enter(ctx, c)
	if err != nil || c.rule.access == public {
		return open, err
	}
	if err := e.admission.enter(open, c); err != nil {
		return ctx, err
	}
	if c.caller.Key != nil { // its handler checks the key again and again
		return open, nil
	}
	// Check again, because the stream is registered only now. A revocation since the first check
	// did not find the stream, so it could not end it.
	if err := e.InForce(ctx, c.caller); err != nil {
		return ctx, err
	}
	ctx, cancel := context.WithTimeoutCause(open, e.tokens.Remaining(c.caller), library.ErrTokenExpired)
	c.onFinish(cancel)
	return ctx, nil
}

// watcher returns the user of the token of a call to a public method. It returns 0 if the call has
// no valid token.
func (e *Edge) watcher(ctx context.Context) int64 {
	token, err := Bearer(ctx)
	if err != nil {
		return 0
	}
	caller, err := e.tokens.Verify(token)
	if err != nil {
		return 0
	}
	// During an outage of Postgres, the stream must not wait for InForce.
	ctx, cancel := context.WithTimeout(ctx, admissionWait)
	defer cancel()
	if e.InForce(ctx, caller) != nil {
		return 0
	}
	return caller.UserID
}

// DefaultDeadline bounds a unary call from the arrival of its headers, unless the client has set an
// earlier deadline. It equals the time limit of a statement in the store. A call that exceeds it
// fails with UNAVAILABLE, and the client may retry.
const DefaultDeadline = 5 * time.Second

// BulkDeadline is the deadline of calls of class bulk. It is longer than the time that the store
// allows for an import, plus the wait for the slot. nginx waits a little longer for their answers.
const BulkDeadline = 45 * time.Second

func withDeadline(ctx context.Context, c *call) context.Context {
	latest := c.start.Add(DefaultDeadline)
	if c.rule.class == bulk {
		latest = c.start.Add(BulkDeadline)
	}
	if at, ok := ctx.Deadline(); ok && !at.After(latest) {
		return ctx
	}
	ctx, cancel := context.WithDeadlineCause(ctx, latest, library.ErrUnavailable)
	c.onFinish(cancel)
	return ctx
}

// panicError is the panic of a handler, for the log.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// guard runs handle and turns its panic into an error, so that one request cannot crash the
// replica.
func guard(ctx context.Context, handle func(context.Context) error) (err error) {
	defer recovered(&err)
	return handle(ctx)
}

// recovered stores a panic in err. Call it deferred.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = &panicError{r, debug.Stack()}
	}
}
