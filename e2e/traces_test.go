package e2e_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// traceCollector receives the spans of the replicas, by OTLP.
type traceCollector struct {
	collectorpb.UnimplementedTraceServiceServer

	mu    sync.Mutex
	spans []*tracepb.Span
}

// Export implements TraceServiceServer.
func (c *traceCollector) Export(
	_ context.Context, req *collectorpb.ExportTraceServiceRequest,
) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range req.GetResourceSpans() {
		for _, s := range r.GetScopeSpans() {
			c.spans = append(c.spans, s.GetSpans()...)
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// collectTraces starts a collector, and returns it with the settings of replicas that send to it.
func collectTraces(t *testing.T) (*traceCollector, map[string]string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, srv := &traceCollector{}, grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(srv, c)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return c, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + l.Addr().String(),
		"OTEL_BSP_SCHEDULE_DELAY":     "100", // milliseconds
	}
}

// all returns all spans.
func (c *traceCollector) all() []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// clientSpan is a span of a client, which asks a replica to continue its trace.
type clientSpan struct{ trace, id string }

// header returns the header traceparent. The client has not sampled its trace.
func (s clientSpan) header() string { return "00-" + s.trace + "-" + s.id + "-00" }

// tree waits until the span of the replica below the client's span has arrived, and returns it with
// all spans below: each as the path of names from the client. The spans below end before.
func (c *traceCollector) tree(t *testing.T, client clientSpan) (root *tracepb.Span, paths []string) {
	t.Helper()
	var trace []*tracepb.Span
	eventually(t, "the trace arrives", func() bool {
		trace, root = nil, nil
		for _, s := range c.all() {
			if hex.EncodeToString(s.GetTraceId()) == client.trace {
				trace = append(trace, s)
				if hex.EncodeToString(s.GetParentSpanId()) == client.id {
					root = s
				}
			}
		}
		return root != nil
	})
	byID := map[string]*tracepb.Span{}
	for _, s := range trace {
		byID[string(s.GetSpanId())] = s
	}
	for _, s := range trace {
		path := s.GetName()
		for s != root {
			if s = byID[string(s.GetParentSpanId())]; s == nil {
				t.Fatalf("%s is not below the client's span", path)
			}
			path = s.GetName() + " > " + path
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return root, slices.Compact(paths)
}

// TestTraceOfABooking books over HTTP and over gRPC, through nginx, as a client with a trace of its
// own. The trace has all parts in one tree and the request id. The histograms lead to it. No span
// contains what identifies a student or a token.
func TestTraceOfABooking(t *testing.T) {
	t.Parallel()
	collector, env := collectTraces(t)
	s := start(t, stack.Config{Env: env})
	u, b := s.student(t), s.branch(t, 2)
	const (
		call  = "dlsms.v1.ReservationService/CreateReservation"
		batch = call + " > booking batch"
	)
	parts := []string{call, call + " > redis evalsha", call + " > wait for batch", batch, batch + " > pool.acquire"}

	overHTTP := clientSpan{"4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"}
	s.send(t, "POST", "/v1/reservations", jsonOf(t, tomorrow(9, 10).booking(b.seats[0])), append(bearer(u),
		"Traceparent", overHTTP.header(), "X-Request-Id", "over-http")...).
		message(http.StatusCreated, &dlsmsv1.CreateReservationResponse{})
	root, paths := collector.tree(t, overHTTP)
	const request = "POST /v1/reservations"
	expectSpan(t, root, request, "over-http")
	want := []string{request}
	for _, part := range parts {
		want = append(want, request+" > "+part)
	}
	expectPaths(t, paths, want, request+" > "+batch)
	s.expectExemplar(t, overHTTP, `grpc_server_handling_seconds_bucket{grpc_method="CreateReservation",`)
	s.expectExemplar(t, overHTTP,
		`dlsms_http_request_duration_seconds_bucket{code="201",method="POST",route="/v1/reservations",`)

	overGRPC := clientSpan{"4bf92f3577b34da6a3ce929d0e0e4737", "00f067aa0ba902b8"}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", overGRPC.header(), "x-request-id", "over-grpc")
	if _, err := u.Reservations.CreateReservation(ctx, tomorrow(10, 11).booking(b.seats[1])); err != nil {
		t.Fatal(err)
	}
	root, paths = collector.tree(t, overGRPC)
	expectSpan(t, root, call, "over-grpc")
	expectPaths(t, paths, parts, batch)
	s.expectExemplar(t, overGRPC, `grpc_server_handling_seconds_bucket{grpc_method="CreateReservation",`)

	for _, span := range collector.all() {
		text := span.String()
		for _, secret := range []string{
			u.Token, u.Password, u.User.GetStudentId(), u.User.GetName(), u.User.GetEmail(), "dlsms:{",
		} {
			if strings.Contains(text, secret) {
				t.Errorf("a span contains %q: %s", secret, text)
			}
		}
	}
}

// expectSpan checks the name and the request id of a span.
func expectSpan(t *testing.T, s *tracepb.Span, name, requestID string) {
	t.Helper()
	if s.GetName() != name {
		t.Errorf("the first span is %q, want %q", s.GetName(), name)
	}
	for _, a := range s.GetAttributes() {
		if a.GetKey() == "request.id" && a.GetValue().GetStringValue() == requestID {
			return
		}
	}
	t.Errorf("%s lacks the request id %s: %v", name, requestID, s.GetAttributes())
}

// expectPaths checks that a trace has the wanted spans, and a statement in the batch.
func expectPaths(t *testing.T, paths, want []string, batch string) {
	t.Helper()
	for _, path := range want {
		if !slices.Contains(paths, path) {
			t.Errorf("there is no span %q", path)
		}
	}
	statement := regexp.MustCompile("^" + regexp.QuoteMeta(batch) + " > (.* > )?(SELECT|WITH)$")
	if !slices.ContainsFunc(paths, statement.MatchString) {
		t.Errorf("there is no statement in %s", batch)
	}
	if t.Failed() {
		t.Logf("the spans are:\n%s", strings.Join(paths, "\n"))
	}
}

// expectExemplar checks that a bucket of a histogram of a replica, in a line that begins with prefix,
// leads to the trace of the client.
func (s *system) expectExemplar(t *testing.T, client clientSpan, prefix string) {
	t.Helper()
	exemplar := fmt.Sprintf("# {trace_id=%q}", client.trace)
	eventually(t, prefix+" leads to the trace", func() bool {
		for _, r := range s.Replicas {
			for line := range strings.Lines(openMetrics(t, r.AdminAddr())) {
				if strings.HasPrefix(line, prefix) && strings.Contains(line, exemplar) {
					return true
				}
			}
		}
		return false
	})
}

// openMetrics returns the metrics at addr in the format OpenMetrics.
func openMetrics(t *testing.T, addr string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, waitTimeout), http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
