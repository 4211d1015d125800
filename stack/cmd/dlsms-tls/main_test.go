package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dlsms/dlsms/stack"
)

// makeTLS runs the command as an ordinary user does.
func makeTLS(t *testing.T, dir, names string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run([]string{"-dir", dir, "-names", names}, &out, 1000)
	return out.String(), err
}

func readAll(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	for _, name := range []string{"certificate.pem", "key.pem"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all.Write(content)
	}
	return all.String()
}

func TestMakesCertificateOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, err := makeTLS(t, dir, "")
	for _, want := range []string{
		"Made a self-signed certificate", "for localhost, ", "127.0.0.1, ::1, until 20", "docker compose", "make run",
		"sudo chown 101 " + filepath.Join(dir, "key.pem"), "curl --cacert " + filepath.Join(dir, "certificate.pem"),
	} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v, and the output does not have %q:\n%s", err, want, out)
		}
	}
	made := readAll(t, dir)
	for names, want := range map[string]string{
		"":                    "Kept the certificate",
		"localhost 127.0.0.1": "Kept the certificate",
	} {
		if out, err := makeTLS(t, dir, names); err != nil || !strings.Contains(out, want) {
			t.Errorf("names %q: %v\n%s", names, err, out)
		}
	}
	_, err = makeTLS(t, dir, "localhost seats.example.org")
	if err == nil || !strings.Contains(err.Error(), `not for "seats.example.org": `) {
		t.Errorf("another name: %v", err)
	}
	if readAll(t, dir) != made {
		t.Error("the certificate was replaced")
	}
}

func TestRefusesFiles(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for want, prepare := range map[string]func(dir string) error{
		"expired on ": func(dir string) error {
			return stack.MakeCertificate(dir, []string{"localhost"}, now.Add(-time.Hour), now.Add(-time.Minute))
		},
		"key.pem exists, but": func(dir string) error { return os.WriteFile(filepath.Join(dir, "key.pem"), nil, 0o600) },
		"is not a host name":  func(string) error { return nil },
	} {
		dir := t.TempDir()
		if err := prepare(dir); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadDir(dir)
		out, err := makeTLS(t, dir, "local_host")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || out != "" {
			t.Errorf("got %v and the output %q, want %q", err, out, want)
		}
		if after, _ := os.ReadDir(dir); len(after) != len(before) {
			t.Errorf("%s: files were written: %v", want, after)
		}
	}
}

// As root, the command gives the key to the user of nginx. Other users can't.
func TestRootGivesKeyToNginx(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var out bytes.Buffer
	err := run([]string{"-dir", dir}, &out, 0)
	if os.Geteuid() != 0 {
		if err == nil || !strings.Contains(err.Error(), "let user 101 read the key") {
			t.Errorf("without the right to give the key away: %v", err)
		}
		return
	}
	info, statErr := os.Stat(filepath.Join(dir, "key.pem"))
	if err != nil || statErr != nil {
		t.Fatal(err, statErr)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || owner.Uid != 101 || info.Mode().Perm() != 0o600 {
		t.Errorf("the key belongs to %+v, with the mode %o", owner, info.Mode().Perm())
	}
}
