package deploy_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health/grpc_health_v1" // its descriptors
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/dlsms/dlsms/deploy"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// backend is a gRPC server behind the proxy. A test sets the functions that handle its calls.
type backend struct {
	dlsmsv1.UnimplementedSeatServiceServer
	maxMessage int // bytes; 0 means 64 KiB, the limit of a replica
	getSeats   func(context.Context) error
	watchSeats func(grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse]) error

	calls  atomic.Int64
	addr   string
	server *grpc.Server
}

func (b *backend) GetSeats(ctx context.Context, _ *dlsmsv1.GetSeatsRequest) (*dlsmsv1.GetSeatsResponse, error) {
	b.calls.Add(1)
	if b.getSeats != nil {
		if err := b.getSeats(ctx); err != nil {
			return nil, err
		}
	}
	return &dlsmsv1.GetSeatsResponse{}, nil
}

func (b *backend) WatchSeats(
	_ *dlsmsv1.WatchSeatsRequest, stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse],
) error {
	return b.watchSeats(stream)
}

func (b *backend) start(t *testing.T) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = l.Addr().String()
	b.server = grpc.NewServer(grpc.MaxRecvMsgSize(cmp.Or(b.maxMessage, 64<<10)))
	dlsmsv1.RegisterSeatServiceServer(b.server, b)
	reflection.Register(b.server)
	served := make(chan error, 1)
	go func() { served <- b.server.Serve(l) }()
	t.Cleanup(func() {
		b.server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before Serve
			t.Errorf("backend: %v", err)
		}
	})
	return b
}

// proxy starts nginx with deploy/nginx.conf in front of the backends and returns its address for
// gRPC. edits has pairs of texts: in the configuration, each first text is replaced by the second.
func proxy(t *testing.T, edits []string, backends ...*backend) string {
	t.Helper()
	var addrs []string
	for _, b := range backends {
		addrs = append(addrs, b.addr)
	}
	return startProxy(t, stack.NginxConfig{Backends: addrs, Conf: edit(t, deploy.NginxConf, edits)}).Addr()
}

// edit returns conf with the edits of proxy.
func edit(t *testing.T, conf string, edits []string) string {
	t.Helper()
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(conf, edits[i]) {
			t.Fatalf("nginx.conf has no %q to change", edits[i])
		}
		conf = strings.ReplaceAll(conf, edits[i], edits[i+1])
	}
	return conf
}

func startProxy(t *testing.T, cfg stack.NginxConfig) *stack.Nginx {
	t.Helper()
	cfg.Log = t.Output()
	nginx, err := stack.StartNginx(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nginx.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return nginx
}

func dial(t *testing.T, addr string, opts ...grpc.DialOption) dlsmsv1.SeatServiceClient {
	t.Helper()
	defaults := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry()}
	conn, err := grpc.NewClient(addr, append(defaults, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return dlsmsv1.NewSeatServiceClient(conn)
}

func call(t *testing.T, c dlsmsv1.SeatServiceClient) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := c.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{})
	return err
}

// wantStatus checks the code of err and the reason in its details. With a reason, the details must
// also have a RetryInfo. If reason is empty, they must have neither.
func wantStatus(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Fatalf("got %v (%v), want %v", s.Code(), s.Message(), code)
	}
	got, retry := "", false
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			got = d.GetReason()
			if d.GetDomain() != "dlsms" {
				t.Errorf("domain %q, want dlsms", d.GetDomain())
			}
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration() > 0
		}
	}
	if got != reason || retry != (reason != "") {
		t.Errorf("reason %q, with RetryInfo: %v; want %q with it", got, retry, reason)
	}
}

func TestProxyUsesRoundRobin(t *testing.T) {
	t.Parallel()
	backends := []*backend{new(backend).start(t), new(backend).start(t), new(backend).start(t)}
	c := dial(t, proxy(t, nil, backends...))
	const calls = 300
	for range calls {
		if err := call(t, c); err != nil {
			t.Fatal(err)
		}
	}
	for i, b := range backends {
		if n := b.calls.Load(); n < calls/3-1 || n > calls/3+1 {
			t.Errorf("backend %d got %d of %d calls, want a third", i, n, calls)
		}
	}
}

// One of two replicas refuses connections. nginx must send each call to the other one, so that no
// call fails. The replica stops before nginx opens a connection to it, because calls on a
// connection that is already open fail when a replica stops.
func TestProxySkipsDeadReplica(t *testing.T) {
	t.Parallel()
	alive, dead := new(backend).start(t), new(backend).start(t)
	dead.server.Stop()
	c := dial(t, proxy(t, nil, dead, alive))
	for range 100 {
		if err := call(t, c); err != nil {
			t.Fatal(err)
		}
	}
	if got := alive.calls.Load(); got != 100 {
		t.Errorf("the live replica got %d of 100 calls", got)
	}
}

