package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
)

// Traces makes spans of calls and statements. The zero value makes no spans and costs nothing. If
// traces are on, a call whose span is not sampled still costs about 2 µs.
type Traces struct {
	provider *sdktrace.TracerProvider // nil: off
}

// NewTraces returns Traces that sends spans to endpoint by OTLP over gRPC; "" turns traces off.
// OTEL_TRACES_SAMPLER and the other variables of OpenTelemetry have their usual meaning.
func NewTraces(ctx context.Context, endpoint string) (Traces, error) {
	if endpoint == "" {
		return Traces{}, nil
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(endpoint))
	if err != nil {
		return Traces{}, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT: %w", err)
	}
	replica, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "dlsms")), resource.WithFromEnv(), resource.WithHost())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return Traces{}, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return Traces{sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(replica))}, nil
}

// ServerOptions returns options for a gRPC server that makes a span of each call.
func (t Traces) ServerOptions() []grpc.ServerOption {
	if t.provider == nil {
		return nil
	}
	handler := otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithPropagators(propagation.TraceContext{}))
	return []grpc.ServerOption{grpc.StatsHandler(handler)}
}

// HTTPHandler returns a handler that makes a span of each request to h.
func (t Traces) HTTPHandler(h http.Handler) http.Handler {
	if t.provider == nil {
		return h
	}
	name := func(_ string, r *http.Request) string { return "HTTP " + r.Method }
	return otelhttp.NewHandler(h, "", otelhttp.WithTracerProvider(t.provider),
		otelhttp.WithPropagators(propagation.TraceContext{}), otelhttp.WithSpanNameFormatter(name))
}

// QueryTracer makes a span of each statement, without its arguments.
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
