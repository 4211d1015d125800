package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// Config says what a stack consists of. Only Binary is required; the zero value of the rest is a stack to be thrown away, on free ports.
type Config struct {
	// Dir keeps the database and the secrets between runs; empty: a temporary directory, removed by Stop.
	Dir string
	// Binary is the path of dlsms.
	Binary string
	// Replicas is how many of it run; 0: three.
	Replicas int
	// Listen is the host:port of the proxy; port 0, or an empty Listen: a free port on 127.0.0.1. With a port, the other
	// processes take the ports after it where those are free.
	Listen string
	// NginxConf replaces deploy/nginx.conf.
	NginxConf string
	// Env has settings for every replica, stronger than those that the stack makes itself (DATABASE_URL, JWT_SECRET and so on).
	Env map[string]string
	// ReplicaEnv has settings for the replica of an index from 0, stronger than Env.
	ReplicaEnv func(index int) map[string]string
	// Via may put something between, such as a fault proxy: it gets the URLs of Postgres and Redis, and returns those for the replicas.
	Via func(databaseURL, redisURL string) (viaDatabaseURL, viaRedisURL string, err error)
	// ViaBackends may put something between nginx and the replicas: it gets the addresses of the replicas, and returns those for nginx.
	ViaBackends func(backends []string) (viaBackends []string, err error)
	// PostgresSettings are set on top of those of the function PostgresSettings.
	PostgresSettings map[string]string
	// Seed puts the demo data in.
	Seed bool
	// NoRedis leaves Redis out.
	NoRedis bool
	// Unsafe turns fsync off. For unit tests only.
	Unsafe bool
	// Log gets the lines of all processes, each with the name of its process, and a line a step; nil: nowhere.
	Log io.Writer
}

// Stack is a running system. Each of its processes may be stopped, killed and started again by itself.
type Stack struct {
	Postgres *Postgres
	Redis    *Redis // nil with NoRedis
	Replicas []*Replica
	Nginx    *Nginx

	state *stateDir
	ports *ports
	log   *console
}

// quitGrace is how long the proxy may finish calls before the replicas are told to end: they end what is left, the streams.
const quitGrace = 2 * time.Second

// Start starts Postgres, Redis, the replicas and the proxy, each when those before it are healthy, and returns once the proxy
// answers for them. When a step fails, or ctx ends, it stops what it started and returns one line that says what to do.
func Start(ctx context.Context, cfg Config) (*Stack, error) {
	if cfg.Replicas == 0 {
		cfg.Replicas = 3
	}
	binary, err := exec.LookPath(cfg.Binary)
	if err != nil {
		return nil, fmt.Errorf("the program %q can't be run (%w): build it with `make build`", cfg.Binary, err)
	}
	if cfg.Binary, err = filepath.Abs(binary); err != nil {
		return nil, fmt.Errorf("find %s: %w", binary, err)
	}
	state, err := openState(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Stack{state: state, ports: &ports{}, log: newConsole(cfg.Log)}
	if err := s.start(ctx, cfg, systemTools()); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err() // what it broke on the way says nothing
		}
		// Stop's own errors would only follow from the first one.
		_ = s.Stop(context.WithoutCancel(ctx))
		return nil, err
	}
	return s, nil
}

func (s *Stack) start(ctx context.Context, cfg Config, t tools) error {
	raiseFileLimit()
	// Looked at first, so that what a person has to change is said before they wait.
	listen, err := listenAddr(cfg.Listen, s.ports)
	if err != nil {
		return err
	}
	if _, err := t.nginx(ctx); err != nil {
		return err
	}
	near := portsAfter(cfg.Listen)
	if s.Postgres, err = startPostgres(ctx, PostgresConfig{Port: near(20), Settings: cfg.PostgresSettings, Unsafe: cfg.Unsafe},
		s.state, s.ports, s.log, t); err != nil {
		return err
	}
	databaseURL, redisURL := s.Postgres.DatabaseURL(), ""
	if err := writeFile(s.state.file("database-url"), databaseURL+"\n", 0o600); err != nil {
		return err
	}
	if !cfg.NoRedis {
		if s.Redis, err = startRedis(ctx, RedisConfig{Port: near(21)}, s.state, s.ports, s.log, t); err != nil {
			return err
		}
		redisURL = s.Redis.RedisURL()
	}
	if cfg.Via != nil {
		if databaseURL, redisURL, err = cfg.Via(databaseURL, redisURL); err != nil {
			return err
		}
	}
	if err := s.addReplicas(cfg, databaseURL, redisURL, near); err != nil {
		return err
	}
	if err := s.startReplicas(ctx); err != nil {
		return err
	}
	if cfg.Seed {
		if err := s.seed(ctx); err != nil {
			return err
		}
	}
	backends := make([]string, len(s.Replicas))
	for i, r := range s.Replicas {
		backends[i] = r.Addr()
	}
	if cfg.ViaBackends != nil {
		if backends, err = cfg.ViaBackends(backends); err != nil {
			return err
		}
	}
	s.Nginx, err = startNginx(ctx, NginxConfig{Listen: listen, Backends: backends, Conf: cfg.NginxConf}, s.state, s.ports, s.log, t)
	if err != nil {
		return err
	}
	if err := serving(ctx, s.Addr()); err != nil {
		return fmt.Errorf("the replicas don't answer through nginx: %w", err)
	}
	s.log.printf("stack", "all is up: gRPC on %s", s.Addr())
	return nil
}

