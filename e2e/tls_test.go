package e2e_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// certificate makes a certificate for localhost and returns its directory.
func certificate(t *testing.T, expires time.Time) string {
	t.Helper()
	dir := t.TempDir()
	if err := stack.MakeCertificate(dir, []string{"localhost", "127.0.0.1"}, time.Now(), expires); err != nil {
		t.Fatal(err)
	}
	return dir
}

// trusting returns the settings of a client that trusts the certificate in a directory.
func trusting(t *testing.T, dir string) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "certificate.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// Clients with TLS reach the replicas, and the replicas know when the certificate expires.
func TestTLSReachesReplicas(t *testing.T) {
	t.Parallel()
	expires := time.Now().Add(36 * time.Hour).Truncate(time.Second)
	dir := certificate(t, expires)
	s := start(t, stack.Config{TLS: dir, Replicas: 1, Seed: true})
	client := trusting(t, dir)

	conn, err := grpc.NewClient(s.TLSAddr(), grpc.WithTransportCredentials(credentials.NewTLS(client)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	stream, err := dlsmsv1.NewSeatServiceClient(conn).WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Errorf("a stream over gRPC: %v", err)
	}

	// A stream over HTTP/2 begins at once, and other requests share its connection.
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: client, ForceAttemptHTTP2: true, MaxConnsPerHost: 1}}
	defer web.CloseIdleConnections()
	watch := get(t, web, "https://"+s.HTTPSAddr()+"/v1/seats:watch")
	if line, err := bufio.NewReader(watch.Body).ReadString('\n'); err != nil || watch.ProtoMajor != 2 {
		t.Errorf("a stream over %s begins with %q, %v", watch.Proto, line, err)
	}
	seats := get(t, web, "https://"+s.HTTPSAddr()+"/v1/seats")
	if body, err := io.ReadAll(seats.Body); err != nil || !strings.Contains(string(body), `"seats":[`) {
		t.Errorf("seats over HTTPS: %v\n%s", err, body)
	}

	metrics, err := io.ReadAll(get(t, http.DefaultClient, "http://"+s.AdminAddr(0)+"/metrics").Body)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("\ndlsms_tls_certificate_expires_timestamp_seconds %g\n", float64(expires.Unix()))
	if !strings.Contains(string(metrics), want) {
		t.Errorf("the metrics do not have %q", want)
	}
}

// get makes a GET request. The body is closed at the end of the test.
func get(t *testing.T, c *http.Client, url string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}
