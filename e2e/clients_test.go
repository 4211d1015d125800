package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/stack"
)

// runIn runs a program in a directory and returns its output.
func runIn(t *testing.T, dir string, env []string, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v (if it is missing: make install)\n%s", program, args, err, out)
	}
	return string(out)
}

// copyClientFiles copies files of docs/clients into a directory.
func copyClientFiles(t *testing.T, dir, language string, names ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join("..", "docs", "clients", language, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// nodeModules installs the packages in the lock file of the TypeScript client, and returns the
// directory. If an earlier run has installed the same lock file, nodeModules installs nothing.
func nodeModules(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../.local/clients/typescript")
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile("../docs/clients/typescript/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	installed := filepath.Join(dir, "installed")
	if of, err := os.ReadFile(installed); err == nil && string(of) == string(lock) {
		return dir
	}
	copyClientFiles(t, dir, "typescript", "package.json", "package-lock.json", ".npmrc")
	runIn(t, dir, nil, "npm", "ci", "--ignore-scripts", "--no-progress")
	if err := os.WriteFile(installed, lock, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// grpcurlCommands returns the shell commands in section "grpcurl" of docs/clients/README.md. It
// replaces the address of the server in them with addr.
func grpcurlCommands(t *testing.T, addr string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/clients/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "\n## grpcurl\n")
	section, _, closed := strings.Cut(rest, "\n## ")
	var commands strings.Builder
	for _, m := range regexp.MustCompile("(?s)\n```sh\n(.*?)```\n").FindAllStringSubmatch(section, -1) {
		commands.WriteString(m[1])
	}
	if !found || !closed || strings.Count(commands.String(), "127.0.0.1:9090") != 3 {
		t.Fatalf("docs/clients/README.md has no section about grpcurl with three calls of 127.0.0.1:9090:\n%s", section)
	}
	return strings.ReplaceAll(commands.String(), "127.0.0.1:9090", addr)
}

// TestExampleClientsRun runs the example clients of docs/clients, unchanged, and checks their
// output.
func TestExampleClientsRun(t *testing.T) {
	t.Parallel()
	s := start(t, stack.Config{Seed: true})
	protos, err := filepath.Abs("../proto")
	if err != nil {
		t.Fatal(err)
	}
	modules := nodeModules(t)
	says := func(t *testing.T, out, again string) {
		t.Helper()
		want := []string{
			"logged in: S202100", "seats available: ", "booked: R-",
			again + " SEAT_TAKEN", "notified: NOTIFICATION_KIND_COMPLETED",
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		for i, text := range want {
			if len(lines) != len(want) || !strings.Contains(lines[i], text) {
				t.Fatalf("the output lacks %q:\n%s", want, out)
			}
		}
	}
	t.Run("go", func(t *testing.T) {
		t.Parallel()
		out := runIn(
			t, "..", []string{"CGO_ENABLED=0"}, "go", "run", "./docs/clients/go", s.Addr(), "S2021001", "password123", "7",
		)
		says(t, out, "booked again: AlreadyExists")
	})
	t.Run("python", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		copyClientFiles(t, dir, "python", "client.py")
		google := filepath.Join(modules, "node_modules", "google-proto-files")
		args := []string{"-I", protos, "-I", google, "--python_out=.", "--grpc_python_out=.",
			"--plugin=protoc-gen-grpc_python=" + strings.TrimSpace(runIn(t, dir, nil, "which", "grpc_python_plugin")),
			"google/rpc/status.proto", "google/rpc/error_details.proto"}
		for _, name := range []string{"auth", "seat", "reservation", "notify"} {
			args = append(args, "dlsms/v1/"+name+".proto")
		}
		runIn(t, dir, nil, "protoc", args...)
		python := "/usr/bin/python3" // apt installs Python packages for this interpreter
		if exec.CommandContext(t.Context(), python, "-c", "import grpc, google.protobuf").Run() != nil {
			python = "python3"
		}
		out := runIn(t, dir, nil, python, "client.py", s.Addr(), "S2021002", "password123", "8")
		says(t, out, "booked again: ALREADY_EXISTS")
	})
	t.Run("typescript", func(t *testing.T) {
		t.Parallel()
		copyClientFiles(t, modules, "typescript", "client.ts", "tsconfig.json")
		runIn(t, modules, nil, "npm", "run", "build")
		out := runIn(
			t, modules, []string{"DLSMS_PROTO=" + protos}, "node", "build/client.js", s.Addr(), "S2021003", "password123", "9",
		)
		says(t, out, "booked again: ALREADY_EXISTS")
	})
	t.Run("grpcurl", func(t *testing.T) {
		t.Parallel()
		// The shell runs without -e because two commands fail as expected: the second booking of a
		// seat, and the stream that -max-time ends.
		out := runIn(t, "..", nil, "bash", "-uo", "pipefail", "-c", grpcurlCommands(t, s.Addr())+"\ntrue")
		for _, text := range []string{
			`"availableCount": 2`, `"status": "RESERVATION_STATUS_CONFIRMED"`, "Code: AlreadyExists",
			`"reason": "SEAT_TAKEN"`, `"status": "RESERVATION_STATUS_CHECKED_IN"`,
			`"status": "RESERVATION_STATUS_COMPLETED"`, `"kind": "NOTIFICATION_KIND_COMPLETED"`,
		} {
			if !strings.Contains(out, text) {
				t.Errorf("the output lacks %s:\n%s", text, out)
			}
		}
	})
}
