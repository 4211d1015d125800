package main

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// logDelay is how long a line may wait for others to be written with it. A write for each costs more than all else about it, and a tenth of
// what a replica does for a GetSeats.
const logDelay = 100 * time.Millisecond

// newLog returns a log of JSON lines, and what writes those that still wait. A line of Warn or above is written at once, with all before it.
func newLog(out io.Writer, level slog.Level) (log *slog.Logger, flush func()) {
	w := &delayedWriter{out: bufio.NewWriterSize(out, 64<<10)}
	return slog.New(promptHandler{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}), w}), w.flush
}

// delayedWriter writes what it is given at most logDelay later, in one piece.
type delayedWriter struct {
	mu      sync.Mutex
	out     *bufio.Writer
	waiting bool // a flush is on its way
}

func (w *delayedWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.waiting {
		w.waiting = true
		time.AfterFunc(logDelay, w.flush)
	}
	return w.out.Write(line)
}

func (w *delayedWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = false
	_ = w.out.Flush() // a log that can't be written to must not stop the server
}

// promptHandler has lines written at once that somebody may be looking for.
type promptHandler struct {
	slog.Handler
	w *delayedWriter
}

func (h promptHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		h.w.flush()
	}
	return err
}

func (h promptHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return promptHandler{h.Handler.WithAttrs(attrs), h.w}
}

func (h promptHandler) WithGroup(name string) slog.Handler {
	return promptHandler{h.Handler.WithGroup(name), h.w}
}
