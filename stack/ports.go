package stack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

const loopback = "127.0.0.1"

// ports hands out free ports of the loopback interface, and holds each for itself until closed: a process that was killed
// finds its port again, though other tests on this machine look for free ports meanwhile.
type ports struct{ held []net.Listener }

// Below the range from which the kernel takes ports of outgoing connections (from 32768 on Linux, 49152 on macOS),
// since one of those may take a port between our look and the start of the process.
const lowestPort, highestPort = 20000, 32000

// pick returns preferred if it is free, else another free port. 0 prefers none.
func (p *ports) pick(preferred int) (int, error) {
	if preferred > 0 && p.take(preferred) {
		return preferred, nil
	}
	for range 1000 {
		if port := lowestPort + rand.IntN(highestPort-lowestPort); p.take(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d on %s: stop what uses them", lowestPort, highestPort, loopback)
}

// take marks a port by listening on it at 127.0.0.2, where none of the processes do, and looks whether it is free at 127.0.0.1.
func (p *ports) take(port int) bool {
	mark, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return false
	}
	if listenable(net.JoinHostPort(loopback, strconv.Itoa(port))) != nil {
		if mark != nil {
			_ = mark.Close()
		}
		return false
	}
	if mark != nil { // nil where there is no 127.0.0.2, as on macOS: then only the look protects
		p.held = append(p.held, mark)
	}
	return true
}

func (p *ports) close() {
	for _, mark := range p.held {
		_ = mark.Close()
	}
	p.held = nil
}

// listenable returns why addr can't be listened on, or nil.
func listenable(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}
