package edge

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/identity"
)

// RateLimits are how many calls are let through; 0 turns a limit off. Each is a token bucket of that size, filled evenly in its time: a client that
// has been idle may make all calls at once, and then as many again in the minute after, one by one.
type RateLimits struct {
	PerUserPerMinute    int // signed-in calls of one user
	PerAddressPerMinute int // Login and Register together, of one client address
	LoginFailures       int // failed logins of one student id, in 5 minutes
}

// bucket is a token bucket for each key: it holds size tokens and is filled within period.
type bucket struct {
	name   string
	size   int
	period time.Duration
}

// interval is how long one token takes to come back, 1 µs at least: Redis counts in whole ones.
func (b bucket) interval() time.Duration {
	return max(b.period/time.Duration(b.size), time.Microsecond)
}

// Limits are the rate limits of all replicas together while Redis is there; while it isn't, each replica counts by itself.
type Limits struct {
	user, address, failure bucket

	log     *slog.Logger
	client  redis.UniversalClient // nil: no Redis
	library int64                 // whose users are counted
	timeout time.Duration
	breaker Breaker
	local   localBuckets
}

func NewLimits(l RateLimits, client redis.UniversalClient, timeout time.Duration, library int64, log *slog.Logger) *Limits {
	return &Limits{
		user:    bucket{"user", l.PerUserPerMinute, time.Minute},
		address: bucket{"address", l.PerAddressPerMinute, time.Minute},
		failure: bucket{"failure", l.LoginFailures, 5 * time.Minute},
		log:     log,
		client:  client,
		library: library,
		timeout: timeout,
	}
}

// check counts a call and returns ErrRateLimited if it is one too many.
func (l *Limits) check(ctx context.Context, c *call) error {
	switch c.rule.quota {
	case perUser:
		return l.take(ctx, l.user, strconv.FormatInt(c.caller.UserID, 10), 1)
	case perAddress:
		return l.take(ctx, l.address, string(c.from()), 1)
	case unlimited:
	}
	return nil
}

// LoginAllowed returns ErrRateLimited if the student id, in whichever case and whether or not it exists, has had too many failed logins.
func (l *Limits) LoginAllowed(ctx context.Context, studentID string) error {
	return l.take(ctx, l.failure, strings.ToLower(studentID), 0)
}

// LoginFailed counts a failed login. It does so also for a client that hung up before it heard of the failure.
func (l *Limits) LoginFailed(ctx context.Context, studentID string) {
	_ = l.take(ctx, l.failure, strings.ToLower(studentID), 1)
}

// take takes n tokens from the key's bucket, or with n = 0 looks whether there is one.
func (l *Limits) take(ctx context.Context, b bucket, key string, n int) error {
	if b.size <= 0 {
		return nil
	}
	wait, ok := l.takeShared(ctx, b, key, n)
	if !ok {
		wait = l.local.take(b, key, n)
	}
	if wait > 0 {
		return library.ErrRateLimited.WithRetryAfter(wait)
	}
	return nil
}

// gcra is the generic cell rate algorithm: one number for a key, the time at which its bucket is full again, instead of a count and a time.
// It returns for how many microseconds there is no token, 0 if there is one. Redis's clock is the same for all replicas.
var gcra = redis.NewScript(`
	local interval, size, n = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
	local t = redis.call('TIME')
	local now = t[1] * 1000000 + t[2]
	local full = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
	full = math.min(full, now + interval * size) -- should the clock have gone back
	local wait = full + interval * math.max(n, 1) - interval * size - now
	if wait > 0 then return math.ceil(wait) end
	if n > 0 then
		full = full + interval * n
		redis.call('SET', KEYS[1], full, 'PX', math.max(1, math.ceil((full - now) / 1000)))
	end
	return 0`)

// sharedKey is the key of a bucket in Redis. The braces make it one hash tag, so that a cluster knows its slot.
func sharedKey(library int64, bucket, key string) string {
	return "dlsms:{" + strconv.FormatInt(library, 10) + ":" + bucket + ":" + key + "}"
}

// takeShared asks Redis; not ok when there is none to ask.
func (l *Limits) takeShared(ctx context.Context, b bucket, key string, n int) (wait time.Duration, ok bool) {
	doubt := l.timeout / 10
	if b.name == l.failure.name { // guesses are counted together, or not at all; beside the hash, the wait is nothing
		doubt = l.timeout
	}
	if l.client == nil || !l.breaker.Allow(doubt) {
		return 0, false
	}
	// Without the client, which may go: that would cost the connection, and says nothing of Redis.
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.timeout)
	defer cancel()
	micros, err := gcra.Run(asking, l.client, []string{sharedKey(l.library, b.name, key)}, b.interval().Microseconds(), b.size, n).Int64()
	if l.breaker.Report(err == nil) {
		if err != nil {
			l.log.WarnContext(ctx, "Redis fails: rate limits count by replica", "cause", err)
		} else {
			l.log.InfoContext(ctx, "Redis is back: rate limits are shared")
		}
	}
	return time.Duration(micros) * time.Microsecond, err == nil
}

// maxLocalBuckets is how many buckets a replica remembers at least, and half of those that it remembers at most: about 20 MB.
const maxLocalBuckets = 50_000

// localBuckets are the buckets of this replica alone. Its zero value is ready.
type localBuckets struct {
	mu   sync.Mutex
	seen identity.RecentMap[string, *rate.Limiter]
}

func (l *localBuckets) take(b bucket, key string, n int) (wait time.Duration) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	key = b.name + ":" + key
	limiter, ok := l.seen.Get(key, maxLocalBuckets)
	if !ok {
		limiter = rate.NewLimiter(rate.Every(b.interval()), b.size)
		l.seen.Put(key, limiter, maxLocalBuckets)
	}
	if lacking := float64(max(n, 1)) - limiter.TokensAt(now); lacking > 0 {
		return max(time.Microsecond, time.Duration(lacking*float64(b.interval())))
	}
	limiter.AllowN(now, n)
	return 0
}
