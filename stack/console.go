package stack

import (
	"fmt"
	"io"
	"sync"
)

// console writes whole lines. Each line begins with the name of the process that wrote it.
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
	// A failed write to the log must not stop the system.
	_, _ = fmt.Fprintf(c.w, "%-8s | %s\n", name, line)
}

func (c *console) printf(name, format string, args ...any) {
	c.print(name, fmt.Sprintf(format, args...))
}
