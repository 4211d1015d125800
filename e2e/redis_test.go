package e2e_test

import (
	"fmt"
	"syscall"
	"testing"

	"google.golang.org/grpc"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// TestRedisOutageFailsNoCall kills Redis under load, and later stops it with SIGSTOP, so that it
// hangs. No call fails, and no call needs a retry. The only effect is that each replica counts its
// rate limits alone.
func TestRedisOutageFailsNoCall(t *testing.T) {
	t.Parallel()
	env := limitedLogins()
	env["RATE_LIMIT_PER_MINUTE"] = "100000" // never reached, but every call asks Redis
	s := start(t, stack.Config{Env: env})
	replicas := connections(t, s)
	l, end := startLoad(t, s)
	l.worksFully()
	expectSharedLimit(t, s, replicas)

	if err := s.Redis.Kill(); err != nil {
		t.Fatal(err)
	}
	l.worksFully()
	expectSeparateLimits(t, s, replicas)
	if err := s.Redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectSharedLimit(t, s, replicas)
	l.worksFully()

	if err := s.Redis.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	l.worksFully()
	expectSeparateLimits(t, s, replicas)
	if err := s.Redis.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	expectSharedLimit(t, s, replicas)
	l.worksFully()

	end()
	if n := l.retries.Load(); n != 0 {
		t.Errorf("%d calls were repeated", n)
	}
}

// TestSystemWorksWithoutRedis runs a load and revokes tokens in a system that has no Redis.
func TestSystemWorksWithoutRedis(t *testing.T) {
	t.Parallel()
	s := start(t, stack.Config{NoRedis: true, Env: limitedLogins()})
	l, end := startLoad(t, s)
	l.worksFully()
	expectSeparateLimits(t, s, connections(t, s))
	logoutRevokesToken(t, s)
	changePasswordRevokesAllTokens(t, s)
	l.worksFully()
	end()
	if n := l.retries.Load(); n != 0 {
		t.Errorf("%d calls were repeated", n)
	}
}

// limitedLogins returns settings with only one rate limit: a low limit of failed logins. No client
// of the load fails to log in.
func limitedLogins() map[string]string {
	env := e2e.NoRateLimits()
	env["LOGIN_FAILURE_LIMIT"] = fmt.Sprint(failedLogins)
	return env
}

func connections(t *testing.T, s *system) []grpc.ClientConnInterface {
	t.Helper()
	var list []grpc.ClientConnInterface
	for i := range s.Replicas {
		list = append(list, conn(t, s, i))
	}
	return list
}

// worksFully waits until more calls of all kinds have succeeded, and each stream has received a
// message.
func (l *load) worksFully() {
	l.t.Helper()
	notifications, changes := make([]int, len(l.subscriptions)), make([]int, len(l.watches))
	for i := range l.subscriptions {
		notifications[i], changes[i] = len(l.subscriptions[i].got()), len(l.watches[i].got())
	}
	l.progress(60, 0)
	for i := range l.subscriptions {
		eventually(l.t, "a notification arrives", func() bool { return len(l.subscriptions[i].got()) > notifications[i] })
		eventually(l.t, "the watch changes", func() bool { return len(l.watches[i].got()) > changes[i] })
	}
}

// expectSharedLimit waits until the replicas share the limit: together they let failedLogins failed
// logins through.
func expectSharedLimit(t *testing.T, s *system, replicas []grpc.ClientConnInterface) {
	t.Helper()
	var n int
	if !happens(func() bool { n = failLogins(t, s, replicas); return n == failedLogins }) {
		t.Errorf("%d failed logins passed, want %d", n, failedLogins)
	}
}

// expectSeparateLimits checks that each replica counts alone: each lets failedLogins failed logins
// through.
func expectSeparateLimits(t *testing.T, s *system, replicas []grpc.ClientConnInterface) {
	t.Helper()
	if n := failLogins(t, s, replicas); n != failedLogins*len(replicas) {
		t.Errorf("%d failed logins passed, want %d on each of %d replicas", n, failedLogins, len(replicas))
	}
}

// failLogins logs in to an unknown student id with wrong passwords, at each replica in turn. It
// returns how many of these calls the limit of failed logins let through.
func failLogins(t *testing.T, s *system, replicas []grpc.ClientConnInterface) (n int) {
	t.Helper()
	req := &dlsmsv1.LoginRequest{StudentId: fmt.Sprintf("unknown-%d", s.names.Add(1)), Password: "a wrong password"}
	for i := range (failedLogins + 1) * len(replicas) { // on each replica, one above the limit
		_, err := e2e.Anonymous(replicas[i%len(replicas)]).Auth.Login(t.Context(), req)
		switch e2e.Reason(err) {
		case "BAD_CREDENTIALS":
			n++
		case "RATE_LIMITED":
			refused(t, err, "RATE_LIMITED")
		default:
			t.Fatal(err)
		}
	}
	return n
}
