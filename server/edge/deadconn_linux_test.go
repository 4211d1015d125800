package edge

import (
	"net"
	"testing"

	"github.com/dlsms/dlsms/server/edge/edgetest"
)

// arrived is a connection of which it is known how it was served.
type arrived struct {
	*net.TCPConn

	greeted, closed chan struct{}
}

func (c *arrived) Write(b []byte) (int, error) {
	select {
	case <-c.greeted:
	default:
		close(c.greeted)
	}
	return c.TCPConn.Write(b)
}

func (c *arrived) Close() error {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return c.TCPConn.Close()
}

// doorman hands over the connections that he is given.
type doorman struct {
	net.Listener

	conns chan net.Conn
	done  chan struct{}
}

func (d *doorman) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.done:
		return nil, net.ErrClosed
	}
}

func (d *doorman) Close() error {
	close(d.done)
	return d.Listener.Close()
}

// TestDeadConnectionsAreClosed: nothing is done for a connection whose client has gone, whatever it sent, but close it.
func TestDeadConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	s := serve(t, edgetest.Seats{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &doorman{Listener: l, conns: make(chan net.Conn), done: make(chan struct{})}
	serving := make(chan error, 1)
	go func() { serving <- s.grpc.Serve(d) }()

	for name, goes := range map[string]bool{"gone": true, "there": false} {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write([]byte("PRI")); err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c := &arrived{TCPConn: conn.(*net.TCPConn), greeted: make(chan struct{}), closed: make(chan struct{})}
		if goes {
			_ = client.Close()
			edgetest.Eventually(t, "the client has gone", func() bool { return peerClosed(c) })
		}
		d.conns <- c
		select {
		case <-c.greeted:
			if goes {
				t.Errorf("%s: it was greeted", name)
			}
		case <-c.closed:
			if !goes {
				t.Errorf("%s: it was closed", name)
			}
		}
		_ = client.Close()
	}
	s.grpc.Stop()
	if err := <-serving; err != nil {
		t.Error(err)
	}
}
