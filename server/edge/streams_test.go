package edge

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server/edge/edgetest"
)

// TestStreamEndsWhenClientDoesNotRead: if a client does not read, its stream ends and its handler
// returns.
func TestStreamEndsWhenClientDoesNotRead(t *testing.T) {
	t.Parallel()
	returned := make(chan error, 1)
	seat := &dlsmsv1.Seat{Label: strings.Repeat("x", 60<<10)}
	big := &dlsmsv1.WatchSeatsResponse{Event: &dlsmsv1.WatchSeatsResponse_Change{Change: seat}}
	s := serve(t, edgetest.Seats{Watch: func(stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse]) error {
		for {
			if err := stream.Send(big); err != nil {
				returned <- err
				return err
			}
		}
	}})
	s.streams.maxSend = 200 * time.Millisecond
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "unread")
	if _, err := s.seats.WatchSeats(ctx, &dlsmsv1.WatchSeatsRequest{}); err != nil {
		t.Fatal(err)
	}
	if line := s.log.RPC(t, "unread"); line["code"] != "Unavailable" || line["cause"] != "the client does not read" {
		t.Errorf("the log line is %v", line)
	}
	select {
	case err := <-returned:
		t.Log("the send failed with", err)
	case <-time.After(within):
		t.Error("the handler still waits for its send")
	}
	if n := s.Stats().Streams; n != 0 {
		t.Errorf("%d streams are still counted", n)
	}
}

// deadStream is a stream whose connection is closed and whose context has not ended yet.
type deadStream struct{ grpc.ServerStream }

func (deadStream) Context() context.Context { return context.Background() }

func (deadStream) SendMsg(any) error { return status.Error(codes.Unavailable, "transport is closing") }

func (deadStream) SendHeader(metadata.MD) error {
	return status.Error(codes.Unavailable, "transport is closing")
}

// TestSendToClosedConnectionIsCanceled: a failed send to a client that has hung up is not an error
// of the replica.
func TestSendToClosedConnectionIsCanceled(t *testing.T) {
	t.Parallel()
	ctx, s := newEdgeStream(t.Context(), deadStream{}, maxSend)
	for name, err := range map[string]error{
		"a message":  s.SendMsg(&dlsmsv1.SubscribeResponse{}),
		"the header": s.SendHeader(nil),
	} {
		if o := conclude(ctx, err, false); o.status.Code() != codes.Canceled {
			t.Errorf("%s: %v, because of %v", name, o.status, o.cause)
		}
	}
}
