package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// maxLogDelay bounds how long a line waits in the buffer for more lines. A buffer of
	// logChunkSize bytes is written at once. A separate write for each line took a tenth of the CPU
	// of a GetSeats, more than all other work for the line.
	maxLogDelay  = 100 * time.Millisecond
	logChunkSize = 64 << 10
	// maxLogBuffer is the largest size of the buffer, in bytes. The buffer grows while the output
	// blocks, for example because a log collector hangs. Lines that do not fit are dropped and
	// counted: a blocked log must not stop the replica.
	maxLogBuffer = 1 << 20
	// logFlushTimeout bounds how long a program that ends waits for the write of its last lines.
	logFlushTimeout = time.Second
)

// NewLog returns a logger that writes lines of JSON to out. A line waits at most 100 ms, so that
// several lines share a write. A line of level Warn or above is written at once, with all lines
// before it.
//
// The caller flushes the output before the program ends.
func NewLog(out io.Writer, level slog.Level) (*slog.Logger, *LogOutput) {
	w := &LogOutput{out: out}
	return slog.New(promptHandler{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}), w}), w
}

// LogOutput collects lines and writes them in chunks, in a separate goroutine. Write never
// blocks on the output.
type LogOutput struct {
	out io.Writer

	mu      sync.Mutex
	buffer  []byte
	dropped int           // lines that did not fit since the last write
	lost    int64         // lines that did not fit since the start
	timer   *time.Timer   // starts the next write; nil if the buffer is empty
	done    chan struct{} // closed when the running write loop ends; nil if none runs
}

func (w *LogOutput) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buffer)+len(line) > maxLogBuffer {
		w.dropped++
		w.lost++
		return len(line), nil
	}
	w.buffer = append(w.buffer, line...)
	switch {
	case len(w.buffer) >= logChunkSize:
		w.startLocked()
	case w.timer == nil:
		w.timer = time.AfterFunc(maxLogDelay, func() { w.start() })
	}
	return len(line), nil
}

// start starts the write loop unless it runs. The returned channel is closed when the loop ends.
func (w *LogOutput) start() (done <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.startLocked()
	return w.done
}

// startLocked is start with mu held.
func (w *LogOutput) startLocked() {
	if w.done == nil {
		w.done = make(chan struct{})
		go w.writeAll(w.done)
	}
}

// writeAll writes chunks until the buffer is empty.
func (w *LogOutput) writeAll(done chan<- struct{}) {
	defer close(done)
	var chunk []byte
	for {
		if chunk = w.take(chunk[:0]); len(chunk) == 0 {
			return
		}
		_, _ = w.out.Write(chunk) // there is no other place to report the error
	}
}

// take returns the buffered lines. The slice spare, which is empty, becomes the new buffer. If
// lines were dropped, take adds a line with their number. If there is nothing to write, take
// returns an empty slice and marks the write loop as ended.
func (w *LogOutput) take(spare []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	chunk := w.buffer
	w.buffer = spare
	if w.dropped > 0 {
		chunk = fmt.Appendf(chunk, `{"time":%q,"level":"WARN","msg":"log output blocked; lines dropped","lines":%d}`+"\n",
			time.Now().Format(time.RFC3339Nano), w.dropped)
		w.dropped = 0
	}
	if len(chunk) == 0 {
		w.done = nil
	}
	return chunk
}

// Dropped returns how many lines were dropped since the start, because the output blocked.
func (w *LogOutput) Dropped() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// Flush writes the lines that wait. It returns after 1 s at the latest.
func (w *LogOutput) Flush() {
	timeout := time.NewTimer(logFlushTimeout)
	defer timeout.Stop()
	select {
	case <-w.start():
	case <-timeout.C:
	}
}

// promptHandler writes lines of level Warn or above at once: an operator may wait for them.
type promptHandler struct {
	slog.Handler
	w *LogOutput
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
