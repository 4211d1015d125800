package telemetry

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// spans receives the spans of an OTLP exporter.
type spans struct {
	collector.UnimplementedTraceServiceServer
	names chan string
}

func (s *spans) Export(
	_ context.Context, req *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	for _, r := range req.GetResourceSpans() {
		for _, scope := range r.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				s.names <- span.GetName()
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestTracesReachTheEndpoint(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	received := &spans{names: make(chan string, 2)}
	srv := grpc.NewServer()
	collector.RegisterTraceServiceServer(srv, received)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)

	traces, err := NewTraces(t.Context(), TraceConfig{
		Endpoint: "http://" + l.Addr().String(), Sampler: "always_on", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if traces.QueryTracer() == nil {
		t.Error("statements are not traced")
	}
	ctx, call := traces.startCall(t.Context(), getSeats)
	_, span := StartSpan(ctx, "booking")
	span.End()
	endCall(call, nil)
	if err := traces.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if got := []string{<-received.names, <-received.names}; !slices.Equal(got, []string{"booking", getSeats[1:]}) {
		t.Errorf("got the spans %q", got)
	}
}

func TestTracesAreOffByDefault(t *testing.T) {
	t.Parallel()
	traces, err := NewTraces(t.Context(), TraceConfig{Sampler: "always_on"})
	if err != nil {
		t.Fatal(err)
	}
	if traces.QueryTracer() != nil {
		t.Error("statements are traced")
	}
	_, err = traces.Unary(func(
		ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler,
	) (any, error) {
		if trace.SpanContextFromContext(ctx).IsValid() {
			t.Error("a call has a span")
		}
		return nil, nil
	})(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: getSeats}, nil)
	if err != nil {
		t.Error(err)
	}
	if err := traces.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestUnknownSamplerIsRefused(t *testing.T) {
	t.Parallel()
	_, err := NewTraces(t.Context(), TraceConfig{Endpoint: "http://127.0.0.1:1", Sampler: "sometimes"})
	if err == nil {
		t.Error("an unknown sampler is accepted")
	}
}
