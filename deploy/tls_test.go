package deploy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// certificate makes a certificate for loopback that is valid for an hour, and returns its directory.
// The path has characters that are special in nginx.conf and in a shell.
func certificate(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), `it's a "path" of $HOME;`)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	makeCertificate(t, dir, time.Now().Add(time.Hour), "localhost", "127.0.0.1", "::1")
	return dir
}

func makeCertificate(t *testing.T, dir string, expires time.Time, names ...string) {
	t.Helper()
	if err := stack.MakeCertificate(dir, names, expires.Add(-2*time.Hour), expires); err != nil {
		t.Fatal(err)
	}
}

// trusting returns the configuration of a client that trusts the certificates in these directories.
func trusting(t *testing.T, dirs ...string) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "certificate.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if !roots.AppendCertsFromPEM(text) {
			t.Fatalf("%s has no certificate", dir)
		}
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

func withTLS(c *tls.Config) grpc.DialOption {
	return grpc.WithTransportCredentials(credentials.NewTLS(c))
}

// httpsClient returns a client over HTTP/2, or over HTTP/1.1 alone.
func httpsClient(t *testing.T, c *tls.Config, http2 bool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: c.Clone(), ForceAttemptHTTP2: http2} // it changes the configuration
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// getFrom makes a GET request with a client and reads the answer.
func getFrom(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Real-IP", "203.0.113.7")
	return send(t, c, req)
}

// Git ignores a certificate and a key in deploy/tls.
func TestCertificatesAreNotCommitted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{".gitignore", "README.md"} {
		replaceFile(t, filepath.Join(dir, name), readFile(t, filepath.Join("tls", name)))
	}
	makeCertificate(t, dir, time.Now(), "localhost")
	for _, args := range [][]string{{"init", "--quiet"}, {"status", "--porcelain", "--untracked-files=all"}} {
		git := exec.CommandContext(t.Context(), "git", args...)
		git.Dir = dir
		git.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := git.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		if want := "?? .gitignore\n?? README.md\n"; args[0] == "status" && string(out) != want {
			t.Errorf("git would add\n%s", out)
		}
	}
}

// A call over TLS reaches a replica as a call without TLS does.
func TestTLSServesCalls(t *testing.T) {
	t.Parallel()
	seen := make(chan metadata.MD, 1)
	b := (&backend{getSeats: func(ctx context.Context) error {
		md, _ := metadata.FromIncomingContext(ctx)
		seen <- md
		return nil
	}}).start(t)
	web := newHTTPBackend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" from "+r.Header.Get("X-Real-IP"))
	})
	dir := certificate(t)
	n := startProxy(t, stack.NginxConfig{Backends: []string{b.addr}, HTTPBackends: []string{web.addr()}, TLS: dir})

	c := dial(t, n.TLSAddr(), withTLS(trusting(t, dir)))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-real-ip", "203.0.113.7")
	if _, err := c.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := (<-seen).Get("x-real-ip"); len(got) != 1 || got[0] != "127.0.0.1" {
		t.Errorf("x-real-ip is %q, want the client's address alone", got)
	}
	for protocol, http2 := range map[string]bool{"HTTP/2.0": true, "HTTP/1.1": false} {
		resp, body := getFrom(t, httpsClient(t, trusting(t, dir), http2), "https://"+n.HTTPSAddr()+"/v1/seats")
		if resp.Proto != protocol || body != "HTTP/1.1 from 127.0.0.1" {
			t.Errorf("the client got %s over %s, want %s; the replica got %s", resp.Status, resp.Proto, protocol, body)
		}
	}
	// The ports without TLS stay open.
	if resp, body := get(t, "http://"+n.HTTPAddr()+"/v1/seats"); resp.StatusCode != http.StatusOK {
		t.Errorf("without TLS: %s %s", resp.Status, body)
	}
	go func() { <-seen }()
	if err := call(t, dial(t, n.Addr())); err != nil {
		t.Errorf("without TLS: %v", err)
	}
}

// Errors of nginx itself are the same over TLS.
func TestTLSServesErrors(t *testing.T) {
	t.Parallel()
	dead := newHTTPBackend(t, nil)
	dead.Close()
	dir := certificate(t)
	n := startProxy(t, stack.NginxConfig{Backends: []string{dead.addr()}, HTTPBackends: []string{dead.addr()}, TLS: dir})
	err := call(t, dial(t, n.TLSAddr(), withTLS(trusting(t, dir))))
	wantStatus(t, err, codes.Unavailable, "UNAVAILABLE")
	for _, http2 := range []bool{true, false} {
		resp, body := getFrom(t, httpsClient(t, trusting(t, dir), http2), "https://"+n.HTTPSAddr()+"/v1/seats")
		wantProblem(t, resp, body, http.StatusServiceUnavailable, "UNAVAILABLE")
	}
}

func TestTLSVersions(t *testing.T) {
	t.Parallel()
	dir := certificate(t)
	n := startProxy(t, stack.NginxConfig{Backends: []string{new(backend).start(t).addr}, TLS: dir})
	for _, addr := range []string{n.TLSAddr(), n.HTTPSAddr()} {
		for version, accepted := range map[uint16]bool{
			tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true,
		} {
			c := trusting(t, dir)
			c.MinVersion, c.MaxVersion = version, version
			conn, err := (&tls.Dialer{Config: c}).DialContext(t.Context(), "tcp", addr)
			if err == nil {
				_ = conn.Close()
			}
			if (err == nil) != accepted || !accepted && !strings.Contains(err.Error(), "protocol version") {
				t.Errorf("%s on %s: %v, want accepted %v", tls.VersionName(version), addr, err, accepted)
			}
		}
	}
}

// A client refuses a certificate that does not prove the identity of the server, and tells why.
func TestClientRefusesCertificate(t *testing.T) {
	t.Parallel()
	other := certificate(t)
	for want, c := range map[string]struct {
		expires time.Time
		name    string
		trusts  string // empty: the certificate itself
	}{
		"certificate signed by unknown authority": {time.Now().Add(time.Hour), "127.0.0.1", other},
		"certificate has expired":                 {time.Now().Add(-time.Minute), "127.0.0.1", ""},
		"not 127.0.0.1":                           {time.Now().Add(time.Hour), "192.0.2.7", ""},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			makeCertificate(t, dir, c.expires, c.name)
			n := startProxy(t, stack.NginxConfig{Backends: []string{new(backend).start(t).addr}, TLS: dir})
			trusts := dir
			if c.trusts != "" {
				trusts = c.trusts
			}
			err := call(t, dial(t, n.TLSAddr(), withTLS(trusting(t, trusts))))
			if s := status.Convert(err); s.Code() != codes.Unavailable || !strings.Contains(s.Message(), want) {
				t.Errorf("gRPC: %v, want %q", err, want)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+n.HTTPSAddr()+"/v1/seats", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := httpsClient(t, trusting(t, trusts), true).Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("HTTP: %v, want %q", err, want)
			}
		})
	}
}
