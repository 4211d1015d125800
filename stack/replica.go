package stack

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// Replica is one process of `dlsms serve`.
type Replica struct {
	*Process
	port, adminPort int

	binary string
	env    map[string]string
}

// Addr is the host:port of its gRPC services.
func (r *Replica) Addr() string { return net.JoinHostPort(loopback, strconv.Itoa(r.port)) }

// AdminAddr is the host:port of its metrics, profiles and /healthz.
func (r *Replica) AdminAddr() string { return net.JoinHostPort(loopback, strconv.Itoa(r.adminPort)) }

func newReplica(name, binary string, port, adminPort int, env map[string]string, log *console) *Replica {
	r := &Replica{port: port, adminPort: adminPort, binary: binary, env: env}
	r.Process = &Process{spec: spec{
		name: name,
		log:  log,
		command: func() (*exec.Cmd, error) {
			return r.run("serve"), nil
		},
		ready:             func(ctx context.Context) error { return checkServing(ctx, r.Addr()) },
		startTimeout:      time.Minute, // it may migrate the schema, or wait for a replica that does
		stopSignal:        syscall.SIGTERM,
		stopTimeout:       30 * time.Second, // above DRAIN_TIMEOUT
		parentDeathSignal: syscall.SIGKILL,
	}}
	return r
}

// run returns a command that runs the replica's binary with the replica's settings.
func (r *Replica) run(command string) *exec.Cmd {
	cmd := exec.Command(r.binary, command)
	cmd.Env = baseEnv()
	for _, name := range slices.Sorted(maps.Keys(r.env)) {
		cmd.Env = append(cmd.Env, name+"="+r.env[name])
	}
	return cmd
}

// checkServing returns nil if the health check of the server at addr returns SERVING.
func checkServing(ctx context.Context, addr string) error {
	answer, err := checkHealth(ctx, addr)
	if err != nil {
		return err
	}
	if got := answer.GetStatus(); got != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("%s is %s", addr, got)
	}
	return nil
}

// checkProxy returns nil if the proxy at addr returns any gRPC response, even an error of its own.
func checkProxy(ctx context.Context, addr string) error {
	_, err := checkHealth(ctx, addr)
	if s := status.Convert(err); s.Code() == codes.Unavailable && len(s.Details()) == 0 {
		return err // without details it is from the gRPC client: the proxy does not listen yet
	}
	return nil
}

func checkHealth(ctx context.Context, addr string) (*healthpb.HealthCheckResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
}