// Addr is the host:port that clients call.
func (s *Stack) Addr() string { return s.Nginx.Addr() }

// ReplicaAddr is the gRPC host:port of the replica of that index, without the proxy.
func (s *Stack) ReplicaAddr(index int) string { return s.Replicas[index].Addr() }

// AdminAddr is the host:port of that replica's metrics, profiles and /healthz.
func (s *Stack) AdminAddr(index int) string { return s.Replicas[index].AdminAddr() }

// Processes are all that were started, in the order of their start.
func (s *Stack) Processes() []*Process {
	var all []*Process
	if s.Postgres != nil {
		all = append(all, s.Postgres.Process)
	}
	if s.Redis != nil {
		all = append(all, s.Redis.Process)
	}
	for _, r := range s.Replicas {
		all = append(all, r.Process)
	}
	if s.Nginx != nil {
		all = append(all, s.Nginx.Process)
	}
	return all
}

// Stop ends everything: the proxy takes no more calls, the replicas drain, then Redis and Postgres. Each has its own time for
// that, and is killed after it, or when ctx ends. The errors name what had to be killed or ended badly; nothing is left running.
func (s *Stack) Stop(ctx context.Context) error {
	var errs []error
	proxied := make(chan error, 1)
	if s.Nginx != nil {
		s.log.printf("stack", "stopping")
		go func() { proxied <- s.Nginx.Stop(ctx) }()
		// A stream ends only when its replica does: nginx is waited for again below.
		grace := time.NewTimer(quitGrace)
		select {
		case err := <-proxied:
			proxied <- err
		case <-grace.C:
		}
		grace.Stop()
	} else {
		proxied <- nil
	}
	errs = append(errs, s.eachReplica(func(r *Replica) error { return r.Stop(ctx) })...)
	errs = append(errs, <-proxied)
	if s.Redis != nil {
		errs = append(errs, s.Redis.Stop(ctx))
	}
	if s.Postgres != nil {
		errs = append(errs, s.Postgres.Stop(ctx))
	}
	s.ports.close()
	errs = append(errs, s.state.close())
	return errors.Join(errs...)
}

func (s *Stack) addReplicas(cfg Config, databaseURL, redisURL string, near func(int) int) error {
	jwtSecret, err := secret(s.state.file("jwt-secret"))
	if err != nil {
		return err
	}
	for i := range cfg.Replicas {
		port, err := s.ports.pick(near(1 + i))
		if err != nil {
			return err
		}
		adminPort, err := s.ports.pick(near(11 + i))
		if err != nil {
			return err
		}
		env := map[string]string{
			"DATABASE_URL": databaseURL,
			"GRPC_ADDR":    net.JoinHostPort(loopback, strconv.Itoa(port)),
			"ADMIN_ADDR":   net.JoinHostPort(loopback, strconv.Itoa(adminPort)),
			"JWT_SECRET":   jwtSecret,
			// Its share of the cores: behind nginx this was 20 to 30% cheaper a call than one for each core.
			"GOMAXPROCS": strconv.Itoa(max(1, runtime.NumCPU()/cfg.Replicas)),
		}
		if redisURL != "" {
			env["REDIS_URL"] = redisURL
		}
		maps.Copy(env, cfg.Env)
		if cfg.ReplicaEnv != nil {
			maps.Copy(env, cfg.ReplicaEnv(i))
		}
		s.Replicas = append(s.Replicas, newReplica(fmt.Sprintf("app%d", i+1), cfg.Binary, port, adminPort, env, s.log))
	}
	return nil
}

func (s *Stack) startReplicas(ctx context.Context) error {
	for _, r := range s.Replicas {
		s.log.printf(r.Name(), "starting on %s, metrics on %s", r.Addr(), r.AdminAddr())
	}
	// One of the errors will do: where all fail, they fail alike.
	return cmp.Or(s.eachReplica(func(r *Replica) error { return r.Start(ctx) })...)
}

// eachReplica runs f for all of them at once, and returns what it returned for each.
func (s *Stack) eachReplica(f func(*Replica) error) []error {
	errs := make([]error, len(s.Replicas))
	var all sync.WaitGroup
	for i, r := range s.Replicas {
		all.Go(func() { errs[i] = f(r) })
	}
	all.Wait()
	return errs
}

func (s *Stack) seed(ctx context.Context) error {
	s.log.printf("seed", "putting the demo data in")
	begin := time.Now()
	cmd := s.Replicas[0].run("seed")
	seeding := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	seeding.Env = cmd.Env
	if err := runTool(seeding); err != nil {
		return fmt.Errorf("seed the demo data: %w", err)
	}
	s.log.printf("seed", "done after %.1f s", time.Since(begin).Seconds())
	return nil
}

// portsAfter returns the ports that follow that of listen, each of which is preferred where it is free; 0s for a free port.
func portsAfter(listen string) func(offset int) int {
	_, port, _ := net.SplitHostPort(listen)
	first, _ := strconv.Atoi(port)
	return func(offset int) int {
		if first == 0 || first+offset > 65535 {
			return 0
		}
		return first + offset
	}
}