func TestProxyReturnsUnavailableWithoutReplicas(t *testing.T) {
	t.Parallel()
	backends := []*backend{new(backend).start(t), new(backend).start(t), new(backend).start(t)}
	c := dial(t, proxy(t, nil, backends...))
	if err := call(t, c); err != nil {
		t.Fatal(err)
	}
	for _, b := range backends {
		b.server.Stop()
	}
	for range 10 {
		err := call(t, c)
		wantStatus(t, err, codes.Unavailable, "UNAVAILABLE")
		if got := status.Convert(err).Message(); !strings.Contains(got, "no replica") {
			t.Errorf("message %q is not the proxy's", got)
		}
	}
	stream, err := c.WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantStatus(t, err, codes.Unavailable, "UNAVAILABLE")
}

// A stream without messages must last longer than the timeout of a call, which is 1 s here. The
// test also makes a call that the backend does not answer. When nginx ends this call, the timeout
// has passed.
func TestProxyKeepsSilentStream(t *testing.T) {
	t.Parallel()
	send := make(chan struct{})
	b := (&backend{
		getSeats: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		watchSeats: func(stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse]) error {
			if err := stream.Send(&dlsmsv1.WatchSeatsResponse{}); err != nil {
				return err
			}
			select {
			case <-send:
				return stream.Send(&dlsmsv1.WatchSeatsResponse{})
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		},
	}).start(t)
	c := dial(t, proxy(t, []string{"grpc_read_timeout 6s;", "grpc_read_timeout 1s;"}, b))
	stream, err := c.WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	err = call(t, c)
	wantStatus(t, err, codes.Unavailable, "UNAVAILABLE")
	if got := status.Convert(err).Message(); !strings.Contains(got, "in time") {
		t.Errorf("message %q is not the proxy's", got)
	}
	close(send)
	if _, err := stream.Recv(); err != nil {
		t.Fatalf("the stream did not survive a silence: %v", err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v, want io.EOF", err)
	}
}

// Each streaming method must match the location of nginx.conf that has long timeouts for streams.
// No other method may match it. The methods come from the descriptors of all services that a
// replica registers.
func TestStreamsUseStreamLocation(t *testing.T) {
	t.Parallel()
	location := regexp.MustCompile(`location ~ (\S+) \{\s+grpc_pass grpc://dlsms;\s+` +
		`client_body_timeout 1h;\s+grpc_read_timeout 1h;`).FindStringSubmatch(deploy.NginxConf)
	if location == nil {
		t.Fatal("nginx.conf has no location for streams")
	}
	matches := regexp.MustCompile(location[1])
	seen := map[bool]int{}
	for _, c := range rpcs() {
		if matches.MatchString(c.name) != c.stream {
			t.Errorf("%s: stream %v, but matches the location of streams %v", c.name, c.stream, !c.stream)
		}
		seen[c.stream]++
	}
	if seen[true] < 5 || seen[false] < 22 {
		t.Errorf("checked %d streams and %d other methods", seen[true], seen[false])
	}
}

// A reflection stream must last longer than the timeout of a call, which is 1 s here, although the
// client sends nothing in this time. Then its next request must have an answer.
func TestProxyKeepsSilentReflectionStream(t *testing.T) {
	t.Parallel()
	b := (&backend{getSeats: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}).start(t)
	addr := proxy(t, []string{
		"grpc_read_timeout 6s;", "grpc_read_timeout 1s;", "client_body_timeout 10s;", "client_body_timeout 1s;",
	}, b)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func() {
		t.Helper()
		request := &reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
		}
		if err := stream.Send(request); err != nil {
			t.Error(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Error(err)
		}
	}
	ask()
	// The backend does not answer this call. When nginx ends it, the timeout has passed.
	wantStatus(t, call(t, dlsmsv1.NewSeatServiceClient(conn)), codes.Unavailable, "UNAVAILABLE")
	ask()
}

// If a replica accepts a call and does not answer it, nginx must end the call one second after the
// deadline of the replica. Calls to the other replicas must succeed.
func TestProxyTimesOutOnHungReplica(t *testing.T) {
	t.Parallel()
	if !strings.Contains(deploy.NginxConf, "grpc_read_timeout 6s;") {
		t.Error("grpc_read_timeout is not one second above the 5 s deadline of a replica")
	}
	hung := (&backend{getSeats: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}).start(t)
	good := []*backend{new(backend).start(t), new(backend).start(t)}
	c := dial(t, proxy(t, []string{"grpc_read_timeout 6s;", "grpc_read_timeout 1s;"}, hung, good[0], good[1]))
	const calls = 9
	for range calls { // nginx sends them to the replicas in turn
		if err := call(t, c); err != nil {
			wantStatus(t, err, codes.Unavailable, "UNAVAILABLE")
		}
	}
	if n := hung.calls.Load(); n != calls/3 {
		t.Errorf("%d of %d calls went to the replica that hangs", n, calls)
	}
	if n := good[0].calls.Load() + good[1].calls.Load(); n != calls-calls/3 {
		t.Errorf("%d calls were answered", n)
	}
}

func TestProxyRefusesOversizeMessage(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]*backend{
		"as the replica would":             {},
		"for a replica that would take it": {maxMessage: 64 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, proxy(t, nil, b.start(t)))
			for _, size := range []int{140 << 10, 1 << 20, 10 << 20} {
				_, err := c.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{Branch: strings.Repeat("x", size)})
				wantStatus(t, err, codes.ResourceExhausted, "")
			}
			if got := b.calls.Load(); got != 0 {
				t.Errorf("%d oversize messages reached a handler", got)
			}
			if err := call(t, c); err != nil {
				t.Errorf("after refusals: %v", err)
			}
		})
	}
}

