package telemetry

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestCertificateExpiry(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	addr := s.Listener.Addr().String()
	got, err := CertificateExpiry(t.Context(), addr)
	if want := s.Certificate().NotAfter; err != nil || !got.Equal(want) {
		t.Errorf("the certificate expires at %v, %v; want %v", got, err, want)
	}
	s.Close()
	if got, err := CertificateExpiry(t.Context(), addr); err == nil {
		t.Errorf("without a server it expires at %v", got)
	}
	// This server accepts connections and never answers.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	if got, err := CertificateExpiry(t.Context(), silent.Addr().String()); err == nil {
		t.Errorf("without a handshake it expires at %v", got)
	}
}
