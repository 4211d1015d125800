package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// LogRecorder keeps the last 2,000 log lines of a system's processes, and each line that must never
// be in a log. It is the writer Log of a stack.Config, which writes one line at a time.
type LogRecorder struct {
	mu        sync.Mutex
	last      []string
	faults    []string
	faultTail int // lines that still belong to the last fault, such as its stack
}

const (
	keptLines  = 2000
	faultLines = 60 // after a fault: enough for its stack
	maxFaults  = 20 // that Err prints
)

// fault matches the lines that must never be in the log: errors that an operator has to examine,
// crashes, data races and deadlocks.
var fault = regexp.MustCompile(`"level":"ERROR"|panic|fatal error: |WARNING: DATA RACE|deadlock detected`)

// Write records one line.
func (j *LogRecorder) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := strings.TrimRight(string(line), "\n")
	if len(j.last) == keptLines {
		j.last = slices.Delete(j.last, 0, keptLines/2)
	}
	j.last = append(j.last, text)
	switch {
	case fault.MatchString(text) && j.faultTail == 0:
		j.faults = append(j.faults, text)
		j.faultTail = faultLines
	case j.faultTail > 0:
		j.faults[len(j.faults)-1] += "\n" + text
		j.faultTail--
	}
	return len(line), nil
}

// Err returns the faults in the log, nil if there are none.
func (j *LogRecorder) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.faults) == 0 {
		return nil
	}
	return fmt.Errorf("the log has %d faults, the first of which are:\n%s", len(j.faults),
		strings.Join(j.faults[:min(len(j.faults), maxFaults)], "\n\n"))
}

// Tail returns the last n lines.
func (j *LogRecorder) Tail(n int) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.last[max(0, len(j.last)-n):], "\n")
}

// Has reports whether one of the kept lines contains text.
func (j *LogRecorder) Has(text string) bool { return j.Find(text) != "" }

// Find returns the first of the kept lines that contains text, empty if none does.
func (j *LogRecorder) Find(text string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range j.last {
		if strings.Contains(line, text) {
			return line
		}
	}
	return ""
}
