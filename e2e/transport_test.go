package e2e_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// protocol is a protocol of the clients of a system.
type protocol string

const (
	overGRPC protocol = "gRPC"
	overHTTP protocol = "HTTP"
)

// dial connects to a proxy or a replica, from a local address or from any.
func (p protocol) dial(grpcAddr, httpAddr, from string) (grpc.ClientConnInterface, error) {
	switch {
	case p == overHTTP:
		return dialHTTP(httpAddr, e2e.HTTPFrom(from))
	case from != "":
		return e2e.DialFrom(grpcAddr, from)
	}
	return e2e.Dial(grpcAddr)
}

// dialHTTP connects over HTTP. The connection compares each answer with the OpenAPI document.
func dialHTTP(addr string, options ...e2e.HTTPOption) (*e2e.HTTPConn, error) {
	doc, err := openAPI()
	if err != nil {
		return nil, err
	}
	return e2e.DialHTTP(addr, append(options, e2e.CheckHTTP(doc.check))...), nil
}

// hangUp closes a connection. It fails if an answer broke the contract of HTTP.
func hangUp(c grpc.ClientConnInterface) error {
	if c == nil {
		return nil
	}
	_ = c.(io.Closer).Close() // as dial made it
	if c, ok := c.(*e2e.HTTPConn); ok {
		return c.Err()
	}
	return nil
}

// hangUpAtEnd closes a connection at the end of the test, which fails as hangUp does.
func hangUpAtEnd(t *testing.T, c grpc.ClientConnInterface) {
	t.Helper()
	t.Cleanup(func() {
		if err := hangUp(c); err != nil {
			t.Error(err)
		}
	})
}

// dial connects the system to its proxy.
func (s *system) dial(from string) (err error) {
	for i := range s.proxied {
		if s.proxied[i], err = s.protocol.dial(s.Addr(), s.HTTPAddr(), from); err != nil {
			return err
		}
	}
	return nil
}

func (s *system) hangUp() error {
	var errs []error
	for _, c := range s.proxied {
		errs = append(errs, hangUp(c))
	}
	return errors.Join(errs...)
}

// view returns the same system for clients of another protocol, or at another local address.
func (s *system) view(t *testing.T, p protocol, from string) *system {
	t.Helper()
	other := &system{
		Stack: s.Stack, topology: s.topology, log: s.log, db: s.db, secret: s.secret, codes: s.codes,
		names: s.names, protocol: p,
	}
	t.Cleanup(func() {
		if err := other.hangUp(); err != nil {
			t.Error(err)
		}
	})
	if err := other.dial(from); err != nil {
		t.Fatal(err)
	}
	return other
}

// overHTTP returns the same system for clients that speak HTTP.
func (s *system) overHTTP(t *testing.T) *system {
	t.Helper()
	return s.view(t, overHTTP, "")
}

// copies returns how many processes run each service: the number of replicas, or 1 for
// microservices.
func (s *system) copies() (n int) {
	for _, r := range s.Replicas {
		if r.Runs("seat") {
			n++
		}
	}
	return n
}

// conn returns a connection to one copy of the services that bypasses the proxy.
func conn(t *testing.T, s *system, index int) grpc.ClientConnInterface {
	t.Helper()
	if s.topology == stack.Monolith {
		return s.connect(t, s.Replicas[index])
	}
	byService := routed{}
	for service, name := range map[string]string{
		dlsmsv1.AuthService_ServiceDesc.ServiceName:        "auth",
		dlsmsv1.SeatService_ServiceDesc.ServiceName:        "seat",
		dlsmsv1.ScreenService_ServiceDesc.ServiceName:      "seat",
		dlsmsv1.ReservationService_ServiceDesc.ServiceName: "reservation",
		dlsmsv1.NotifyService_ServiceDesc.ServiceName:      "notify",
	} {
		at := slices.IndexFunc(s.Replicas, func(r *stack.Replica) bool { return r.Runs(name) })
		byService[service] = s.connect(t, s.Replicas[at])
	}
	return byService
}

// connect returns a connection to a process.
func (s *system) connect(t *testing.T, r *stack.Replica) grpc.ClientConnInterface {
	t.Helper()
	c, err := s.protocol.dial(r.Addr(), r.HTTPAddr(), "")
	if err != nil {
		t.Fatal(err)
	}
	hangUpAtEnd(t, c)
	return c
}

// routed has a connection for each service, by its full name.
type routed map[string]grpc.ClientConnInterface

func (r routed) to(method string) grpc.ClientConnInterface {
	service, _, _ := strings.Cut(method[1:], "/")
	return r[service]
}

func (r routed) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return r.to(method).Invoke(ctx, method, args, reply, opts...)
}

func (r routed) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return r.to(method).NewStream(ctx, desc, method, opts...)
}

// overBoth runs a test of the shared system over gRPC and over HTTP.
func overBoth(t *testing.T, test func(t *testing.T, s *system)) {
	t.Helper()
	t.Run("gRPC", func(t *testing.T) { t.Parallel(); test(t, shared(t)) })
	t.Run("HTTP", func(t *testing.T) { t.Parallel(); test(t, shared(t).overHTTP(t)) })
}

// everywhere runs a test of the shared system over gRPC and over HTTP, and of the shared
// microservices over HTTP.
func everywhere(t *testing.T, test func(t *testing.T, s *system)) {
	t.Helper()
	overBoth(t, test)
	t.Run("microservices", func(t *testing.T) { t.Parallel(); test(t, sharedMicroservices(t).overHTTP(t)) })
}

// startEverywhere runs a test over gRPC, and over HTTP with microservices. Each has a system of its
// own.
func startEverywhere(t *testing.T, cfg stack.Config, test func(t *testing.T, s *system)) {
	t.Helper()
	t.Run("gRPC", func(t *testing.T) { t.Parallel(); test(t, start(t, cfg)) })
	t.Run("microservices", func(t *testing.T) {
		t.Parallel()
		cfg.Topology = stack.Microservices
		test(t, start(t, cfg).overHTTP(t))
	})
}
