package stack_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dlsms/dlsms/stack"
)

// parentModeEnv is an environment variable. If it is set, this test binary starts processes, prints
// their process ids, and waits for the end of its standard input. The tests kill it, or run it as
// another user.
const parentModeEnv = "DLSMS_STACK_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentModeEnv) != "" {
		if err := parent(context.Background()); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	for _, dir := range []string{built.dir, used.dir} {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func parent(ctx context.Context) error {
	pg, err := stack.StartPostgres(ctx, stack.PostgresConfig{Unsafe: true})
	if err != nil {
		return err
	}
	redis, err := stack.StartRedis(ctx, stack.RedisConfig{})
	if err != nil {
		return errors.Join(err, pg.Stop(ctx))
	}
	nginx, err := stack.StartNginx(ctx, stack.NginxConfig{Backends: []string{"127.0.0.1:1"}})
	if err != nil {
		return errors.Join(err, redis.Stop(ctx), pg.Stop(ctx))
	}
	fmt.Println("ready:", pg.PID(), redis.PID(), nginx.PID())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return errors.Join(nginx.Stop(ctx), redis.Stop(ctx), pg.Stop(ctx))
}

// parentProcess is this test binary in parent mode.
type parentProcess struct {
	cmd      *exec.Cmd
	stdin    io.Closer
	children []int
}

// startParent starts program in parent mode and waits until its children are ready.
// If uid is not 0, the program runs as that user.
func startParent(t *testing.T, program string, uid uint32) *parentProcess {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), parentModeEnv+"=1")
	cmd.Stderr = os.Stderr
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // the process has already ended, unless the test failed
	line, err := bufio.NewReader(out).ReadString('\n')
	pids, ok := strings.CutPrefix(strings.TrimSpace(line), "ready: ")
	if err != nil || !ok {
		t.Fatalf("the parent printed %q (%v)", line, err)
	}
	f := &parentProcess{cmd: cmd, stdin: in}
	for _, field := range strings.Fields(pids) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		f.children = append(f.children, pid)
	}
	return f
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

// programs builds dlsms and dlsms-stack once for all tests, and returns their directory.
func programs(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "dlsms-programs-"); built.err != nil {
			return
		}
		cmd := exec.Command("stack/build.sh", "-o", built.dir+"/", ".", "./stack/cmd/dlsms-stack")
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

func alive(pid int) bool { return stack.ProgramName(pid) != "" }

func waitUntilGone(t *testing.T, pids []int) {
	t.Helper()
	eventually(t, fmt.Sprintf("processes %v end", pids), func() bool {
		for _, pid := range pids {
			if alive(pid) {
				return false
			}
		}
		return true
	})
}

// eventually waits until condition returns true. Its limit is 2 minutes, because a busy machine may
// be slow. Only a test that hangs reaches the limit.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(2 * time.Minute)
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("not true within 2 minutes: %s", what)
		}
	}
}

// stateDir returns a temporary directory that the user postgres can enter, unlike t.TempDir.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dlsms-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

var used struct {
	once sync.Once
	dir  string
	err  error
}

// usedDir returns a directory with the state of an earlier run. It creates one cluster for all
// tests and copies it, which is faster than a new cluster for each test.
func usedDir(t *testing.T) string {
	t.Helper()
	used.once.Do(func() {
		if used.dir, used.err = os.MkdirTemp("", "dlsms-used-"); used.err != nil {
			return
		}
		if used.err = os.Chmod(used.dir, 0o755); used.err != nil {
			return
		}
		pg, err := stack.StartPostgres(context.Background(), stack.PostgresConfig{Dir: used.dir, Unsafe: true})
		if err != nil {
			used.err = err
			return
		}
		used.err = pg.Stop(context.Background())
	})
	if used.err != nil {
		t.Fatal(used.err)
	}
	dir := stateDir(t)
	if out, err := exec.Command("cp", "-a", used.dir+"/.", dir).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v\n%s", err, out)
	}
	// The owner file names the original directory, so with it the stack would refuse the copy.
	if err := os.Remove(filepath.Join(dir, "postgres", "owner")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// stop stops p and reports an error if it does not stop gracefully.
func stop(t *testing.T, p interface{ Stop(context.Context) error }) {
	t.Helper()
	if err := p.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

// wantLine checks that err is one line that contains all strings of want.
func wantLine(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %v", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not contain %q: %v", w, err)
		}
	}
}

func write(t *testing.T, content string, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
