package telemetry

import (
	"bytes"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// output records the written text and the number of writes.
type output struct {
	mu     sync.Mutex
	text   bytes.Buffer
	writes int
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writes++
	return o.text.Write(p)
}

func (o *output) lines() (lines, writes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Count(o.text.String(), "\n"), o.writes
}

// pass advances the fake clock of synctest, and waits until all goroutines are blocked.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestLogWritesManyLinesAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &output{}
		log, written := NewLog(out, slog.LevelInfo)
		log = log.With("replica", "app1")
		want := func(lines, writes int) {
			t.Helper()
			if l, w := out.lines(); l != lines || w != writes {
				t.Errorf("%d lines in %d writes, want %d in %d", l, w, lines, writes)
			}
		}
		for range 3 {
			log.Info("rpc")
		}
		log.Debug("below the level")
		want(0, 0)
		pass(maxLogDelay)
		want(3, 1)

		log.Info("rpc")
		log.Warn("Postgres does not answer")
		synctest.Wait()
		want(5, 2)

		log.Info("stopped")
		written.Flush()
		want(6, 3)
		pass(2 * maxLogDelay)
		want(6, 3)
	})
}

func TestLogWritesAFullChunkAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &output{}
		log, _ := NewLog(out, slog.LevelInfo)
		log.Info("rpc", "filler", strings.Repeat("x", logChunkSize-1000))
		synctest.Wait()
		if lines, _ := out.lines(); lines != 0 {
			t.Errorf("%d lines were written before the chunk was full", lines)
		}
		log.Info("rpc", "filler", strings.Repeat("x", 1000))
		synctest.Wait()
		if lines, writes := out.lines(); lines != 2 || writes != 1 {
			t.Errorf("%d lines in %d writes, want 2 in 1", lines, writes)
		}
		log.Info("rpc", "filler", strings.Repeat("x", 2*maxLogBuffer))
		log.Warn("rpc")
		synctest.Wait()
		if text := out.text.String(); !strings.Contains(text, `"lines":1}`) {
			t.Error("no line says that a line was dropped")
		}
	})
}

// stuckOutput blocks until released is closed, like a suspended terminal.
type stuckOutput struct {
	output

	released chan struct{}
}

func (o *stuckOutput) Write(p []byte) (int, error) {
	<-o.released
	return o.output.Write(p)
}

// TestBlockedLogDropsLines: a blocked output delays no caller. When the output works again, the log
// says how many lines were dropped.
func TestBlockedLogDropsLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &stuckOutput{released: make(chan struct{})}
		log, written := NewLog(out, slog.LevelInfo)
		const lines, line = 3000, 1000 // 3000 lines of 1000 bytes: almost three times maxLogBuffer
		began := time.Now()
		for range lines {
			log.Warn("rpc", "filler", strings.Repeat("x", line))
		}
		written.Flush()
		if took := time.Since(began); took != logFlushTimeout {
			t.Errorf("flush took %s", took)
		}
		close(out.released)
		synctest.Wait()
		log.Info("stopped")
		written.Flush()
		all, _ := out.lines()
		text := out.text.String()
		kept, dropped := all-1, 0 // without "stopped"
		for _, told := range regexp.MustCompile(`"lines":(\d+)}`).FindAllStringSubmatch(text, -1) {
			n, err := strconv.Atoi(told[1])
			if err != nil {
				t.Fatal(err)
			}
			kept, dropped = kept-1, dropped+n
		}
		if n := written.Dropped(); n != int64(dropped) {
			t.Errorf("Dropped is %d, and the log says %d", n, dropped)
		}
		if kept+dropped != lines || dropped == 0 || !strings.Contains(text, "stopped") {
			t.Errorf("of %d lines %d were written, and the log says that %d were dropped: …%s",
				lines, kept, dropped, text[len(text)-300:])
		}
		const few = 1000 // bytes of the lines that report drops
		if most := 2*maxLogBuffer + few; len(text) < maxLogBuffer || len(text) > most {
			t.Errorf("%d bytes were written", len(text))
		}
	})
}
