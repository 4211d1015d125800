package server

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store"
)

// BenchmarkStreamWorkers compares calls that run on waiting goroutines with calls that each start a
// new goroutine.
func BenchmarkStreamWorkers(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	open := edge.NewStreams(edge.DefaultStreamLimits)
	limits := edge.NewLimits(edge.RateLimits{}, nil, edge.RedisTimeout, store.DefaultLibrary, log)
	for name, workers := range map[string]uint32{"none": 0, "some": streamWorkers} {
		b.Run(name, func(b *testing.B) {
			e := edge.New(edge.Config{Log: log, Limits: limits, Streams: open, DBConns: 100})
			e.Open()
			s := grpc.NewServer(append(e.Options(), grpc.NumStreamWorkers(workers))...)
			defer s.Stop()
			seats := fakeSeats{Branches: func(context.Context) error { return nil }}
			dlsmsv1.RegisterSeatServiceServer(e.Registrar(s), seats)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			go func() { _ = s.Serve(l) }()
			conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			client := dlsmsv1.NewSeatServiceClient(conn)
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := client.GetBranches(b.Context(), &dlsmsv1.GetBranchesRequest{}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
