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

// StreamLimits bound the open streams of one replica. A stream that would exceed a limit is refused
// with ErrOverloaded.
type StreamLimits struct {
	Total int
	// PerAddress bounds the streams of one client address on public methods. A campus may share an
	// address.
	PerAddress int
	// PerUser bounds two numbers of each user: the streams on methods that need a token, and the
	// streams on public methods. A stream on a public method counts against its user if the client
	// sent a valid token, and otherwise against its address. For a user that has reached PerUser,
	// see place. PerUser also bounds the streams of each service key.
	PerUser int
}

func (l StreamLimits) orDefault() StreamLimits {
	return StreamLimits{
		Total:      cmp.Or(l.Total, DefaultStreamLimits.Total),
		PerAddress: cmp.Or(l.PerAddress, DefaultStreamLimits.PerAddress),
		PerUser:    cmp.Or(l.PerUser, DefaultStreamLimits.PerUser),
	}
}

// DefaultStreamLimits are above the need of a campus behind one address, and below the load that
// would harm a replica: a stream costs a replica about 20 KB.
var DefaultStreamLimits = StreamLimits{Total: 10_000, PerAddress: 1_000, PerUser: 8}

// Streams holds every open stream. It bounds the number of streams, and ends a stream when its
// token ends or the server stops.
type Streams struct {
	limits  StreamLimits
	maxSend time.Duration

	mu        sync.Mutex
	open      map[*openStream]struct{}
	byUser    map[userStreams]int
	byAddress map[AddressKey]int
	ended     error // the error that refuses new streams, after EndAll
}

// userStreams is the key of a count of streams. Each user has two counts: one for streams on public
// methods, and one for streams on other methods. Each service key has one.
type userStreams struct {
	user   int64
	key    int64 // id of the service key; user is 0
	public bool
}

type openStream struct {
	call *call
	end  context.CancelCauseFunc
	user userStreams // zero: the stream counts against its address
	from AddressKey
}

// NewStreams returns Streams with limits. A limit of 0 stands for its default in
// DefaultStreamLimits.
func NewStreams(limits StreamLimits) *Streams {
	return &Streams{
		limits: limits.orDefault(), maxSend: maxSend,
		open: map[*openStream]struct{}{}, byUser: map[userStreams]int{}, byAddress: map[AddressKey]int{},
	}
}

// enter counts a stream until its call finishes, and returns the context of the stream. The context
// ends when the token ends or the server stops. The cause of the context is the reason.
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

// place decides which limit the stream of a call counts against:
//  1. The limit of its user, if the call has a valid token and the user has not reached PerUser.
//  2. Otherwise, and only on a public method, the limit of its address.
//
// Step 2 also applies to a user that has reached PerUser. Otherwise, a client that sends a token
// could open fewer streams on public methods than a client without a token.
//
// place returns errTooManyStreams if neither limit has room for the stream, or if the replica has
// StreamLimits.Total streams. After EndAll, it returns the error of EndAll.
func (s *Streams) place(c *call) (*openStream, error) {
	o := &openStream{call: c}
	if s.ended != nil {
		return nil, s.ended
	}
	if len(s.open) >= s.limits.Total {
		return nil, errTooManyStreams
	}
	public := c.rule.access == public
	user := userStreams{user: c.caller.UserID, public: public}
	switch {
	case public:
		user.user = c.watcher
	case c.caller.Key != nil:
		user.key = c.caller.Key.ID
	}
	if (user.user != 0 || user.key != 0) && s.byUser[user] < s.limits.PerUser {
		o.user = user
		return o, nil
	}
	o.from = c.from()
	if !public || s.byAddress[o.from] >= s.limits.PerAddress {
		return nil, errTooManyStreams
	}
	return o, nil
}

// errTooManyStreams has a longer retry delay than other overloads, because a new stream can open
// only when another stream ends.
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

// drop decrements the count of a key and deletes the key at 0, so that the map does not grow.
func drop[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

// End ends streams whose token has ended. It calls cause for the caller of each stream. If cause
// returns an error, End ends the stream with this error. It skips streams on public methods, and
// those of service keys: their handlers check the key.
func (s *Streams) End(cause func(identity.Caller) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for o := range s.open {
		if !o.call.hasToken() {
			continue
		}
		if err := cause(o.call.caller); err != nil {
			o.end(err)
		}
	}
}

// Callers returns the users of the open streams that need a token, by user id.
func (s *Streams) Callers() map[int64][]identity.Caller {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[int64][]identity.Caller{}
	for o := range s.open {
		if o.call.hasToken() {
			out[o.call.caller.UserID] = append(out[o.call.caller.UserID], o.call.caller)
		}
	}
	return out
}

// EndAll ends all streams with err, and refuses new streams with err.
func (s *Streams) EndAll(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = err
	for o := range s.open {
		o.end(err)
	}
}

// count returns the number of open streams, and the number of users and addresses that they count
// against.
func (s *Streams) count() (open, keys int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open), len(s.byUser) + len(s.byAddress)
}

// maxSend bounds how long a send waits for a client that does not read. It is longer than the
// minute after which nginx closes the connection of such a client.
const maxSend = 75 * time.Second

// errNotReading is the error of a stream whose client has not read for maxSend.
var errNotReading = library.ErrUnavailable.WithCause(errors.New("the client does not read"))

// edgeStream is the stream that a handler uses. It has the context of the edge, refuses malformed
// messages, and ends the stream if a send blocks for too long.
type edgeStream struct {
	grpc.ServerStream
	ctx         context.Context
	receive     func(any) error
	maxSend     time.Duration
	sendTimeout *time.Timer
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
	s.sendTimeout.Reset(s.maxSend)
	defer s.sendTimeout.Stop()
	return notSent(s.ServerStream.SendMsg(m))
}

func (s *edgeStream) SendHeader(md metadata.MD) error { return notSent(s.ServerStream.SendHeader(md)) }

func newEdgeStream(ctx context.Context, ss grpc.ServerStream, maxSend time.Duration) (context.Context, *edgeStream) {
	ctx, end := context.WithCancelCause(ctx)
	sendTimeout := time.AfterFunc(maxSend, func() { end(errNotReading) })
	sendTimeout.Stop()
	receive := func(m any) error {
		err := ss.RecvMsg(m)
		if err == nil || errors.Is(err, io.EOF) { // EOF: a reflection client sends no more
			return err
		}
		return notReceived(err)
	}
	return ctx, &edgeStream{ServerStream: ss, ctx: ctx, receive: receive, maxSend: maxSend, sendTimeout: sendTimeout}
}

// HandlerGrace is how long the edge waits for a handler to return after its stream has ended. Only
// a handler that blocks in a send needs longer.
const HandlerGrace = time.Second

// untilEnded runs handle and returns its error. If the edge ends ctx, untilEnded returns the
// reason.
//
// After ctx has ended, untilEnded waits for handle for at most HandlerGrace. handle may block in a
// send to a client that does not read, and nothing can cancel this send. The send fails when the
// stream ends, and the stream ends when untilEnded returns.
func untilEnded(ctx context.Context, handle func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- guard(ctx, handle) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		grace := time.NewTimer(HandlerGrace)
		defer grace.Stop()
		select {
		case err = <-done:
		case <-grace.C:
			err = ctx.Err()
		}
	}
	if ended, ok := errors.AsType[*library.Error](context.Cause(ctx)); ok {
		return ended
	}
	return err
}
