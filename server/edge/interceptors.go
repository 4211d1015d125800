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
)

func (e *Edge) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	c := callOf(ctx)
	err = e.run(ctx, c, func(ctx context.Context) (err error) {
		if IsMalformed(req) {
			return errMalformed
		}
		resp, err = handler(ctx, req)
		return err
	})
	if err != nil {
		// For the operator to find it by. An answer that is good goes without: it costs the replica, nginx and the client 2 µs each.
		_ = grpc.SetHeader(ctx, metadata.Pairs(requestIDHeader, c.requestID))
		return nil, err
	}
	return resp, nil
}

func (e *Edge) serverStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := e.begin(ss.Context(), info.FullMethod)
	c.stream = true
	_ = ss.SetHeader(metadata.Pairs(requestIDHeader, c.requestID))
	return e.run(context.WithValue(ss.Context(), callKey{}, c), c, func(ctx context.Context) error {
		ctx, s := newEdgeStream(ctx, ss, e.streams.maxSend)
		if !info.IsClientStream { // its one request follows the headers
			s.receive = func(m any) error { return e.incoming.receive(ctx, c, ss.RecvMsg, m) }
		}
		return untilEnded(ctx, func(context.Context) error { return handler(srv, s) })
	})
}

func (e *Edge) begin(ctx context.Context, method string) *call {
	return &call{
		method:    method,
		rule:      policy[method],
		start:     time.Now(),
		requestID: requestID(ctx),
		address:   clientAddress(ctx, e.trusted),
	}
}

// run takes a call through the edge to its handler and turns what comes of it into a status, outermost first: log, map errors, recover,
// gate, deadline, authenticate, limit, admit.
func (e *Edge) run(ctx context.Context, c *call, handle func(context.Context) error) error {
	e.running.Add(1)
	defer e.running.Add(-1)
	defer c.finish()
	ctx, err := e.enter(ctx, c)
	if err == nil {
		err = guard(ctx, handle)
		if c.rule.identified {
			e.users.RecordRefusal(c.caller, err, c.start)
		}
	}
	// Before finish, which cancels ctx: whether the client ended it must be seen here.
	o := conclude(ctx, err, c.rule.always)
	e.logCall(ctx, c, o)
	return o.status.Err()
}

// enter lets a call in and returns the context for its handler, or says why not. What the call holds then is given back by c.finish.
func (e *Edge) enter(ctx context.Context, c *call) (_ context.Context, err error) {
	defer recovered(&err)
	if c.notReceived != nil {
		return ctx, c.notReceived
	}
	if err := ctx.Err(); err != nil { // the client has gone before it was its turn
		return ctx, err
	}
	if err := e.gate.check(c.rule); err != nil {
		return ctx, err
	}
	if !c.stream && !c.rule.brief {
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

// authenticate finds out who calls, unless anyone may.
func (e *Edge) authenticate(ctx context.Context, c *call) error {
	if c.rule.who == public {
		return nil
	}
	token, err := bearer(ctx)
	if err != nil {
		return err
	}
	if c.caller, err = e.tokens.Verify(token); err != nil {
		return err
	}
	if c.rule.identified {
		err = e.mayBeInForce(c.caller)
	} else {
		err = e.InForce(ctx, c.caller)
	}
	if err != nil {
		return err
	}
	return c.rule.allows(c.caller)
}

// mayBeInForce is InForce without a look at Postgres, for calls that take one themselves: it refuses tokens that are known to be refused.
func (e *Edge) mayBeInForce(c identity.Caller) error {
	if err := e.revoked.Check(c); err != nil {
		return err
	}
	return e.users.Refusal(c)
}

// InForce returns nil if the caller's token was not revoked and is of the user who has its id in the present database.
func (e *Edge) InForce(ctx context.Context, c identity.Caller) error {
	if err := e.revoked.Check(c); err != nil {
		return err
	}
	return e.users.Check(ctx, c)
}

// bearer returns the token that the call was made with.
func bearer(ctx context.Context) (string, error) {
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

// enterStream counts a stream in and ties it to its token: it ends when the token expires or is revoked.
func (e *Edge) enterStream(ctx context.Context, c *call) (context.Context, error) {
	if c.rule.who == public && !c.rule.always {
		c.watcher = e.watcher(ctx)
	}
	open, err := e.streams.enter(ctx, c)
	if err != nil || c.rule.who == public {
		return open, err
	}
	// Once more, now that the stream is known: what ended the token in between found no stream to end.
	if err := e.InForce(ctx, c.caller); err != nil {
		return ctx, err
	}
	ctx, cancel := context.WithTimeoutCause(open, e.tokens.Remaining(c.caller), library.ErrTokenExpired)
	c.onFinish(cancel)
	return ctx, nil
}

// watcher returns the user of a token that came with a call that needs none, 0 if there is no good one.
func (e *Edge) watcher(ctx context.Context) int64 {
	token, err := bearer(ctx)
	if err != nil {
		return 0
	}
	who, err := e.tokens.Verify(token)
	if err != nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, rushPatience) // an outage of Postgres must not keep the stream waiting
	defer cancel()
	if e.InForce(ctx, who) != nil {
		return 0
	}
	return who.UserID
}

// DefaultDeadline bounds a unary call, from its headers on, whose client would wait for longer. It is the budget of a statement in the store, past which
// nothing can come any more: then Postgres is as good as out of reach, and the client may try again.
const DefaultDeadline = 5 * time.Second

func withDeadline(ctx context.Context, c *call) context.Context {
	latest := c.start.Add(DefaultDeadline)
	if at, ok := ctx.Deadline(); ok && !at.After(latest) {
		return ctx
	}
	ctx, cancel := context.WithDeadlineCause(ctx, latest, library.ErrUnavailable)
	c.onFinish(cancel)
	return ctx
}

// panicError is a panic of a handler, for the log.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// guard runs handle and turns a panic of it into an error, so that one bad request doesn't take the others down.
func guard(ctx context.Context, handle func(context.Context) error) (err error) {
	defer recovered(&err)
	return handle(ctx)
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = &panicError{r, debug.Stack()}
	}
}
