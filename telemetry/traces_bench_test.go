package telemetry

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// BenchmarkUnsampledCall measures what traces cost a call that is not sampled.
func BenchmarkUnsampledCall(b *testing.B) {
	sampler, err := newSampler("traceidratio", .01)
	if err != nil {
		b.Fatal(err)
	}
	next := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return handler(ctx, req)
	}
	info := &grpc.UnaryServerInfo{FullMethod: "/dlsms.v1.SeatService/GetSeats"}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	for name, traces := range map[string]Traces{"off": {}, "on": newTraces(sampler)} {
		b.Run(name, func(b *testing.B) {
			call := traces.Unary(next)
			ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs(
				":authority", "dlsms", "content-type", "application/grpc", "user-agent", "bench", "x-real-ip", "192.0.2.1"))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := call(ctx, nil, info, handler); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
