package edge

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge/edgetest"
)

func TestPanicsAreInternalErrors(t *testing.T) {
	t.Parallel()
	s := serve(t, edgetest.Seats{
		Branches: func(context.Context) error { panic("hunter2") },
		Watch:    func(grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse]) error { panic("hunter2") },
	})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "panics")
	_, err := s.seats.GetBranches(ctx, &dlsmsv1.GetBranchesRequest{})
	edgetest.Want(t, err, codes.Internal, "")
	if status.Convert(err).Message() != "internal error" {
		t.Errorf("the client reads %q", status.Convert(err).Message())
	}
	line := s.log.RPC(t, "panics")
	if line["cause"] != "panic: hunter2" || !strings.Contains(line["stack"].(string), "interceptors_test.go") {
		t.Errorf("the log line is %v", line)
	}
	stream, err := s.seats.WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	edgetest.Want(t, edgetest.Ended(t, stream), codes.Internal, "")
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	left := make(chan time.Duration, 1)
	s := serve(t, edgetest.Seats{Branches: func(ctx context.Context) error {
		at, ok := ctx.Deadline()
		if !ok {
			at = time.Now().Add(time.Hour)
		}
		left <- time.Until(at)
		if time.Until(at) < time.Second {
			<-ctx.Done()
			return library.ErrUnavailable.WithCause(ctx.Err()) // as the store returns it
		}
		return nil
	}})
	for name, test := range map[string]struct{ client, most, least time.Duration }{
		"none":  {0, DefaultDeadline, DefaultDeadline - time.Second},
		"long":  {time.Hour, DefaultDeadline, DefaultDeadline - time.Second},
		"short": {3 * time.Second, 3 * time.Second, 0},
	} {
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if test.client > 0 {
			ctx, cancel = context.WithTimeout(ctx, test.client)
		}
		_, err := s.seats.GetBranches(ctx, &dlsmsv1.GetBranchesRequest{})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if got := <-left; got > test.most || got < test.least {
			t.Errorf("deadline %s: %v are left", name, got)
		}
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "late")
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	_, err := s.seats.GetBranches(ctx, &dlsmsv1.GetBranchesRequest{})
	edgetest.Want(t, err, codes.DeadlineExceeded, "")
	// At its deadline, the client may cancel the call before the server sees the deadline.
	if line := s.log.RPC(t, "late"); line["code"] != "DeadlineExceeded" && line["code"] != "Canceled" {
		t.Errorf("the log line is %v", line)
	}
}

// TestDefaultDeadlineIsUnavailable: a client without a deadline gets UNAVAILABLE and may try again.
// DEADLINE_EXCEEDED would mean that a deadline of the client has passed.
func TestDefaultDeadlineIsUnavailable(t *testing.T) {
	t.Parallel()
	s := serve(t, edgetest.Seats{Branches: func(ctx context.Context) error {
		<-ctx.Done()
		return library.ErrUnavailable.WithCause(ctx.Err()) // as the store returns it
	}})
	_, err := s.seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{})
	edgetest.Want(t, err, codes.Unavailable, "UNAVAILABLE")
}

func TestCancelledCallReachesNoHandler(t *testing.T) {
	t.Parallel()
	e := newEdge(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := e.begin(ctx, "/dlsms.v1.SeatService/GetBranches")
	err := e.run(ctx, c, func(context.Context) error {
		t.Error("the handler ran")
		return nil
	})
	edgetest.Want(t, err, codes.Canceled, "")
}
