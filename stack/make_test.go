package stack_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// cloneAt copies the source of this checkout to dir and commits it to a new repository. It also
// copies the built buf, if there is one.
func cloneAt(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		switch {
		case rel == ".git" || rel == ".local":
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dir, rel), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		return copyFile(path, filepath.Join(dir, rel))
	})
	if err != nil {
		t.Fatal(err)
	}
	git(t, dir, "init", "--quiet", "--initial-branch=main")
	git(t, dir, "add", "--all")
	git(t, dir, "commit", "--quiet", "--message=one")
	if has("..", ".local", "bin", "buf") { // otherwise make builds it, which takes minutes
		if err := os.MkdirAll(filepath.Join(dir, ".local", "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := copyFile("../.local/bin/buf", filepath.Join(dir, ".local", "bin", "buf")); err != nil {
			t.Fatal(err)
		}
	}
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode().Perm())
}

// inClone returns a command that runs in the clone dir. The command does not get the user's git
// settings. If make runs this test, the command does not get the flags of that make.
func inClone(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=",
		"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@localhost",
		"GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@localhost")
	return cmd
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, err := inClone(dir, "git", args...).CombinedOutput(); err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}

func runMake(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	out, err := inClone(dir, "make", args...).CombinedOutput()
	return string(out), err
}

// replace replaces the first before in a file of the clone with after.
func replace(t *testing.T, before, after string, path ...string) {
	t.Helper()
	file := filepath.Join(path...)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(content), before, after, 1)
	if changed == string(content) {
		t.Fatalf("%s has no %q", file, before)
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The targets of the Makefile must work in a path with spaces and quotes. After an incompatible
// change of seat.proto, `make breaking` must fail.
func TestMakeWorksInPathWithSpacesAndQuotes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(stateDir(t), `it's a "path" of $HOME`)
	cloneAt(t, dir)
	for _, target := range []string{"help", "build", "fresh", "breaking"} {
		if out, err := runMake(t, dir, target); err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, out)
		}
	}
	runAndStop(t, dir, "run")
	runAndStop(t, dir, "run-microservices")

	replace(t, "rpc GetSeat(", "rpc GetOneSeat(", dir, "proto", "dlsms", "v1", "seat.proto")
	for _, step := range []string{"not committed", "committed", "on a branch"} {
		switch step {
		case "committed":
			git(t, dir, "commit", "--quiet", "--all", "--message=two")
		case "on a branch":
			git(t, dir, "branch", "--quiet", "topic")
			git(t, dir, "reset", "--quiet", "--hard", "HEAD~1")
			git(t, dir, "switch", "--quiet", "topic")
		default:
			// Before the second commit, `make breaking` has no earlier commit to compare with. With
			// BASE it compares with a named commit.
			out, err := runMake(t, dir, "breaking", "BASE=HEAD")
			if err == nil || !strings.Contains(out, `"GetSeat" on service "SeatService" was deleted`) {
				t.Errorf("%s: %v\n%s", step, err, out)
			}
			continue
		}
		out, err := runMake(t, dir, "breaking")
		if err == nil || !strings.Contains(out, `"GetSeat" on service "SeatService" was deleted`) ||
			!strings.Contains(out, ", one)") {
			t.Errorf("%s: %v\n%s", step, err, out)
		}
	}
	if out, err := runMake(t, dir, "clean"); err != nil || has(dir, ".local") {
		t.Errorf("make clean: %v\n%s", err, out)
	}
}

// runAndStop runs a target, `make run` or `make run-microservices`, until all processes are ready,
// and then stops it.
func runAndStop(t *testing.T, dir, target string) {
	t.Helper()
	var log logBuffer
	cmd := inClone(dir, "make", target, "LISTEN=127.0.0.1:0", "HTTP_LISTEN=127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	up := func() bool { return strings.Contains(log.String(), "Ctrl-C stops everything") }
	eventually(t, "make "+target+" is ready, or ends", func() bool { return up() || len(ended) > 0 })
	if up() {
		if separate := strings.Contains(log.String(), "Services: auth http://127.0.0.1:"); separate != (target != "run") {
			t.Errorf("make %s: each service has a process: %t", target, separate)
		}
		pid, err := os.ReadFile(filepath.Join(dir, ".local", "lock"))
		if err != nil {
			t.Fatal(err)
		}
		running, err := strconv.Atoi(strings.TrimSpace(string(pid)))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := runMake(t, dir, "clean"); err == nil || !strings.Contains(out, "kill "+strconv.Itoa(running)) {
			t.Errorf("make clean during make %s: %v\n%s", target, err, out)
		}
		if err := syscall.Kill(running, syscall.SIGINT); err != nil {
			t.Error(err)
		}
	}
	if err := <-ended; err != nil || !up() {
		t.Fatalf("make %s: %v\n%s", target, err, log.String())
	}
}

// tools/breaking.sh must fail if it can't compare proto/ with an earlier commit.
func TestBreakingFailsIfItCannotCompare(t *testing.T) {
	t.Parallel()
	parent := stateDir(t)
	dir := filepath.Join(parent, "clone")
	for _, name := range []string{"tools/breaking.sh", "buf.yaml", "proto/dlsms/v1/seat.proto"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := copyFile(filepath.Join("..", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, ".local", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	buf := func(code string) {
		t.Helper()
		script := "#!/bin/sh\necho buf was run\nexit " + code + "\n"
		err := os.WriteFile(filepath.Join(dir, ".local", "bin", "buf"), []byte(script), 0o755)
		if err != nil {
			t.Fatal(err)
		}
	}
	buf("0")
	want := func(passes bool, text string) {
		t.Helper()
		out, err := inClone(dir, filepath.Join(dir, "tools", "breaking.sh")).CombinedOutput()
		if (err == nil) != passes || !strings.Contains(string(out), text) {
			t.Errorf("got %v and %q, want success %t and %q", err, out, passes, text)
		}
	}
	want(false, "this is no clone")
	git(t, dir, "init", "--quiet", "--initial-branch=topic")
	want(false, "this is no clone with a commit")
	git(t, dir, "add", "buf.yaml")
	git(t, dir, "commit", "--quiet", "--message=one")
	want(false, "neither origin/main nor main is here")
	git(t, dir, "branch", "--quiet", "--move", "main")
	want(true, "this is the first commit")
	git(t, dir, "add", "proto")
	git(t, dir, "commit", "--quiet", "--message=two")
	want(true, "has no protos")
	git(t, dir, "commit", "--quiet", "--allow-empty", "--message=three")
	want(true, ", two): 1 files compared")
	buf("100")
	want(false, ", two)")
	buf("0")

	whole := dir
	dir = filepath.Join(parent, "shallow")
	git(t, parent, "clone", "--quiet", "--depth=1", "file://"+whole, dir)
	if err := os.MkdirAll(filepath.Join(dir, "tools"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyFile("../tools/breaking.sh", filepath.Join(dir, "tools", "breaking.sh")); err != nil {
		t.Fatal(err)
	}
	want(false, "the clone is shallow")
}
