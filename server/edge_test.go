package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store/storetest"
)

// everyMethod calls f with the name and descriptor of each method of package dlsms.v1.
func everyMethod(f func(name string, m protoreflect.MethodDescriptor)) {
	protoregistry.GlobalFiles.RangeFilesByPackage("dlsms.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				f(fmt.Sprintf("/%s/%s", s.FullName(), s.Methods().Get(j).Name()), s.Methods().Get(j))
			}
		}
		return true
	})
}

// callEmpty makes a call with an empty request and returns its error. If the method is a stream, it
// receives one message.
func callEmpty(
	t *testing.T, ctx context.Context, conn *grpc.ClientConn, name string, m protoreflect.MethodDescriptor,
) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if !m.IsStreamingServer() {
		return conn.Invoke(ctx, name, dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output()))
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(dynamicpb.NewMessage(m.Input())); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(dynamicpb.NewMessage(m.Output()))
}

// publicMethods lists the methods that need no token, according to the proto files. Tests compare
// the policy with this list.
var publicMethods = map[string]bool{
	"/dlsms.v1.AuthService/Register":       true,
	"/dlsms.v1.AuthService/Login":          true,
	"/dlsms.v1.AuthService/VerifyToken":    true,
	"/dlsms.v1.SeatService/GetBranches":    true,
	"/dlsms.v1.SeatService/GetFloorPlan":   true,
	"/dlsms.v1.SeatService/GetSeats":       true,
	"/dlsms.v1.SeatService/GetSeat":        true,
	"/dlsms.v1.SeatService/GetSeatByLabel": true,
	"/dlsms.v1.SeatService/WatchSeats":     true,

	"/dlsms.v1.ReservationService/RecordScan": true,
}

const otherSecret = "Zx9cV8bN7mA6sD5fG4hJ3kL2qW1eR0tY"

// issue returns a token of a student, signed with the first secret of a key ring.
func issue(t *testing.T, setting string, clock *testClock) string {
	t.Helper()
	ring, err := identity.ParseKeyRing(setting)
	if err != nil {
		t.Fatal(err)
	}
	ada := library.Credentials{
		User:            library.User{ID: 7, StudentID: "S2021001", Role: library.RoleStudent},
		TokenGeneration: 3,
	}
	token, _, err := identity.NewTokens(ring, 24*time.Hour, clock.Now).Issue(ada)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestMethodsRequireTokenUnlessPublic(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.register(t, "S2021001")
	good := s.login(t, "S2021001", testPassword)
	revoked := s.login(t, "S2021001", testPassword)
	if _, err := s.auth.Logout(bearing(t.Context(), revoked), &dlsmsv1.LogoutRequest{}); err != nil {
		t.Fatal(err)
	}
	forged := issue(t, "test:"+otherSecret, s.clock)
	past := &testClock{}
	past.Advance(-25 * time.Hour)
	expired := issue(t, "test:"+testSecret, past)

	withHeader := func(values ...string) context.Context {
		ctx := t.Context()
		for _, v := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", v)
		}
		return ctx
	}
	methods := 0
	everyMethod(func(name string, m protoreflect.MethodDescriptor) {
		methods++
		for header, test := range map[string]struct {
			ctx    context.Context
			reason string
		}{
			"no header":  {withHeader(), "TOKEN_MISSING"},
			"forged":     {withHeader("Bearer " + forged), "TOKEN_INVALID"},
			"alg none":   {withHeader("Bearer eyJhbGciOiJub25lIiwia2lkIjoidGVzdCJ9.eyJ1c2VyX2lkIjoxfQ."), "TOKEN_INVALID"},
			"no scheme":  {withHeader(good), "TOKEN_INVALID"},
			"basic":      {withHeader("Basic " + good), "TOKEN_INVALID"},
			"two tokens": {withHeader("Bearer "+good, "Bearer "+good), "TOKEN_INVALID"},
			"expired":    {withHeader("Bearer " + expired), "TOKEN_EXPIRED"},
			"revoked":    {withHeader("Bearer " + revoked), "TOKEN_REVOKED"},
		} {
			err := callEmpty(t, test.ctx, s.conn, name, m)
			if publicMethods[name] {
				if strings.HasPrefix(reasonOf(err), "TOKEN_") {
					t.Errorf("%s, %s: %v", name, header, err)
				}
			} else if status.Code(err) != codes.Unauthenticated || reasonOf(err) != test.reason {
				t.Errorf("%s, %s: %v %q, want %s", name, header, status.Code(err), reasonOf(err), test.reason)
			}
		}
	})
	if methods < 22 {
		t.Errorf("only %d methods were called", methods)
	}
	// A valid token is accepted. The scheme, "Bearer", may be in upper or lower case.
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  "} {
		if _, err := s.notify.GetWaitlist(withHeader(scheme+good), &dlsmsv1.GetWaitlistRequest{}); err != nil {
			t.Errorf("scheme %q: %v", scheme, err)
		}
	}
}

