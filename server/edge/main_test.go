package edge

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server/edge/edgetest"
	"github.com/dlsms/dlsms/stack"
	"github.com/dlsms/dlsms/store"
)

const within = edgetest.Within

// testServer is a gRPC server with the public methods of SeatService behind an edge, and its
// client.
type testServer struct {
	*Edge

	grpc  *grpc.Server
	log   *edgetest.Log
	seats dlsmsv1.SeatServiceClient
}

// serve starts a server with the test's handlers.
func serve(t *testing.T, handlers edgetest.Seats) *testServer {
	t.Helper()
	s := &testServer{log: &edgetest.Log{}}
	log := slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.Edge = newEdge(log)
	s.grpc = grpc.NewServer(s.Options()...)
	dlsmsv1.RegisterSeatServiceServer(s.Registrar(s.grpc), handlers)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.grpc.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	s.seats = dlsmsv1.NewSeatServiceClient(conn)
	t.Cleanup(func() {
		_ = conn.Close()
		s.grpc.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// newEdge returns an open edge for public methods.
func newEdge(log *slog.Logger) *Edge {
	e := New(Config{
		Log: log, Limits: NewLimits(RateLimits{}, nil, within, store.DefaultLibrary, log),
		Streams: NewStreams(StreamLimits{}), DBConns: 16,
	})
	e.Open()
	return e
}

// startRedis starts a Redis for one test, and a client whose timeout is long enough for a busy
// machine.
func startRedis(t *testing.T) (redis.UniversalClient, *stack.Redis) {
	t.Helper()
	r := edgetest.StartRedis(t)
	return clientOf(t, r, within), r
}

func clientOf(t *testing.T, r *stack.Redis, timeout time.Duration) redis.UniversalClient {
	t.Helper()
	client, err := OpenRedis(r.RedisURL(), "", timeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}
