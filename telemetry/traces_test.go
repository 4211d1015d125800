package telemetry

import (
	"context"
	"net"
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
	received := &spans{names: make(chan string, 1)}
	srv := grpc.NewServer()
	collector.RegisterTraceServiceServer(srv, received)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)

	traces, err := NewTraces(t.Context(), "http://"+l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if len(traces.ServerOptions()) == 0 || traces.QueryTracer() == nil {
		t.Error("calls or statements are not traced")
	}
	_, span := traces.provider.Tracer("test").Start(t.Context(), "booking", trace.WithNewRoot())
	span.End()
	if err := traces.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if got := <-received.names; got != "booking" {
		t.Errorf("got span %q", got)
	}
}

func TestTracesAreOffByDefault(t *testing.T) {
	t.Parallel()
	traces, err := NewTraces(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(traces.ServerOptions()) != 0 || traces.QueryTracer() != nil {
		t.Error("calls or statements are traced")
	}
	if err := traces.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
