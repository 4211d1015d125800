package edge

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
)

// logCall logs an RPC in one line.
func (e *Edge) logCall(ctx context.Context, c *call, o outcome) {
	level := levelOf(c, o)
	if !e.log.Enabled(ctx, level) {
		return
	}
	var attrs [12]slog.Attr
	a := append(attrs[:0],
		slog.String("method", c.method),
		slog.String("code", o.status.Code().String()),
		slog.Int64("us", time.Since(c.start).Microseconds()), // slog encodes a float by reflection
		slog.String("request_id", c.requestID),
		slog.String("peer", c.address),
	)
	if IsHTTP(ctx) {
		a = append(a, slog.Bool("http", true))
	}
	if c.caller.UserID != 0 {
		a = append(a, slog.Int64("user_id", c.caller.UserID))
	}
	if c.caller.Key != nil {
		a = append(a, slog.Int64("key_id", c.caller.Key.ID))
	}
	if o.reason != "" {
		a = append(a, slog.String("reason", o.reason))
	}
	if o.cause != nil {
		a = append(a, slog.String("cause", o.cause.Error()))
		if p, ok := errors.AsType[*panicError](o.cause); ok {
			a = append(a, slog.String("stack", string(p.stack)))
		}
	}
	e.log.LogAttrs(ctx, level, "rpc", a...)
}

// levelOf returns Error for internal errors, Warn for UNAVAILABLE, Debug for successful health
// checks and reflection, and Info otherwise.
func levelOf(c *call, o outcome) slog.Level {
	switch o.status.Code() {
	case codes.OK:
		if c.rule.duringStartup {
			return slog.LevelDebug
		}
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return slog.LevelError
	case codes.Unavailable:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
