package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge/edgetest"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store"
)

// testLimits returns Limits whose timeout for Redis is the constant within. It is long, because the
// machine may be busy.
func testLimits(client redis.UniversalClient) *Limits {
	return NewLimits(RateLimits{}, client, within, store.DefaultLibrary, slog.New(slog.DiscardHandler))
}

// TestBucketInRedisAndInMemory tests that buckets in Redis and buckets in the memory of a replica
// behave the same.
func TestBucketInRedisAndInMemory(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	for name, l := range map[string]*Limits{"Redis": testLimits(client), "local": testLimits(nil)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			slow := bucket{"slow", 5, time.Hour}
			for i := range 5 {
				if err := l.take(ctx, slow, "a", 0); err != nil {
					t.Fatalf("a check before token %d: %v", i+1, err)
				}
				if err := l.take(ctx, slow, "a", 1); err != nil {
					t.Fatalf("token %d: %v", i+1, err)
				}
			}
			for _, n := range []int{0, 1} {
				err := l.take(ctx, slow, "a", n)
				e, ok := errors.AsType[*library.Error](err)
				if !ok || !errors.Is(err, library.ErrRateLimited) ||
					e.RetryAfter <= 11*time.Minute || e.RetryAfter > 12*time.Minute {
					t.Errorf("taking %d from an empty bucket: %v, %+v", n, err, e)
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

			// The bucket refills one token at a time. The next token is there after RetryAfter.
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
				t.Errorf("after RetryAfter: %v", err)
			}
			if err := l.take(ctx, fast, "a", 1); err == nil {
				t.Error("two tokens were added in the time of one")
			}
		})
	}
}

func TestReplicasShareBuckets(t *testing.T) {
	t.Parallel()
	client, redisServer := startRedis(t)
	replicas := []*Limits{testLimits(client)}
	for range 2 {
		replicas = append(replicas, testLimits(clientOf(t, redisServer, within)))
	}
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
		t.Errorf("%d of 300 calls passed, not 100", n)
	}
	// There is one key. It has a hash tag, and it expires.
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 1 || keys[0] != "dlsms:{1:user:7}" {
		t.Fatalf("keys %q, %v", keys, err)
	}
	if ttl := client.TTL(t.Context(), keys[0]).Val(); ttl <= 0 || ttl > time.Hour {
		t.Errorf("the key expires after %v", ttl)
	}
}

// TestRedisCountsLargestLimits checks that Redis can apply the largest rate limit that the settings
// allow, 1,000,000 a minute, and larger ones. Above 60,000,000 a minute, the time between two tokens
// is less than 1 µs, the shortest that Redis counts.
func TestRedisCountsLargestLimits(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	l := testLimits(client)
	for _, size := range []int{1_000_000, 60_000_001, math.MaxInt32} {
		b := bucket{"user", size, time.Minute}
		key := strconv.Itoa(size)
		for range 3 {
			if _, ok := l.takeShared(t.Context(), b, key, 1); !ok {
				t.Fatalf("Redis does not count a limit of %d a minute", size)
			}
		}
	}
}

// TestLibrariesHaveSeparateBuckets: two libraries may have users with the same id. Such users have
// separate buckets.
func TestLibrariesHaveSeparateBuckets(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	one, two := testLimits(client), testLimits(client)
	two.library = 2
	b := bucket{"user", 1, time.Hour}
	for name, l := range map[string]*Limits{"one": one, "two": two} {
		if err := l.take(t.Context(), b, "7", 1); err != nil {
			t.Errorf("library %s: %v", name, err)
		}
		if err := l.take(t.Context(), b, "7", 1); !errors.Is(err, library.ErrRateLimited) {
			t.Errorf("library %s, the second time: %v", name, err)
		}
	}
}

// TestLimitsWithoutRedis: when Redis is unreachable, the replica counts in memory at once.
// When Redis answers again, the replica counts in Redis again.
func TestLimitsWithoutRedis(t *testing.T) {
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
			t.Errorf("call %d passes", i+1)
		}
	}
	if !errors.Is(err, library.ErrRateLimited) {
		t.Errorf("after all calls: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("1,000 calls without Redis took %v", took)
	}
	if !l.BreakerOpen() {
		t.Error("without Redis, the breaker is not open")
	}
	if err := redisServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "the bucket is in Redis again", func() bool {
		_ = l.take(t.Context(), b, "back", 0)
		_ = l.take(t.Context(), b, "back", 1)
		return client.Exists(t.Context(), "dlsms:{1:user:back}").Val() == 1
	})
	if l.BreakerOpen() {
		t.Error("with Redis again, the breaker is open")
	}
}

