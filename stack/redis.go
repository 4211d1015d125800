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

// RedisConfig is the configuration of a private Redis. The zero value uses a free port.
type RedisConfig struct {
	// Dir is the directory of its configuration. If it is empty, StartRedis creates a temporary
	// directory, and Stop removes it.
	Dir string
	// Port is the preferred port on 127.0.0.1. If it is 0 or in use, any free port is used.
	Port int
	// Certificate, if set, makes the server accept TLS on a second port. It asks for no certificate
	// of a client.
	Certificate *Certificate
	// Log receives the lines of the server and one line for each step. It may be nil.
	Log io.Writer
}

// Redis is a private Redis server. It listens on 127.0.0.1 only, has a password, and writes no data
// to disk, because DL-SMS can lose everything in Redis.
type Redis struct {
	*Process
	port     int
	tlsPort  int // 0: no TLS
	password string
	state    *stateDir // Stop releases it; nil if a Stack owns it
	ports    *ports
}

// StartRedis starts a Redis server and returns when it answers.
// Every error is one line that says how to fix the problem.
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

// Stop requests a graceful stop. If the server has not ended after 10 s, Stop kills it. If
// StartRedis started the server, Stop also releases the directory and the port, and the server
// can't be started again.
func (r *Redis) Stop(ctx context.Context) error {
	err := r.Process.Stop(ctx)
	if r.state == nil {
		return err
	}
	r.ports.close()
	return errors.Join(err, r.state.close())
}

// RedisURL returns the URL of the server, with its password. The URL does not use TLS.
func (r *Redis) RedisURL() string { return r.url("redis", r.port) }

// TLSURL returns the URL of the server for TLS, with its password.
func (r *Redis) TLSURL() string { return r.url("rediss", r.tlsPort) }

func (r *Redis) url(scheme string, port int) string {
	u := url.URL{
		Scheme: scheme,
		User:   url.UserPassword("", r.password),
		Host:   net.JoinHostPort(loopback, strconv.Itoa(port)),
		Path:   "/0",
	}
	return u.String()
}

func startRedis(
	ctx context.Context, cfg RedisConfig, state *stateDir, held *ports, log *console, t tools,
) (*Redis, error) {
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
	secured := "" // the lines for TLS
	if cfg.Certificate != nil {
		if r.tlsPort, err = held.pick(0); err != nil {
			return nil, err
		}
		cert, key, err := cfg.Certificate.write(dir, nil)
		if err != nil {
			return nil, err
		}
		secured = fmt.Sprintf("tls-port %d\ntls-cert-file %q\ntls-key-file %q\ntls-auth-clients no\n", r.tlsPort, cert, key)
	}
	// The password is in a file, because every user can read a command line. docker-compose.yml has
	// the same values of save, appendonly and maxmemory.
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
%s`, loopback, r.port, r.password, dir, secured), 0o600)
	if err != nil {
		return nil, err
	}
	r.Process = &Process{spec: spec{
		name: "redis",
		log:  log,
		command: func() (*exec.Cmd, error) {
			cmd := exec.Command(program, conf)
			cmd.Dir = dir
			cmd.Env = append(baseEnv(), "LC_ALL=C") // Redis exits if the system does not have the locale
			return cmd, nil
		},
		ready:             r.ping,
		startTimeout:      time.Minute,
		stopSignal:        syscall.SIGTERM,
		stopTimeout:       10 * time.Second,
		parentDeathSignal: syscall.SIGKILL,
		quiet:             true, // Redis logs advice on system settings
	}}
	log.printf("redis", "starting on %s:%d", loopback, r.port)
	if err := r.Start(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Redis) ping(ctx context.Context) error {
	options, err := redis.ParseURL(r.RedisURL())
	if err != nil {
		return err
	}
	options.MaxRetries = -1 // no retry
	options.ContextTimeoutEnabled = true
	options.DisableIdentity = true
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return client.Ping(ctx).Err()
}
