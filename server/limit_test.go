package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// testLimits are as patient with Redis as their client.
func testLimits(client redis.UniversalClient) *limits {
	l := newLimits(RateLimits{}, client, slog.New(slog.DiscardHandler))
	l.timeout = within
	return l
}

// TestBucket holds the bucket in Redis and the one in the replica to the same behaviour.
func TestBucket(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	for name, l := range map[string]*limits{"Redis": testLimits(client), "local": testLimits(nil)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			slow := bucket{"slow", 5, time.Hour}
			for i := range 5 {
				if err := l.take(ctx, slow, "a", 0); err != nil {
					t.Fatalf("a look before token %d: %v", i+1, err)
				}
				if err := l.take(ctx, slow, "a", 1); err != nil {
					t.Fatalf("token %d: %v", i+1, err)
				}
			}
			for _, n := range []int{0, 1} {
				err := l.take(ctx, slow, "a", n)
				e, ok := errors.AsType[*library.Error](err)
				if !ok || !errors.Is(err, library.ErrRateLimited) || e.RetryAfter <= 11*time.Minute || e.RetryAfter > 12*time.Minute {
					t.Errorf("past the size, taking %d: %v, %+v", n, err, e)
				}
			}
			if err := l.take(ctx, slow, "b", 1); err != nil {
				t.Errorf("another key: %v", err)
			}
			if err := l.take(ctx, bucket{"other", 5, time.Hour}, "a", 1); err != nil {
				t.Errorf("another limit: %v", err)
			}
			if err := l.take(ctx, bucket{"off", 0, time.Hour}, "a", 1); err != nil {
				t.Errorf("a limit that is off: %v", err)
			}

			// It fills up again, one token at a time, when it says it does.
			fast := bucket{"fast", 2, 200 * time.Millisecond}
			for range 2 {
				if err := l.take(ctx, fast, "a", 1); err != nil {
					t.Fatal(err)
				}
			}
			e, ok := errors.AsType[*library.Error](l.take(ctx, fast, "a", 1))
			if !ok || e.RetryAfter > 100*time.Millisecond {
				t.Fatalf("an empty bucket: %+v", e)
			}
			<-time.After(e.RetryAfter)
			if err := l.take(ctx, fast, "a", 1); err != nil {
				t.Errorf("after the time that it named: %v", err)
			}
			if err := l.take(ctx, fast, "a", 1); err == nil {
				t.Error("two tokens came back in the time of one")
			}
		})
	}
}

func TestBucketsOfReplicasAreOne(t *testing.T) {
	t.Parallel()
	client, redisServer := startRedis(t)
	replicas := []*limits{testLimits(client), testLimits(patientRedis(t, redisServer)), testLimits(patientRedis(t, redisServer))}
	b := bucket{"user", 100, time.Hour}
	var passed atomic.Int64
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			if replicas[i%3].take(t.Context(), b, "7", 1) == nil {
				passed.Add(1)
			}
		})
	}
	all.Wait()
	if n := passed.Load(); n != 100 {
		t.Errorf("%d of 300 passed, not 100", n)
	}
	// One key, with one hash tag, that goes away by itself.
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 1 || keys[0] != "dlsms:{1:user:7}" {
		t.Fatalf("keys %q, %v", keys, err)
	}
	if ttl := client.TTL(t.Context(), keys[0]).Val(); ttl <= 0 || ttl > time.Hour {
		t.Errorf("the key lives for %v", ttl)
	}
}

// TestLargestLimits: at the largest limit that the settings take, and beyond it, a bucket still counts in Redis.
func TestLargestLimits(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	l := testLimits(client)
	for _, size := range []int{1_000_000, 60_000_001, math.MaxInt32} {
		b := bucket{"user", size, time.Minute}
		key := strconv.Itoa(size)
		for range 3 {
			if _, ok := l.takeShared(t.Context(), b, key, 1); !ok {
				t.Fatalf("of %d a minute, Redis does not count", size)
			}
		}
	}
}

