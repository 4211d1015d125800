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
	"strconv"
	"sync"
	"time"
)

// Config is the configuration of a stack. Only Binary is required. The zero values of the other
// fields give a temporary stack on free ports.
type Config struct {
	// Dir keeps the database and the secrets between runs. If it is empty, Start creates a
	// temporary directory, and Stop removes it.
	Dir string
	// Binary is the path of the dlsms program.
	Binary string
	// Topology says which services run in which process.
	Topology Topology
	// EqualWeight gives all processes the same CPU weight. Otherwise the auth process of Microservices
	// has less. It is for tests on a busy machine.
	EqualWeight bool
	// Replicas is the number of replicas of the monolith; 0 means 3.
	Replicas int
	// Listen is the host:port of nginx for gRPC. If it is empty or the port is 0, nginx uses a free
	// port on 127.0.0.1. If it has a port, the other processes use the ports after it, or any free
	// ones if these are in use.
	Listen string
	// HTTPListen is the host:port of nginx for HTTP. If it is empty, the port is that of Listen
	// minus 1010, or a free port if Listen has no port. If there is a port, the replicas use the
	// ports after it for HTTP, or any free ones if these are in use.
	HTTPListen string
	// TLS is a directory with a certificate for clients, as in NginxConfig.
	TLS string
	// NoHTTP is for a Binary that does not have the setting HTTP_ADDR. The replicas serve gRPC
	// alone, and nginx answers each HTTP request with UNAVAILABLE.
	NoHTTP bool
	// NginxConf replaces the configuration of nginx in deploy.
	NginxConf string
	// Env has settings for all replicas. They override the settings of the stack, such as
	// DATABASE_URL, JWT_SECRET and PRESENCE_SECRET.
	Env map[string]string
	// ReplicaEnv returns settings for one replica, which override Env. The index starts at 0.
	ReplicaEnv func(index int) map[string]string
	// ProxyURLs, if set, returns the URLs of Postgres and Redis that the replicas use, such as the
	// URLs of fault proxies.
	ProxyURLs func(databaseURL, redisURL string) (proxyDatabaseURL, proxyRedisURL string, err error)
	// ProxyBackends and ProxyHTTPBackends, if set, return the addresses of the replicas that nginx
	// uses for gRPC and for HTTP, such as the addresses of fault proxies.
	ProxyBackends, ProxyHTTPBackends func(backends []string) (proxyBackends []string, err error)
	// PostgresSettings override the result of the function PostgresSettings.
	PostgresSettings map[string]string
	// Seed inserts the demo data.
	Seed bool
	// NoRedis runs the stack without Redis.
	NoRedis bool
	// Unsafe turns off fsync. It is for unit tests only.
	Unsafe bool
	// Log receives the lines of all processes, each with the name of its process, and one line for
	// each step. It may be nil.
	Log io.Writer
}

// Stack is a running system. Each of its processes can be stopped, killed and restarted separately.
type Stack struct {
	Postgres *Postgres
	Redis    *Redis // nil with NoRedis
	Replicas []*Replica
	Nginx    *Nginx

	state *stateDir
	ports *ports
	log   *console
}

// databaseURLFile is the name of a file in the state directory. It has the URL of the database for
// its owner.
const databaseURLFile = "database-url"

// nginxGrace is how long Stop waits until nginx has finished its calls. Then Stop stops the
// replicas, even if nginx still has streams: a stream ends only when its replica stops.
const nginxGrace = 2 * time.Second

// Start starts Postgres, Redis, the replicas and nginx, each when the processes before it are
// healthy. It returns when the replicas answer through nginx. If a step fails or ctx ends, Start
// stops all processes and returns an error of one line that says how to fix the problem.
func Start(ctx context.Context, cfg Config) (*Stack, error) {
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
			err = ctx.Err() // the end of ctx causes other errors
		}
		// The first error would also cause the errors of Stop, so only the first is returned.
		_ = s.Stop(context.WithoutCancel(ctx))
		return nil, err
	}
	return s, nil
}

