package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
)

// BenchmarkEdge measures the cost of the edge for a call whose handler does nothing, without grpc
// and the metrics.
func BenchmarkEdge(b *testing.B) {
	ring, err := ParseKeyRing("test:" + testSecret)
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(io.Discard, nil)) //nolint:sloglint // the benchmark includes the log line
	open := newStreams(DefaultStreamLimits)
	e := &edge{
		log: log, tokens: newTokens(ring, time.Hour, time.Now), revoked: newRevocations(nil, open, log, time.Now),
		limits: newLimits(RateLimits{PerUserPerMinute: 1 << 30}, nil, log), admission: newAdmission(100),
		streams: open, incoming: newIncoming(),
	}
	e.users = newIdentities(nil, open, log, 1)
	e.users.users.put(7, knownUser{library.Identity{ID: 7, StudentID: "S2021001"}, time.Now().Add(time.Hour)}, maxKnown)
	e.gate.open.Store(true)
	e.revoked.asOf = time.Now().Add(time.Hour)
	user := library.User{ID: 7, StudentID: "S2021001", Role: library.RoleStudent}
	token, _, err := e.tokens.issue(library.Credentials{User: user})
	if err != nil {
		b.Fatal(err)
	}
	ctx := peer.NewContext(b.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 7}})
	ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(
		":authority", "dlsms", "content-type", "application/grpc", "user-agent", "bench",
		"authorization", "Bearer "+token))
	ctx = grpc.NewContextWithServerTransportStream(ctx, headers{})
	for name, method := range map[string]string{
		"public":   dlsmsv1.SeatService_GetSeats_FullMethodName,
		"signedIn": dlsmsv1.ReservationService_GetReservations_FullMethodName,
	} {
		b.Run(name, func(b *testing.B) {
			req, info := &dlsmsv1.GetSeatsRequest{}, &grpc.UnaryServerInfo{FullMethod: method}
			resp := &dlsmsv1.GetSeatsResponse{}
			handler := func(context.Context, any) (any, error) { return resp, nil }
			b.ReportAllocs()
			for b.Loop() {
				ctx := context.WithValue(ctx, callKey{}, e.begin(ctx, method))
				if _, err := e.unary(ctx, req, info, handler); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// headers accepts the header of an answer, like grpc's transport.
type headers struct{ grpc.ServerTransportStream }

func (headers) SetHeader(metadata.MD) error { return nil }

// BenchmarkStreamWorkers compares calls that run on a waiting goroutine with calls that each start
// a new one.
func BenchmarkStreamWorkers(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	open := newStreams(DefaultStreamLimits)
	for name, workers := range map[string]uint32{"none": 0, "some": streamWorkers} {
		b.Run(name, func(b *testing.B) {
			e := &edge{
				log: log, limits: newLimits(RateLimits{}, nil, log), admission: newAdmission(100),
				streams: open, incoming: newIncoming(),
			}
			e.gate.open.Store(true)
			s := grpc.NewServer(grpc.NumStreamWorkers(workers), grpc.ChainUnaryInterceptor(e.unary))
			defer s.Stop()
			seats := fakeSeats{branches: func(context.Context) error { return nil }}
			dlsmsv1.RegisterSeatServiceServer(registrar{s, e}, seats)
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
