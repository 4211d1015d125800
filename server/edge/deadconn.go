package edge

import (
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// deadConns turns away connections whose client has gone before it was their turn. nginx opens one for each call that finds none idle and
// closes it when its client cancels: in a flood of cancelled calls a replica would greet, serve and forget one dead connection after the
// other, and who still waits would wait for all of them.
type deadConns struct {
	credentials.TransportCredentials
}

// ServerHandshake is called before anything else is done for a connection, on its own goroutine. gRPC takes io.EOF for a client that has gone.
func (a deadConns) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if peerClosed(conn) {
		return nil, nil, io.EOF
	}
	return a.TransportCredentials.ServerHandshake(conn)
}

func (a deadConns) Clone() credentials.TransportCredentials {
	return deadConns{a.TransportCredentials.Clone()}
}

func credentialsOption() grpc.ServerOption {
	return grpc.Creds(deadConns{insecure.NewCredentials()})
}
