package telemetry

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
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

	traces, err := NewTraces(t.Context(), "http://"+l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if len(traces.ServerOptions()) == 0 || traces.QueryTracer() == nil {
		t.Error("calls or statements are not traced")
	}
	_, span := traces.provider.Tracer("test").Start(t.Context(), "booking", trace.WithNewRoot())
	span.End()
	answer := httptest.NewRecorder()
	handler := traces.HTTPHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
	}))
	handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/seats", nil))
	if answer.Code != http.StatusTeapot {
		t.Errorf("with traces, the answer is %d", answer.Code)
	}
	if err := traces.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if got := []string{<-received.names, <-received.names}; !slices.Equal(got, []string{"booking", "HTTP GET"}) {
		t.Errorf("got the spans %q", got)
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