// runLimits runs l until the end of the test.
func runLimits(t *testing.T, l *Limits) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// TestLimitsNoticeRedisWithoutCalls: a replica without calls notices that Redis answers again.
func TestLimitsNoticeRedisWithoutCalls(t *testing.T) {
	t.Parallel()
	client, redisServer := startRedis(t)
	l := testLimits(client)
	runLimits(t, l)
	if err := redisServer.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := l.take(t.Context(), bucket{"user", 3, time.Hour}, "a", 1); err != nil || !l.BreakerOpen() {
		t.Fatalf("without Redis, the breaker is not open: %v", err)
	}
	if err := redisServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "the breaker is closed", func() bool { return !l.BreakerOpen() })
}

// TestBreakerStaysOpenWhileRedisRefusesWrites: a Redis that answers a PING but refuses to write, such as
// a read-only replica, is not back.
func TestBreakerStaysOpenWhileRedisRefusesWrites(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	l := testLimits(client)
	runLimits(t, l)
	configure := func(replicas string) {
		if err := client.ConfigSet(t.Context(), "min-replicas-to-write", replicas).Err(); err != nil {
			t.Fatal(err)
		}
	}
	configure("1")
	if err := l.take(t.Context(), bucket{"user", 3, time.Hour}, "a", 1); err != nil || !l.BreakerOpen() {
		t.Fatalf("with a Redis that refuses to write, the breaker is not open: %v", err)
	}
	refusals := regexp.MustCompile(`(?m)^errorstat_NOREPLICAS:count=[3-9]`)
	edgetest.Eventually(t, "Redis has refused two probes", func() bool {
		if !l.BreakerOpen() {
			t.Fatal("Redis refuses to write, but the breaker is closed")
		}
		return refusals.MatchString(client.Info(t.Context(), "errorstats").Val())
	})
	configure("0")
	edgetest.Eventually(t, "the breaker is closed", func() bool { return !l.BreakerOpen() })
}

// TestLimitsWithHangingRedis: if Redis accepts connections but does not answer, only one call in
// each breakerPause waits for RedisTimeout. The other calls do not wait.
func TestLimitsWithHangingRedis(t *testing.T) {
	t.Parallel()
	admin, redisServer := startRedis(t)
	l := testLimits(clientOf(t, redisServer, RedisTimeout))
	l.timeout = RedisTimeout
	b := bucket{"user", 1_000_000, time.Hour}
	if err := l.take(t.Context(), b, "a", 1); err != nil {
		t.Fatal(err)
	}
	// CLIENT PAUSE stops Redis for all clients.
	if err := admin.Do(t.Context(), "CLIENT", "PAUSE", 60_000, "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	slow := 0
	for range 10_000 {
		one := time.Now()
		if err := l.take(t.Context(), b, "a", 1); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(one); took > RedisTimeout*9/10 {
			slow++
			if took > 2*time.Second {
				t.Errorf("a call took %v", took)
			}
		}
	}
	if most := 1 + int(time.Since(began)/breakerPause); slow > most+2 { // two for a busy machine
		t.Errorf("%d calls were slow in %v", slow, time.Since(began))
	}
}

func TestLimitsSurviveFlush(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	l := testLimits(client)
	b := bucket{"user", 1, time.Hour}
	for range 3 { // the buckets and the script are deleted each time
		if err := l.take(t.Context(), b, "a", 1); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(client.FlushAll(t.Context()).Err(), client.ScriptFlush(t.Context()).Err()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRedisClockSetBack: after the clock of Redis was set back by an hour, the time in a bucket is
// an hour ahead. A call must not wait for that hour, but at most for one token of an empty bucket.
func TestRedisClockSetBack(t *testing.T) {
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
		t.Errorf("the next token is in %v, want within %v (%v)", wait, b.interval(), ok)
	}
}

// TestCancelledCallKeepsRedisConnection: a cancelled call does not count as a failure of Redis, and
// closes no connection.
func TestCancelledCallKeepsRedisConnection(t *testing.T) {
	t.Parallel()
	client, _ := startRedis(t)
	l := testLimits(client)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		if _, ok := l.takeShared(ctx, bucket{"cancelled", 5, time.Hour}, "a", 1); !ok {
			t.Fatal("Redis counts as unreachable")
		}
	}
	if stats := client.PoolStats(); stats.Misses != 1 || stats.StaleConns != 0 {
		t.Errorf("%d connections were opened, and %d lost", stats.Misses, stats.StaleConns)
	}
}

func TestBreakerAllowsOneCallAfterPause(t *testing.T) {
	t.Parallel()
	var b Breaker
	if !b.Allow(within) || !b.Report(false) || b.Report(false) {
		t.Error("the first failure is a change of state, the second is not")
	}
	if b.Allow(within) {
		t.Error("a call is allowed right after a failure")
	}
	b.until.Store(int64(time.Since(processStart)) - 1) // the pause is over
	var tries atomic.Int64
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if b.Allow(within) {
				tries.Add(1)
			}
		})
	}
	all.Wait()
	if n := tries.Load(); n != 1 {
		t.Errorf("%d calls were allowed, not 1", n)
	}
	if !b.Report(true) || !b.Allow(within) || !b.Allow(within) {
		t.Error("after a success, a call is not allowed")
	}
}

