package stack

import (
	"fmt"
	"io"
	"sync"
)

// console writes whole lines, each with the name of the process that it comes from.
type console struct {
	mu sync.Mutex
	w  io.Writer
}

func newConsole(w io.Writer) *console {
	if w == nil {
		w = io.Discard
	}
	return &console{w: w}
}

func (c *console) print(name, line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Fprintf(c.w, "%-8s | %s\n", name, line) // a log that can't be written to must not stop the system
}

func (c *console) printf(name, format string, args ...any) {
	c.print(name, fmt.Sprintf(format, args...))
}
