package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// step is one part of the start or the stop of a replica.
type step struct {
	name  string
	limit time.Duration // its context ends then
	run   func(ctx context.Context) error
}

// startInOrder runs the steps until one fails, and returns its error. It logs each step with its
// duration. A step ends early if ctx ends.
func startInOrder(ctx context.Context, log *slog.Logger, steps []step) error {
	for _, s := range steps {
		began := time.Now()
		limited, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("%s: not done after %s", s.name, s.limit))
		err := s.run(limited)
		if err != nil && limited.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", context.Cause(limited), err)
		}
		cancel()
		duration := time.Since(began).String()
		switch {
		case err == nil:
			log.InfoContext(ctx, "start", "step", s.name, "duration", duration)
		case ctx.Err() != nil:
			log.InfoContext(ctx, "start interrupted", "step", s.name, "duration", duration, "cause", err)
			return err
		default:
			log.WarnContext(ctx, "start failed", "step", s.name, "duration", duration, "error", err)
			return err
		}
	}
	return nil
}

// stopInOrder runs all steps, whatever their errors. It logs each step with its duration. A step
// that does not return within its limit is abandoned, so that a hanging connection or client can't
// keep a replica from its end.
func stopInOrder(ctx context.Context, log *slog.Logger, steps []step) {
	for _, s := range steps {
		began := time.Now()
		err := s.runAtMost(ctx)
		duration := time.Since(began).String()
		if err != nil {
			log.WarnContext(ctx, "stop incomplete", "step", s.name, "duration", duration, "error", err)
			continue
		}
		log.InfoContext(ctx, "stop", "step", s.name, "duration", duration)
	}
}

// runAtMost runs the step, and returns at its limit also if the step goes on.
func (s step) runAtMost(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("not done after %s", s.limit))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done: // both were ready
		return err
	default:
		return context.Cause(ctx)
	}
}