// TestBucketsOfLibraries: users of two libraries have the same ids, and buckets of their own.
func TestBucketsOfLibraries(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	one, two := testLimits(client), testLimits(client)
	two.library = 2
	b := bucket{"user", 1, time.Hour}
	for name, l := range map[string]*limits{"one": one, "two": two} {
		if err := l.take(t.Context(), b, "7", 1); err != nil {
			t.Errorf("library %s: %v", name, err)
		}
		if err := l.take(t.Context(), b, "7", 1); !errors.Is(err, library.ErrRateLimited) {
			t.Errorf("library %s, the second time: %v", name, err)
		}
	}
}

// TestRedisGone: without Redis a replica counts by itself, at once, and goes back when Redis is back.
func TestRedisGone(t *testing.T) {
	t.Parallel()
	client, redisServer := startRedis(t)
	l := testLimits(client)
	b := bucket{"user", 3, time.Hour}
	if err := l.take(t.Context(), b, "a", 1); err != nil {
		t.Fatal(err)
	}
	if err := redisServer.Kill(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var err error
	for i := range 1000 {
		if err = l.take(t.Context(), b, "a", 1); err == nil && i >= 3 {
			t.Errorf("try %d passes", i+1)
		}
	}
	if !errors.Is(err, library.ErrRateLimited) {
		t.Errorf("after all tries: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("1,000 calls without Redis took %v", took)
	}
	if err := redisServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a shared bucket again", func() bool {
		_ = l.take(t.Context(), b, "back", 0)
		_ = l.take(t.Context(), b, "back", 1)
		return client.Exists(t.Context(), "dlsms:{1:user:back}").Val() == 1
	})
}

// TestRedisStuck: a Redis that takes a connection and says nothing costs one call a second its patience, and the others nothing.
func TestRedisStuck(t *testing.T) {
	t.Parallel()
	patient, redisServer := startRedis(t)
	l := testLimits(clientOf(t, redisServer, redisTimeout))
	l.timeout = redisTimeout
	b := bucket{"user", 1_000_000, time.Hour}
	if err := l.take(t.Context(), b, "a", 1); err != nil {
		t.Fatal(err)
	}
	// CLIENT PAUSE stops Redis for everybody.
	if err := patient.Do(t.Context(), "CLIENT", "PAUSE", 60_000, "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	slow := 0
	for range 10_000 {
		one := time.Now()
		if err := l.take(t.Context(), b, "a", 1); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(one); took > redisTimeout*9/10 {
			slow++
			if took > 2*time.Second {
				t.Errorf("a call took %v", took)
			}
		}
	}
	if most := 1 + int(time.Since(began)/breakerRest); slow > most+2 { // two for a busy machine
		t.Errorf("%d calls were slow in %v", slow, time.Since(began))
	}
}

func TestRedisEmptied(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	l := testLimits(client)
	b := bucket{"user", 1, time.Hour}
	for range 3 { // FLUSHALL takes the script as well
		if err := l.take(t.Context(), b, "a", 1); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(client.FlushAll(t.Context()).Err(), client.ScriptFlush(t.Context()).Err()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheClockOfRedisGoesBack, by an hour: nobody waits for longer than for an empty bucket.
func TestTheClockOfRedisGoesBack(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	l := testLimits(client)
	b := bucket{"user", 2, time.Minute}
	full := time.Now().Add(time.Hour).UnixMicro()
	if err := client.Set(t.Context(), "dlsms:{1:user:a}", full, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	wait, ok := l.takeShared(t.Context(), b, "a", 1)
	if !ok || wait <= 0 || wait > b.interval() {
		t.Errorf("the next is in %v, want within %v (%v)", wait, b.interval(), ok)
	}
}

// TestAClientWhoGoesWhileRedisIsAsked says nothing of Redis, and costs it no connection.
func TestAClientWhoGoesWhileRedisIsAsked(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	l := testLimits(client)
	gone, leave := context.WithCancel(t.Context())
	leave()
	for range 3 {
		if _, ok := l.takeShared(gone, bucket{"gone", 5, time.Hour}, "a", 1); !ok {
			t.Fatal("Redis counts as gone")
		}
	}
	if stats := client.PoolStats(); stats.Misses != 1 || stats.StaleConns != 0 {
		t.Errorf("%d connections were opened, and %d lost", stats.Misses, stats.StaleConns)
	}
}

func TestBreakerLetsOneTry(t *testing.T) {
	t.Parallel()
	var b breaker
	if !b.allow(within) || !b.report(false) || b.report(false) {
		t.Error("the first failure is the news, the second isn't")
	}
	if b.allow(within) {
		t.Error("right after a failure, Redis is asked")
	}
	b.until.Store(int64(time.Since(epoch)) - 1) // the rest is over
	var tries atomic.Int64
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if b.allow(within) {
				tries.Add(1)
			}
		})
	}
	all.Wait()
	if n := tries.Load(); n != 1 {
		t.Errorf("%d tried, not 1", n)
	}
	if !b.report(true) || !b.allow(within) || !b.allow(within) {
		t.Error("after a success, everybody asks")
	}
}

// TestBreakerDoubts: while one has waited for long, the others don't begin to.
func TestBreakerDoubts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b breaker
		const doubt = 10 * time.Millisecond
		for range 2 {
			if !b.allow(doubt) {
				t.Error("nobody asks")
			}
			<-time.After(doubt / 2) // on the clock of the bubble
			if !b.allow(doubt) {
				t.Error("nobody else asks, soon after somebody did")
			}
			<-time.After(doubt)
			if b.allow(doubt) || !b.allow(2*doubt) {
				t.Error("others ask while somebody has waited for long, or don't ask who are more patient")
			}
			if b.report(true) {
				t.Error("an answer is news")
			}
		}
		b.allow(doubt) // and never comes back
		<-time.After(2 * longestWait)
		if !b.allow(doubt) {
			t.Error("nobody asks any more")
		}
	})
}

