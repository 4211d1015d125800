package stack

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
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
	replicaConfig
}

// replicaConfig is the configuration of a replica.
type replicaConfig struct {
	name                      string
	services                  []string // as in the setting SERVICES
	port, httpPort, adminPort int
	noHTTP                    bool // it serves gRPC alone
	nice                      int  // added to the niceness of this process
	binary                    string
	env                       map[string]string
}

// Addr is the host:port of its gRPC services. A worker alone does not listen there.
func (r *Replica) Addr() string { return net.JoinHostPort(loopback, strconv.Itoa(r.port)) }

// HTTPAddr is the host:port of its services over HTTP. A worker alone does not listen there.
func (r *Replica) HTTPAddr() string { return net.JoinHostPort(loopback, strconv.Itoa(r.httpPort)) }

// AdminAddr is the host:port of its metrics, profiles and /healthz.
func (r *Replica) AdminAddr() string { return net.JoinHostPort(loopback, strconv.Itoa(r.adminPort)) }

// Runs reports whether the replica runs a service of the setting SERVICES, such as "seat".
func (r *Replica) Runs(service string) bool { return slices.Contains(r.services, service) }

// worker reports whether the replica runs only the worker, and so serves no clients.
func (r *Replica) worker() bool { return slices.Equal(r.services, []string{workerService}) }

func newReplica(cfg replicaConfig, log *console) *Replica {
	r := &Replica{replicaConfig: cfg}
	r.Process = &Process{spec: spec{
		name: cfg.name,
		log:  log,
		command: func() (*exec.Cmd, error) {
			return r.niced(r.run("serve")), nil
		},
		ready:             r.checkReady,
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

// Setenv changes a setting of the replica. It applies from the next start on.
func (r *Replica) Setenv(name, value string) { r.env[name] = value }

// niced changes cmd to run with the niceness of the replica.
func (r *Replica) niced(cmd *exec.Cmd) *exec.Cmd {
	if r.nice == 0 {
		return cmd
	}
	low := exec.Command("nice", append([]string{"-n", strconv.Itoa(r.nice)}, cmd.Args...)...)
	low.Env = cmd.Env
	return low
}

// checkReady returns nil if the replica answers on all its addresses.
func (r *Replica) checkReady(ctx context.Context) error {
	if r.worker() {
		return checkHTTP(ctx, r.AdminAddr())
	}
	if err := checkServing(ctx, r.Addr()); err != nil || r.noHTTP {
		return err
	}
	return checkHTTP(ctx, r.HTTPAddr())
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

// checkProxy returns nil if the proxy at addr returns any gRPC response, even an error that the
// proxy itself made.
func checkProxy(ctx context.Context, addr string) error {
	_, err := checkHealth(ctx, addr)
	if s := status.Convert(err); s.Code() == codes.Unavailable && len(s.Details()) == 0 {
		return err // without details it is from the gRPC client: the proxy does not listen yet
	}
	return nil
}

// healthTimeout bounds one health check.
const healthTimeout = 2 * time.Second

func checkHealth(ctx context.Context, addr string) (*healthpb.HealthCheckResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
}

// checkHTTP returns nil if the server at addr answers /healthz with 200.
func checkHTTP(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/healthz", nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", req.URL, resp.Status)
	}
	return nil
}
