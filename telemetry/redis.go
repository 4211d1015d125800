package telemetry

import (
	"context"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// TraceRedis makes client make a span of each command in a sampled trace, without the arguments: keys
// contain user ids, student ids and client addresses. The library redisotel would also make a trace
// of each command outside of a call, such as a hint.
func (t Traces) TraceRedis(client redis.UniversalClient) {
	if t.provider != nil && client != nil {
		client.AddHook(redisHook{})
	}
}

type redisHook struct{}

// DialHook implements redis.Hook.
func (redisHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, span := startRedis(ctx, "dial")
		conn, err := next(ctx, network, addr)
		endRedis(span, err)
		return conn, err
	}
}

// ProcessHook implements redis.Hook.
func (redisHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		ctx, span := startRedis(ctx, cmd.Name())
		err := next(ctx, cmd)
		endRedis(span, err)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (redisHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		ctx, span := startRedis(ctx, "pipeline")
		err := next(ctx, cmds)
		endRedis(span, err)
		return err
	}
}

func startRedis(ctx context.Context, operation string) (context.Context, trace.Span) {
	return StartSpan(ctx, "redis "+operation, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("db.system.name", "redis"), attribute.String("db.operation.name", operation)))
}

// endRedis ends the span of a command. Its error is that of the connection, or of Redis.
func endRedis(span trace.Span, err error) {
	if err != nil && !errors.Is(err, redis.Nil) {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
