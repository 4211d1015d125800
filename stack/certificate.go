package stack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// The files in a directory of a certificate. deploy/nginx.conf has these names too.
const certificateFile, keyFile = "certificate.pem", "key.pem"

// certificateLink is a link in the directory of nginx to the directory of the certificate. With it,
// the path in nginx.conf has no character that is special there, such as a $ or a space.
const certificateLink = "tls"

// hasCertificate reports whether dir has a certificate.
func hasCertificate(dir string) bool {
	if dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, certificateFile))
	return err == nil
}

// linkCertificate lets link point to dir. If dir is empty, it removes the link.
func linkCertificate(dir, link string) error {
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("can't remove %s (%w): remove it", link, err)
	}
	if dir == "" {
		return nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find the directory %s: %w", dir, err)
	}
	return os.Symlink(dir, link)
}

// CheckCertificate reads the certificate.pem and the key.pem in dir, and returns the certificate of
// the server, which is the first one in certificate.pem. If certificate.pem does not exist, the
// error is fs.ErrNotExist. Otherwise an error has one line that says how to fix the files.
func CheckCertificate(dir string) (*x509.Certificate, error) {
	certificate, key := filepath.Join(dir, certificateFile), filepath.Join(dir, keyFile)
	if _, err := os.Stat(certificate); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s is missing: copy the key of %s there", key, certificate)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: run as a user that may read it", err)
	case err != nil && strings.Contains(err.Error(), "does not match"):
		return nil, fmt.Errorf("%s is not the key of the first certificate in %s: "+
			"copy both again, and the certificate of the server first", key, certificate)
	case err != nil:
		return nil, fmt.Errorf("%s and %s must be a certificate and its key in PEM format, "+
			"without a password: %w", certificate, key, err)
	}
	return pair.Leaf, nil
}

// MakeCertificate makes a self-signed certificate and its key in dir, which must exist. names are
// the host names and addresses of the server. The certificate is valid from from until to. If a
// name is not valid, MakeCertificate writes nothing. It replaces the files of dir.
func MakeCertificate(dir string, names []string, from, to time.Time) error {
	c, err := newCertificate(names)
	if err != nil {
		return err
	}
	c.NotBefore, c.NotAfter = from, to
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	for _, f := range []struct {
		name, kind string
		content    []byte
		mode       os.FileMode
	}{{keyFile, "PRIVATE KEY", encoded, 0o600}, {certificateFile, "CERTIFICATE", der, 0o644}} {
		text := string(pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.content}))
		if err := writeFile(filepath.Join(dir, f.name), text, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// hostName matches a name in DNS. The first label may be a *.
var hostName = regexp.MustCompile(
	`^(\*\.)?[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)

// ValidServerName reports whether a certificate can have this host name or IP address.
func ValidServerName(name string) bool {
	return net.ParseIP(name) != nil || len(name) <= 253 && hostName.MatchString(name)
}

// newCertificate returns a certificate for a server with these names. A client that trusts it
// trusts no other certificate, because it is not a certificate authority.
func newCertificate(names []string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	c := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"DL-SMS"}},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if !ValidServerName(name) {
			return nil, fmt.Errorf("%q is not a host name or an IP address: "+
				`write names such as NAMES="seats.example.org 192.0.2.7"`, name)
		}
		if ip := net.ParseIP(name); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("a certificate needs at least one host name or IP address")
	}
	return c, nil
}
