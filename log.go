package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// logDelay is how long a line may wait for others to be written with it, and logPiece how many bytes: a write for each costs more than all
	// else about it, and a tenth of what a replica does for a GetSeats.
	logDelay = 100 * time.Millisecond
	logPiece = 64 << 10
	// mostLogWaiting bounds, in bytes, what waits while nobody takes it, as when a terminal is held or a collector of logs hangs. What comes
	// past it is dropped, and counted: a log must not stop the server.
	mostLogWaiting = 1 << 20
	// logPatience is how long the end of the program waits for the last lines to be taken.
	logPatience = time.Second
)

// newLog returns a log of JSON lines, and what writes those that still wait. A line of Warn or above is written at once, with all before it.
func newLog(out io.Writer, level slog.Level) (log *slog.Logger, flush func()) {
	w := &delayedWriter{out: out}
	return slog.New(promptHandler{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}), w}), w.flush
}

// delayedWriter writes what it is given at most logDelay later, in one piece. Nobody waits for it.
type delayedWriter struct {
	out io.Writer

	mu      sync.Mutex
	waiting []byte
	dropped int           // lines, since the last time that there was room
	due     *time.Timer   // nil: nothing waits
	writing chan struct{} // nil: nobody writes; closed when all that waited is written
}

func (w *delayedWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting)+len(line) > mostLogWaiting {
		w.dropped++
		return len(line), nil
	}
	w.waiting = append(w.waiting, line...)
	switch {
	case len(w.waiting) >= logPiece:
		w.begin()
	case w.due == nil:
		w.due = time.AfterFunc(logDelay, func() { w.start() })
	}
	return len(line), nil
}

// start has all that waits written, and returns what is closed when it is.
func (w *delayedWriter) start() (written <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin()
	return w.writing
}

// begin is start, with mu held.
func (w *delayedWriter) begin() {
	if w.writing == nil {
		w.writing = make(chan struct{})
		go w.write(w.writing)
	}
}

// write goes on until nothing waits.
func (w *delayedWriter) write(written chan<- struct{}) {
	defer close(written)
	var piece []byte
	for {
		if piece = w.take(piece[:0]); len(piece) == 0 {
			return
		}
		_, _ = w.out.Write(piece) // there is no other place to tell it
	}
}

// take returns what waits, and leaves spare to what comes next; nothing: nobody writes any more.
func (w *delayedWriter) take(spare []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.due != nil {
		w.due.Stop()
		w.due = nil
	}
	piece := w.waiting
	w.waiting = spare
	if w.dropped > 0 {
		piece = fmt.Appendf(piece, `{"time":%q,"level":"WARN","msg":"nobody took the log in time, and lines were dropped","lines":%d}`+"\n",
			time.Now().Format(time.RFC3339Nano), w.dropped)
		w.dropped = 0
	}
	if len(piece) == 0 {
		w.writing = nil
	}
	return piece
}

// flush returns when all that waits is written, or after logPatience.
func (w *delayedWriter) flush() {
	late := time.NewTimer(logPatience)
	defer late.Stop()
	select {
	case <-w.start():
	case <-late.C:
	}
}

// promptHandler has lines written at once that somebody may be looking for.
type promptHandler struct {
	slog.Handler
	w *delayedWriter
}

func (h promptHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		h.w.start()
	}
	return err
}

func (h promptHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return promptHandler{h.Handler.WithAttrs(attrs), h.w}
}

func (h promptHandler) WithGroup(name string) slog.Handler {
	return promptHandler{h.Handler.WithGroup(name), h.w}
}
