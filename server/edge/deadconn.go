package edge

import (
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// deadConns closes connections that the client closed before the replica accepted them.
//
// nginx opens a connection for each call that finds no idle connection, and closes the connection
// when its client cancels the call. After many cancelled calls, many closed connections wait to be
// accepted. Without deadConns, the replica would set up each of them, and live clients would wait
// behind them.
type deadConns struct {
	credentials.TransportCredentials
}

// ServerHandshake is the first function that gRPC calls for a new connection, on a goroutine of its
// own. If the client has closed the connection already, ServerHandshake returns io.EOF, which gRPC
// treats like a client that disconnected.
func (a deadConns) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if peerClosed(conn) {
		return nil, nil, io.EOF
	}
	return a.TransportCredentials.ServerHandshake(conn)
}

// Clone implements credentials.TransportCredentials.
func (a deadConns) Clone() credentials.TransportCredentials {
	return deadConns{a.TransportCredentials.Clone()}
}

// credentialsOption returns plaintext credentials that drop dead connections.
func credentialsOption() grpc.ServerOption {
	return grpc.Creds(deadConns{insecure.NewCredentials()})
}
