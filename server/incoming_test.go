package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/stack"
)

// rawClient is a client that writes HTTP/2 frames one by one. So it can send incomplete requests,
// which gRPC libraries cannot. It answers no pings and ends no stream.
type rawClient struct {
	framer *http2.Framer
	next   uint32

	mu     sync.Mutex
	ended  map[uint32]error // by stream id: the status that the server sent
	closed bool             // the connection has ended
}

func dialRaw(t *testing.T, addr string) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &rawClient{framer: http2.NewFramer(conn, conn), next: 1, ended: map[uint32]error{}}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	if err := c.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		c.read()
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-read
	})
	return c
}

func (c *rawClient) read() {
	for {
		frame, err := c.framer.ReadFrame()
		c.mu.Lock()
		if err != nil {
			c.closed = true
			c.mu.Unlock()
			return
		}
		if h, ok := frame.(*http2.MetaHeadersFrame); ok && h.StreamEnded() {
			c.ended[h.StreamID] = statusOf(h)
		}
		c.mu.Unlock()
	}
}

func statusOf(h *http2.MetaHeadersFrame) error {
	s := &spb.Status{}
	for _, f := range h.Fields {
		switch f.Name {
		case "grpc-status":
			code, _ := strconv.Atoi(f.Value)
			s.Code = int32(code)
		case "grpc-message":
			s.Message = f.Value
		case "grpc-status-details-bin":
			details := &spb.Status{}
			if b, err := base64.RawStdEncoding.DecodeString(f.Value); err == nil && proto.Unmarshal(b, details) == nil {
				s.Details = details.GetDetails()
			}
		}
	}
	return status.FromProto(s).Err()
}