func TestProxyRefusesOversizeHeader(t *testing.T) {
	t.Parallel()
	b := (&backend{}).start(t)
	c := dial(t, proxy(t, nil, b))
	headers := func(n, size int) error {
		ctx := t.Context()
		for i := range n {
			ctx = metadata.AppendToOutgoingContext(ctx, fmt.Sprint("x-large-", i), strings.Repeat("x", size))
		}
		_, err := c.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{})
		return err
	}
	// nginx must forward these headers. The backend of this test accepts them all, unlike a
	// replica, whose limit is lower.
	for _, fields := range [][2]int{{1, 40 << 10}, {1, 60 << 10}, {3, 20 << 10}, {60, 1 << 10}} {
		if err := headers(fields[0], fields[1]); err != nil {
			t.Errorf("%d headers of %d bytes: %v", fields[0], fields[1], err)
		}
	}
	for _, fields := range [][2]int{{1, 100 << 10}, {3, 40 << 10}} {
		wantStatus(t, headers(fields[0], fields[1]), codes.Unavailable, "") // nginx closes the connection
	}
	if err := call(t, c); err != nil {
		t.Errorf("after refusals: %v", err)
	}
}

func TestProxySetsClientAddress(t *testing.T) {
	t.Parallel()
	seen := make(chan metadata.MD, 1)
	b := (&backend{getSeats: func(ctx context.Context) error {
		md, _ := metadata.FromIncomingContext(ctx)
		seen <- md
		return nil
	}}).start(t)
	c := dial(t, proxy(t, nil, b))
	ctx := metadata.AppendToOutgoingContext(t.Context(),
		"x-real-ip", "203.0.113.7", "X-Real-IP", "203.0.113.8", "authorization", "Bearer a.b.c")
	if _, err := c.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{}); err != nil {
		t.Fatal(err)
	}
	md := <-seen
	if got := md.Get("x-real-ip"); len(got) != 1 || got[0] != "127.0.0.1" {
		t.Errorf("x-real-ip is %q, want the client's address alone", got)
	}
	if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer a.b.c" {
		t.Errorf("authorization is %q, want it unchanged", got)
	}
}

func TestProxyForwardsStatusOfReplica(t *testing.T) {
	t.Parallel()
	refused, err := status.New(codes.ResourceExhausted, "slow down").WithDetails(
		&errdetails.ErrorInfo{Reason: "RATE_LIMITED", Domain: "dlsms", Metadata: map[string]string{"limit": "100"}})
	if err != nil {
		t.Fatal(err)
	}
	b := (&backend{getSeats: func(context.Context) error { return refused.Err() }}).start(t)
	got := status.Convert(call(t, dial(t, proxy(t, nil, b))))
	if !proto.Equal(got.Proto(), refused.Proto()) {
		t.Errorf("got %v, want %v", got.Proto(), refused.Proto())
	}
}

// connections is a stats handler that counts the connections of a client.
type connections struct{ opened atomic.Int64 }

func (c *connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *connections) HandleRPC(context.Context, stats.RPCStats)                         {}
func (c *connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *connections) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnBegin); ok {
		c.opened.Add(1)
	}
}

// nginx must keep its connections to clients and to replicas open. With its default settings, it
// would close each one after 1,000 requests.
func TestProxyReusesConnections(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	upstream := map[string]bool{}
	b := (&backend{getSeats: func(ctx context.Context) error {
		p, _ := peer.FromContext(ctx)
		mu.Lock()
		defer mu.Unlock()
		upstream[p.Addr.String()] = true
		return nil
	}}).start(t)
	var client connections
	c := dial(t, proxy(t, nil, b), grpc.WithStatsHandler(&client))
	for range 2500 {
		if err := call(t, c); err != nil {
			t.Fatal(err)
		}
	}
	if got := client.opened.Load(); got != 1 {
		t.Errorf("the client opened %d connections, want 1", got)
	}
	if got := len(upstream); got > 2 {
		t.Errorf("nginx opened %d connections for calls one after another, want one kept open", got)
	}
}

