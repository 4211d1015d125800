package telemetry

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
)

const getSeats = "/dlsms.v1.SeatService/GetSeats"

// The id of a client's trace is the lowest, which the sampler traceidratio of OpenTelemetry samples
// at any ratio above 0.
const (
	clientTrace = "00000000000000000000000000000001"
	clientSpan  = "00f067aa0ba902b7"
	asks        = "00-" + clientTrace + "-" + clientSpan + "-01"
	declines    = "00-" + clientTrace + "-" + clientSpan + "-00"
)

// TestSamplerDecides checks which calls are sampled, over gRPC and over HTTP. A client decides only
// with the samplers of parentbased_. Its trace goes on in either case.
func TestSamplerDecides(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sampler string
		ratio   float64
		client  string // traceparent
		sampled bool
	}{
		{"always_on", 0, "", true},
		{"always_on", 0, declines, true},
		{"always_on", 0, asks, true},
		{"always_on", 0, "nonsense", true},
		{"always_off", 1, asks, false},
		{"traceidratio", 1, declines, true},
		{"traceidratio", 1e-12, asks, false},
		{"parentbased_always_on", 0, declines, false},
		{"parentbased_always_on", 0, "", true},
		{"parentbased_always_off", 1, asks, true},
		{"parentbased_always_off", 1, "", false},
		{"parentbased_traceidratio", 1, "", true},
		{"parentbased_traceidratio", 0, asks, true},
		{"parentbased_traceidratio", 0, "nonsense", false},
	} {
		s, err := newSampler(c.sampler, c.ratio)
		if err != nil {
			t.Fatal(err)
		}
		traces := newTraces(s)
		ctx, r := t.Context(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/seats", nil)
		if c.client != "" {
			ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("traceparent", c.client))
			r.Header.Set("Traceparent", c.client)
		}
		ofCall, _ := traces.startCall(ctx, getSeats)
		ofRequest, _ := traces.StartRequest(r)
		inRequest, _ := traces.startCall(ofRequest, getSeats)
		for how, ctx := range map[string]context.Context{"gRPC": ofCall, "HTTP": ofRequest, "call in HTTP": inRequest} {
			span := trace.SpanContextFromContext(ctx)
			if span.IsSampled() != c.sampled {
				t.Errorf("%s: %+v: sampled: %v", how, c, span.IsSampled())
			}
			if goesOn := span.TraceID().String() == clientTrace; c.sampled && goesOn != (len(c.client) == len(asks)) {
				t.Errorf("%s: %+v: the trace id is %s", how, c, span.TraceID())
			}
			if labels := Exemplar(ctx); (labels["trace_id"] == span.TraceID().String()) != c.sampled {
				t.Errorf("%s: %+v: the exemplar is %v", how, c, labels)
			}
		}
	}
}

// TestCallIsInItsRequest checks the parents of spans, and that health checks have none.
func TestCallIsInItsRequest(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	traces := newTraces(sampler{ratio: 1}, sdktrace.WithSpanProcessor(recorder))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/seats", nil)
	r.Header.Set("Traceparent", asks)
	ctx, request := traces.StartRequest(r)
	_, call := traces.startCall(ctx, getSeats)
	endCall(call, nil)
	EndRequest(request, http.MethodGet, "/v1/seats", http.StatusOK)

	health := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil)
	_, check := traces.StartRequest(health)
	EndRequest(check, http.MethodGet, "/healthz", http.StatusOK)
	_, check = traces.startCall(t.Context(), "/grpc.health.v1.Health/Check")
	endCall(check, nil)

	ended := recorder.Ended()
	if len(ended) != 2 {
		t.Fatalf("%d spans ended, want 2: %v", len(ended), ended)
	}
	inner, outer := ended[0], ended[1]
	if inner.Name() != getSeats[1:] || outer.Name() != "GET /v1/seats" {
		t.Errorf("the spans are %q in %q", inner.Name(), outer.Name())
	}
	if inner.Parent().SpanID() != outer.SpanContext().SpanID() || outer.Parent().SpanID().String() != clientSpan {
		t.Errorf("the parents are %v and %v", inner.Parent(), outer.Parent())
	}
	if inner.SpanKind() != trace.SpanKindInternal || outer.SpanKind() != trace.SpanKindServer {
		t.Errorf("the kinds are %v and %v", inner.SpanKind(), outer.SpanKind())
	}
}

// TestTraceStateIsLeftOut: a client can't add kilobytes to each span of its calls.
func TestTraceStateIsLeftOut(t *testing.T) {
	t.Parallel()
	traces := newTraces(sampler{ratio: 1})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/seats", nil)
	r.Header.Set("Traceparent", asks)
	r.Header.Set("Tracestate", "a=b")
	ctx, _ := traces.StartRequest(r)
	if span := trace.SpanContextFromContext(ctx); span.TraceID().String() != clientTrace || span.TraceState().Len() != 0 {
		t.Errorf("the request has the trace %s with the state %q", span.TraceID(), span.TraceState())
	}
}

// TestPartLinksToAnother checks the size, the link and the status of a batch.
func TestPartLinksToAnother(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	traces := newTraces(sampler{ratio: 1}, sdktrace.WithSpanProcessor(recorder))
	call, span := traces.startCall(t.Context(), getSeats)
	first, endFirst := StartPart(call, "batch", 2, nil)
	_, endSecond := StartPart(call, "batch", 2, first)
	endSecond(errors.New("refused"))
	endFirst(nil)
	endCall(span, nil)
	if _, end := StartPart(t.Context(), "batch", 2, first); end != nil {
		t.Error("a part of a call that is not sampled has a span")
	}
	ended := recorder.Ended()
	if len(ended) != 3 {
		t.Fatalf("%d spans ended, want 3", len(ended))
	}
	second, other := ended[0], ended[1]
	if len(second.Links()) != 1 || second.Links()[0].SpanContext.SpanID() != other.SpanContext().SpanID() {
		t.Errorf("the links are %v", second.Links())
	}
	if second.Status().Code != codes.Error || other.Status().Code != codes.Unset {
		t.Errorf("the statuses are %v and %v", second.Status(), other.Status())
	}
	if want := attribute.Int("dlsms.batch.size", 2); !slices.Contains(second.Attributes(), want) {
		t.Errorf("the attributes are %v", second.Attributes())
	}
}
