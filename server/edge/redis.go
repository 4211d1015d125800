package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/dlsms/dlsms/certificate"
)

// RedisTimeout bounds how long a call waits for Redis. Redis usually answers within a millisecond.
// After RedisTimeout, Redis counts as unreachable.
const RedisTimeout = 100 * time.Millisecond

// OpenRedis returns a client for the Redis at url. It does not connect yet. For an empty url it
// returns nil: the replica runs without Redis. Close the client after Server.Shutdown.
//
// caFile names a file with the certificates of the authorities that signed the certificate of Redis.
// It is for rediss:// URLs. If it is empty, the authorities of the system count.
//
// No call needs Redis, so no call fails if Redis is unreachable, slow or emptied. Such a Redis
// delays at most one call a second, for at most timeout.
func OpenRedis(url, caFile string, timeout time.Duration) (redis.UniversalClient, error) {
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
		Addrs: []string{o.Addr}, DB: o.DB, Username: o.Username, Password: o.Password,
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
	switch {
	case o.Network == "unix":
		u.Dialer = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: timeout}).DialContext(ctx, "unix", o.Addr)
		}
	case o.TLSConfig != nil:
		if u.Dialer, err = tlsDialer(o.TLSConfig, caFile, timeout); err != nil {
			return nil, err
		}
	}
	return redis.NewUniversalClient(u), nil
}

// tlsDialer returns a function that connects to Redis with TLS. Its error names the fault of the
// certificate of Redis.
func tlsDialer(config *tls.Config, caFile string, timeout time.Duration) (dialFunc, error) {
	if caFile != "" {
		var err error
		if config.RootCAs, err = certificate.ReadPool(caFile); err != nil {
			return nil, fmt.Errorf("REDIS_CA_FILE: %w", err)
		}
	}
	dial := redis.NewDialer(&redis.Options{DialTimeout: timeout, TLSConfig: config})
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			server := certificate.Server{Name: "Redis at " + addr, Address: "REDIS_URL", CA: "REDIS_CA_FILE"}
			return nil, server.Explain(err)
		}
		return conn, nil
	}, nil
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// silenceClient stops the client library from writing to standard error. The edge logs failures
// itself, once and structured.
var silenceClient = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// processStart is the origin of times that are stored as a duration on the monotonic clock.
var processStart = time.Now()

// Breaker is a circuit breaker for Redis. Calls skip Redis in two cases:
//
//   - After a failure, for breakerPause. Then one call tries Redis. The other calls still skip
//     Redis until this call succeeds.
//   - While another call has waited for Redis for longer than expected: see Allow. Otherwise, many
//     calls would wait until the same timeout.
//
// The zero value is ready.
type Breaker struct {
	until   atomic.Int64 // time from processStart to the end of the pause; 0: Redis works
	waiting atomic.Int64 // time from processStart to the start of the pending call; 0: none
}

const breakerPause = time.Second

// maxWaitForRedis is longer than any call waits for Redis. A call that is pending for longer never
// called Report.
const maxWaitForRedis = time.Minute

// Allow reports whether the caller may call Redis. Breaker lists the two cases in which it may not.
// doubt is how long another call may wait for Redis before Allow returns false. If Allow returns
// true, the caller must call Report when Redis has answered or failed.
func (b *Breaker) Allow(doubt time.Duration) bool {
	// Read waiting before until: see Report.
	now, since := int64(time.Since(processStart)), b.waiting.Load()
	if until := b.until.Load(); until != 0 {
		return now >= until && b.until.CompareAndSwap(until, now+int64(breakerPause))
	}
	if since == 0 || now-since > int64(maxWaitForRedis) { // or the pending call never called Report
		b.waiting.CompareAndSwap(since, now)
		return true
	}
	return now-since < int64(doubt)
}

// Open reports whether calls skip Redis, because the last call failed.
func (b *Breaker) Open() bool { return b.until.Load() != 0 }

// Probe calls try once a breakerPause while calls skip Redis, until ctx ends. Without Probe, a replica
// without calls would never notice that Redis works again, and its metrics would show a failure that
// is over. try must call Report. It sends the command of the calls: a Redis that refuses to write, such
// as a read-only one, answers a PING.
func (b *Breaker) Probe(ctx context.Context, try func(context.Context)) {
	tick := time.NewTicker(breakerPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if b.Open() && b.Allow(RedisTimeout) {
			try(ctx)
		}
	}
}

// Report records the result of a call, and reports whether the state of Redis has changed. It sets
// until before it clears waiting. Allow reads them in the opposite order, so after a failure it
// sees at least one of them set.
func (b *Breaker) Report(ok bool) (changed bool) {
	defer b.waiting.Store(0) // after until is set
	if ok {
		return b.until.Swap(0) != 0
	}
	return b.until.Swap(int64(time.Since(processStart)+breakerPause)) == 0
}
