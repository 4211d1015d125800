package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"

	"github.com/dlsms/dlsms/e2e"
	"github.com/dlsms/dlsms/stack"
	"github.com/dlsms/dlsms/store/storetest"
)

// system is a running DL-SMS with a fault proxy on each connection. The connections in db do not
// pass a proxy.
type system struct {
	*stack.Stack
	*proxies

	journal *e2e.LogRecorder
	db      *pgxpool.Pool
	conns   []io.Closer
	http    []*e2e.HTTPConn // of conns
	// edges and httpEdges are the addresses that clients call over gRPC and over HTTP.
	edges, httpEdges []string
	secret           string // the key keyID, which signs tokens
	clock            storetest.Clock

	operator  *operator // of the load
	librarian *librarian
}

const (
	replicas = 3
	keyID    = "chaos"
)

// edges is the number of fault proxies between the clients and nginx, for gRPC and for HTTP each.
// During a fault of one of them, clients can reach nginx through the others.
const edges = 3

// settings returns the settings of the replicas. They are the defaults, with these exceptions:
//
//   - The rate limit of a user is checked, but is too high to be reached. The other rate limits are
//     off.
//   - The limits of reservations and waitlists are off.
//   - The password hash is cheap.
//   - WORKER_INTERVAL is 1 s, because a minute of the system's clock may take less than a second.
func settings() map[string]string {
	env := e2e.NoRateLimits()
	maps.Copy(env, map[string]string{
		"RATE_LIMIT_PER_MINUTE": "1000000", "BCRYPT_COST": "4", "WORKER_INTERVAL": "1s", "LOG_LEVEL": "warn",
		"MAX_UPCOMING": "0", "MAX_WAITING": "0", "MAX_WAITING_PER_SEAT": "0", "MAX_WAITLIST": "0",
	})
	return env
}

// startSystem starts a system whose clock runs faster than real time by the factor speed. If
// proxied is true, all connections have fault proxies. Otherwise only cfg can add proxies.
func startSystem(ctx context.Context, cfg stack.Config, speed int, proxied bool) (_ *system, err error) {
	return (&system{proxies: newProxies(), journal: &e2e.LogRecorder{}}).start(ctx, cfg, speed, proxied)
}

func (s *system) start(ctx context.Context, cfg stack.Config, speed int, proxied bool) (_ *system, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	cfg.Log = s.journal
	postgres := map[string]string{
		"log_min_messages":       "error", // the journal finds deadlocks
		"track_commit_timestamp": "on",    // for wrongSumsSQL
	}
	maps.Copy(postgres, cfg.PostgresSettings)
	cfg.PostgresSettings = postgres
	s.secret = rand.Text() + rand.Text()
	env := settings()
	env["JWT_SECRET"] = keyID + ":" + s.secret
	maps.Copy(env, cfg.Env)
	cfg.Env = env
	if proxied {
		s.interpose(&cfg)
	}
	if s.Stack, err = stack.Start(ctx, cfg); err != nil {
		return s, err
	}
	if s.db, err = pgxpool.New(ctx, s.Postgres.AdminURL()+"&dlsms.guard=off"); err != nil {
		return s, err
	}
	s.edges, s.httpEdges = []string{s.Addr()}, []string{s.HTTPAddr()}
	if proxied {
		if s.edges, err = s.addLinks("client-nginx", slices.Repeat(s.edges, edges)); err != nil {
			return s, err
		}
		if s.httpEdges, err = s.addLinks("client-nginx", slices.Repeat(s.httpEdges, edges)); err != nil {
			return s, err
		}
	}
	return s, s.setClock(ctx, time.Now(), speed)
}

// interpose adds a proxy to each connection of each replica.
func (s *system) interpose(cfg *stack.Config) {
	var databases, redises [replicas]string
	cfg.ProxyURLs = func(databaseURL, redisURL string) (string, string, error) {
		var err error
		for i := range replicas {
			if databases[i], err = s.proxyURL("replica-postgres", databaseURL); err != nil {
				return "", "", err
			}
			if redises[i], err = s.proxyURL("replica-redis", redisURL); err != nil {
				return "", "", err
			}
		}
		return databaseURL, redisURL, nil
	}
	cfg.ReplicaEnv = func(i int) map[string]string {
		return map[string]string{"DATABASE_URL": databases[i], "REDIS_URL": redises[i]}
	}
	cfg.ProxyBackends = func(backends []string) ([]string, error) { return s.addLinks("nginx-replica", backends) }
	cfg.ProxyHTTPBackends = cfg.ProxyBackends
}

