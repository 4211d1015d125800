package server

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/storetest"
)

func TestRateLimitPerUser(t *testing.T) {
	t.Parallel()
	client, redisServer := startRedis(t)
	db := storetest.NewDB(t)
	limited := func(c redis.UniversalClient) func(*Config) {
		return func(config *Config) { config.Redis, config.Limits.PerUserPerMinute = c, 4 }
	}
	one, two := startOn(t, db, limited(client), nil), startOn(t, db, limited(slowClient(t, redisServer)), nil)
	one.register(t, "S2021001")
	one.register(t, "S2021002")
	me := bearing(t.Context(), one.login(t, "S2021001", testPassword))
	other := bearing(t.Context(), one.login(t, "S2021002", testPassword))
	for i, s := range []*testServer{one, two, one, two} {
		if _, err := s.notify.GetWaitlist(me, &dlsmsv1.GetWaitlistRequest{}); err != nil {
			t.Fatalf("call %d: %v", i+1, err)
		}
	}
	for _, s := range []*testServer{one, two} {
		_, err := s.notify.GetWaitlist(me, &dlsmsv1.GetWaitlistRequest{})
		want(t, err, codes.ResourceExhausted, "RATE_LIMITED")
		if retry := detail[*errdetails.RetryInfo](err).GetRetryDelay().AsDuration(); retry <= 0 || retry > 15*time.Second {
			t.Errorf("the retry delay is %v", retry)
		}
	}
	if _, err := two.notify.GetWaitlist(other, &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Errorf("another user: %v", err)
	}
	for range 20 { // public reads are not limited, even with a token
		if _, err := one.seats.GetBranches(me, &dlsmsv1.GetBranchesRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}

// fromAddress returns a context for calls of a client with an address.
func fromAddress(t *testing.T, address string) context.Context {
	t.Helper()
	return metadata.AppendToOutgoingContext(t.Context(), "x-real-ip", address)
}

func TestRateLimitPerAddress(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Limits.PerAddressPerMinute = 3 })
	from := func(address string) context.Context { return fromAddress(t, address) }
	login := func(ctx context.Context) error {
		_, err := s.auth.Login(ctx, &dlsmsv1.LoginRequest{StudentId: "unknown", Password: testPassword})
		return err
	}
	register := func(ctx context.Context, id string) error {
		_, err := s.auth.Register(ctx, &dlsmsv1.RegisterRequest{
			StudentId: id, Name: "Ada", Email: "ada@university.example", Password: testPassword,
		})
		return err
	}
	campus := from("192.0.2.1")
	want(t, login(campus), codes.Unauthenticated, "BAD_CREDENTIALS")
	for _, id := range []string{"S2021001", "S2021002"} {
		if err := register(campus, id); err != nil {
			t.Fatal(err)
		}
	}
	want(t, register(campus, "S2021003"), codes.ResourceExhausted, "RATE_LIMITED")
	want(t, login(campus), codes.ResourceExhausted, "RATE_LIMITED")
	want(t, login(from("192.0.2.2")), codes.Unauthenticated, "BAD_CREDENTIALS")
	for i := range 3 { // addresses of one IPv6 network, a /64
		want(t, login(from(fmt.Sprintf("2001:db8:1:2:%d::1", i))), codes.Unauthenticated, "BAD_CREDENTIALS")
	}
	want(t, login(from("2001:db8:1:2:ffff::1")), codes.ResourceExhausted, "RATE_LIMITED")
	want(t, login(from("2001:db8:1:3::1")), codes.Unauthenticated, "BAD_CREDENTIALS")
}

// TestFailedLoginsAreLimited: after too many failed logins, every login with the student id is
// refused, on all replicas. The answer is the same for right and wrong passwords, for existing and
// unknown student ids, and for upper and lower case.
func TestFailedLoginsAreLimited(t *testing.T) {
	t.Parallel()
	client, redisServer := startRedis(t)
	db := storetest.NewDB(t)
	limited := func(c redis.UniversalClient) func(*Config) {
		return func(config *Config) { config.Redis, config.Limits.LoginFailures = c, 4 }
	}
	one, two := startOn(t, db, limited(client), nil), startOn(t, db, limited(slowClient(t, redisServer)), nil)
	one.register(t, "S2021001")
	one.register(t, "S2021002")
	token := one.login(t, "S2021001", testPassword)
	try := func(s *testServer, id, password string) error {
		_, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: id, Password: password})
		return err
	}
	for range 10 { // a right password does not count
		if err := try(two, "s2021001", testPassword); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"S2021001", "S2021999"} { // the second one does not exist
		for i, s := range []*testServer{one, two, one, two} {
			spelled := id
			if i%2 == 0 {
				spelled = strings.ToLower(id)
			}
			want(t, try(s, spelled, "wrong password"), codes.Unauthenticated, "BAD_CREDENTIALS")
		}
		for _, password := range []string{"wrong password", testPassword} {
			for _, s := range []*testServer{one, two} {
				err := try(s, id, password)
				want(t, err, codes.ResourceExhausted, "RATE_LIMITED")
				if retry := detail[*errdetails.RetryInfo](err).GetRetryDelay().AsDuration(); retry <= 0 || retry > 75*time.Second {
					t.Errorf("the retry delay is %v", retry)
				}
			}
		}
	}
	if err := try(one, "S2021002", testPassword); err != nil {
		t.Errorf("another user: %v", err)
	}
	// The limit also applies to ChangePassword, because a client with a stolen token could guess
	// the current password. Other calls with the token are not limited.
	_, err := one.auth.ChangePassword(bearing(t.Context(), token), &dlsmsv1.ChangePasswordRequest{
		CurrentPassword: testPassword, NewPassword: "battery staple",
	})
	want(t, err, codes.ResourceExhausted, "RATE_LIMITED")
	if _, err := one.notify.GetWaitlist(bearing(t.Context(), token), &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Error(err)
	}
}

// TestFailedLoginsAreLimitedInParallel: a login that waits for a slot is checked against the limit
// again after the wait.
func TestFailedLoginsAreLimitedInParallel(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Limits.LoginFailures = 5 })
	s.register(t, "S2021001")
	var compared, limited atomic.Int64
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			_, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{
				StudentId: "S2021001", Password: fmt.Sprintf("wrong password %d", i),
			})
			switch reasonOf(err) {
			case "BAD_CREDENTIALS":
				compared.Add(1)
			case "RATE_LIMITED":
				limited.Add(1)
			default:
				t.Errorf("a login with a wrong password: %v", err)
			}
		})
	}
	all.Wait()
	// The fifth failure reaches the limit. Each comparison that runs at the same time as the fifth
	// may fail as well.
	if n := compared.Load(); n < 5 || n > 5+int64(max(1, runtime.GOMAXPROCS(0)/2)) {
		t.Errorf("%d passwords were compared, %d refused", n, limited.Load())
	}
}
