package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisConfig says how to start a Redis of one's own. Its zero value is one on a free port.
type RedisConfig struct {
	// Dir holds its configuration; empty: a temporary directory, removed by Stop.
	Dir string
	// Port on 127.0.0.1 that is taken if it is free; if it isn't, or 0: any free port.
	Port int
	// Log gets the server's lines and a line a step; nil: nowhere.
	Log io.Writer
}

// Redis listens on 127.0.0.1 only, with a password, and keeps nothing on disk: it carries only what may be lost.
type Redis struct {
	*Process
	port     int
	password string
	state    *stateDir // what Stop gives back; nil when a Stack holds it
	ports    *ports
}

// StartRedis starts a Redis and returns once it answers. Every error is one line that says what to do.
func StartRedis(ctx context.Context, cfg RedisConfig) (*Redis, error) {
	state, err := openState(cfg.Dir)
	if err != nil {
		return nil, err
	}
	held := &ports{}
	r, err := startRedis(ctx, cfg, state, held, newConsole(cfg.Log), systemTools())
	if err != nil {
		held.close()
		return nil, errors.Join(err, state.close())
	}
	r.state, r.ports = state, held
	return r, nil
}

// Stop ends the server within 10 s; one of StartRedis also gives up its directory and port, and can't be started again.
func (r *Redis) Stop(ctx context.Context) error {
	err := r.Process.Stop(ctx)
	if r.state == nil {
		return err
	}
	r.ports.close()
	return errors.Join(err, r.state.close())
}

// RedisURL names the server, with its password.
func (r *Redis) RedisURL() string {
	u := url.URL{Scheme: "redis", User: url.UserPassword("", r.password), Host: net.JoinHostPort(loopback, strconv.Itoa(r.port)), Path: "/0"}
	return u.String()
}

func startRedis(ctx context.Context, cfg RedisConfig, state *stateDir, held *ports, log *console, t tools) (*Redis, error) {
	program, err := t.find("Redis", "redis-server", "valkey-server")
	if err != nil {
		return nil, err
	}
	dir := state.file("redis")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("can't make %s (%w): remove what is there", dir, err)
	}
	r := &Redis{}
	if r.password, err = secret(filepath.Join(dir, "password")); err != nil {
		return nil, err
	}
	if r.port, err = held.pick(cfg.Port); err != nil {
		return nil, err
	}
	// In a file, since a command line is everybody's to read. docker-compose.yml has the same limits.
	conf := filepath.Join(dir, "redis.conf")
	err = writeFile(conf, fmt.Sprintf(`bind %s
port %d
requirepass %s
dir %q
daemonize no
loglevel warning
save ""
appendonly no
maxmemory 128mb
maxmemory-policy allkeys-lru
`, loopback, r.port, r.password, dir), 0o600)
	if err != nil {
		return nil, err
	}
	r.Process = &Process{spec: spec{
		name: "redis",
		log:  log,
		command: func() (*exec.Cmd, error) {
			cmd := exec.Command(program, conf)
			cmd.Dir = dir
			cmd.Env = append(baseEnv(), "LC_ALL=C") // it ends at a locale that the system doesn't have
			return cmd, nil
		},
		ready:    r.answers,
		within:   time.Minute,
		quit:     syscall.SIGTERM,
		patience: 10 * time.Second,
		orphan:   syscall.SIGKILL,
		hushed:   true, // advice on the machine's settings
	}}
	log.printf("redis", "starting on %s:%d", loopback, r.port)
	if err := r.Start(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Redis) answers(ctx context.Context) error {
	options, err := redis.ParseURL(r.RedisURL())
	if err != nil {
		return err
	}
	options.MaxRetries = -1 // one try
	options.ContextTimeoutEnabled = true
	options.DisableIdentity = true
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return client.Ping(ctx).Err()
}
