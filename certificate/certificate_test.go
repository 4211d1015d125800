package certificate_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/certificate"
	"github.com/dlsms/dlsms/stack/certtest"
)

// handshake returns the error of a client that trusts the authority and connects to host. The
// server has the certificate.
func handshake(t *testing.T, trusted *certtest.CA, host string, cert, key []byte) error {
	t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := certificate.ReadPool(trusted.File(t))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0",
		&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, conn) // makes the handshake, and ends when the client closes
			_ = conn.Close()
		}
	}()
	client, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", l.Addr().String(),
		&tls.Config{RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12})
	if err == nil {
		_ = client.Close()
	}
	return err
}

// TestExplainNamesTheFault makes real handshakes. The message must name the fault and the remedy in
// one line, and must keep the cause.
func TestExplainNamesTheFault(t *testing.T) {
	t.Parallel()
	ours, other := certtest.NewCA(t), certtest.NewCA(t)
	year := time.Now().AddDate(1, 0, 0)
	redis := certificate.Server{Name: "Redis at cache:6379", Address: "REDIS_URL", CA: "REDIS_CA_FILE"}
	for name, c := range map[string]struct {
		ca       *certtest.CA
		names    []string
		notAfter time.Time
		want     string // empty: the certificate is accepted
	}{
		"valid": {ours, []string{"cache"}, year, ""},
		"expired": {ours, []string{"cache"}, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
			"its certificate has expired (2026-01-01): renew it"},
		"another name": {ours, []string{"db.example", "192.0.2.7"}, year,
			"its certificate is for db.example, 192.0.2.7 and not for cache: use a name of the certificate in REDIS_URL"},
		"no name": {ours, nil, year,
			"its certificate is for no host: issue one with the subject alternative name cache"},
		"another authority": {other, []string{"cache"}, year, "its certificate is signed by an unknown authority"},
	} {
		cert, key := c.ca.Issue(t, c.names, c.notAfter)
		cause := handshake(t, ours, "cache", cert, key)
		if c.want == "" {
			if cause != nil {
				t.Errorf("%s: %v", name, cause)
			}
			continue
		}
		err := redis.Explain(cause)
		if err == nil || !strings.HasPrefix(err.Error(), "Redis at cache:6379: "+c.want) || !errors.Is(err, cause) ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		remedy := ": set REDIS_CA_FILE to the CA of the certificate"
		if name == "another authority" && !strings.HasSuffix(err.Error(), remedy) {
			t.Errorf("%s: %v", name, err)
		}
		if again := redis.Explain(err); again != err { //nolint:errorlint // the same value, not wrapped
			t.Errorf("%s: explained twice: %v", name, again)
		}
	}
	early := x509.CertificateInvalidError{Cert: &x509.Certificate{NotBefore: year}, Reason: x509.Expired}
	since := year.UTC().Format(time.RFC3339)
	if err := redis.Explain(early); !strings.Contains(err.Error(), "is not valid before "+since) {
		t.Errorf("not valid yet: %v", err)
	}
	unrelated := errors.New("connection refused")
	if err := redis.Explain(unrelated); err != unrelated { //nolint:errorlint // the same value, not wrapped
		t.Errorf("another error becomes %v", err)
	}
	if err := redis.Explain(nil); err != nil {
		t.Errorf("no error becomes %v", err)
	}
}

func TestReadPoolRefusesFilesWithoutCertificates(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), certtest.NewCA(t)
	_, key := ca.Issue(t, []string{"cache"}, time.Now().AddDate(1, 0, 0))
	for name, content := range map[string]string{"empty": "", "text": "nonsense", "key": string(key)} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := certificate.ReadPool(file); err == nil || !strings.Contains(err.Error(), "has no certificate in PEM") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, file := range []string{filepath.Join(dir, "missing"), dir} {
		_, err := certificate.ReadPool(file)
		if err == nil || !strings.Contains(err.Error(), file+`" can't be read`) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if pool, err := certificate.ReadPool(ca.File(t)); err != nil || pool == nil {
		t.Errorf("a certificate: %v", err)
	}
}
