package telemetry

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// probeTimeout bounds CertificateExpiry. Prometheus waits 10 s for an answer by default.
const probeTimeout = time.Second

// CertificateExpiry connects to addr and returns when the certificate of that server expires. It
// asks the server, because a proxy may still serve an old certificate after a renewal of the file.
func CertificateExpiry(ctx context.Context, addr string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	dialer := tls.Dialer{Config: &tls.Config{
		ServerName:         host,
		InsecureSkipVerify: true, //nolint:gosec // nothing is sent, and an expired certificate counts too
	}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = conn.Close() }()
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return time.Time{}, errors.New("not a TLS connection")
	}
	return secure.ConnectionState().PeerCertificates[0].NotAfter, nil
}
