package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/storetest"
)

// process is a dlsms process of one test. It inherits no environment except PATH.
type process struct {
	*exec.Cmd

	t              *testing.T
	stdout, stderr output
	ended          chan struct{}
}

// output collects the output of a process.
type output struct {
	mu      sync.Mutex
	written bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.written.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.written.String()
}

// launch starts dlsms with these arguments and this environment.
func launch(t *testing.T, env map[string]string, args ...string) *process {
	t.Helper()
	return launchTo(t, nil, env, args...)
}

// launchTo is like launch. If stdout is not nil, it is the standard output of the process.
func launchTo(t *testing.T, stdout *os.File, env map[string]string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(program("dlsms"), args...), t: t, ended: make(chan struct{})}
	p.Env = []string{"PATH=" + os.Getenv("PATH")}
	for name, v := range env {
		p.Env = append(p.Env, name+"="+v)
	}
	p.Cmd.Stdout, p.Cmd.Stderr = &p.stdout, &p.stderr
	if stdout != nil {
		p.Cmd.Stdout = stdout
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Wait() // ProcessState has the result
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("dlsms %s:\n%s%s", strings.Join(args, " "), p.stdout.String(), p.stderr.String())
		}
	})
	return p
}

// exit waits for the end of the process and returns its exit code.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(waitTimeout):
		p.t.Fatal("the process does not end")
	}
	return p.ProcessState.ExitCode()
}

// terminate sends SIGTERM and checks that the process exits with code 0.
func (p *process) terminate() {
	p.t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if code := p.exit(); code != 0 {
		p.t.Errorf("after SIGTERM: exit %d", code)
	}
}

// freeAddr returns a local address on which no server listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// replicaEnv returns the settings of a replica that uses this database.
func replicaEnv(t *testing.T, s *system, databaseURL string) map[string]string {
	t.Helper()
	return map[string]string{
		"DATABASE_URL": databaseURL, "JWT_SECRET": "e2e:" + s.secret,
		"GRPC_ADDR": freeAddr(t), "HTTP_ADDR": freeAddr(t), "ADMIN_ADDR": freeAddr(t),
		"BCRYPT_COST": "4", "DB_MIN_CONNS": "1", "DB_MAX_CONNS": "4", "GOMAXPROCS": "1",
	}
}

