package stack

import "path/filepath"

// Certificate is the certificate of a server and its key, both in PEM.
type Certificate struct{ Cert, Key []byte }

// write writes the certificate and the key to files in dir. The files belong to the account,
// because Postgres refuses a key that another user owns.
func (c *Certificate) write(dir string, as *account) (cert, key string, err error) {
	cert, key = filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	for _, f := range []struct {
		path    string
		content []byte
	}{{cert, c.Cert}, {key, c.Key}} {
		if err := writeFile(f.path, string(f.content), 0o600); err != nil {
			return "", "", err
		}
		if err := as.own(f.path); err != nil {
			return "", "", err
		}
	}
	return cert, key, nil
}
