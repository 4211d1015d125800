package stack

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// makeCertificate makes a certificate that is valid for an hour.
func makeCertificate(t *testing.T, dir string, names ...string) {
	t.Helper()
	if err := MakeCertificate(dir, names, time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
}

func TestMakeCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	names := []string{"seats.example.org", "*.example.net", "192.0.2.7", "2001:db8::7", "xn--bcher-kva.example"}
	makeCertificate(t, dir, names...)
	c, err := CheckCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := c.VerifyHostname(strings.Replace(name, "*", "one", 1)); err != nil {
			t.Error(err)
		}
	}
	if c.IsCA {
		t.Error("a client that trusts the certificate would trust all certificates that its key signs")
	}
	for name, want := range map[string]os.FileMode{keyFile: 0o600, certificateFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has the mode %o, want %o", name, got, want)
		}
	}
}

func TestMakeCertificateRefusesNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", "https://seats.example.org", "seats.example.org:9443", "seats_example", "-a.example", "a..example", "*",
		"a.*.example", "192.0.2.7/24", strings.Repeat("a", 64) + ".example", strings.Repeat("abc.", 64) + "example",
	} {
		dir := t.TempDir()
		err := MakeCertificate(dir, []string{"localhost", name}, time.Now(), time.Now().Add(time.Hour))
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("the name %q: %v", name, err)
		}
		if files, _ := os.ReadDir(dir); len(files) > 0 {
			t.Errorf("the name %q: %v was written", name, files)
		}
	}
	if err := MakeCertificate(t.TempDir(), nil, time.Now(), time.Now().Add(time.Hour)); err == nil {
		t.Error("a certificate without a name was made")
	}
}

func TestCheckCertificateTellsWhatToDo(t *testing.T) {
	t.Parallel()
	if _, err := CheckCertificate(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a certificate: %v", err)
	}
	other := t.TempDir()
	makeCertificate(t, other, "localhost")
	otherKey, err := os.ReadFile(filepath.Join(other, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(key string) error{
		"key.pem is missing: copy the key":           os.Remove,
		"is not the key of the first certificate in": func(key string) error { return os.WriteFile(key, otherKey, 0o600) },
		"must be a certificate and its key in PEM format": func(key string) error {
			return os.WriteFile(key, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), 0o600)
		},
	} {
		dir := t.TempDir()
		makeCertificate(t, dir, "localhost")
		if err := change(filepath.Join(dir, keyFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := CheckCertificate(dir); err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want %q", err, want)
		}
		// A stack does not start with such files, and tells why.
		if _, err := StartNginx(t.Context(), NginxConfig{Backends: []string{"127.0.0.1:1"}, TLS: dir}); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("nginx started, or: %v, want %q", err, want)
		}
	}
}
