package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// LogRecorder keeps the end of the log of a system's processes, and everything in it that must never be there. It is the Log of a stack.Config:
// each write is one line.
type LogRecorder struct {
	mu     sync.Mutex
	last   []string
	faults []string
	follow int // how many more lines belong to the last fault: a stack, say
}

const (
	keptLines  = 2000
	faultLines = 60
	mostFaults = 20
)

// fault finds what must never be in the log: what an operator has to look at, a crash, what the race detector says, and a deadlock.
var fault = regexp.MustCompile(`"level":"ERROR"|panic|fatal error: |WARNING: DATA RACE|deadlock detected`)

// Write takes one line.
func (j *LogRecorder) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := strings.TrimRight(string(line), "\n")
	if len(j.last) == keptLines {
		j.last = slices.Delete(j.last, 0, keptLines/2)
	}
	j.last = append(j.last, text)
	switch {
	case fault.MatchString(text) && j.follow == 0:
		j.faults = append(j.faults, text)
		j.follow = faultLines
	case j.follow > 0:
		j.faults[len(j.faults)-1] += "\n" + text
		j.follow--
	}
	return len(line), nil
}

// Err returns what the log has that must never be there, nil if nothing.
func (j *LogRecorder) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.faults) == 0 {
		return nil
	}
	return fmt.Errorf("the log has %d faults, the first of which are:\n%s", len(j.faults),
		strings.Join(j.faults[:min(len(j.faults), mostFaults)], "\n\n"))
}

// Tail returns the last n lines.
func (j *LogRecorder) Tail(n int) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.last[max(0, len(j.last)-n):], "\n")
}

// Has reports whether one of the lines that are kept contains a text.
func (j *LogRecorder) Has(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.last, func(line string) bool { return strings.Contains(line, text) })
}