// begin sends the headers of a call and a part of its body. It does not end the stream.
func (c *rawClient) begin(t *testing.T, method string, body []byte, headers ...string) uint32 {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	fields := append([]string{
		":method", "POST", ":scheme", "http", ":path", method, ":authority", "dlsms",
		"content-type", "application/grpc", "te", "trailers",
	}, headers...)
	for i := 0; i < len(fields); i += 2 {
		if err := enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	id := c.next
	c.next += 2
	frame := http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}
	if err := c.framer.WriteHeaders(frame); err != nil {
		t.Fatal(err)
	}
	if len(body) > 0 {
		if err := c.framer.WriteData(id, false, body); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// status returns the status of a call that has ended. If the connection has ended before the call,
// the status is UNAVAILABLE.
func (c *rawClient) status(id uint32) (err error, ended bool) { // a status is an error in grpc
	c.mu.Lock()
	defer c.mu.Unlock()
	err, ended = c.ended[id]
	if !ended && c.closed {
		return status.Error(codes.Unavailable, "the connection ended"), true
	}
	return err, ended
}

// message returns the body of a call: a message after the 5 bytes of its gRPC prefix.
func message(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// setIncoming sets the limits of a server for requests that have not arrived in full. Call it
// before the first call.
func (s *testServer) setIncoming(timeout time.Duration, limits edge.IncomingLimits) {
	limits.Timeout = timeout
	s.edge.SetIncomingLimits(limits)
}

// TestIncompleteRequestsHaveDeadline sends the headers and an incomplete body of calls to many
// methods. Each call ends with UNAVAILABLE after the timeout.
func TestIncompleteRequestsHaveDeadline(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	token := "Bearer " + s.tokenOf(t)
	s.setIncoming(500*time.Millisecond, edge.DefaultIncomingLimits)
	whole := message(t, &dlsmsv1.GetSeatsRequest{Branch: "science"})
	raw := dialRaw(t, s.addr)
	calls := map[string]uint32{}
	for name, body := range map[string][]byte{
		"nothing": nil, "half a prefix": whole[:3], "a prefix": whole[:5], "half a message": whole[:8],
		"no end": whole, "64 KiB less one byte": append([]byte{0, 0, 1, 0, 0}, make([]byte, 16<<10-10)...),
	} {
		for _, method := range []string{
			dlsmsv1.SeatService_GetSeats_FullMethodName, dlsmsv1.SeatService_WatchSeats_FullMethodName,
			dlsmsv1.AuthService_Login_FullMethodName, dlsmsv1.ReservationService_CreateReservation_FullMethodName,
			dlsmsv1.NotifyService_Subscribe_FullMethodName, "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
		} {
			calls[name+" of "+method] = raw.begin(t, method, body, "authorization", token)
		}
	}
	// Bytes that arrive slowly do not extend the deadline.
	trickle := raw.begin(t, dlsmsv1.SeatService_GetSeats_FullMethodName, []byte{0, 0, 1, 0, 0}, "x-request-id", "trickle")
	eventually(t, "the call with a slow request has ended", func() bool {
		_, ended := raw.status(trickle)
		if !ended {
			_ = raw.framer.WriteData(trickle, false, []byte{0})
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the speed of a slow client
		}
		return ended
	})
	nginx, err := stack.StartNginx(t.Context(), stack.NginxConfig{Backends: []string{s.addr}, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nginx.Stop(context.Background()) })
	proxied := dialRaw(t, nginx.Addr())
	for name, body := range map[string][]byte{"nothing": nil, "half a message": whole[:8], "no end": whole} {
		id := proxied.begin(t, dlsmsv1.SeatService_GetSeats_FullMethodName, body)
		eventually(t, "the call with "+name+" has ended through nginx", func() bool {
			_, ended := proxied.status(id)
			return ended
		})
		err, _ := proxied.status(id)
		if status.Code(err) != codes.Unavailable || reasonOf(err) != "UNAVAILABLE" {
			t.Errorf("%s through nginx: %v", name, err)
		}
	}
	for name, id := range calls {
		eventually(t, "the call with "+name+" has ended", func() bool { _, ended := raw.status(id); return ended })
		if err, _ := raw.status(id); status.Code(err) != codes.Unavailable || reasonOf(err) != "UNAVAILABLE" {
			t.Errorf("%s: %v", name, err)
		}
	}
	line := s.log.RPC(t, "trickle")
	if line["code"] != "Unavailable" || line["cause"] != "the request did not arrive in time" {
		t.Errorf("the log line is %v", line)
	}
	eventually(t, "no call is incomplete or running", func() bool {
		return s.edge.Stats().Incoming == 0 && s.edge.Stats().Running == 0
	})
	if _, err := s.seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{}); err != nil {
		t.Error(err)
	}
}

// TestDeadlineBeginsAtHeaders: the deadline of a call includes the time in which its request
// arrives.
func TestDeadlineBeginsAtHeaders(t *testing.T) {
	t.Parallel()
	left := make(chan time.Duration, 1)
	s := startWith(t, func(all *services) {
		all.seat = fakeSeats{Branches: func(ctx context.Context) error {
			at, _ := ctx.Deadline()
			left <- time.Until(at)
			return nil
		}}
	})
	raw := dialRaw(t, s.addr)
	id := raw.begin(t, dlsmsv1.SeatService_GetBranches_FullMethodName, nil)
	eventually(t, "the headers of the call have arrived", func() bool { return s.edge.Stats().Incoming == 1 })
	seen := time.Now()
	eventually(t, "a second has passed since the headers", func() bool { return time.Since(seen) > time.Second })
	if err := raw.framer.WriteData(id, true, message(t, &dlsmsv1.GetBranchesRequest{})); err != nil {
		t.Fatal(err)
	}
	if got := <-left; got > edge.DefaultDeadline-time.Second {
		t.Errorf("%v are left of %v, a second after the headers", got, edge.DefaultDeadline)
	}
}

// TestIncompleteRequestsAreBounded: if incomplete requests exceed a limit, the oldest of them are
// refused. Complete calls are still answered.
func TestIncompleteRequestsAreBounded(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.setIncoming(time.Hour, edge.IncomingLimits{Total: 6, PerAddress: 4})
	raw := dialRaw(t, s.addr)
	sent := 0
	half := func(address string) uint32 {
		id := raw.begin(t, dlsmsv1.SeatService_GetSeats_FullMethodName, []byte{0}, "x-real-ip", address)
		sent++
		eventually(t, "the headers of the call have arrived", func() bool {
			raw.mu.Lock()
			defer raw.mu.Unlock()
			return s.edge.Stats().Incoming+len(raw.ended) == sent
		})
		return id
	}
	overloaded := func(ids ...uint32) {
		t.Helper()
		for _, id := range ids {
			eventually(t, "call "+strconv.Itoa(int(id))+" has ended", func() bool {
				_, ended := raw.status(id)
				return ended
			})
			err, _ := raw.status(id)
			want(t, err, codes.ResourceExhausted, "OVERLOADED")
		}
	}
	var a []uint32
	for range 10 {
		a = append(a, half("192.0.2.1"))
	}
	overloaded(a[:6]...)
	eventually(t, "4 requests are incomplete", func() bool { return s.edge.Stats().Incoming == 4 })

	for range 3 { // one more than the total allows
		half("192.0.2.2")
	}
	overloaded(a[6])
	eventually(t, "6 requests are incomplete", func() bool { return s.edge.Stats().Incoming == 6 })

	for range 20 {
		if _, err := s.seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShutdownSkipsIncompleteRequests: a shutdown waits neither for incomplete requests nor for
// clients that do not react to GOAWAY. It still waits for calls that run.
func TestShutdownSkipsIncompleteRequests(t *testing.T) {
	t.Parallel()
	entered, finish := make(chan struct{}, 1), make(chan struct{})
	s := startWith(t, func(all *services) {
		all.seat = fakeSeats{
			Branches: func(ctx context.Context) error {
				entered <- struct{}{}
				<-finish
				return ctx.Err()
			},
		}
	})
	s.setIncoming(time.Hour, edge.DefaultIncomingLimits)
	running := make(chan error, 1)
	go func() {
		_, err := s.seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{})
		running <- err
	}()
	<-entered
	for range 20 {
		raw := dialRaw(t, s.addr)
		raw.begin(t, dlsmsv1.SeatService_GetSeats_FullMethodName, []byte{0})
		raw.begin(t, dlsmsv1.SeatService_WatchSeats_FullMethodName, []byte{0})
	}
	dialRaw(t, s.addr) // a connection without a call
	eventually(t, "40 requests are incomplete", func() bool { return s.edge.Stats().Incoming == 40 })

	down := make(chan error, 1)
	go func() { down <- s.Shutdown(t.Context()) }()
	begun := time.Now()
	eventually(t, "all streams have ended", func() bool {
		return s.edge.Stats().Streams == 0 && time.Since(begun) > 2*edge.HandlerGrace
	})
	select {
	case err := <-down:
		t.Errorf("the server is down while a call runs: %v", err)
	default:
	}
	close(finish)
	if err := <-running; err != nil {
		t.Errorf("the shutdown cancelled a call that ran: %v", err)
	}
	begun = time.Now()
	if err := <-down; err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("the shutdown took %v longer than the last call", took)
	}
}

// tokenOf returns the token of a new student.
func (s *testServer) tokenOf(t *testing.T) string {
	t.Helper()
	s.register(t, "S-incomplete")
	return s.login(t, "S-incomplete", testPassword)
}

// TestLargeHeadersAreRefused: calls with headers that are too large are refused without a retry
// delay, directly and through nginx. Other calls on the same connection continue.
func TestLargeHeadersAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	nginx, err := stack.StartNginx(t.Context(), stack.NginxConfig{Backends: []string{s.addr}, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nginx.Stop(context.Background()) })
	for route, addr := range map[string]string{"direct": s.addr, "through nginx": nginx.Addr()} {
		seats := dlsmsv1.NewSeatServiceClient(dial(t, addr, grpc.WithDisableRetry()))
		call := func(n, size int) error {
			ctx := t.Context()
			for i := range n {
				ctx = metadata.AppendToOutgoingContext(ctx, "x-large-"+strconv.Itoa(i), strings.Repeat("x", size))
			}
			_, err := seats.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{})
			return err
		}
		waiting, err := seats.WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := waiting.Recv(); err != nil {
			t.Fatal(err)
		}
		broken := make(chan error, 1)
		go func() {
			for {
				if _, err := waiting.Recv(); err != nil {
					broken <- err
					return
				}
			}
		}()
		for _, fields := range [][2]int{
			{1, 17 << 10}, {20, 1 << 10}, {1, 40 << 10}, {60, 1 << 10}, {1, 60 << 10}, {3, 20 << 10},
		} {
			err := call(fields[0], fields[1])
			if status.Code(err) != codes.ResourceExhausted || detail[*errdetails.RetryInfo](err) != nil {
				t.Errorf("%s, %d headers of %d bytes: %v", route, fields[0], fields[1], err)
			}
		}
		for _, fields := range [][2]int{{1, 15 << 10}, {14, 1 << 10}} {
			if err := call(fields[0], fields[1]); err != nil {
				t.Errorf("%s, %d headers of %d bytes: %v", route, fields[0], fields[1], err)
			}
		}
		select {
		case err := <-broken:
			t.Errorf("%s: the stream on the same connection: %v", route, err)
		default:
		}
	}
}
