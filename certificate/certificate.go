// Package certificate reads the certificates of authorities, and explains why the certificate of a
// server was refused. It is for all servers that a replica connects to. Its messages contain no
// URL and no password.
package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// Server is a server that has a certificate, for the messages of Explain.
type Server struct {
	Name    string // such as "Postgres at db:5432"
	Address string // the setting that has the host, such as "DATABASE_URL"
	CA      string // the setting that names the file of the authority, such as "REDIS_CA_FILE"
}

// refused is an error with a message for an operator. It keeps its cause for errors.As.
type refused struct {
	message string
	cause   error
}

func (e *refused) Error() string { return e.message }
func (e *refused) Unwrap() error { return e.cause }

// Explain returns an error of one line with the fault of the server's certificate and the remedy,
// if err has this cause. It returns any other err unchanged.
func (s Server) Explain(err error) error {
	if why := s.fault(err); why != "" {
		return &refused{message: s.Name + ": " + why, cause: err}
	}
	return err
}

// fault describes why the certificate was refused. It returns "" if err has another cause.
func (s Server) fault(err error) string {
	if _, ok := errors.AsType[*refused](err); ok {
		return ""
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		if now := time.Now(); now.Before(e.Cert.NotBefore) {
			return fmt.Sprintf("its certificate is not valid before %s, and it is %s here: set the clock",
				e.Cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
		return fmt.Sprintf("its certificate has expired (%s): renew it", e.Cert.NotAfter.UTC().Format(time.DateOnly))
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		names := slices.Clone(e.Certificate.DNSNames)
		for _, ip := range e.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		if len(names) == 0 {
			return fmt.Sprintf("its certificate is for no host: issue one with the subject alternative name %s", e.Host)
		}
		return fmt.Sprintf("its certificate is for %s and not for %s: use a name of the certificate in %s",
			strings.Join(names, ", "), e.Host, s.Address)
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		// Go adds a reason if it found an authority of this name and refused it, such as an expired one.
		reason := strings.TrimPrefix(e.Error(), "x509: certificate signed by unknown authority")
		return fmt.Sprintf("its certificate is signed by an unknown authority%s: set %s to the CA of the certificate",
			reason, s.CA)
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "its certificate is refused: " + e.Err.Error()
	}
	return ""
}

// ReadPool reads a file with the certificates of one or more authorities in PEM.
func ReadPool(file string) (*x509.CertPool, error) {
	content, err := os.ReadFile(file)
	if missing, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fmt.Errorf("the file %q can't be read: %w", file, missing.Err)
	}
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("the file %q has no certificate in PEM", file)
	}
	return pool, nil
}