func TestCallsAreUnavailableUntilReady(t *testing.T) {
	t.Parallel()
	s := prepare(t, storetest.NewDB(t), nil, nil)
	everyMethod(func(name string, m protoreflect.MethodDescriptor) {
		err := callEmpty(t, t.Context(), s.conn, name, m)
		if status.Code(err) != codes.Unavailable || reasonOf(err) != "UNAVAILABLE" {
			t.Errorf("%s before the server is ready: %v", name, err)
		}
	})
	probe := func(service string) healthpb.HealthCheckResponse_ServingStatus {
		resp, err := healthpb.NewHealthClient(s.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatus()
	}
	services := []string{
		"", "dlsms.v1.AuthService", "dlsms.v1.SeatService", "dlsms.v1.ReservationService", "dlsms.v1.NotifyService",
	}
	for _, service := range services {
		if got := probe(service); got != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("%q is %v before the server is ready", service, got)
		}
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, service := range services {
		if got := probe(service); got != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q is %v when the server is ready", service, got)
		}
	}
	if _, err := s.seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{}); err != nil {
		t.Error(err)
	}
	_, err := healthpb.NewHealthClient(s.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nothing"})
	want(t, err, codes.NotFound, "")
}

func TestReflection(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	stream, err := reflectionpb.NewServerReflectionClient(s.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list := &reflectionpb.ServerReflectionRequest_ListServices{}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: list}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetListServicesResponse().String(); !strings.Contains(got, "dlsms.v1.ReservationService") {
		t.Errorf("reflection lists %s", got)
	}
	off := start(t, func(c *Config) { c.Reflection = false })
	stream, err = reflectionpb.NewServerReflectionClient(off.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	want(t, err, codes.Unimplemented, "")
}

var goodRequestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func TestResponsesCarryRequestID(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for name, test := range map[string]struct {
		sent string
		kept bool
	}{
		"good":         {"a.B-9_" + strings.Repeat("x", 58), true},
		"none":         {"", false},
		"too long":     {strings.Repeat("x", 65), false},
		"with a space": {"a b", false},
		"with quotes":  {`a"b`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			if test.sent != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", test.sent)
			}
			var header metadata.MD
			// A call that fails has a request id too.
			_, err := s.seats.GetSeat(ctx, &dlsmsv1.GetSeatRequest{}, grpc.Header(&header))
			want(t, err, codes.InvalidArgument, "INVALID_FIELDS")
			got := header.Get("x-request-id")
			if len(got) != 1 || (got[0] == test.sent) != test.kept || !goodRequestID.MatchString(got[0]) {
				t.Fatalf("sent %q, got %q", test.sent, got)
			}
			s.log.RPC(t, got[0])
		})
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "of-a-stream")
	stream, err := s.seats.WatchSeats(ctx, &dlsmsv1.WatchSeatsRequest{Branch: "none"})
	if err != nil {
		t.Fatal(err)
	}
	header, err := stream.Header()
	if err != nil || fmt.Sprint(header.Get("x-request-id")) != "[of-a-stream]" {
		t.Errorf("a stream answers with %v, %v", header, err)
	}
}

func TestEachCallHasOneLogLine(t *testing.T) {
	t.Parallel()
	s := startWith(t, func(all *services) {
		all.seat = fakeSeats{
			Branches: func(context.Context) error {
				return library.ErrUnavailable.WithCause(errors.New("no route to host"))
			},
			Watch: func(stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse]) error {
				return errors.New("unknown cause")
			},
		}
	})
	user := s.register(t, "S2021001")
	me := bearing(t.Context(), s.login(t, "S2021001", testPassword))

	ctx := metadata.AppendToOutgoingContext(me, "x-request-id", "ok", "x-real-ip", "192.0.2.7")
	if _, err := s.notify.GetWaitlist(ctx, &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Fatal(err)
	}
	line := s.log.RPC(t, "ok")
	if line["level"] != "INFO" || line["method"] != "/dlsms.v1.NotifyService/GetWaitlist" || line["code"] != "OK" ||
		line["user_id"] != float64(user.GetId()) || line["peer"] != "192.0.2.7" ||
		line["reason"] != nil || line["cause"] != nil {
		t.Errorf("the log line is %v", line)
	}
	if us, ok := line["us"].(float64); !ok || us <= 0 || us > 5_000_000 {
		t.Errorf("the call took %v µs", line["us"])
	}

	ctx = metadata.AppendToOutgoingContext(me, "x-request-id", "unavailable")
	_, err := s.seats.GetBranches(ctx, &dlsmsv1.GetBranchesRequest{})
	want(t, err, codes.Unavailable, "UNAVAILABLE")
	line = s.log.RPC(t, "unavailable")
	if line["level"] != "WARN" || line["code"] != "Unavailable" || line["reason"] != "UNAVAILABLE" ||
		line["cause"] != "no route to host" || line["user_id"] != nil {
		t.Errorf("the log line is %v", line)
	}

	ctx = metadata.AppendToOutgoingContext(me, "x-request-id", "stream")
	stream, err := s.seats.WatchSeats(ctx, &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	err = ended(t, stream)
	want(t, err, codes.Internal, "")
	line = s.log.RPC(t, "stream")
	if line["level"] != "ERROR" || line["code"] != "Internal" || line["cause"] != "unknown cause" {
		t.Errorf("the log line is %v", line)
	}
	if n := strings.Count(s.log.String(), `"request_id":"ok"`); n != 1 {
		t.Errorf("one call has %d lines", n)
	}
	if strings.Contains(s.log.String(), testPassword) || strings.Contains(s.log.String(), "eyJ") {
		t.Error("the log has a password or token")
	}
}