// TestARushThatFindsRedisStuck: of many who come at once, few wait for it.
func TestARushThatFindsRedisStuck(t *testing.T) {
	t.Parallel()
	patient, redisServer := startRedis(t)
	l := testLimits(clientOf(t, redisServer, within))
	b := bucket{"user", 1_000_000, time.Hour}
	if err := l.take(t.Context(), b, "a", 1); err != nil {
		t.Fatal(err)
	}
	if err := patient.Do(t.Context(), "CLIENT", "PAUSE", 60_000, "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	l.timeout = 3 * time.Second
	var waited, all atomic.Int64
	var callers sync.WaitGroup
	came := time.NewTicker(10 * time.Millisecond)
	defer came.Stop()
	for began := time.Now(); time.Since(began) < l.timeout; <-came.C { // one by one, for as long as the first of them waits
		callers.Go(func() {
			asked := time.Now()
			if err := l.take(t.Context(), b, "a", 1); err != nil {
				t.Error(err)
			}
			all.Add(1)
			if time.Since(asked) > l.timeout/2 {
				waited.Add(1)
			}
		})
	}
	callers.Wait()
	if waited.Load() == 0 || waited.Load() > all.Load()/3 { // a tenth, and some for a busy machine
		t.Errorf("%d of %d waited", waited.Load(), all.Load())
	}
}

func TestLocalBucketsAreBounded(t *testing.T) {
	t.Parallel()
	var l localBuckets
	b := bucket{"address", 1, time.Hour}
	if l.take(b, "mine", 1) != 0 {
		t.Fatal("the first token is refused")
	}
	for i := range 3 * maxLocalBuckets {
		l.take(b, fmt.Sprint(i), 1)
		if i%1000 == 0 && l.take(b, "mine", 1) == 0 {
			t.Fatalf("after %d other keys, a key in use is forgotten", i)
		}
	}
	if n := len(l.young) + len(l.aged); n > 2*maxLocalBuckets {
		t.Errorf("%d keys are remembered", n)
	}
}

func TestRateLimitOfAUser(t *testing.T) {
	t.Parallel()
	client, redisServer := startRedis(t)
	db := storetest.NewDB(t)
	limited := func(c redis.UniversalClient) func(*Config) {
		return func(config *Config) { config.Redis, config.Limits.PerUserPerMinute = c, 4 }
	}
	one, two := startOn(t, db, limited(client), nil), startOn(t, db, limited(patientRedis(t, redisServer)), nil)
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
			t.Errorf("try again after %v", retry)
		}
	}
	if _, err := two.notify.GetWaitlist(other, &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Errorf("another user: %v", err)
	}
	for range 20 { // browsing isn't limited, with a token or without
		if _, err := one.seats.GetBranches(me, &dlsmsv1.GetBranchesRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRateLimitOfAnAddress(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Limits.PerAddressPerMinute = 3 })
	from := func(address string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "x-real-ip", address)
	}
	login := func(ctx context.Context) error {
		_, err := s.auth.Login(ctx, &dlsmsv1.LoginRequest{StudentId: "nobody", Password: testPassword})
		return err
	}
	register := func(ctx context.Context, id string) error {
		_, err := s.auth.Register(ctx, &dlsmsv1.RegisterRequest{StudentId: id, Name: "Ada", Email: "ada@university.example", Password: testPassword})
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
	for i := range 3 { // one network of IPv6
		want(t, login(from(fmt.Sprintf("2001:db8:1:2:%d::1", i))), codes.Unauthenticated, "BAD_CREDENTIALS")
	}
	want(t, login(from("2001:db8:1:2:ffff::1")), codes.ResourceExhausted, "RATE_LIMITED")
	want(t, login(from("2001:db8:1:3::1")), codes.Unauthenticated, "BAD_CREDENTIALS")
}

