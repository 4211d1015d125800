package edge

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	"github.com/dlsms/dlsms/library"
)

// IncomingLimits bound the calls whose headers have arrived and whose request has not.
// Past one of them, the oldest such call is refused as OVERLOADED, never the new one:
// an honest request follows its headers within milliseconds, even beside a flood from the same address.
type IncomingLimits struct {
	Total      int           // of this replica
	PerAddress int           // of one client address; a campus may share one
	Timeout    time.Duration // from the headers to the end of the request
}

// DefaultIncomingLimits hold what half-sent requests may cost: at most 64 KiB each, some 5 KiB in practice.
var DefaultIncomingLimits = IncomingLimits{Total: 2_000, PerAddress: 500, Timeout: DefaultDeadline}

// incoming knows every call whose request has not arrived in full, and ends it when that takes too long.
// gRPC runs the interceptors of a unary call only when its request is there.
// Without this type, 16,000 calls of which the client sent half took a replica from 55 to 140 MiB, without end.
type incoming struct {
	mu        sync.Mutex
	limits    IncomingLimits
	open      list.List // of *receipt, the oldest first
	byAddress map[string]int
	timer     *time.Timer // set if and only if it will fire
}

// receipt is one request while it arrives.
type receipt struct {
	call   *call
	stream grpc.ServerTransportStream
	ended  *library.Error // why it was ended before the request arrived; nil: it was not
}

func newIncoming() *incoming {
	return &incoming{limits: DefaultIncomingLimits, byAddress: map[string]int{}}
}

// receive reads the request of c into req by way of read.
// It returns an error if the request does not arrive in time, or is in the way of newer ones.
func (in *incoming) receive(ctx context.Context, c *call, read func(any) error, req any) error {
	r := &receipt{call: c, stream: grpc.ServerTransportStreamFromContext(ctx)}
	e, surplus := in.add(r)
	surplus.endStreams()
	err := read(req)
	switch ended := in.remove(e); {
	case ended != nil:
		return ended
	case err != nil:
		return notReceived(err)
	}
	return nil
}

func (in *incoming) add(r *receipt) (e *list.Element, surplus receipts) {
	in.mu.Lock()
	defer in.mu.Unlock()
	e = in.open.PushBack(r)
	in.byAddress[r.call.address]++
	if in.byAddress[r.call.address] > in.limits.PerAddress {
		surplus = append(surplus, in.endOldest(library.ErrOverloaded, r.call.address))
	} else if in.open.Len() > in.limits.Total {
		surplus = append(surplus, in.endOldest(library.ErrOverloaded, ""))
	}
	if in.timer == nil {
		in.timer = time.AfterFunc(in.limits.Timeout, in.endLate)
	}
	return e, surplus
}

// remove returns why the receipt was ended before, nil if it was not.
func (in *incoming) remove(e *list.Element) *library.Error {
	in.mu.Lock()
	defer in.mu.Unlock()
	r := e.Value.(*receipt)
	if r.ended == nil {
		in.forget(e)
	}
	return r.ended
}

func (in *incoming) forget(e *list.Element) {
	in.open.Remove(e)
	drop(in.byAddress, e.Value.(*receipt).call.address)
}

// endOldest ends the oldest receipt of an address, or with "" of all. There is one.
func (in *incoming) endOldest(why *library.Error, address string) *receipt {
	e := in.open.Front()
	for address != "" && e.Value.(*receipt).call.address != address {
		e = e.Next()
	}
	in.forget(e)
	r := e.Value.(*receipt)
	r.ended = why
	return r
}

// endLate ends the receipts whose time is up, and sets the timer for the oldest of the others.
func (in *incoming) endLate() {
	in.mu.Lock()
	in.timer = nil
	var late receipts
	for e := in.open.Front(); e != nil; e = in.open.Front() {
		if left := in.limits.Timeout - time.Since(e.Value.(*receipt).call.start); left > 0 {
			in.timer = time.AfterFunc(left, in.endLate)
			break
		}
		late = append(late, in.endOldest(errLateRequest, ""))
	}
	in.mu.Unlock()
	late.endStreams()
}

// errLateRequest ends a call whose request took too long to arrive.
var errLateRequest = library.ErrUnavailable.WithCause(errors.New("the request did not arrive in time"))

// count returns how many calls wait for their request.
func (in *incoming) count() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.open.Len()
}

type receipts []*receipt

// endStreams tells the clients why their calls have ended. It is called without the lock, since it takes locks of grpc.
func (rs receipts) endStreams() {
	for _, r := range rs {
		endStream(r.stream, r.ended)
	}
}

// refuseLargeHeaders answers a call with more than maxHeaders of headers, before anything else is done for it.
// It is called by grpc when the headers have arrived.
func refuseLargeHeaders(ctx context.Context, info *tap.Info) (context.Context, error) {
	const overhead = 32 // a field, as HTTP/2 counts
	size := 0
	for name, values := range info.Header {
		for _, v := range values {
			size += len(name) + len(v) + overhead
		}
	}
	if size > maxHeaders {
		return ctx, headersTooLarge.Err()
	}
	return ctx, nil
}

// Registrar registers services so that the edge sees a unary call from its headers on.
type Registrar struct {
	*grpc.Server
	edge *Edge
}

// RegisterService puts the edge between grpc and the handlers of unary methods; streams reach the edge at their headers anyway.
func (r Registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		d.Methods[i] = grpc.MethodDesc{MethodName: m.MethodName, Handler: r.edge.receiving("/"+desc.ServiceName+"/"+m.MethodName, m.Handler)}
	}
	r.Server.RegisterService(&d, impl)
}

// receiving is handler, told to the edge before the request arrives.
// If the request fails to arrive, the interceptors run all the same: the call is logged and counted as any other.
func (e *Edge) receiving(method string, handler grpc.MethodHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, read func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // the order is grpc's
		c := e.begin(ctx, method)
		return handler(srv, context.WithValue(ctx, callKey{}, c), func(req any) error {
			c.notReceived = e.incoming.receive(ctx, c, read, req)
			return nil
		}, interceptor)
	}
}

// Registrar returns what services are registered with, so that the edge sees a unary call from its headers on.
func (e *Edge) Registrar(s *grpc.Server) Registrar { return Registrar{s, e} }

// SetIncomingLimits changes the limits, for tests. Call it before the calls that it concerns.
func (e *Edge) SetIncomingLimits(l IncomingLimits) {
	e.incoming.mu.Lock()
	defer e.incoming.mu.Unlock()
	e.incoming.limits = l
}

// Limits on the headers of a call. The largest valid headers, with a token, are below 1 KB.
const (
	maxHeaders = 16 << 10
	// maxHeaderList is the limit that grpc itself enforces. grpc resets a stream above it without a
	// status; nginx takes the reset for a failing replica, and clients repeat the call. The limit
	// is therefore above the 64 KiB that nginx lets through plus 32 bytes for each of 1,000 fields,
	// so that refuseLargeHeaders answers every oversized call from nginx.
	maxHeaderList = 96 << 10
)