// untilNotLimited makes the first call of a test until it is not limited. The health check of the
// start of nginx may count for a moment after its answer.
func untilNotLimited(t *testing.T, call func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !call(); {
		if time.Now().After(deadline) {
			t.Fatal("the first call is limited")
		}
	}
}

func TestProxyLimitsCallsInFlightOfAddress(t *testing.T) {
	t.Parallel()
	b := (&backend{watchSeats: func(stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse]) error {
		if err := stream.Send(&dlsmsv1.WatchSeatsResponse{}); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	}}).start(t)
	c := dial(t, proxy(t, []string{"limit_conn in_flight 8192;", "limit_conn in_flight 1;"}, b))
	untilNotLimited(t, func() bool {
		stream, err := c.WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil && status.Code(err) != codes.ResourceExhausted {
			t.Fatal(err)
		}
		return err == nil
	})
	wantStatus(t, call(t, c), codes.ResourceExhausted, "OVERLOADED")
}

// The limits of nginx must count an IPv6 client by its /64 network, and an IPv4 client by its
// address. An IPv6 address that contains an IPv4 address (::ffff:192.0.2.1) counts as the IPv4
// address.
func TestProxyLimitsIPv6ByNetwork(t *testing.T) {
	t.Parallel()
	b := (&backend{watchSeats: func(stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse]) error {
		if err := stream.Send(&dlsmsv1.WatchSeatsResponse{}); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	}}).start(t)
	c := dial(t, proxy(t, []string{
		"limit_conn in_flight 8192;", "limit_conn in_flight 1;",
		"limit_conn_status 429;", "limit_conn_status 429; set_real_ip_from 127.0.0.1; real_ip_header x-test-address;",
	}, b))
	from := func(address string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "x-test-address", address)
	}
	for first, others := range map[string]map[string]bool{ // true: nginx counts both as one client
		"2001:db8:0:1::1": {
			"2001:db8:0:1::1": true, "2001:db8:0:1:ffff:ffff:ffff:ffff": true,
			"2001:db8:0:2::1": false, "2001:db8::1": false, "192.0.2.9": false,
		},
		// This address has the byte 0x0a, which is a newline. In the regular expressions of
		// nginx.conf, a dot matches a newline only with the flag (?s).
		"2001:db8:a0a:a::a": {"2001:db8:a0a:a:a0a:a0a:a0a:a0a": true, "2001:db8:a0a:b::a": false},
		"fd00::":            {"fd00::1": true, "fd00:0:0:1::": false},
		"192.0.2.1": {
			"192.0.2.1": true, "::ffff:192.0.2.1": true, "192.0.2.2": false, "::ffff:192.0.2.2": false,
		},
	} {
		ctx, cancel := context.WithCancel(from(first))
		stream, err := c.WatchSeats(ctx, &dlsmsv1.WatchSeatsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		for other, same := range others {
			_, err := c.GetSeats(from(other), &dlsmsv1.GetSeatsRequest{})
			if (status.Code(err) == codes.ResourceExhausted) != same || err != nil && !same {
				t.Errorf("a call from %s beside a stream from %s: %v", other, first, err)
			}
		}
		cancel()
	}
}

// nginx.conf contains details of errors in base64. Their code and message must be those of the
// headers beside them, and error.proto must have their reason.
func TestErrorDetailsMatchStatus(t *testing.T) {
	t.Parallel()
	answers := regexp.MustCompile(`grpc-status (\d+) always;\s+add_header grpc-message "([^"]+)" always;\s+`+
		`add_header grpc-status-details-bin "([^"]+)"`).FindAllStringSubmatch(deploy.NginxConf, -1)
	if len(answers) != strings.Count(deploy.NginxConf, "add_header grpc-status-details-bin") || len(answers) == 0 {
		t.Fatalf("read %d answers", len(answers))
	}
	for _, a := range answers {
		encoded, err := base64.RawStdEncoding.DecodeString(a[3])
		if err != nil {
			t.Fatal(err)
		}
		var s spb.Status
		if err := proto.Unmarshal(encoded, &s); err != nil {
			t.Fatal(err)
		}
		if strconv.Itoa(int(s.GetCode())) != a[1] || s.GetMessage() != a[2] {
			t.Errorf("status %s %q has the details of %d %q", a[1], a[2], s.GetCode(), s.GetMessage())
		}
		for _, d := range status.FromProto(&s).Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				if _, known := dlsmsv1.ErrorReason_value["ERROR_REASON_"+info.GetReason()]; !known {
					t.Errorf("reason %s is not in error.proto", info.GetReason())
				}
			}
		}
	}
}