func TestAddressKey(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]addressKey{
		"192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "::1": "::/64", "@": "@", "": "",
	} {
		if got := addressKeyOf(address); got != want {
			t.Errorf("%s counts as %s, want %s", address, got, want)
		}
	}
}

// TestFailedLogins: past the limit nobody learns anything, whether the student id exists or not, and whichever replica and case they try.
func TestFailedLogins(t *testing.T) {
	t.Parallel()
	client, redisServer := startRedis(t)
	db := storetest.NewDB(t)
	limited := func(c redis.UniversalClient) func(*Config) {
		return func(config *Config) { config.Redis, config.Limits.LoginFailures = c, 4 }
	}
	one, two := startOn(t, db, limited(client), nil), startOn(t, db, limited(patientRedis(t, redisServer)), nil)
	one.register(t, "S2021001")
	one.register(t, "S2021002")
	token := one.login(t, "S2021001", testPassword)
	try := func(s *testServer, id, password string) error {
		_, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: id, Password: password})
		return err
	}
	for range 10 { // a good password counts for nothing
		if err := try(two, "s2021001", testPassword); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"S2021001", "S2021999"} { // the second one doesn't exist
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
					t.Errorf("try again after %v", retry)
				}
			}
		}
	}
	if err := try(one, "S2021002", testPassword); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	// The same goes for guesses at the current password with a stolen token, and for nothing else that the token can do.
	_, err := one.auth.ChangePassword(bearing(t.Context(), token), &dlsmsv1.ChangePasswordRequest{CurrentPassword: testPassword, NewPassword: "battery staple"})
	want(t, err, codes.ResourceExhausted, "RATE_LIMITED")
	if _, err := one.notify.GetWaitlist(bearing(t.Context(), token), &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Error(err)
	}
}

// TestFailedLoginsInParallel: those who wait for their turn to be compared can't all try once the limit is reached.
func TestFailedLoginsInParallel(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Limits.LoginFailures = 5 })
	s.register(t, "S2021001")
	var compared, limited atomic.Int64
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			_, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: "S2021001", Password: fmt.Sprintf("wrong password %d", i)})
			switch reasonOf(err) {
			case "BAD_CREDENTIALS":
				compared.Add(1)
			case "RATE_LIMITED":
				limited.Add(1)
			default:
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
	// One more for each that is compared at the same time as the last one.
	if n := compared.Load(); n < 5 || n > 5+int64(max(1, runtime.GOMAXPROCS(0)/2)) {
		t.Errorf("%d passwords were compared, %d refused", n, limited.Load())
	}
}
