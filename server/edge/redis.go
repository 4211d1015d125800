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

// RedisTimeout bounds how long a call waits for Redis. Redis usually answers within a millisecond.
// After the timeout it counts as unreachable.
const RedisTimeout = 100 * time.Millisecond

// OpenRedis returns a client for the Redis at url, without a connection yet. An empty url returns
// nil, which stands for no Redis. Redis holds nothing that must not be lost, so an unreachable,
// slow or emptied Redis fails no call. It delays at most one call a second, by timeout. Close the
// client after Server.Shutdown.
func OpenRedis(url string, timeout time.Duration) (redis.UniversalClient, error) {
	if url == "" {
		return nil, nil
	}
	o, err := redis.ParseURL(url)
	if err != nil { // err may contain the password
		return nil, errors.New("REDIS_URL must be redis://[user:password@]host:port[/db], " +
			"rediss://… for TLS, or unix://path")
	}
	silenceClient()
	u := &redis.UniversalOptions{
		Addrs: []string{o.Addr}, DB: o.DB, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		ContextTimeoutEnabled: true,
		DisableIdentity:       true, // Redis before 7.2 answers CLIENT SETINFO with an error
		DialTimeout:           timeout,
		ReadTimeout:           timeout,
		WriteTimeout:          timeout,
		PoolTimeout:           timeout,
		// A second try is not worth the wait: every caller works without Redis.
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

// silenceClient stops the client library from writing to standard error. The edge logs failures
// itself, once and structured.
var silenceClient = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// processStart is the origin of times on the monotonic clock.
var processStart = time.Now()

// Breaker is a circuit breaker for Redis, so that an unreachable Redis costs almost nothing. After
// a failure, calls skip Redis for breakerPause. Then one call tries it while the others still skip
// it. Calls also skip Redis while another call has waited for long, so that not all of them wait
// for the same timeout. The zero value is ready.
type Breaker struct {
	until   atomic.Int64 // end of the pause since processStart; 0: Redis works
	waiting atomic.Int64 // start of the oldest pending call since processStart; 0: none
}

const breakerPause = time.Second

// maxWaitForRedis is above the time for which any call waits for Redis.
const maxWaitForRedis = time.Minute

// Allow reports whether to call Redis. If so, Report must follow. doubt bounds the time for which
// another call may have been pending.
func (b *Breaker) Allow(doubt time.Duration) bool {
	now, since := int64(time.Since(processStart)), b.waiting.Load() // read before until: see Report
	if until := b.until.Load(); until != 0 {
		return now >= until && b.until.CompareAndSwap(until, now+int64(breakerPause))
	}
	if since == 0 || now-since > int64(maxWaitForRedis) { // the pending call never called Report
		b.waiting.CompareAndSwap(since, now)
		return true
	}
	return now-since < int64(doubt)
}

// Report records the result of a call, and reports whether the state of Redis has changed.
func (b *Breaker) Report(ok bool) (changed bool) {
	defer b.waiting.Store(0) // after until, so that no call finds neither of the two
	if ok {
		return b.until.Swap(0) != 0
	}
	return b.until.Swap(int64(time.Since(processStart)+breakerPause)) == 0
}
