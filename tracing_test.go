package main

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// spans receives what an OTLP exporter sends.
type spans struct {
	collector.UnimplementedTraceServiceServer
	names chan string
}

func (s *spans) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
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

	traces, err := newTracing(t.Context(), &settings{OTLPEndpoint: "http://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if len(traces.serverOptions()) == 0 || traces.queryTracer() == nil {
		t.Error("calls or statements are not traced")
	}
	_, span := traces.provider.Tracer("test").Start(t.Context(), "booking", trace.WithNewRoot())
	span.End()
	traces.stop(t.Context(), slog.New(slog.DiscardHandler))
	if got := <-received.names; got != "booking" {
		t.Errorf("got span %q", got)
	}
}

func TestTracingIsOffByDefault(t *testing.T) {
	t.Parallel()
	traces, err := newTracing(t.Context(), &settings{})
	if err != nil {
		t.Fatal(err)
	}
	if len(traces.serverOptions()) != 0 || traces.queryTracer() != nil {
		t.Error("something is traced")
	}
	traces.stop(t.Context(), slog.New(slog.DiscardHandler))
}
