package edge

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/dlsms/dlsms/library"
)

// InProcess calls services of this process without a connection. Each call passes through the same
// interceptors as a call over gRPC.
//
// The context of a call has what a connection would give: the peer, and the headers as incoming
// metadata. InProcess implements grpc.ClientConnInterface, so generated clients can use it, and
// grpc.ServiceRegistrar.
type InProcess struct {
	edge    *Edge
	unary   grpc.UnaryServerInterceptor
	stream  grpc.StreamServerInterceptor
	methods map[string]inProcessMethod // by full name, "/dlsms.v1.SeatService/GetSeats"
}

type inProcessMethod struct {
	service any
	unary   func(srv any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error)
	stream  *grpc.StreamDesc
}

// InProcess returns an InProcess without services. The interceptors unary and stream run around the
// edge, so they see the statuses that clients see.
func (e *Edge) InProcess(unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) *InProcess {
	return &InProcess{edge: e, unary: unary, stream: stream, methods: map[string]inProcessMethod{}}
}

// RegisterService registers a service. It must not be called after the first call.
func (p *InProcess) RegisterService(desc *grpc.ServiceDesc, impl any) {
	for _, m := range desc.Methods {
		p.methods["/"+desc.ServiceName+"/"+m.MethodName] = inProcessMethod{service: impl, unary: m.Handler}
	}
	for _, s := range desc.Streams {
		p.methods["/"+desc.ServiceName+"/"+s.StreamName] = inProcessMethod{service: impl, stream: &s}
	}
}

// Serves reports whether the method is registered.
func (p *InProcess) Serves(method string) bool {
	_, ok := p.methods[method]
	return ok
}

// Invoke makes a unary call. reply must be a message of the method's response type. Its error is an
// *Answer.
func (p *InProcess) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	m, ok := p.methods[method]
	if !ok || m.unary == nil {
		return unknownMethod(method)
	}
	resp, err := p.call(ctx, method, args, func(ctx context.Context, in grpc.UnaryServerInterceptor) (any, error) {
		return m.unary(m.service, ctx, func(any) error { return nil }, in)
	})
	if err != nil {
		return err
	}
	proto.Merge(reply.(proto.Message), resp.(proto.Message))
	return nil
}

// Receive makes a unary call like Invoke, but the request is incomplete at first. receive completes
// args when the edge has admitted the call. So the edge authenticates and limits a client before the
// process reads a large body.
func (p *InProcess) Receive(
	ctx context.Context, method string, args, reply proto.Message, receive func(context.Context) error,
) error {
	m, ok := p.methods[method]
	if !ok || m.unary == nil {
		return unknownMethod(method)
	}
	resp, err := p.call(ctx, method, args, func(ctx context.Context, in grpc.UnaryServerInterceptor) (any, error) {
		return m.unary(m.service, ctx, func(any) error { return nil }, func(
			ctx context.Context, message any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
		) (any, error) {
			return in(ctx, message, info, func(ctx context.Context, message any) (any, error) {
				if err := receive(ctx); err != nil {
					return nil, err
				}
				return handler(ctx, message)
			})
		})
	})
	if err != nil {
		return err
	}
	proto.Merge(reply, resp.(proto.Message))
	return nil
}

// Call makes a unary call of a method with a handler that replaces the registered one. Its error is
// an *Answer.
func (p *InProcess) Call(ctx context.Context, method string, req any, handler grpc.UnaryHandler) (any, error) {
	m, ok := p.methods[method]
	if !ok {
		return nil, unknownMethod(method)
	}
	info := &grpc.UnaryServerInfo{Server: m.service, FullMethod: method}
	return p.call(ctx, method, req, func(ctx context.Context, in grpc.UnaryServerInterceptor) (any, error) {
		return in(ctx, req, info, handler)
	})
}

// Refuse makes a call that its client got wrong, such as one with an unreadable body. The edge
// authenticates, limits, logs and counts it like any other call, and then refuses it with the
// violations.
func (p *InProcess) Refuse(ctx context.Context, method string, violations ...library.FieldViolation) error {
	_, err := p.Call(ctx, method, nil, func(context.Context, any) (any, error) {
		return nil, library.Invalid(violations...)
	})
	return err
}

// call runs one unary call with the request req. do gets an interceptor that passes the call
// through the edge. It must call this interceptor exactly once, and return the result.
func (p *InProcess) call(
	ctx context.Context, method string, req any,
	do func(context.Context, grpc.UnaryServerInterceptor) (any, error),
) (any, error) {
	c := p.edge.begin(ctx, method)
	resp, err := do(context.WithValue(ctx, callKey{}, c),
		func(ctx context.Context, _ any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			return p.unary(ctx, req, info, func(ctx context.Context, req any) (any, error) {
				return p.edge.unary(ctx, req, info, handler)
			})
		})
	if err != nil {
		return nil, answerOf(err)
	}
	return resp, nil
}

// Stream runs a server stream: the handler gets req, and sends its messages to out. The context of
// out is that of the call. The error is an *Answer, or nil after the handler ended the stream.
func (p *InProcess) Stream(method string, req proto.Message, out Sender) error {
	m, ok := p.methods[method]
	if !ok || m.stream == nil || m.stream.ClientStreams {
		return unknownMethod(method)
	}
	info := &grpc.StreamServerInfo{FullMethod: method, IsServerStream: true}
	handler := func(srv any, ss grpc.ServerStream) error {
		return p.edge.serverStream(srv, ss, info, m.stream.Handler)
	}
	if err := p.stream(m.service, &inProcessStream{Sender: out, req: req}, info, handler); err != nil {
		return answerOf(err)
	}
	return nil
}

// NewStream implements grpc.ClientConnInterface. It always fails: see Stream.
func (p *InProcess) NewStream(
	_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return nil, unknownMethod(method)
}

// Sender receives the messages of a stream. Its methods are those of grpc.ServerStream.
type Sender interface {
	Context() context.Context
	// SendHeader tells the client that the stream is open.
	SendHeader(md metadata.MD) error
	SendMsg(m any) error
}

// inProcessStream is the stream that the interceptors get. Its one request is there from the start.
type inProcessStream struct {
	Sender

	req proto.Message // nil: it was received
}

func (s *inProcessStream) RecvMsg(m any) error {
	if s.req == nil {
		return io.EOF
	}
	into, ok := m.(proto.Message)
	if !ok {
		return errors.New("not a message")
	}
	proto.Merge(into, s.req)
	s.req = nil
	return nil
}

func (s *inProcessStream) SetHeader(metadata.MD) error { return nil }
func (s *inProcessStream) SetTrailer(metadata.MD)      {}
