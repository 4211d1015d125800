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
	limit time.Duration // the context of run ends after this time
	run   func(ctx context.Context) error
}

// startInOrder runs the steps in order. At the first step that fails, it stops and returns the
// error. It logs each step with its duration. If ctx ends, the running step ends early.
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

// stopInOrder runs all steps in order, even if some fail. It logs each step with its duration. It
// waits for a step only until the limit of the step: a connection or client that hangs must not
// keep the replica from stopping.
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

// runAtMost runs the step. It returns at the limit of the step at the latest, even if the step
// still runs.
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
	case err := <-done: // the step returned just when ctx ended
		return err
	default:
		return context.Cause(ctx)
	}
}