// TestBreakerRefusesCallsWhileOneHangs: while one call has been pending for longer than doubt,
// Allow refuses other calls.
func TestBreakerRefusesCallsWhileOneHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		const doubt = 10 * time.Millisecond
		for range 2 {
			if !b.Allow(doubt) {
				t.Error("the first call is not allowed")
			}
			<-time.After(doubt / 2) // by the fake clock of synctest
			if !b.Allow(doubt) {
				t.Error("a second call is not allowed, although the first one has not waited for long")
			}
			<-time.After(doubt)
			if b.Allow(doubt) || !b.Allow(2*doubt) {
				t.Error("a call is allowed while another has waited for long, or one with a longer timeout is not")
			}
			if b.Report(true) {
				t.Error("a success is reported as a change of state")
			}
		}
		b.Allow(doubt) // this call never reports
		<-time.After(2 * maxWaitForRedis)
		if !b.Allow(doubt) {
			t.Error("after a call that never reported, no call is allowed")
		}
	})
}

// TestFewCallsWaitForHangingRedis: if Redis does not answer, few of many concurrent calls wait for
// it.
func TestFewCallsWaitForHangingRedis(t *testing.T) {
	t.Parallel()
	admin, redisServer := startRedis(t)
	l := testLimits(clientOf(t, redisServer, within))
	b := bucket{"user", 1_000_000, time.Hour}
	if err := l.take(t.Context(), b, "a", 1); err != nil {
		t.Fatal(err)
	}
	if err := admin.Do(t.Context(), "CLIENT", "PAUSE", 60_000, "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	l.timeout = 3 * time.Second
	var waited, all atomic.Int64
	var callers sync.WaitGroup
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	// Start a call every 10 ms, until the first call has reached its timeout.
	for began := time.Now(); time.Since(began) < l.timeout; <-tick.C {
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
	if waited.Load() == 0 || waited.Load() > all.Load()/3 { // about a tenth is expected; a busy machine adds some
		t.Errorf("%d of %d calls waited", waited.Load(), all.Load())
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
			t.Fatalf("after %d other keys, a key in use was evicted", i)
		}
	}
	if n := l.seen.Len(); n > 2*maxLocalBuckets {
		t.Errorf("%d keys are kept", n)
	}
}

// TestKeysHaveTheirOwnLimit checks that the calls of a program count by its key, and not against the
// limit of users.
func TestKeysHaveTheirOwnLimit(t *testing.T) {
	t.Parallel()
	l := NewLimits(RateLimits{PerUserPerMinute: 1}, nil, within, store.DefaultLibrary, slog.New(slog.DiscardHandler))
	by := func(id int64) *call {
		return &call{rule: rule{quota: perKey}, caller: identity.Caller{Key: &library.KeyRecord{ID: id}}}
	}
	for range keysPerMinute {
		if err := l.check(t.Context(), by(1)); err != nil {
			t.Fatal(err)
		}
	}
	refused := false
	for range 1000 { // the bucket refills with 100 tokens a second
		refused = refused || errors.Is(l.check(t.Context(), by(1)), library.ErrRateLimited)
	}
	if !refused {
		t.Error("a key has no limit")
	}
	if err := l.check(t.Context(), by(2)); err != nil {
		t.Errorf("another key: %v", err)
	}
}
