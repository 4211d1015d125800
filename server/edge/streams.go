package edge

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/identity"
)

// StreamLimits bound the streams that are open at once on this replica. Past one: ErrOverloaded.
type StreamLimits struct {
	Total      int // all streams
	PerAddress int // of one client address, on public methods; a campus may share one address
	PerUser    int // of one user, on the others; and as many on public methods, which don't count against the address then
}

func (l StreamLimits) orDefault() StreamLimits {
	return StreamLimits{
		Total:      cmp.Or(l.Total, DefaultStreamLimits.Total),
		PerAddress: cmp.Or(l.PerAddress, DefaultStreamLimits.PerAddress),
		PerUser:    cmp.Or(l.PerUser, DefaultStreamLimits.PerUser),
	}
}

// DefaultStreamLimits are above what a campus behind one address needs, and below what would hurt a replica: a stream costs it some 20 KB.
var DefaultStreamLimits = StreamLimits{Total: 10_000, PerAddress: 1_000, PerUser: 8}

// Streams knows every open stream: it bounds them, and ends them when a token or the server does.
type Streams struct {
	limits  StreamLimits
	maxSend time.Duration

	mu        sync.Mutex
	open      map[*openStream]struct{}
	byUser    map[userStreams]int
	byAddress map[AddressKey]int
	ended     error // once set, no stream opens any more
}

// userStreams are the streams of a user on public methods, or those on the others.
type userStreams struct {
	user   int64
	public bool
}

type openStream struct {
	call *call
	end  context.CancelCauseFunc
	user userStreams // zero: it counts against its address
	from AddressKey
}

func NewStreams(limits StreamLimits) *Streams {
	return &Streams{limits: limits.orDefault(), maxSend: maxSend, open: map[*openStream]struct{}{}, byUser: map[userStreams]int{}, byAddress: map[AddressKey]int{}}
}

// enter counts a stream in until its call is finished and returns the context that it runs on: it ends, with the reason as its cause,
// when the server or its token does.
func (s *Streams) enter(ctx context.Context, c *call) (context.Context, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.place(c)
	if err != nil {
		return ctx, err
	}
	ctx, o.end = context.WithCancelCause(ctx)
	c.onFinish(func() { s.leave(o) })
	s.open[o] = struct{}{}
	if o.user != (userStreams{}) {
		s.byUser[o.user]++
	} else {
		s.byAddress[o.from]++
	}
	return ctx, nil
}

// place returns what a stream counts against, unless there is no room. A public stream whose user has too many counts against its address, so
// that a token never makes it worse.
func (s *Streams) place(c *call) (*openStream, error) {
	o := &openStream{call: c}
	if s.ended != nil {
		return nil, s.ended
	}
	if len(s.open) >= s.limits.Total {
		return nil, errTooManyStreams
	}
	public := c.rule.who == public
	user := userStreams{c.caller.UserID, public}
	if public {
		user.user = c.watcher
	}
	if user.user != 0 && s.byUser[user] < s.limits.PerUser {
		o.user = user
		return o, nil
	}
	o.from = c.from()
	if !public || s.byAddress[o.from] >= s.limits.PerAddress {
		return nil, errTooManyStreams
	}
	return o, nil
}

// errTooManyStreams asks for some patience: a place gets free when a stream ends, not when a moment has passed.
var errTooManyStreams = library.ErrOverloaded.WithRetryAfter(5 * time.Second)

func (s *Streams) leave(o *openStream) {
	o.end(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, o)
	if o.user != (userStreams{}) {
		drop(s.byUser, o.user)
	} else {
		drop(s.byAddress, o.from)
	}
}

// drop counts down and forgets a key at 0, so that the map holds no more than there are streams.
func drop[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

// End ends the streams of callers for whom cause returns an error, with that error.
func (s *Streams) End(cause func(identity.Caller) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for o := range s.open {
		if o.call.rule.who == public {
			continue
		}
		if err := cause(o.call.caller); err != nil {
			o.end(err)
		}
	}
}

// Callers returns the callers of the open streams that need one, by user.
func (s *Streams) Callers() map[int64][]identity.Caller {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[int64][]identity.Caller{}
	for o := range s.open {
		if o.call.rule.who != public {
			out[o.call.caller.UserID] = append(out[o.call.caller.UserID], o.call.caller)
		}
	}
	return out
}

// EndAll ends all streams with err, and those that would open from now on.
func (s *Streams) EndAll(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = err
	for o := range s.open {
		o.end(err)
	}
}

// count returns how many streams are open, and how many users and addresses they count against.
func (s *Streams) count() (open, keys int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open), len(s.byUser) + len(s.byAddress)
}

// maxSend is how long a message may wait for a client that doesn't read. It is above the minute after which nginx gives up on such a client.
const maxSend = 75 * time.Second

// errNotReading ends the stream of a client that has not read for maxSend.
var errNotReading = library.ErrUnavailable.WithCause(errors.New("the client does not read"))

// edgeStream is the stream that a handler sees: its context is the edge's, malformed messages are told from good ones, and a send that
// hangs ends the stream.
type edgeStream struct {
	grpc.ServerStream
	ctx     context.Context
	receive func(any) error
	maxSend time.Duration
	hung    *time.Timer
}

func (s *edgeStream) Context() context.Context { return s.ctx }

func (s *edgeStream) RecvMsg(m any) error {
	if err := s.receive(m); err != nil {
		return err
	}
	if IsMalformed(m) {
		return errMalformed
	}
	return nil
}

func (s *edgeStream) SendMsg(m any) error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	s.hung.Reset(s.maxSend)
	defer s.hung.Stop()
	return notSent(s.ServerStream.SendMsg(m))
}

func (s *edgeStream) SendHeader(md metadata.MD) error { return notSent(s.ServerStream.SendHeader(md)) }

func newEdgeStream(ctx context.Context, ss grpc.ServerStream, maxSend time.Duration) (context.Context, *edgeStream) {
	ctx, end := context.WithCancelCause(ctx)
	hung := time.AfterFunc(maxSend, func() { end(errNotReading) })
	hung.Stop()
	receive := func(m any) error {
		err := ss.RecvMsg(m)
		if err == nil || errors.Is(err, io.EOF) { // the end of the requests of a reflection stream
			return err
		}
		return notReceived(err)
	}
	return ctx, &edgeStream{ServerStream: ss, ctx: ctx, receive: receive, maxSend: maxSend, hung: hung}
}

// HandlerGrace is how long a handler has to return by itself after its stream has ended; it needs longer only if it hangs in a send.
const HandlerGrace = time.Second

// untilEnded runs handle and returns what it returns, unless the server ended ctx: then why, at most HandlerGrace later. A send to a client that
// doesn't read can't be cancelled, but it fails once the stream is over, and the stream is over when this returns.
func untilEnded(ctx context.Context, handle func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- guard(ctx, handle) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		patience := time.NewTimer(HandlerGrace)
		defer patience.Stop()
		select {
		case err = <-done:
		case <-patience.C:
			err = ctx.Err()
		}
	}
	if ended, ok := errors.AsType[*library.Error](context.Cause(ctx)); ok {
		return ended
	}
	return err
}
