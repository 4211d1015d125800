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

// TestRedisGone kills Redis, and later stops it as if it hung, while clients go on. Nobody notices: no call fails, not even once, and all
// that is different is that the replicas limit the rates each by itself.
func TestRedisGone(t *testing.T) {
	t.Parallel()
	env := limitedLogins()
	env["RATE_LIMIT_PER_MINUTE"] = "100000" // so that every call asks Redis
	s := start(t, stack.Config{Env: env})
	replicas := connections(t, s)
	l, end := startLoad(t, s)
	l.worksInAllParts()
	countTogether(t, s, replicas)

	if err := s.Redis.Kill(); err != nil {
		t.Fatal(err)
	}
	l.worksInAllParts()
	countApart(t, s, replicas)
	if err := s.Redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	countTogether(t, s, replicas)
	l.worksInAllParts()

	if err := s.Redis.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	l.worksInAllParts()
	countApart(t, s, replicas)
	if err := s.Redis.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	countTogether(t, s, replicas)
	l.worksInAllParts()

	end()
	if n := l.retries.Load(); n != 0 {
		t.Errorf("%d calls had to be made twice", n)
	}
}

// TestWithoutRedis is a system that has none.
func TestWithoutRedis(t *testing.T) {
	t.Parallel()
	s := start(t, stack.Config{NoRedis: true, Env: limitedLogins()})
	l, end := startLoad(t, s)
	l.worksInAllParts()
	countApart(t, s, connections(t, s))
	logoutEndsTheToken(t, s)
	changePasswordEndsAllTokens(t, s)
	l.worksInAllParts()
	end()
	if n := l.retries.Load(); n != 0 {
		t.Errorf("%d calls had to be made twice", n)
	}
}

// limitedLogins are settings whose one narrow limit is one that the load does not touch.
func limitedLogins() map[string]string {
	env := e2e.NoRateLimits()
	env["LOGIN_FAILURE_LIMIT"] = fmt.Sprint(failedLogins)
	return env
}

func connections(t *testing.T, s *system) []*grpc.ClientConn {
	t.Helper()
	var list []*grpc.ClientConn
	for i := range s.Replicas {
		list = append(list, conn(t, s, i))
	}
	return list
}

// worksInAllParts waits until there was another lot of calls of all kinds, and news on every stream.
func (l *load) worksInAllParts() {
	l.t.Helper()
	mails, changes := make([]int, len(l.inboxes)), make([]int, len(l.screens))
	for i := range l.inboxes {
		mails[i], changes[i] = len(l.inboxes[i].got()), len(l.screens[i].got())
	}
	l.progress(60, 0)
	for i := range l.inboxes {
		eventually(l.t, "a notification comes", func() bool { return len(l.inboxes[i].got()) > mails[i] })
		eventually(l.t, "the screen changes", func() bool { return len(l.screens[i].got()) > changes[i] })
	}
}

// countTogether waits until the replicas share their limits: that many failed logins in all.
func countTogether(t *testing.T, s *system, replicas []*grpc.ClientConn) {
	t.Helper()
	var n int
	if !happens(func() bool { n = failLogins(t, s, replicas); return n == failedLogins }) {
		t.Errorf("%d failed logins were let in, want %d", n, failedLogins)
	}
}

// countApart checks that there is still a limit, if only one for each replica.
func countApart(t *testing.T, s *system, replicas []*grpc.ClientConn) {
	t.Helper()
	if n := failLogins(t, s, replicas); n != failedLogins*len(replicas) {
		t.Errorf("%d failed logins were let in, want %d on each of %d replicas", n, failedLogins, len(replicas))
	}
}

// failLogins tries wrong passwords for a student id, at one replica after the other, and returns how many tries were let in.
func failLogins(t *testing.T, s *system, replicas []*grpc.ClientConn) (n int) {
	t.Helper()
	req := &dlsmsv1.LoginRequest{StudentId: fmt.Sprintf("ghost-%d", s.names.Add(1)), Password: "a wrong password"}
	for i := range (failedLogins + 1) * len(replicas) { // one more on each of them than it may let in
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
