// Package certtest makes certificates for the tests of TLS. No file of a certificate is in the
// repository, so none expires there.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is a certificate authority of one test.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA returns a new authority. Its certificate is valid for ten years.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca := &CA{key: newKey(t)}
	now := time.Now()
	ca.cert = sign(t, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "CA of " + t.Name()},
		NotBefore:             now.AddDate(-1, 0, 0),
		NotAfter:              now.AddDate(10, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}, nil, ca.key, ca.key)
	return ca
}

// Issue returns the certificate of a server for these names and addresses, and its key, both in
// PEM. The certificate is valid until notAfter, which may be in the past, and from a day before
// notAfter or a day ago, whichever is earlier.
func (ca *CA) Issue(t testing.TB, names []string, notAfter time.Time) (cert, key []byte) {
	t.Helper()
	from := time.Now()
	if notAfter.Before(from) {
		from = notAfter
	}
	template := &x509.Certificate{
		NotBefore:   from.AddDate(0, 0, -1),
		NotAfter:    notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	private := newKey(t)
	signed := sign(t, template, ca.cert, private, ca.key)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return encode("CERTIFICATE", signed.Raw), encode("PRIVATE KEY", der)
}

// PEM returns the certificate of the authority.
func (ca *CA) PEM() []byte { return encode("CERTIFICATE", ca.cert.Raw) }

// File writes the certificate of the authority to a file and returns the path of the file.
func (ca *CA) File(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign returns the certificate of key, signed by the parent. A nil parent makes it self-signed.
func sign(t testing.TB, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = template
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func encode(block string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der})
}