func (s *Stack) start(ctx context.Context, cfg Config, t tools) error {
	raiseFileLimit()
	// These checks come first, so that a user gets their errors without a wait.
	cfg.HTTPListen = cmp.Or(cfg.HTTPListen, httpListenOf(cfg.Listen))
	addrs, err := pickListenAddrs(NginxConfig{Listen: cfg.Listen, HTTPListen: cfg.HTTPListen, TLS: cfg.TLS}, s.ports)
	if err != nil {
		return err
	}
	if _, err := t.nginx(ctx); err != nil {
		return err
	}
	preferred := portsAfter(cfg.Listen)
	pgConfig := PostgresConfig{Port: preferred(20), Settings: cfg.PostgresSettings, Unsafe: cfg.Unsafe}
	if s.Postgres, err = startPostgres(ctx, pgConfig, s.state, s.ports, s.log, t); err != nil {
		return err
	}
	databaseURL, redisURL := s.Postgres.DatabaseURL(), ""
	if err := writeFile(s.state.file(databaseURLFile), databaseURL+"\n", 0o600); err != nil {
		return err
	}
	if !cfg.NoRedis {
		if s.Redis, err = startRedis(ctx, RedisConfig{Port: preferred(21)}, s.state, s.ports, s.log, t); err != nil {
			return err
		}
		redisURL = s.Redis.RedisURL()
	}
	if cfg.ProxyURLs != nil {
		if databaseURL, redisURL, err = cfg.ProxyURLs(databaseURL, redisURL); err != nil {
			return err
		}
	}
	if err := s.addReplicas(cfg, databaseURL, redisURL, addrs.tls); err != nil {
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
	nginxConfig := NginxConfig{TLS: cfg.TLS, Conf: cmp.Or(cfg.NginxConf, cfg.Topology.conf())}
	if nginxConfig.Upstreams, err = s.upstreams(cfg); err != nil {
		return err
	}
	if s.Nginx, err = startNginx(ctx, nginxConfig, addrs, s.state, s.log, t); err != nil {
		return err
	}
	if err := checkServing(ctx, s.Addr()); err != nil {
		return fmt.Errorf("the replicas don't answer through nginx: %w", err)
	}
	if !cfg.NoHTTP {
		if err := checkHTTP(ctx, s.HTTPAddr()); err != nil {
			return fmt.Errorf("the replicas don't answer HTTP through nginx: %w", err)
		}
	}
	s.log.printf("stack", "all is up: gRPC on %s, HTTP on %s", s.Addr(), s.HTTPAddr())
	return nil
}

// Addr returns the host:port of nginx for clients over gRPC.
func (s *Stack) Addr() string { return s.Nginx.Addr() }

// HTTPAddr returns the host:port of nginx for clients over HTTP.
func (s *Stack) HTTPAddr() string { return s.Nginx.HTTPAddr() }

// TLSAddr returns the host:port of nginx for clients over gRPC with TLS. Without a certificate it is
// empty.
func (s *Stack) TLSAddr() string { return s.Nginx.TLSAddr() }

// HTTPSAddr returns the host:port of nginx for clients over HTTP with TLS. Without a certificate it
// is empty.
func (s *Stack) HTTPSAddr() string { return s.Nginx.HTTPSAddr() }

// ReplicaAddr returns the gRPC host:port of the replica at index, which bypasses nginx.
func (s *Stack) ReplicaAddr(index int) string { return s.Replicas[index].Addr() }

// ReplicaHTTPAddr returns the HTTP host:port of the replica at index, which bypasses nginx.
func (s *Stack) ReplicaHTTPAddr(index int) string { return s.Replicas[index].HTTPAddr() }

// AdminAddr returns the host:port of the metrics, profiles and /healthz of the replica at index.
func (s *Stack) AdminAddr(index int) string { return s.Replicas[index].AdminAddr() }

// Processes returns all started processes, in the order of their start.
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

// Stop stops nginx, then the replicas, then Redis and Postgres. nginx and the replicas finish their
// calls. Each process has its own time limit. After the limit, or when ctx ends, Stop kills the
// process. The error names each process that was killed or had an error.
func (s *Stack) Stop(ctx context.Context) error {
	var errs []error
	nginxStopped := make(chan error, 1)
	if s.Nginx != nil {
		s.log.printf("stack", "stopping")
		go func() { nginxStopped <- s.Nginx.Stop(ctx) }()
		// A stream ends only when its replica stops, so Stop waits for nginx again below.
		grace := time.NewTimer(nginxGrace)
		select {
		case err := <-nginxStopped:
			nginxStopped <- err
		case <-grace.C:
		}
		grace.Stop()
	} else {
		nginxStopped <- nil
	}
	errs = append(errs, s.eachReplica(func(r *Replica) error { return r.Stop(ctx) })...)
	errs = append(errs, <-nginxStopped)
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

func (s *Stack) addReplicas(cfg Config, databaseURL, redisURL, tlsAddr string) error {
	jwtSecret, err := secret(s.state.file("jwt-secret"))
	if err != nil {
		return err
	}
	presenceSecret, err := secret(s.state.file("presence-secret"))
	if err != nil {
		return err
	}
	preferred, preferredHTTP := portsAfter(cfg.Listen), portsAfter(cfg.HTTPListen)
	for i, plan := range cfg.plans() {
		r := replicaConfig{
			name: plan.name, services: plan.services, nice: plan.nice, noHTTP: cfg.NoHTTP, binary: cfg.Binary,
		}
		if r.port, err = s.ports.pick(preferred(1 + i)); err != nil {
			return err
		}
		if r.httpPort, err = s.ports.pick(preferredHTTP(1 + i)); err != nil {
			return err
		}
		if r.adminPort, err = s.ports.pick(preferred(11 + i)); err != nil {
			return err
		}
		r.env = map[string]string{
			"DATABASE_URL": databaseURL,
			"GRPC_ADDR":    net.JoinHostPort(loopback, strconv.Itoa(r.port)),
			"HTTP_ADDR":    net.JoinHostPort(loopback, strconv.Itoa(r.httpPort)),
			"ADMIN_ADDR":   net.JoinHostPort(loopback, strconv.Itoa(r.adminPort)),
			"JWT_SECRET":   jwtSecret,

			"PRESENCE_SECRET": presenceSecret,
		}
		if cfg.NoHTTP {
			r.env["HTTP_ADDR"] = ""
		}
		if redisURL != "" {
			r.env["REDIS_URL"] = redisURL
		}
		if tlsAddr != "" {
			r.env["TLS_PROBE"] = tlsAddr
		}
		maps.Copy(r.env, plan.env)
		maps.Copy(r.env, cfg.Env)
		if cfg.ReplicaEnv != nil {
			maps.Copy(r.env, cfg.ReplicaEnv(i))
		}
		s.Replicas = append(s.Replicas, newReplica(r, s.log))
	}
	return nil
}

func (s *Stack) startReplicas(ctx context.Context) error {
	for _, r := range s.Replicas {
		switch {
		case r.worker():
			s.log.printf(r.Name(), "starting, metrics on %s", r.AdminAddr())
		case r.noHTTP:
			s.log.printf(r.Name(), "starting on %s, metrics on %s", r.Addr(), r.AdminAddr())
		default:
			s.log.printf(r.Name(), "starting on %s, HTTP on %s, metrics on %s", r.Addr(), r.HTTPAddr(), r.AdminAddr())
		}
	}
	// If all replicas fail, their errors are the same, so only the first error is returned.
	return cmp.Or(s.eachReplica(func(r *Replica) error { return r.Start(ctx) })...)
}

// eachReplica calls f for all replicas concurrently and returns the results in their order.
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
	s.log.printf("seed", "inserting the demo data")
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

// portsAfter returns a function that adds an offset to the port of listen. The sum is the preferred
// port of a process. The function returns 0, which means any free port, if listen has no port or
// the sum is not a valid port.
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
