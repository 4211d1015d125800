package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
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

// site is a running system with a fault proxy on each of its connections, and ways in that no fault touches.
type system struct {
	*stack.Stack
	*proxies

	journal *e2e.LogRecorder
	db      *pgxpool.Pool
	conns   []*grpc.ClientConn
	edges   []string // where clients call
	secret  string   // tokens are signed with, under keyID
	clock   storetest.Clock

	operator *operator // of a load
}

const (
	replicas = 3
	keyID    = "chaos"
)

// edges is how many links lead from clients to nginx, so that one that is cut leaves clients.
const edges = 3

// settings of the replicas: the shipped defaults, but for rate limits that are asked about and never reached, for passwords that cost nothing
// to check, and for a worker that looks each second, since a minute of the system's clock is a second of ours.
func settings() map[string]string {
	env := e2e.NoRateLimits()
	maps.Copy(env, map[string]string{"RATE_LIMIT_PER_MINUTE": "1000000", "BCRYPT_COST": "4", "WORKER_INTERVAL": "1s", "LOG_LEVEL": "warn", "MAX_UPCOMING": "0", "MAX_WAITING": "0",
		"MAX_WAITING_PER_SEAT": "0", "MAX_WAITLIST": "0"})
	return env
}

// startSite starts a system whose clock goes so many times as fast as ours, with fault proxies on all connections or without any, but for
// those that the configuration has.
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
	postgres := map[string]string{"log_min_messages": "error"} // a deadlock is told at once, and found by the journal
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
	s.edges = []string{s.Addr()}
	if proxied {
		s.edges = nil
	}
	for proxied && len(s.edges) < edges {
		edge, err := s.addLink("client-nginx", s.Addr())
		if err != nil {
			return s, err
		}
		s.edges = append(s.edges, edge)
	}
	return s, s.setClock(ctx, time.Now(), speed)
}

// interpose puts a proxy on each connection of each replica.
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
	cfg.ProxyBackends = func(backends []string) ([]string, error) {
		through := make([]string, len(backends))
		for i, b := range backends {
			var err error
			if through[i], err = s.addLink("nginx-replica", b); err != nil {
				return nil, err
			}
		}
		return through, nil
	}
}

// setClock has the system's clock begin at a time and go so many times as fast as ours.
func (s *system) setClock(ctx context.Context, from time.Time, speed int) error {
	s.clock = storetest.Clock{From: from, Since: time.Now(), Speed: speed}
	_, err := s.db.Exec(ctx, s.clock.SQL())
	return err
}

// connect returns connections as clients of the README have them, to the edges in turn. tries is how often a call is tried; 0: as there.
func (s *system) connect(n, tries int) ([]grpc.ClientConnInterface, error) {
	options := e2e.RetryOptions()
	if tries > 0 {
		options = append(options, grpc.WithDefaultServiceConfig(strings.Replace(e2e.ServiceConfig, `"maxAttempts": 4`, fmt.Sprintf(`"maxAttempts": %d`, tries), 1)))
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

// dial returns a connection that ends with the site.
func (s *system) dial(addr string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := e2e.Dial(addr, options...)
	if err == nil {
		s.conns = append(s.conns, conn)
	}
	return conn, err
}

// stop ends the system, and fails if one of its processes had to be killed or ended badly.
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

// furnish adds a branch that is always open, with seats, and returns their ids.
func (s *system) addBranch(ctx context.Context, code string, seats int) (ids []int64, err error) {
	var branch int64
	err = s.db.QueryRow(ctx, `INSERT INTO branches (library_id, code, name, timezone) VALUES (1, $1, $1, 'Europe/Berlin') RETURNING id`, code).Scan(&branch)
	if err != nil {
		return nil, fmt.Errorf("add a branch: %w", err)
	}
	rows, err := s.db.Query(ctx, `INSERT INTO seats (library_id, branch_id, area, label) SELECT 1, $1, 'Hall', 'H-' || i FROM generate_series(1, $2) i RETURNING id`, branch, seats)
	if err != nil {
		return nil, fmt.Errorf("add seats: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
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
