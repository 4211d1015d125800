package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// TraceConfig has the settings of Traces.
type TraceConfig struct {
	Endpoint string  // of a collector, by OTLP over gRPC; "" turns traces off
	Sampler  string  // one of Samplers
	Ratio    float64 // the sampled part of the traces, for the samplers with "ratio"
	Log      *slog.Logger
}

// Traces makes spans of calls and requests. The zero value makes no spans and costs nothing.
type Traces struct {
	provider *sdktrace.TracerProvider // nil: off
	tracer   trace.Tracer
	sampler  sampler
}

// tracerName is the name of the instrumentation in each span of this package.
const tracerName = "github.com/dlsms/dlsms/telemetry"

// NewTraces returns Traces that sends spans to the endpoint. The variables of OpenTelemetry for the
// exporter, the resource and the size of batches have their usual meaning.
func NewTraces(ctx context.Context, c TraceConfig) (Traces, error) {
	if c.Endpoint == "" {
		return Traces{}, nil
	}
	sampler, err := newSampler(c.Sampler, c.Ratio)
	if err != nil {
		return Traces{}, err
	}
	// Otherwise OpenTelemetry writes plain lines to standard error while the collector is unreachable.
	logged := context.WithoutCancel(ctx)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		c.Log.WarnContext(logged, "traces are lost", slog.Any("error", err))
	}))
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(c.Endpoint))
	if err != nil {
		return Traces{}, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT: %w", err)
	}
	replica, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "dlsms")), resource.WithFromEnv(), resource.WithHost())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return Traces{}, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return newTraces(sampler, sdktrace.WithBatcher(exporter), sdktrace.WithResource(replica)), nil
}

func newTraces(s sampler, options ...sdktrace.TracerProviderOption) Traces {
	// Spans are made only in sampled traces. This option replaces OTEL_TRACES_SAMPLER.
	provider := sdktrace.NewTracerProvider(append(options, sdktrace.WithSampler(sdktrace.AlwaysSample()))...)
	return Traces{provider, provider.Tracer(tracerName), s}
}

// QueryTracer makes a span of each statement in a sampled trace, without its arguments.
func (t Traces) QueryTracer() pgx.QueryTracer {
	if t.provider == nil {
		return nil
	}
	return otelpgx.NewTracer(otelpgx.WithTracerProvider(t.provider))
}

// Stop sends the spans that are not sent yet. It gives up when ctx ends.
func (t Traces) Stop(ctx context.Context) error {
	if t.provider == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// StartSpan starts a span of a part of a call, with the tracer of the call. If the trace of ctx is not
// sampled, it returns ctx and a span that does nothing.
func StartSpan(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, unsampled
	}
	//nolint:spancheck // the caller ends it
	return parent.TracerProvider().Tracer(tracerName).Start(ctx, name, options...)
}

// StartPart starts the span of a part of a call that works for a number of bookings, or for one call
// if bookings is 0. The span links to that of the context link, unless link is nil. StartPart returns
// a function that ends the span with the error of the part; nil if the trace of ctx is not sampled.
func StartPart(ctx context.Context, name string, bookings int, link context.Context) (context.Context, func(error)) {
	ctx, span := StartSpan(ctx, name)
	if !span.IsRecording() {
		return ctx, nil
	}
	if bookings > 0 {
		span.SetAttributes(attribute.Int("dlsms.batch.size", bookings))
	}
	if link != nil {
		span.AddLink(trace.LinkFromContext(link))
	}
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, "") // the span of the statement has its text
		}
		span.End()
	}
}

// unsampled is a span that does nothing. A request over HTTP that is not sampled has it, so that the
// call that it becomes is not sampled either.
var unsampled = trace.SpanFromContext(trace.ContextWithSpanContext(context.Background(),
	trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}})))

// Exemplar returns the labels that lead from a measurement to the trace of ctx. It returns nil, which
// stands for no exemplar, if the trace is not sampled.
func Exemplar(ctx context.Context) prometheus.Labels {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsSampled() {
		return nil
	}
	return prometheus.Labels{"trace_id": span.TraceID().String()}
}

// SetRequestID adds the request id of a call to its span, so that an operator finds the trace by the
// id in a log line or an answer.
func SetRequestID(ctx context.Context, id string) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(attribute.String("request.id", id))
	}
}
