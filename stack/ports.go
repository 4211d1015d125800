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

// ports reserves free ports on 127.0.0.1 until close. No other stack on this machine, such as that
// of a parallel test, takes a reserved port. So a process that was killed can start again on its
// port.
type ports struct{ held []net.Listener }

// lowestPort and highestPort bound the ports that pick tries. The kernel takes the ports of
// outgoing connections from a higher range (from 32768 on Linux, from 49152 on macOS). With a port
// from that range, an outgoing connection could take the port before the process starts.
const lowestPort, highestPort = 20000, 32000

// pick reserves and returns a port. It returns preferred if preferred is not 0 and is free.
// Otherwise it returns any free port.
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

// take reserves a port and reports whether it was free on 127.0.0.1. The reservation is a listener
// on the same port of 127.0.0.2, so a process of the stack can still listen on 127.0.0.1. If
// another stack has reserved the port, this listener fails, and take returns false.
func (p *ports) take(port int) bool {
	reservation, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return false
	}
	if checkListen(net.JoinHostPort(loopback, strconv.Itoa(port))) != nil {
		if reservation != nil {
			_ = reservation.Close()
		}
		return false
	}
	if reservation != nil { // nil without 127.0.0.2, as on macOS: then the port is not reserved
		p.held = append(p.held, reservation)
	}
	return true
}

func (p *ports) close() {
	for _, reservation := range p.held {
		_ = reservation.Close()
	}
	p.held = nil
}

// checkListen returns an error if a process can't listen on addr.
func checkListen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}