// database makes an empty database in the Postgres of the system, and returns its URL.
func (s *system) database(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("start_%d", s.names.Add(1))
	s.exec(t, `CREATE DATABASE `+name+` OWNER dlsms`)
	u, err := url.Parse(s.Postgres.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// serves waits until a replica is SERVING.
func serves(t *testing.T, p *process, addr string) {
	t.Helper()
	c, err := e2e.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	eventually(t, "the replica serves", func() bool {
		select {
		case <-p.ended:
			t.Fatalf("the replica ended: exit %d", p.ProcessState.ExitCode())
		default:
		}
		resp, err := healthpb.NewHealthClient(c).Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err == nil && resp.GetStatus() == healthpb.HealthCheckResponse_SERVING
	})
}

// TestReplicasMigrateAndSeedEmptyDatabaseOnce starts three replicas at once on an empty database.
// The settings tell each replica to migrate and to add the demo data. Both must happen once.
func TestReplicasMigrateAndSeedEmptyDatabaseOnce(t *testing.T) {
	t.Parallel()
	s := shared(t)
	for range 2 {
		db := s.database(t)
		var replicas []*process
		var addrs []string
		for range 3 {
			env := replicaEnv(t, s, db)
			env["SEED_DEMO"] = "true"
			replicas, addrs = append(replicas, launch(t, env, "serve")), append(addrs, env["GRPC_ADDR"])
		}
		for i, p := range replicas {
			serves(t, p, addrs[i])
		}
		for _, addr := range addrs {
			c, err := e2e.Dial(addr)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := e2e.Anonymous(c).Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{AvailableOnly: true})
			if err != nil || len(resp.GetSeats()) != 49 {
				t.Errorf("%d seats (%v)", len(resp.GetSeats()), err)
			}
			if _, err := e2e.Anonymous(c).Login(t.Context(), "L0001", "password123"); err != nil {
				t.Error(err)
			}
			_ = c.Close()
		}
		for _, p := range replicas {
			p.terminate()
		}
	}
}

// TestReplicaStartSurvivesLostConnections breaks the connection to Postgres once in each step of
// the start of a replica. The replica must repeat the step, and must serve in the end.
func TestReplicaStartSurvivesLostConnections(t *testing.T) {
	t.Parallel()
	s := shared(t)
	through, left := storetest.CutOff(
		t, s.database(t), "goose_db_version", "SHOW transaction_isolation", "INSERT INTO seats", "FROM revocations",
		"FROM branch_hours",
	)
	env := replicaEnv(t, s, through)
	env["SEED_DEMO"] = "true"
	p := launch(t, env, "serve")
	serves(t, p, env["GRPC_ADDR"])
	if n := left(); n > 0 {
		t.Errorf("%d of the breaks did not happen", n)
	}
	p.terminate()
}

// TestReplicaRefusesConnectionsUntilPostgresAnswers starts a replica without Postgres. While the
// replica waits for Postgres, its port must be closed, so that nginx calls another replica. SIGTERM
// must stop the replica.
func TestReplicaRefusesConnectionsUntilPostgresAnswers(t *testing.T) {
	t.Parallel()
	s := shared(t)
	env := replicaEnv(t, s, "postgres://unknown:nothing@"+freeAddr(t)+"/dlsms")
	p := launch(t, env, "serve")
	eventually(t, "the replica waits for Postgres", func() bool {
		if c, err := net.DialTimeout("tcp", env["GRPC_ADDR"], time.Second); err == nil {
			_ = c.Close()
			t.Fatal("the replica accepts connections")
		} else if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		return strings.Count(p.stdout.String(), "Postgres does not answer yet") >= 2
	})
	p.terminate()
}

// TestReplicaServesWhenItsLogIsNotRead checks that a replica serves although no process reads its
// log. The standard output of the replica is a pipe. In one case the pipe is full, in the other its
// reader has closed it.
func TestReplicaServesWhenItsLogIsNotRead(t *testing.T) {
	t.Parallel()
	s := shared(t)
	for _, ends := range []bool{false, true} {
		reader, log, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		env := replicaEnv(t, s, s.database(t))
		p := launchTo(t, log, env, "serve")
		_ = log.Close()
		serves(t, p, env["GRPC_ADDR"])
		if ends {
			_ = reader.Close()
		}
		c, err := e2e.Dial(env["GRPC_ADDR"])
		if err != nil {
			t.Fatal(err)
		}
		// These calls log more than a pipe holds (64 KiB on Linux).
		const clients, callsOfEach = 20, 20
		callers, ctx := errgroup.WithContext(within(t, waitTimeout))
		for range clients {
			callers.Go(func() error {
				for range callsOfEach {
					_, err := e2e.Anonymous(c).Seats.GetSeat(ctx, &dlsmsv1.GetSeatRequest{SeatId: 1})
					if err := e2e.CheckRefusal(err, "SEAT_NOT_FOUND"); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := callers.Wait(); err != nil {
			t.Error(err)
		}
		_ = c.Close()
		p.terminate()
		_ = reader.Close()
	}
}

// TestServeReportsAddressInUse checks that serve fails at once if an address is in use, before it
// connects to the database.
func TestServeReportsAddressInUse(t *testing.T) {
	t.Parallel()
	s := shared(t)
	for _, setting := range []string{"GRPC_ADDR", "HTTP_ADDR", "ADMIN_ADDR"} {
		env := replicaEnv(t, s, "postgres://unknown:nothing@"+freeAddr(t)+"/dlsms")
		env[setting] = s.ReplicaAddr(0)
		p := launch(t, env, "serve")
		if code := p.exit(); code != 1 || !strings.Contains(p.stderr.String(), setting) ||
			strings.Count(strings.TrimSpace(p.stderr.String()), "\n") > 0 {
			t.Errorf("exit %d: %s", code, p.stderr.String())
		}
	}
}

func TestServeReportsEveryInvalidSetting(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		"DATABASE_URL":               "postgres://user:secret@host:notaport/db",
		"REDIS_URL":                  "nonsense",
		"REDIS_CA_FILE":              "/no/such.pem",
		"JWT_SECRET":                 "tooshortasecret",
		"GRPC_ADDR":                  "nowhere",
		"HTTP_ADDR":                  "8080",
		"ADMIN_ADDR":                 "9100",
		"SERVICES":                   "auth,printer",
		"CORS_ORIGINS":               "library.example",
		"JWT_TTL":                    "soon",
		"BCRYPT_COST":                "3",
		"GRACE_MINUTES":              "0",
		"CLAIM_MINUTES":              "-1",
		"WORKER_INTERVAL":            "1",
		"RATE_LIMIT_PER_MINUTE":      "-1",
		"AUTH_RATE_LIMIT_PER_MINUTE": "many",
		"LOGIN_FAILURE_LIMIT":        "1.5",
		"DB_MIN_CONNS":               "x",
		"DB_MAX_CONNS":               "0",
		"READ_FRESHNESS":             "fresh",
		"MAX_STALENESS":              "1ms",
		"MIN_RESERVATION":            "2h",
		"MAX_RESERVATION":            "1h",
		"MAX_AHEAD":                  "0s",
		"PAST_TOLERANCE":             "-1m",
		"MAX_STREAMS":                "0",
		"MAX_STREAMS_PER_ADDRESS":    "-1",
		"MAX_STREAMS_PER_USER":       "few",
		"MAX_UPCOMING":               "all",
		"MAX_WAITING":                "none",
		"MAX_WAITING_PER_SEAT":       "few",
		"MAX_WAITLIST":               "long",
		"CHECK_IN_LEAD":              "quarter",
		"REMINDER_LEAD":              "5",
		"DRAIN_TIMEOUT":              "ten",
		"LOG_LEVEL":                  "loud",
		"TRUSTED_PROXIES":            "everyone",
		"REFLECTION":                 "off",
		"SEED_DEMO":                  "maybe",
	}
	p := launch(t, env, "serve")
	if code := p.exit(); code != 1 {
		t.Errorf("exit %d", code)
	}
	stderr := p.stderr.String()
	for name := range env {
		// MIN_RESERVATION and MAX_RESERVATION contradict each other: the error names one setting.
		if !strings.Contains(stderr, "\n"+name+": ") && name != "MAX_RESERVATION" {
			t.Errorf("the error does not name %s", name)
		}
	}
	if strings.Contains(stderr, "secret@") || strings.Contains(stderr, "tooshortasecret") {
		t.Errorf("the error contains secrets:\n%s", stderr)
	}
	if t.Failed() {
		t.Log(stderr)
	}

	p = launch(t, nil, "serve")
	if code := p.exit(); code != 1 || !strings.Contains(p.stderr.String(), "DATABASE_URL: is missing") ||
		!strings.Contains(p.stderr.String(), "JWT_SECRET is missing") {
		t.Errorf("with no settings: exit %d:\n%s", code, p.stderr.String())
	}
}

// settingNames has the names of all settings. The test fails if a name changes by mistake.
const settingNames = `
	DATABASE_URL REDIS_URL REDIS_CA_FILE JWT_SECRET GRPC_ADDR HTTP_ADDR ADMIN_ADDR SERVICES CORS_ORIGINS
	JWT_TTL BCRYPT_COST GRACE_MINUTES
	CLAIM_MINUTES WORKER_INTERVAL RATE_LIMIT_PER_MINUTE AUTH_RATE_LIMIT_PER_MINUTE LOGIN_FAILURE_LIMIT
	DB_MIN_CONNS DB_MAX_CONNS READ_FRESHNESS MAX_STALENESS MIN_RESERVATION MAX_RESERVATION MAX_AHEAD
	PAST_TOLERANCE MAX_UPCOMING MAX_WAITING MAX_WAITING_PER_SEAT MAX_WAITLIST CHECK_IN_LEAD
	REMINDER_LEAD DRAIN_TIMEOUT REFLECTION LOG_LEVEL SEED_DEMO TRUSTED_PROXIES MAX_STREAMS
	MAX_STREAMS_PER_ADDRESS MAX_STREAMS_PER_USER`

func TestHelpListsEverySetting(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}} {
		p := launch(t, nil, args...)
		if code := p.exit(); code != 0 {
			t.Errorf("%v: exit %d", args, code)
		}
		help := p.stdout.String()
		for _, name := range strings.Fields(settingNames) {
			flag := "--" + strings.ToLower(strings.ReplaceAll(name, "_", "-"))
			if name == "REFLECTION" {
				flag = "--[no-]reflection"
			}
			if !strings.Contains(help, "$"+name) || !strings.Contains(help, flag) {
				t.Errorf("%v does not list %s and %s", args, name, flag)
			}
		}
	}
	p := launch(t, nil, "--help")
	p.exit()
	for _, command := range []string{"serve", "migrate", "seed", "healthcheck"} {
		if !strings.Contains(p.stdout.String(), "\n  "+command+" ") {
			t.Errorf("--help does not list %s:\n%s", command, p.stdout.String())
		}
	}
}

// TestCommandsPrintOneLine runs the commands of an operator, one after the other. Each command must
// print one line.
func TestCommandsPrintOneLine(t *testing.T) {
	t.Parallel()
	s := shared(t)
	env := replicaEnv(t, s, s.database(t))
	command := func(name string, want int) string {
		t.Helper()
		p := launch(t, env, name)
		if code := p.exit(); code != want {
			t.Errorf("%s: exit %d, want %d", name, code, want)
		}
		out := strings.TrimSpace(p.stdout.String() + p.stderr.String())
		if strings.Contains(out, "\n") {
			t.Errorf("%s prints more than one line: %s", name, out)
		}
		return out
	}
	contains := func(got, want string) {
		t.Helper()
		if !strings.Contains(got, want) {
			t.Errorf("the output is %q, want %q", got, want)
		}
	}
	contains(command("seed", 1), "migrated")
	contains(command("healthcheck", 1), "does not answer")
	contains(command("migrate", 0), "applied migrations [1 ")
	contains(command("migrate", 0), "up to date")
	contains(command("seed", 0), "3 branches, 49 seats, 13 users")
	contains(command("seed", 0), "0 branches, 0 seats, 0 users")
	p := launch(t, env, "serve")
	serves(t, p, env["GRPC_ADDR"])
	contains(command("healthcheck", 0), "SERVING")
	p.terminate()
	contains(command("healthcheck", 1), "does not answer")
}
