package edge

import (
	"context"
	"errors"
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

// RateLimits are the numbers of calls that are admitted in a period; 0 disables a limit. Each limit
// is a token bucket of that size, which refills evenly over the period. A client that was idle may
// make all calls of a period at once, and the same number again, one by one, during the next
// period.
type RateLimits struct {
	PerUserPerMinute    int // signed-in calls of one user
	PerAddressPerMinute int // of one client address: Login and Register together, and RecordScan
	LoginFailures       int // failed logins of one student id, in 5 minutes
}

// keysPerMinute is the number of calls that a program may make in a minute with one service key. It
// is a hundred in a second: four turnstiles let through fewer people, and a program in an endless
// loop then takes a small part of the calls that a replica can serve.
const keysPerMinute = 6000

// wrongCodes is the number of wrong codes of presence that a user may send in 5 minutes. With it, a
// user who tries digits for a year guesses those of a screen with a chance of about 3%.
const wrongCodes = 10

// bucket describes the token buckets of a limit. Each key has a bucket that holds size tokens and
// refills within period.
type bucket struct {
	name   string
	size   int
	period time.Duration
}

// interval returns the time after which a bucket gets one token back. It is at least 1 µs, because
// Redis counts in whole microseconds.
func (b bucket) interval() time.Duration {
	return max(b.period/time.Duration(b.size), time.Microsecond)
}

// Limits are the rate limits, shared by all replicas while Redis is reachable. Otherwise each
// replica counts by itself.
type Limits struct {
	user, address, scan, failure, key, code bucket

	log     *slog.Logger
	client  redis.UniversalClient // nil: no Redis
	library int64                 // the library of the users
	timeout time.Duration
	breaker Breaker
	local   localBuckets
}

// NewLimits returns Limits for the users of a library. client may be nil. timeout bounds the wait
// for Redis of one call.
func NewLimits(
	l RateLimits, client redis.UniversalClient, timeout time.Duration, library int64, log *slog.Logger,
) *Limits {
	return &Limits{
		user:    bucket{"user", l.PerUserPerMinute, time.Minute},
		address: bucket{"address", l.PerAddressPerMinute, time.Minute},
		scan:    bucket{"scan", l.PerAddressPerMinute, time.Minute},
		failure: bucket{"failure", l.LoginFailures, 5 * time.Minute},
		key:     bucket{"key", keysPerMinute, time.Minute},
		code:    bucket{"code", wrongCodes, 5 * time.Minute},
		log:     log,
		client:  client,
		library: library,
		timeout: timeout,
	}
}

// BreakerOpen reports whether each replica counts alone, because Redis failed.
func (l *Limits) BreakerOpen() bool { return l.breaker.Open() }

// Run tries Redis while it fails, until ctx ends.
func (l *Limits) Run(ctx context.Context) {
	if l.client != nil {
		probe := bucket{"probe", 1000, time.Second}
		l.breaker.Probe(ctx, func(ctx context.Context) { l.callRedis(ctx, probe, "", 1) })
	}
}

// check counts a call and returns ErrRateLimited if it exceeds its limit.
func (l *Limits) check(ctx context.Context, c *call) error {
	quota := c.rule.quota
	if quota == perCaller {
		quota = perUser
		if c.caller.Key != nil {
			quota = perKey
		}
	}
	switch quota {
	case perUser:
		return l.take(ctx, l.user, strconv.FormatInt(c.caller.UserID, 10), 1)
	case perAddress:
		return l.take(ctx, l.address, string(c.from()), 1)
	case scansPerAddress:
		return l.take(ctx, l.scan, string(c.from()), 1)
	case perKey:
		return l.take(ctx, l.key, strconv.FormatInt(c.caller.Key.ID, 10), 1)
	case unlimited, perCaller:
	}
	return nil
}

// LoginAllowed returns ErrRateLimited if a student id has too many failed logins, whether or not
// the student exists. It ignores the case of the id.
func (l *Limits) LoginAllowed(ctx context.Context, studentID string) error {
	return l.take(ctx, l.failure, strings.ToLower(studentID), 0)
}

// LoginFailed counts a failed login, also of a client that cancelled the call.
func (l *Limits) LoginFailed(ctx context.Context, studentID string) {
	_ = l.take(ctx, l.failure, strings.ToLower(studentID), 1)
}

// CodeTried counts a code of presence of a user. It returns ErrRateLimited if the user has sent too
// many wrong ones. The code is counted before it is judged, so that calls at the same time do not
// judge more codes. If the code was not wrong, call CodeNotWrong.
func (l *Limits) CodeTried(ctx context.Context, userID int64) error {
	err := l.take(ctx, l.code, strconv.FormatInt(userID, 10), 1)
	if limited, ok := errors.AsType[*library.Error](err); ok {
		return limited.WithMessage("you have sent too many wrong codes: wait before the next one, or ask at the desk")
	}
	return err
}

// CodeNotWrong takes back the code that CodeTried has counted, also of a client that cancelled the
// call.
func (l *Limits) CodeNotWrong(ctx context.Context, userID int64) {
	_ = l.take(ctx, l.code, strconv.FormatInt(userID, 10), -1)
}

// take takes n tokens from the bucket of a key. With n = 0 it only checks for a token, and with n < 0
// it puts tokens back.
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

// gcra is the generic cell rate algorithm. For each key it stores one number, the time at which the
// bucket is full again, instead of a count and a time. It returns the number of microseconds until
// the next token, or 0 if there is a token. All replicas use the clock of Redis.
var gcra = redis.NewScript(`
	local interval, size, n = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
	local t = redis.call('TIME')
	local now = t[1] * 1000000 + t[2]
	local full = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
	full = math.min(full, now + interval * size) -- in case the clock was set back
	if n < 0 then
		full = math.max(full + interval * n, now)
		redis.call('SET', KEYS[1], full, 'PX', math.max(1, math.ceil((full - now) / 1000)))
		return 0
	end
	local wait = full + interval * math.max(n, 1) - interval * size - now
	if wait > 0 then return math.ceil(wait) end
	if n > 0 then
		full = full + interval * n
		redis.call('SET', KEYS[1], full, 'PX', math.max(1, math.ceil((full - now) / 1000)))
	end
	return 0`)

// sharedKey returns the key of a bucket in Redis. The braces make all of it a hash tag. A Redis
// cluster finds the slot of a key by its hash tag.
func sharedKey(library int64, bucket, key string) string {
	return "dlsms:{" + strconv.FormatInt(library, 10) + ":" + bucket + ":" + key + "}"
}

// takeShared is take for a bucket in Redis. ok is false if Redis is unreachable.
func (l *Limits) takeShared(ctx context.Context, b bucket, key string, n int) (wait time.Duration, ok bool) {
	// If another call has waited for Redis for longer than maxPending, this call skips Redis.
	maxPending := l.timeout / 10
	if b.name == l.failure.name || b.name == l.code.name {
		// Failed logins and wrong codes must be counted for all replicas together, so these calls wait
		// longer for Redis. The wait is still shorter than the hashing of a password.
		maxPending = l.timeout
	}
	if l.client == nil || !l.breaker.Allow(maxPending) {
		return 0, false
	}
	return l.callRedis(ctx, b, key, n)
}

// callRedis takes from a bucket in Redis. It tells the breaker the result, and logs a change of its
// state.
func (l *Limits) callRedis(ctx context.Context, b bucket, key string, n int) (wait time.Duration, ok bool) {
	// The query continues if the client cancels its call. A cancelled query would close the
	// connection to Redis, and would count as a failure of Redis.
	query, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.timeout)
	defer cancel()
	keys := []string{sharedKey(l.library, b.name, key)}
	micros, err := gcra.Run(query, l.client, keys, b.interval().Microseconds(), b.size, n).Int64()
	switch changed := l.breaker.Report(err == nil); {
	case changed && err != nil:
		l.log.WarnContext(ctx, "Redis fails: rate limits count by replica", "cause", err)
	case changed:
		l.log.InfoContext(ctx, "Redis is back: rate limits are shared")
	}
	return time.Duration(micros) * time.Microsecond, err == nil
}

// maxLocalBuckets is the number of recently used buckets that a replica remembers. It may remember
// up to twice as many, about 20 MB.
const maxLocalBuckets = 50_000

// localBuckets are the buckets of one replica. The zero value is ready.
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
	if lacking := float64(max(n, 1)) - limiter.TokensAt(now); n >= 0 && lacking > 0 {
		return max(time.Microsecond, time.Duration(lacking*float64(b.interval())))
	}
	limiter.AllowN(now, n)
	return 0
}
