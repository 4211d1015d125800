package stack_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// logBuffer is a log that a test can read while processes write to it.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *logBuffer) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *logBuffer) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// wantOrder checks that the log contains these texts in this order.
func wantOrder(t *testing.T, log string, texts ...string) {
	t.Helper()
	rest := log
	for _, text := range texts {
		_, after, found := strings.Cut(rest, text)
		if !found {
			t.Fatalf("no %q in the expected order in:\n%s", text, log)
		}
		rest = after
	}
}

func startStack(t *testing.T, cfg stack.Config) *stack.Stack {
	t.Helper()
	cfg.Binary = filepath.Join(programs(t), "dlsms")
	if cfg.Log == nil {
		cfg.Log = t.Output()
	}
	s, err := stack.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pids(s *stack.Stack) []int {
	var all []int
	for _, p := range s.Processes() {
		all = append(all, p.PID())
	}
	return all
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func freeSeats(t *testing.T, addr string) int32 {
	t.Helper()
	n, err := tryFreeSeats(t, addr)
	if err != nil {
		t.Fatalf("seats at %s: %v", addr, err)
	}
	return n
}

func tryFreeSeats(t *testing.T, addr string) (int32, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seats, err := dlsmsv1.NewSeatServiceClient(dial(t, addr)).GetSeats(ctx, &dlsmsv1.GetSeatsRequest{AvailableOnly: true})
	return seats.GetAvailableCount(), err
}

// freeSeatsOverHTTP returns the number of free seats, as curl would get it.
func freeSeatsOverHTTP(t *testing.T, addr string) int32 {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/v1/seats?availableOnly=true")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var seats dlsmsv1.GetSeatsResponse
	if err := protojson.Unmarshal(body, &seats); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("seats at %s: %s, %v\n%s", addr, resp.Status, err, body)
	}
	return seats.GetAvailableCount()
}

func TestStackServesAndRecovers(t *testing.T) {
	t.Parallel()
	var log logBuffer
	s := startStack(t, stack.Config{Seed: true, Unsafe: true, Log: &log})
	started := pids(s)
	if len(started) != 6 {
		t.Errorf("%d processes, want Postgres, Redis, three replicas and nginx", len(started))
	}
	wantOrder(t, log.String(),
		"postgres | ready", "redis    | ready", "app", "| ready", "seed     | done", "nginx    | ready")

	if got := freeSeats(t, s.Addr()); got != 49 {
		t.Errorf("%d seats through nginx, want 49", got)
	}
	if got := freeSeatsOverHTTP(t, s.HTTPAddr()); got != 49 {
		t.Errorf("%d seats over HTTP through nginx, want 49", got)
	}
	for i := range s.Replicas {
		if got := freeSeats(t, s.ReplicaAddr(i)); got != 49 {
			t.Errorf("%d seats at replica %d, want 49", got, i)
		}
		if got := freeSeatsOverHTTP(t, s.ReplicaHTTPAddr(i)); got != 49 {
			t.Errorf("%d seats over HTTP at replica %d, want 49", got, i)
		}
		resp, err := http.Get("http://" + s.AdminAddr(i) + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("metrics of replica %d: %s", i, resp.Status)
		}
	}

	if err := s.Replicas[0].Kill(); err != nil {
		t.Fatal(err)
	}
	// The killed replica loses the calls that nginx had sent to it. After these errors, the other
	// replicas must answer every call.
	eventually(t, "30 calls succeed after a replica is killed", func() bool {
		for range 30 {
			if got, err := tryFreeSeats(t, s.Addr()); err != nil || got != 49 {
				return false
			}
		}
		return true
	})
	for _, p := range []interface {
		Start(context.Context) error
		Restart(context.Context) error
	}{s.Postgres, s.Redis, s.Nginx, s.Replicas[1]} {
		if err := p.Restart(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := s.Replicas[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all replicas are ready after the restarts", func() bool {
		for i := range s.Replicas {
			if s.Replicas[i].Ready(t.Context()) != nil {
				return false
			}
		}
		return true
	})
	if got := freeSeats(t, s.Addr()); got != 49 {
		t.Errorf("%d seats after restarts, want 49", got)
	}

	last := pids(s)
	stop(t, s)
	waitUntilGone(t, append(started, last...))
	_, stopping, _ := strings.Cut(log.String(), "stack    | stopping")
	wantOrder(t, stopping, "app", "| stopped", "redis    | stopped", "postgres | stopped")
	if before, _, _ := strings.Cut(stopping, "redis    | stopped"); strings.Count(before, "| stopped") != 4 {
		t.Errorf("Redis stopped before all replicas and nginx:\n%s", stopping)
	}
}

// A second run in the same directory must have the users, the bookings and the token secret of the
// first run. No other user may be able to read the files with secrets.
func TestSecondRunKeepsUsersAndSecrets(t *testing.T) {
	t.Parallel()
	dir := usedDir(t)
	cfg := stack.Config{Dir: dir, Seed: true, Unsafe: true, Replicas: 1, NoRedis: true}
	s := startStack(t, cfg)
	if len(s.Processes()) != 3 || s.Redis != nil {
		t.Errorf("%d processes, want Postgres, a replica and nginx", len(s.Processes()))
	}
	login, err := dlsmsv1.NewAuthServiceClient(dial(t, s.Addr())).Login(t.Context(),
		&dlsmsv1.LoginRequest{StudentId: "S2021001", Password: "password123"})
	if err != nil {
		t.Fatal(err)
	}
	stop(t, s)

	s = startStack(t, cfg)
	defer stop(t, s)
	_, err = dlsmsv1.NewAuthServiceClient(dial(t, s.Addr())).VerifyToken(t.Context(),
		&dlsmsv1.VerifyTokenRequest{Token: login.GetAccessToken()})
	if err != nil {
		t.Errorf("a token of the first run: %v", err)
	}
	if got := freeSeats(t, s.Addr()); got != 49 {
		t.Errorf("%d seats, want 49", got)
	}
	for _, name := range []string{"jwt-secret", "database-url", "postgres/password"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", name, info.Mode())
		}
	}
}

func TestStartReportsFailureOfReplica(t *testing.T) {
	t.Parallel()
	dir := usedDir(t)
	cfg := stack.Config{
		Dir: dir, Binary: filepath.Join(programs(t), "dlsms"), Unsafe: true,
		Env: map[string]string{"JWT_SECRET": "short"},
	}
	_, err := stack.Start(t.Context(), cfg)
	wantLine(t, err, "app", "JWT_SECRET")
	cfg.Binary = filepath.Join(dir, "dlsms")
	_, err = stack.Start(t.Context(), cfg)
	wantLine(t, err, cfg.Binary, "make build")

	cfg.Binary, cfg.Env = filepath.Join(programs(t), "dlsms"), nil
	s, err := stack.Start(t.Context(), cfg) // each failed start released the directory
	if err != nil {
		t.Fatal(err)
	}
	stop(t, s)
}

func TestCancelledStartStopsProcesses(t *testing.T) {
	t.Parallel()
	for _, word := range []string{
		"postgres | starting", "redis    | ready", "app1     | starting", "nginx    | starting",
	} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			dir := usedDir(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var log logBuffer
			_, err := stack.Start(ctx, stack.Config{
				Dir: dir, Binary: filepath.Join(programs(t), "dlsms"), Unsafe: true,
				Log: tee{&log, cancelOn{word, cancel}},
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want context.Canceled", err)
			}
			ready, stopped := strings.Count(log.String(), "| ready"), strings.Count(log.String(), "| stopped")
			if ready != stopped {
				t.Errorf("%d processes were ready and %d stopped:\n%s", ready, stopped, log.String())
			}
			if _, err := os.Stat(filepath.Join(dir, "postgres", "data", "postmaster.pid")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Postgres still runs: %v", err)
			}
		})
	}
}

