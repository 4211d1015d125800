package edge

import (
	"net"
	"testing"

	"github.com/dlsms/dlsms/server/edge/edgetest"
)

// observedConn is a connection that tells whether the server wrote to it or closed it.
type observedConn struct {
	*net.TCPConn

	written, closed chan struct{}
}

func (c *observedConn) Write(b []byte) (int, error) {
	select {
	case <-c.written:
	default:
		close(c.written)
	}
	return c.TCPConn.Write(b)
}

func (c *observedConn) Close() error {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return c.TCPConn.Close()
}

// chanListener accepts the connections of a channel.
type chanListener struct {
	net.Listener

	conns chan net.Conn
	done  chan struct{}
}

func (l *chanListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *chanListener) Close() error {
	close(l.done)
	return l.Listener.Close()
}

// TestDeadConnectionsAreClosed: if the client has closed a new connection, the server closes it
// too, and writes nothing to it, even if the client sent something before.
func TestDeadConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	s := serve(t, edgetest.Seats{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := &chanListener{Listener: l, conns: make(chan net.Conn), done: make(chan struct{})}
	serving := make(chan error, 1)
	go func() { serving <- s.grpc.Serve(conns) }()

	for name, dead := range map[string]bool{"closed by the client": true, "open": false} {
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
		c := &observedConn{TCPConn: conn.(*net.TCPConn), written: make(chan struct{}), closed: make(chan struct{})}
		if dead {
			_ = client.Close()
			edgetest.Eventually(t, "the client has closed the connection", func() bool { return peerClosed(c) })
		}
		conns.conns <- c
		select {
		case <-c.written:
			if dead {
				t.Errorf("%s: the server wrote to it", name)
			}
		case <-c.closed:
			if !dead {
				t.Errorf("%s: the server closed it", name)
			}
		}
		_ = client.Close()
	}
	s.grpc.Stop()
	if err := <-serving; err != nil {
		t.Error(err)
	}
}
