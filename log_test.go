package main

import (
	"bytes"
	"log/slog"
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
		want(5, 2)

		log.Info("stopped")
		flush()
		want(6, 3)
		pass(2 * logDelay)
		want(6, 3)
	})
}
