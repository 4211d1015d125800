package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/dlsms/dlsms/stack"
)

// contender is one of the compared architectures.
type contender struct {
	name string // A, B, … as in the report
	// sys has the services, nginx and Redis. Its database is in the Postgres of the monolith.
	sys      *subject
	postgres *stack.Postgres
	// addr is the host:port of nginx or of the gateway.
	addr    string
	gateway *goGateway // nil: nginx
	http    bool
	// conditional sends If-None-Match.
	conditional bool
}

// The names of the contenders.
const (
	nameA         = "A"
	nameB         = "B"
	nameB304      = "B304"
	nameC         = "C"
	nameD         = "D"
	nameLimit     = "stored, gRPC"
	nameLimitJSON = "stored, JSON"
)

// processes returns the processes of each part.
func (c *contender) processes() [partCount][]int {
	var all [partCount][]int
	for _, r := range c.sys.Replicas {
		all[servicePart] = append(all[servicePart], r.PID())
	}
	if c.gateway != nil {
		all[gatewayPart] = []int{c.gateway.pid()}
	} else {
		all[nginxPart] = []int{c.sys.Nginx.PID()}
	}
	all[postgresPart] = []int{c.postgres.PID()}
	if c.sys.Redis != nil {
		all[redisPart] = []int{c.sys.Redis.PID()}
	}
	return all
}

// protocol returns the name of the protocol.
func (c *contender) protocol() string {
	if c.http {
		return "HTTP/JSON"
	}
	return "gRPC"
}

// dial returns an api for the contender.
func (c *contender) dial() (api, error) {
	if c.http {
		return dialHTTP(c.addr, "", c.conditional), nil
	}
	const connections = 20
	return dialGRPC(c.addr, connections)
}

// servicesDatabase is the database of the microservices. It is in the same Postgres as that of the
// monolith, so that both have the same one, and the bookings of one cause no work in the other.
const servicesDatabase = "dlsms_services"

// startServices starts the microservices with a database in the Postgres of the monolith.
func startServices(ctx context.Context, binary string, monolith *subject) (*subject, error) {
	if _, err := monolith.db.Exec(ctx, `CREATE DATABASE `+servicesDatabase+` OWNER dlsms`); err != nil {
		return nil, fmt.Errorf("create a database for the microservices: %w", err)
	}
	databaseURL, err := withDatabase(monolith.Postgres.DatabaseURL(), servicesDatabase)
	if err != nil {
		return nil, err
	}
	s, err := startSubject(ctx, "the microservices", stack.Config{
		Binary: binary, Topology: stack.Microservices, Seed: true, Env: limitsOff(),
		ProxyURLs: func(_, redisURL string) (string, string, error) { return databaseURL, redisURL, nil },
	})
	if err != nil {
		return nil, err
	}
	adminURL, err := withDatabase(monolith.Postgres.AdminURL(), servicesDatabase)
	if err == nil {
		s.db.Close()
		s.db, err = openPool(ctx, adminURL)
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func withDatabase(postgresURL, database string) (string, error) {
	u, err := url.Parse(postgresURL)
	if err != nil {
		return "", err
	}
	u.Path = "/" + database
	return u.String(), nil
}

// replica returns the process that runs a service, such as "auth".
func (s *subject) replica(service string) *stack.Replica {
	for _, r := range s.Replicas {
		if r.Runs(service) {
			return r
		}
	}
	return nil
}

// goGateway is a process of bench/gateway.
type goGateway struct {
	addr string
	cmd  *exec.Cmd
	done chan error
}

func (g *goGateway) pid() int { return g.cmd.Process.Pid }

// startGateway starts the gateway in front of the services, with the cache in their Redis.
func startGateway(ctx context.Context, binary string, services *subject) (*goGateway, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	g := &goGateway{addr: addr, cmd: exec.CommandContext(ctx, binary), done: make(chan error, 1)}
	g.cmd.Env = append(os.Environ(), "GATEWAY_ADDR="+addr, "REDIS_URL="+services.Redis.RedisURL())
	for service, setting := range map[string]string{
		"auth": "AUTH_URL", "seat": "SEAT_URL", "reservation": "RESERVATION_URL", "notify": "NOTIFY_URL",
	} {
		g.cmd.Env = append(g.cmd.Env, setting+"=http://"+services.replica(service).HTTPAddr())
	}
	g.cmd.Stderr = os.Stderr
	g.cmd.Cancel = func() error { return g.cmd.Process.Signal(syscall.SIGTERM) }
	g.cmd.WaitDelay = gatewayStop
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the gateway: %w", err)
	}
	go func() { g.done <- g.cmd.Wait() }()
	if err := g.untilReady(ctx); err != nil {
		return nil, errors.Join(err, g.stop())
	}
	return g, nil
}

// gatewayStop bounds how long the gateway takes to stop.
const gatewayStop = 10 * time.Second

// untilReady waits until the gateway answers a request.
func (g *goGateway) untilReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client := dialHTTP(g.addr, "", false)
	defer client.close()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		_, err := client.call(ctx, http.MethodGet, "/v1/branches", nil, nil, "", nil)
		if err == nil {
			return nil
		}
		select {
		case ended := <-g.done:
			g.done <- ended
			return fmt.Errorf("the gateway ended: %w", errors.Join(ended, err))
		case <-ctx.Done():
			return fmt.Errorf("the gateway does not answer: %w", err)
		case <-poll.C:
		}
	}
}

// stop stops the gateway.
func (g *goGateway) stop() error {
	_ = g.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case err := <-g.done:
		return err
	case <-time.After(gatewayStop):
		_ = g.cmd.Process.Kill()
		return errors.Join(errors.New("the gateway did not stop and was killed"), <-g.done)
	}
}

// freeAddr returns an address on which no process listens.
func freeAddr(ctx context.Context) (string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
