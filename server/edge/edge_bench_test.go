package edge

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store"
)

// BenchmarkEdge measures the cost of the edge for a call. The handler does nothing, and the cost of
// grpc and of the metrics is not included.
func BenchmarkEdge(b *testing.B) {
	ring, err := identity.ParseKeyRing("test:qL2vN8xR4tW6yB1dF3hJ5kM7pS9uZ0aC")
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(io.Discard, nil)) //nolint:sloglint // the cost includes formatting
	open, tokens := NewStreams(StreamLimits{}), identity.NewTokens(ring, time.Hour, time.Now)
	e := New(Config{
		Log: log, Tokens: tokens, Streams: open, DBConns: 100,
		Limits:      NewLimits(RateLimits{PerUserPerMinute: 1 << 30}, nil, RedisTimeout, store.DefaultLibrary, log),
		Users:       identity.NewUsers(oneUser{}, open, log, 1),
		Revocations: identity.NewRevocations(noRevocations{}, open, func() {}, log, time.Now),
	})
	e.Open()
	if err := e.revoked.Read(b.Context()); err != nil {
		b.Fatal(err)
	}
	go e.revoked.Follow(b.Context(), func(bool) {})
	user := library.User{ID: 7, StudentID: "S2021001", Role: library.RoleStudent}
	token, _, err := tokens.Issue(library.Credentials{User: user})
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

// oneUser is a store with one user.
type oneUser struct{}

func (oneUser) Identities(context.Context, ...int64) ([]library.Identity, error) {
	return []library.Identity{{ID: 7, StudentID: "S2021001"}}, nil
}

// noRevocations is an empty revocation list.
type noRevocations struct{}

func (noRevocations) Revocations(context.Context, store.Snapshot) (store.RevocationPage, error) {
	return store.RevocationPage{}, nil
}
