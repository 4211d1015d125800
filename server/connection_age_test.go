package server

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestConnectionsAreReplaced calls without a pause on connections that live for a tenth of a second.
// The client must open several connections, no call may fail, and a stream must outlive its
// connection's age.
func TestConnectionsAreReplaced(t *testing.T) {
	t.Parallel()
	const age = 100 * time.Millisecond
	db := storetest.NewDB(t)
	seat := db.Seats(t, 1)[0]
	s := startOn(t, db, func(c *Config) { c.MaxConnectionAge = age }, nil)
	var opened atomic.Int64
	conn := dial(t, s.addr, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		opened.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}))
	seats := dlsmsv1.NewSeatServiceClient(conn)
	stream, err := seats.WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // the snapshot
		t.Fatal(err)
	}
	calls := 0
	for deadline := time.Now().Add(within); opened.Load() < 5; calls++ {
		if _, err := seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{}); err != nil {
			t.Fatalf("call %d: %v", calls, err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections in %d calls and %s", opened.Load(), calls, within)
		}
	}
	_, err = s.reservation.CreateReservation(s.student(t), &dlsmsv1.CreateReservationRequest{
		SeatId: seat, EndTime: timestamppb.New(time.Now().Add(time.Hour)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := stream.Recv(); err != nil || got.GetChange().GetId() != seat {
		t.Errorf("a stream that is older than its connection may be got %v, %v", got, err)
	}
}
