package e2e_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/dlsms/dlsms/e2e"
	"github.com/dlsms/dlsms/stack"
)

// walk returns the shell commands in README.md after a comment that begins with marker. It replaces
// the address of the server in them with addr.
func walk(t *testing.T, marker, documented, addr string) string {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), marker)
	_, rest, fenced := strings.Cut(rest, "```sh\n")
	lines, _, closed := strings.Cut(rest, "```")
	if !found || !fenced || !closed || !strings.Contains(lines, documented) {
		t.Fatalf("README.md has no commands after %q that call %s", marker, documented)
	}
	return strings.ReplaceAll(lines, documented, addr)
}

// paste runs shell commands in the root of the repository, and returns their output.
func paste(t *testing.T, lines string) (string, error) {
	t.Helper()
	shell := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", lines)
	shell.Dir = ".."
	out, err := shell.CombinedOutput()
	return string(out), err
}

// TestReadmeCommandsRun runs the commands of README.md unchanged, twice. The second time, the seat
// is taken.
func TestReadmeCommandsRun(t *testing.T) {
	t.Parallel()
	certificates := certificate(t, time.Now().Add(time.Hour))
	s := start(t, stack.Config{Seed: true, TLS: certificates})
	lines := walk(t, "<!-- walk:", "127.0.0.1:9090", s.Addr())
	out, err := paste(t, lines)
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{
		`"totalCount": 25`, `"availableCount": 25`, "RESERVATION_STATUS_CONFIRMED", `"label": "R-07"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the walk does not print %s:\n%s", want, out)
		}
	}
	out, err = paste(t, lines)
	if err == nil || !strings.Contains(out, `"reason": "SEAT_TAKEN"`) {
		t.Errorf("the second time it ends with %v, not with SEAT_TAKEN:\n%s", err, out)
	}
	lines = walk(t, "<!-- walk over HTTP:", "127.0.0.1:8080", s.HTTPAddr())
	if out, err = paste(t, lines); err != nil || strings.Contains(out, "urn:dlsms:error") ||
		!strings.Contains(out, `"availableCount":24`) || !strings.Contains(out, `"R-06"`) {
		t.Errorf("over HTTP (%v):\n%s", err, out)
	}
	if out, err = paste(t, lines); err != nil || !strings.Contains(out, `"reason":"SEAT_TAKEN"`) {
		t.Errorf("over HTTP, the second time it ends with %v, not with SEAT_TAKEN:\n%s", err, out)
	}
	lines = walk(t, "<!-- walk as a librarian:", "127.0.0.1:8080", s.HTTPAddr())
	lines = strings.ReplaceAll(lines, ".local/", t.TempDir()+"/")
	if out, err = paste(t, lines); err != nil || strings.Contains(out, "urn:dlsms:error") ||
		strings.Count(out, `"action":"CREATE"`) != 2 || strings.Count(out, `"same":25`) != 2 {
		t.Errorf("as a librarian (%v):\n%s", err, out)
	}
	lines = walk(t, "<!-- walk over TLS:", "localhost:9443", local(t, s.TLSAddr()))
	lines = strings.ReplaceAll(lines, "localhost:8443", local(t, s.HTTPSAddr()))
	lines = strings.ReplaceAll(lines, "deploy/tls/certificate.pem", filepath.Join(certificates, "certificate.pem"))
	if out, err = paste(t, lines); err != nil || !strings.Contains(out, `"totalCount": 26`) ||
		!strings.Contains(out, `"totalCount":26`) {
		t.Errorf("over TLS (%v):\n%s", err, out)
	}
	out, err = paste(t, ".local/bin/grpcurl -plaintext "+s.Addr()+" describe dlsms.v1.ReservationService")
	if err != nil || strings.Count(out, "// ") < 20 || !strings.Contains(out, "SEAT_TAKEN") {
		t.Errorf("describe shows no rules and errors (%v):\n%s", err, out)
	}
}

// local returns addr with the name localhost, as the certificate has it.
func local(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("localhost", port)
}

// TestReadmeServiceConfigMatchesTestClients checks that README.md has the service config and the
// connection parameters of the test clients, and that every service is in the service config.
func TestReadmeServiceConfigMatchesTestClients(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "```json\n"+e2e.ServiceConfig+"\n```") {
		t.Error("the service config of the README is not the one of the test clients")
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("dlsms.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			name := file.Services().Get(i).FullName()
			if !strings.Contains(e2e.ServiceConfig, fmt.Sprintf(`{"service": %q}`, name)) {
				t.Errorf("the service config lacks %s", name)
			}
		}
		return true
	})
	ours, err := os.ReadFile("client.go")
	if err != nil {
		t.Fatal(err)
	}
	params := regexp.MustCompile(`(?s)grpc\.ConnectParams\{.*?\n\s*\}\)`)
	words := func(text []byte) string { return strings.Join(strings.Fields(string(params.Find(text))), " ") }
	if told, used := words(text), words(ours); told == "" || told != used {
		t.Errorf("the README has %s, and the test clients %s", told, used)
	}
	conn, err := e2e.Dial("127.0.0.1:1", e2e.RetryOptions()...)
	if err != nil { // the service config is not valid
		t.Fatal(err)
	}
	_ = conn.Close()
}
