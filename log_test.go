package main

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

// output is what was written so far, and in how many pieces.
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

// pass waits for a time on the clock of the test's bubble, which moves by itself when nothing else can happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestLogIsWrittenInPieces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &output{}
		log, flush := newLog(out, slog.LevelInfo)
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
		log.Debug("not asked for")
		want(0, 0)
		pass(logDelay)
		want(3, 1)

		log.Info("rpc")
		log.Warn("Postgres does not answer")
		synctest.Wait()
		want(5, 2)

		log.Info("stopped")
		flush()
		want(6, 3)
		pass(2 * logDelay)
		want(6, 3)
	})
}

func TestMuchLogIsWrittenSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &output{}
		log, _ := newLog(out, slog.LevelInfo)
		log.Info("rpc", "filler", strings.Repeat("x", logPiece-1000))
		synctest.Wait()
		if lines, _ := out.lines(); lines != 0 {
			t.Errorf("%d lines were written, with room for more", lines)
		}
		log.Info("rpc", "filler", strings.Repeat("x", 1000))
		synctest.Wait()
		if lines, writes := out.lines(); lines != 2 || writes != 1 {
			t.Errorf("%d lines in %d writes, want 2 in 1", lines, writes)
		}
		log.Info("rpc", "filler", strings.Repeat("x", 2*mostLogWaiting))
		log.Warn("rpc")
		synctest.Wait()
		if text := out.text.String(); !strings.Contains(text, `"lines":1}`) {
			t.Error("a line that is too long is dropped without a word")
		}
	})
}

// stuckOutput takes nothing until it is released, as a terminal does that is held.
type stuckOutput struct {
	output

	released chan struct{}
}

func (o *stuckOutput) Write(p []byte) (int, error) {
	<-o.released
	return o.output.Write(p)
}

// TestALogThatNobodyTakes: it holds nobody up, and when it is taken again, it says how much was dropped.
func TestALogThatNobodyTakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &stuckOutput{released: make(chan struct{})}
		log, flush := newLog(out, slog.LevelInfo)
		const lines, line = 3000, 1000 // three times what may wait
		began := time.Now()
		for range lines {
			log.Warn("rpc", "filler", strings.Repeat("x", line))
		}
		flush()
		if took := time.Since(began); took != logPatience {
			t.Errorf("it held everybody up for %s", took)
		}
		close(out.released)
		synctest.Wait()
		log.Info("stopped")
		flush()
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
		if kept+dropped != lines || dropped == 0 || !strings.Contains(text, "stopped") {
			t.Errorf("of %d lines %d came, and it says that %d were dropped: …%s", lines, kept, dropped, text[len(text)-300:])
		}
		const few = 1000 // of its own
		if most := 2*mostLogWaiting + few; len(text) < mostLogWaiting || len(text) > most {
			t.Errorf("%d bytes waited", len(text))
		}
	})
}
