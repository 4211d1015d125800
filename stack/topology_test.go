package stack_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// httpStatus returns the status of a GET request.
func httpStatus(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// Each service runs in a process of its own, and the gateway makes one system of them.
func TestMicroservicesServe(t *testing.T) {
	t.Parallel()
	var log logBuffer
	s := startStack(t, stack.Config{Topology: stack.Microservices, Seed: true, Unsafe: true, Log: &log})
	defer stop(t, s)
	var names []string
	for _, p := range s.Processes() {
		names = append(names, p.Name())
	}
	want := []string{"postgres", "redis", "auth", "seat", "reservation", "notify", "worker", "nginx"}
	if !slices.Equal(names, want) {
		t.Errorf("the processes are %q, want %q", names, want)
	}
	wantOrder(t, log.String(),
		"redis    | ready", "worker   | starting, metrics on", "seed     | done", "nginx    | ready")

	// Over the gateway.
	if got := freeSeats(t, s.Addr()); got != 49 {
		t.Errorf("%d seats, want 49", got)
	}
	if got := freeSeatsOverHTTP(t, s.HTTPAddr()); got != 49 {
		t.Errorf("%d seats over HTTP, want 49", got)
	}
	login, err := dlsmsv1.NewAuthServiceClient(dial(t, s.Addr())).Login(t.Context(),
		&dlsmsv1.LoginRequest{StudentId: "S2021001", Password: "password123"})
	if err != nil || login.GetAccessToken() == "" {
		t.Errorf("login: %v", err)
	}

	// Past the gateway.
	paths := map[string]string{ // GET requests without a token: 401, or 200 for seat
		"auth": "", "seat": "/v1/seats", "reservation": "/v1/reservations", "notify": "/v1/waitlist",
	}
	for i, r := range s.Replicas {
		for service, path := range paths {
			if r.Runs(service) != (r.Name() == service) {
				t.Errorf("%s runs %s: %v", r.Name(), service, r.Runs(service))
			}
			if r.Name() == "worker" || path == "" {
				continue
			}
			want := http.StatusNotFound
			switch {
			case !r.Runs(service):
			case service == "seat":
				want = http.StatusOK
			default:
				want = http.StatusUnauthorized
			}
			if got := httpStatus(t, "http://"+s.ReplicaHTTPAddr(i)+path); got != want {
				t.Errorf("%s answers %s with %d, want %d", r.Name(), path, got, want)
			}
		}
		if got := httpStatus(t, "http://"+s.AdminAddr(i)+"/metrics"); got != http.StatusOK {
			t.Errorf("metrics of %s: %d", r.Name(), got)
		}
		if r.Name() == "worker" {
			for _, addr := range []string{r.Addr(), r.HTTPAddr()} {
				if conn, err := net.Dial("tcp", addr); err == nil {
					_ = conn.Close()
					t.Errorf("the worker listens on %s", addr)
				}
			}
			continue
		}
		_, err := tryFreeSeats(t, r.Addr())
		if code := codes.Unimplemented; r.Name() == "seat" && err != nil || r.Name() != "seat" && status.Code(err) != code {
			t.Errorf("GetSeats of %s: %v", r.Name(), err)
		}
	}

	// A login rush must not slow the others.
	if auth, seat := niceness(t, s.Replicas[0]), niceness(t, s.Replicas[1]); auth != min(seat+10, 19) {
		t.Errorf("auth has the niceness %d, seat has %d", auth, seat)
	}

	// A process that was killed starts again at its address.
	seat := s.Replicas[1]
	if err := seat.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := httpStatus(t, "http://"+s.HTTPAddr()+"/v1/seats"); got != http.StatusServiceUnavailable {
		t.Errorf("without seat, the gateway answers %d", got)
	}
	if err := seat.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := freeSeatsOverHTTP(t, s.HTTPAddr()); got != 49 {
		t.Errorf("%d seats over HTTP after a restart, want 49", got)
	}
}

// niceness returns the niceness of a process, and checks that the process is dlsms.
func niceness(t *testing.T, r *stack.Replica) int {
	t.Helper()
	out, err := exec.Command("ps", "-o", "nice=,comm=", "-p", strconv.Itoa(r.PID())).Output()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var program string
	if _, err := fmt.Sscan(string(out), &n, &program); err != nil || filepath.Base(program) != "dlsms" {
		t.Errorf("%s is the process %q (%v)", r.Name(), out, err)
	}
	return n
}

// Programs without HTTP work as replicas, and nginx answers HTTP itself.
func TestStackWithoutHTTP(t *testing.T) {
	t.Parallel()
	s := startStack(t, stack.Config{
		Dir: usedDir(t), Seed: true, Unsafe: true, Replicas: 1, NoRedis: true, NoHTTP: true,
	})
	defer stop(t, s)
	if got := freeSeats(t, s.Addr()); got != 49 {
		t.Errorf("%d seats, want 49", got)
	}
	if got := httpStatus(t, "http://"+s.HTTPAddr()+"/v1/seats"); got != http.StatusServiceUnavailable {
		t.Errorf("nginx answers HTTP with %d, want 503", got)
	}
	if conn, err := net.Dial("tcp", s.ReplicaHTTPAddr(0)); err == nil {
		_ = conn.Close()
		t.Error("the replica listens for HTTP")
	}
}

// An address of nginx in use fails the start before any process starts.
func TestStartReportsListenAddressInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	used := l.Addr().String()
	for _, topology := range []stack.Topology{stack.Monolith, stack.Microservices} {
		for variable, cfg := range map[string]stack.Config{
			"LISTEN": {Listen: used, HTTPListen: "127.0.0.1:0"}, "HTTP_LISTEN": {HTTPListen: used},
		} {
			var log logBuffer
			cfg.Binary, cfg.Topology, cfg.Log = filepath.Join(programs(t), "dlsms"), topology, &log
			_, err = stack.Start(t.Context(), cfg)
			wantLine(t, err, used+" is in use", " "+variable+"=")
			if strings.Contains(log.String(), "starting") {
				t.Errorf("processes were started:\n%s", log.String())
			}
		}
	}
}

// nginx uses the addresses that the functions of a fault proxy return. These reverse the order of
// the services.
func TestStackUsesProxiedBackends(t *testing.T) {
	t.Parallel()
	var backends, httpBackends []string
	reverse := func(got *[]string) func([]string) ([]string, error) {
		return func(addrs []string) ([]string, error) {
			*got = slices.Clone(addrs)
			slices.Reverse(addrs)
			return addrs, nil
		}
	}
	s := startStack(t, stack.Config{
		Dir: usedDir(t), Unsafe: true, NoRedis: true, Topology: stack.Microservices,
		ProxyBackends: reverse(&backends), ProxyHTTPBackends: reverse(&httpBackends),
	})
	defer stop(t, s)
	for i, r := range s.Replicas[:4] {
		if backends[i] != r.Addr() || httpBackends[i] != r.HTTPAddr() {
			t.Errorf("%s has the backends %s and %s", r.Name(), backends[i], httpBackends[i])
		}
	}
	if _, err := tryFreeSeats(t, s.Addr()); status.Code(err) != codes.Unimplemented {
		t.Errorf("GetSeats of another service: %v", err)
	}
	if got := httpStatus(t, "http://"+s.HTTPAddr()+"/v1/seats"); got != http.StatusNotFound {
		t.Errorf("seats of another service: %d", got)
	}
}
