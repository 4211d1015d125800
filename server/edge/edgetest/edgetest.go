// Package edgetest helps to test calls through the edge. It compares statuses, waits for log lines
// and provides handlers.
package edgetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// Within bounds the wait for an event that must happen. A test that passes uses a small part of it.
const Within = 15 * time.Second

// Eventually waits until a condition holds, and fails after Within. what describes the condition.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(Within)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // the interval of the checks
	}
}

// Want fails unless err has the code and the reason. An empty reason stands for an error without a
// reason.
func Want(t testing.TB, err error, code codes.Code, reason string) {
	t.Helper()
	if status.Code(err) != code || Reason(err) != reason {
		t.Fatalf("got %v with reason %q, want %v with reason %q: %v", status.Code(err), Reason(err), code, reason, err)
	}
}

// Detail returns the first detail of a type in the status of an error, or the zero value.
func Detail[T any](err error) (found T) {
	for _, d := range status.Convert(err).Details() {
		if d, ok := d.(T); ok {
			return d
		}
	}
	return found
}

// Reason returns the reason of an error, or "" if the error has none. If the domain of the error is
// not dlsms, it returns the domain.
func Reason(err error) string {
	info := Detail[*errdetails.ErrorInfo](err)
	if info != nil && info.GetDomain() != "dlsms" {
		return "domain " + info.GetDomain()
	}
	return info.GetReason()
}

// Fields returns the names of the fields that the BadRequest of an error lists.
func Fields(err error) []string {
	var out []string
	for _, v := range Detail[*errdetails.BadRequest](err).GetFieldViolations() {
		out = append(out, v.GetField())
	}
	return out
}

// Clock is a wall clock that a test can move forward. Its zero value shows the real time.
type Clock struct{ ahead atomic.Int64 }

// Now returns the time of the clock.
func (c *Clock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// Advance moves the clock forward.
func (c *Clock) Advance(d time.Duration) { c.ahead.Add(int64(d)) }

// Log keeps the lines of a log. Its zero value is ready.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns all lines.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// RPC waits for the log line of the call with a request id. It returns the fields of this line.
func (l *Log) RPC(t testing.TB, requestID string) map[string]any {
	t.Helper()
	var line map[string]any
	Eventually(t, "there is a log line with request id "+requestID, func() bool {
		for text := range strings.Lines(l.String()) {
			line = nil
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if line["msg"] == "rpc" && line["request_id"] == requestID {
				return true
			}
		}
		return false
	})
	return line
}

// Seats is a SeatService with the handlers of a test.
type Seats struct {
	dlsmsv1.UnimplementedSeatServiceServer

	Branches func(context.Context) error
	Watch    func(grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse]) error
}

// GetBranches implements SeatServiceServer.
func (s Seats) GetBranches(ctx context.Context, _ *dlsmsv1.GetBranchesRequest) (*dlsmsv1.GetBranchesResponse, error) {
	return &dlsmsv1.GetBranchesResponse{}, s.Branches(ctx)
}

// WatchSeats implements SeatServiceServer.
func (s Seats) WatchSeats(
	_ *dlsmsv1.WatchSeatsRequest, stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse],
) error {
	return s.Watch(stream)
}

// StartRedis starts a Redis for one test, which may stop it.
func StartRedis(t testing.TB) *stack.Redis {
	t.Helper()
	r, err := stack.StartRedis(t.Context(), stack.RedisConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Stop(context.Background()) })
	return r
}

// Ended receives until the stream ends, and returns its error, nil for io.EOF.
func Ended[T any](t testing.TB, stream grpc.ServerStreamingClient[T]) error {
	t.Helper()
	got := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				got <- err
				return
			}
		}
	}()
	select {
	case err := <-got:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case <-time.After(Within):
		t.Fatal("the stream did not end")
		return nil
	}
}