type tee struct{ a, b io.Writer }

func (w tee) Write(p []byte) (int, error) {
	if n, err := w.a.Write(p); err != nil {
		return n, err
	}
	return w.b.Write(p)
}

// dlsms-stack, which `make run` runs, prints example commands and restarts killed processes. When
// it gets a signal, it stops all processes and exits with code 0.
func TestCommandStopsOnSignal(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]syscall.Signal{
		"ctrl-c": syscall.SIGINT, "terminated": syscall.SIGTERM, "terminal closed": syscall.SIGHUP,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := usedDir(t)
			var log logBuffer
			cmd := exec.Command(filepath.Join(programs(t), "dlsms-stack"), "-dir", dir,
				"-binary", filepath.Join(programs(t), "dlsms"), "-listen", "127.0.0.1:0")
			cmd.Stdout, cmd.Stderr = &log, &log
			cmd.Env = append(os.Environ(), "DATABASE_URL=postgres://elsewhere/", "LOG_LEVEL=warn")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			t.Cleanup(func() { _ = cmd.Process.Kill() }) // the process has already ended, unless the test failed
			eventually(t, "dlsms-stack prints example commands", func() bool {
				return strings.Contains(log.String(), "Ctrl-C stops everything")
			})
			text := log.String()
			wantOrder(t, text, "Open http://127.0.0.1:", "S2021001", "D0001", "L0001", "A0001", "password123",
				"DL-SMS serves gRPC on 127.0.0.1:", " and HTTP on 127.0.0.1:", "/docs",
				"curl", "S2021001", "GetSeats", "S2021001", "/metrics")
			if strings.Contains(text, `"level":"INFO"`) {
				t.Error("LOG_LEVEL of the environment did not reach the replicas")
			}
			_, after, _ := strings.Cut(text, "DL-SMS serves gRPC on ")
			addr, after, _ := strings.Cut(after, " and HTTP on ")
			httpAddr, _, _ := strings.Cut(after, ". ")
			if want := "\nOpen http://" + httpAddr + " in a browser.\n"; !strings.Contains(text, want) {
				t.Errorf("the output does not have %q", want)
			}
			if got := freeSeats(t, addr); got != 49 {
				t.Errorf("%d seats, want 49", got)
			}
			if got := freeSeatsOverHTTP(t, httpAddr); got != 49 {
				t.Errorf("%d seats over HTTP, want 49", got)
			}

			var replica int
			for _, pid := range childrenOf(t, []int{cmd.Process.Pid}) {
				if stack.ProgramName(pid) == "dlsms" {
					replica = pid
				}
			}
			if err := syscall.Kill(replica, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the killed replica is back", func() bool {
				_, again, found := strings.Cut(log.String(), "ended: signal: killed; starting it again")
				return found && strings.Contains(again, "| ready")
			})

			children := childrenOf(t, []int{cmd.Process.Pid})
			if len(children) != 6 {
				t.Errorf("%d children, want 6", len(children))
			}
			for _, pid := range children { // otherwise Ctrl-C would reach them all at once
				if group, err := syscall.Getpgid(pid); err != nil || group != pid {
					t.Errorf("the child %d is in the process group %d (%v), want one of its own", pid, group, err)
				}
			}
			if signal.Ignored(sig) { // as under nohup; child processes inherit this
				sig = syscall.SIGTERM
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("dlsms-stack ended with %v:\n%s", err, log.String())
			}
			waitUntilGone(t, children)
		})
	}
}
