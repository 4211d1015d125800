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

// IncomingLimits bound the incomplete calls. A call is incomplete from the arrival of its headers
// until its request has arrived in full. If a new call exceeds a limit, the edge does not refuse
// the new call, but the oldest incomplete call, with OVERLOADED. The request of a normal client
// follows its headers within milliseconds. So its call is complete before it is the oldest, even
// during a flood of incomplete calls from the same address.
type IncomingLimits struct {
	Total      int           // of this replica
	PerAddress int           // of one client address; a campus may share an address
	Timeout    time.Duration // from the headers to the end of the request
}

// DefaultIncomingLimits bound the memory of incomplete requests: at most 64 KiB each, about 5 KiB
// in practice.
var DefaultIncomingLimits = IncomingLimits{Total: 2_000, PerAddress: 500, Timeout: DefaultDeadline}

// incoming holds the incomplete calls, and ends each of them after a timeout. gRPC bounds neither
// the number nor the duration of such calls. It runs the interceptors of a unary call only after
// the request has arrived. Without this type, 16,000 incomplete requests increased the memory of a
// replica from 55 to 140 MiB.
type incoming struct {
	mu        sync.Mutex
	limits    IncomingLimits
	open      list.List // of *receipt, the oldest first
	byAddress map[string]int
	timer     *time.Timer // nil: no timeout is pending
}

// receipt is a request that is arriving.
type receipt struct {
	call   *call
	stream grpc.ServerTransportStream
	ended  *library.Error // the reason, if the edge ended the call before the request arrived
}

func newIncoming() *incoming {
	return &incoming{limits: DefaultIncomingLimits, byAddress: map[string]int{}}
}

// receive calls read to read the request of c into req. It fails if the request does not arrive
// within IncomingLimits.Timeout, or if the edge ends the call because newer calls exceed a limit.
func (in *incoming) receive(ctx context.Context, c *call, read func(any) error, req any) error {
	r := &receipt{call: c, stream: grpc.ServerTransportStreamFromContext(ctx)}
	e, displaced := in.add(r)
	displaced.endStreams()
	err := read(req)
	switch ended := in.remove(e); {
	case ended != nil:
		return ended
	case err != nil:
		return notReceived(err)
	}
	return nil
}

func (in *incoming) add(r *receipt) (e *list.Element, displaced receipts) {
	in.mu.Lock()
	defer in.mu.Unlock()
	e = in.open.PushBack(r)
	in.byAddress[r.call.address]++
	if in.byAddress[r.call.address] > in.limits.PerAddress {
		displaced = append(displaced, in.endOldest(library.ErrOverloaded, r.call.address))
	} else if in.open.Len() > in.limits.Total {
		displaced = append(displaced, in.endOldest(library.ErrOverloaded, ""))
	}
	if in.timer == nil {
		in.timer = time.AfterFunc(in.limits.Timeout, in.endLate)
	}
	return e, displaced
}

// remove removes a receipt. If the edge has ended the call, remove returns the reason.
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

// endOldest ends the oldest receipt of an address, or of all addresses if address is "". why is the
// error for its client. At least one such receipt must exist.
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

// endLate ends the receipts that have timed out, and sets the timer for the oldest receipt that is
// left.
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

// errLateRequest is the error of a call whose request did not arrive within the timeout.
var errLateRequest = library.ErrUnavailable.WithCause(errors.New("the request did not arrive in time"))

// count returns the number of calls whose request is arriving.
func (in *incoming) count() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.open.Len()
}

type receipts []*receipt

// endStreams ends each stream with an error that tells the client the reason. Do not hold the lock
// of incoming: endStreams takes locks of grpc.
func (rs receipts) endStreams() {
	for _, r := range rs {
		endStream(r.stream, r.ended)
	}
}

// refuseLargeHeaders refuses a call with more than maxHeaders bytes of headers.
// grpc calls it when the headers have arrived, before any other work for the call.
func refuseLargeHeaders(ctx context.Context, info *tap.Info) (context.Context, error) {
	const overhead = 32 // of one field, as in HTTP/2
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

// Registrar registers services so that the edge sees a unary call when its headers arrive. grpc
// itself calls an interceptor only when the request has arrived.
type Registrar struct {
	*grpc.Server
	edge *Edge
}

// RegisterService implements grpc.ServiceRegistrar. It wraps the handler of each unary method with
// Edge.receiving. Streams need no wrapper: grpc runs their interceptors when the headers arrive.
func (r Registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		d.Methods[i] = grpc.MethodDesc{
			MethodName: m.MethodName,
			Handler:    r.edge.receiving("/"+desc.ServiceName+"/"+m.MethodName, m.Handler),
		}
	}
	r.Server.RegisterService(&d, impl)
}

// receiving wraps a unary handler: the call begins in the edge before its request arrives. If the
// request does not arrive, the interceptors still run, so that the call is logged and counted.
func (e *Edge) receiving(method string, handler grpc.MethodHandler) grpc.MethodHandler {
	return func( // grpc prescribes the order
		srv any, ctx context.Context, read func(any) error, interceptor grpc.UnaryServerInterceptor,
	) (any, error) {
		c := e.begin(ctx, method)
		return handler(srv, context.WithValue(ctx, callKey{}, c), func(req any) error {
			c.notReceived = e.incoming.receive(ctx, c, read, req)
			return nil
		}, interceptor)
	}
}

// Registrar returns the Registrar of a gRPC server.
func (e *Edge) Registrar(s *grpc.Server) Registrar { return Registrar{s, e} }

// SetIncomingLimits changes the limits, for tests.
func (e *Edge) SetIncomingLimits(l IncomingLimits) {
	e.incoming.mu.Lock()
	defer e.incoming.mu.Unlock()
	e.incoming.limits = l
}

// Limits on the headers of a call. The largest valid headers, with a token, are below 1 KB.
const (
	maxHeaders = 16 << 10
	// maxHeaderList is the limit that grpc itself enforces. If headers are larger, grpc resets the
	// stream without a status. nginx takes such a reset for a failing replica, and clients repeat
	// the call. So headers from nginx must never reach this limit: refuseLargeHeaders refuses them
	// with a status. The largest headers that nginx passes on have 64 KiB, plus 32 bytes for each
	// of 1,000 fields.
	maxHeaderList = 96 << 10
)
