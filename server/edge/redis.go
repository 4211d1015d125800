package edge

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// RedisTimeout is how long a call waits for Redis at most. Redis answers within a millisecond; when it doesn't, it counts as gone.
const RedisTimeout = 100 * time.Millisecond

// OpenRedis returns a client for the Redis at url without connecting yet, and nil for an empty url, which means "no Redis" to everything
// here. Nothing is in Redis that can't be lost, so a Redis that is gone, slow or emptied fails no call; it costs one call a second 100 ms
// at most. Close the client after Server.Shutdown.
func OpenRedis(url string, timeout time.Duration) (redis.UniversalClient, error) {
	if url == "" {
		return nil, nil
	}
	o, err := redis.ParseURL(url)
	if err != nil { // it may show the password
		return nil, errors.New("REDIS_URL must be redis://[user:password@]host:port[/db], rediss://… for TLS, or unix://path")
	}
	hush()
	u := &redis.UniversalOptions{
		Addrs: []string{o.Addr}, DB: o.DB, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		ContextTimeoutEnabled: true,
		DisableIdentity:       true, // Redis before 7.2 answers CLIENT SETINFO with an error
		DialTimeout:           timeout,
		ReadTimeout:           timeout,
		WriteTimeout:          timeout,
		PoolTimeout:           timeout,
		// What failed once is not worth the wait for a second try: every user here has something to fall back on.
		MaxRetries:               -1,
		DialerRetries:            1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if o.Network == "unix" {
		u.Dialer = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: timeout}).DialContext(ctx, "unix", o.Addr)
		}
	}
	return redis.NewUniversalClient(u), nil
}

// hush keeps the client library from writing lines of its own to standard error: what fails is logged here, once, and structured.
var hush = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// processStart is a moment to measure others from, by the monotonic clock.
var processStart = time.Now()

// Breaker keeps calls away from a Redis that has failed, so that a dead one costs nothing: after a failure they skip it for breakerRest,
// then one of them tries while the others go on skipping. They skip it too while somebody has waited for an answer for long, or else all who
// come until that one gives up would wait as well. Its zero value is ready.
type Breaker struct {
	until   atomic.Int64 // since processStart; 0: Redis is fine
	waiting atomic.Int64 // since processStart: when the first of those asked who may still wait; 0: nobody does
}

const breakerRest = time.Second

// longestWait is for longer than anybody waits for Redis.
const longestWait = time.Minute

// Allow reports whether to ask Redis; if so, Report must follow. doubt is for how long another one may have waited.
func (b *Breaker) Allow(doubt time.Duration) bool {
	now, since := int64(time.Since(processStart)), b.waiting.Load() // before until: see Report
	if until := b.until.Load(); until != 0 {
		return now >= until && b.until.CompareAndSwap(until, now+int64(breakerRest))
	}
	if since == 0 || now-since > int64(longestWait) { // that one has never come back
		b.waiting.CompareAndSwap(since, now)
		return true
	}
	return now-since < int64(doubt)
}

// Report says how it went, and returns whether that is news.
func (b *Breaker) Report(ok bool) (changed bool) {
	defer b.waiting.Store(0) // after until, or somebody could find neither
	if ok {
		return b.until.Swap(0) != 0
	}
	return b.until.Swap(int64(time.Since(processStart)+breakerRest)) == 0
}