// setClock sets the time and the speed of the system's clock.
func (s *system) setClock(ctx context.Context, from time.Time, speed int) error {
	s.clock = storetest.Clock{From: from, Since: time.Now(), Speed: speed}
	_, err := s.db.Exec(ctx, s.clock.SQL())
	return err
}

// connect returns n connections to nginx, with the options that README.md recommends. If there are
// fault proxies before nginx, the connections use them in turn. If tries is not 0, it is the
// largest number of attempts that gRPC makes for a call. Otherwise that number is as in README.md.
func (s *system) connect(n, tries int) ([]grpc.ClientConnInterface, error) {
	options := e2e.RetryOptions()
	if tries > 0 {
		attempts := fmt.Sprintf(`"maxAttempts": %d`, tries)
		config := strings.Replace(e2e.ServiceConfig, `"maxAttempts": 4`, attempts, 1)
		options = append(options, grpc.WithDefaultServiceConfig(config))
	}
	conns := make([]grpc.ClientConnInterface, n)
	for i := range conns {
		conn, err := s.dial(s.edges[i%len(s.edges)], options...)
		if err != nil {
			return nil, err
		}
		conns[i] = conn
	}
	return conns, nil
}

// connectHTTP returns n connections over HTTP to the edges in turn. Each call has one try, unless
// the options say otherwise.
func (s *system) connectHTTP(n int, options ...e2e.HTTPOption) []grpc.ClientConnInterface {
	conns := make([]grpc.ClientConnInterface, n)
	for i := range conns {
		conn := e2e.DialHTTP(s.httpEdges[i%len(s.httpEdges)], options...)
		s.conns, s.http = append(s.conns, conn), append(s.http, conn)
		conns[i] = conn
	}
	return conns
}

// breaches returns the answers over HTTP so far that broke the contract, also those of streams.
func (s *system) breaches() error {
	var errs []error
	for _, conn := range s.http {
		errs = append(errs, conn.Err())
	}
	return errors.Join(errs...)
}

// dial returns a connection. system.stop closes it.
func (s *system) dial(addr string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := e2e.Dial(addr, options...)
	if err == nil {
		s.conns = append(s.conns, conn)
	}
	return conn, err
}

// stop stops the system. It fails if a process failed or had to be killed.
func (s *system) stop() error {
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	if s.db != nil {
		s.db.Close()
	}
	if s.operator != nil {
		s.operator.db.Close()
	}
	var err error
	if s.Stack != nil {
		err = s.Stop(context.Background())
	}
	s.proxies.stop()
	return err
}

// addBranch adds a branch that is always open, with seats, and returns the ids of the seats.
func (s *system) addBranch(ctx context.Context, code string, seats int) (ids []int64, err error) {
	var branch int64
	err = s.db.QueryRow(ctx, `
		INSERT INTO branches (library_id, code, name, timezone) VALUES (1, $1, $1, 'Europe/Berlin')
		RETURNING id`, code).Scan(&branch)
	if err != nil {
		return nil, fmt.Errorf("add a branch: %w", err)
	}
	rows, err := s.db.Query(ctx, `
		INSERT INTO seats (library_id, branch_id, area, label)
		SELECT 1, $1, 'Hall', 'H-' || i FROM generate_series(1, $2) i
		RETURNING id`, branch, seats)
	if err != nil {
		return nil, fmt.Errorf("add seats: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// adminAddrs returns the addresses of the replicas' metrics.
func (s *system) adminAddrs() []string {
	var addrs []string
	for _, r := range s.Replicas {
		addrs = append(addrs, r.AdminAddr())
	}
	return addrs
}

func (s *system) flushRedis(ctx context.Context) error {
	options, err := redis.ParseURL(s.Redis.RedisURL())
	if err != nil {
		return err
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	return client.FlushAll(ctx).Err()
}
