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

// ports reserves free ports of the loopback interface until close. A process that was killed can
// use its port again, even if other tests on this machine look for free ports.
type ports struct{ held []net.Listener }

// pick uses ports from this range. It is below the ports that the kernel uses for outgoing
// connections (from 32768 on Linux, from 49152 on macOS). An outgoing connection could take such a
// port before the process starts.
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

// take reserves a port and reports whether it was free. It reserves the port by listening on
// 127.0.0.2, which no process of a stack uses, and then checks the port on 127.0.0.1.
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
