// Command dlsms-stack runs DL-SMS on this machine until it gets a signal to stop.
// `make run` calls it. `dlsms-stack backup` and `dlsms-stack restore` dump and replace its database.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dlsms/dlsms/stack"
)

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores SIGHUP
		signals = append(signals, syscall.SIGHUP) // sent when the terminal is closed
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	err := run(ctx, stop, os.Args[1:], os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "dlsms:", err)
		os.Exit(1)
	}
}

// run starts the system, and stops it when ctx ends. The end of ctx is not an error.
// Before the stop, run calls release, which restores the default action of the signals. Then a
// second signal ends this process immediately, and on Linux the kernel ends the children.
func run(ctx context.Context, release func(), args []string, out io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "backup":
			return backup(ctx, args[1:], out)
		case "restore":
			return restore(ctx, args[1:], out)
		}
	}
	flags := flag.NewFlagSet("dlsms-stack", flag.ContinueOnError)
	cfg := stack.Config{Seed: true, Log: out, Env: settings(os.Environ())}
	flags.StringVar(&cfg.Dir, "dir", ".local", "directory of the database and the secrets")
	flags.StringVar(&cfg.Binary, "binary", ".local/bin/dlsms", "path of the dlsms program")
	flags.StringVar(&cfg.Listen, "listen", "127.0.0.1:9090", "address for clients over gRPC")
	flags.StringVar(&cfg.HTTPListen, "http-listen", "",
		"address for clients over HTTP (default: the port of -listen minus 1010)")
	flags.StringVar(&cfg.TLS, "tls", "deploy/tls", "directory of the certificate for clients; without one there is no TLS")
	microservices := flags.Bool("microservices", false, "run each service in a process of its own")
	flags.IntVar(&cfg.Replicas, "replicas", 3, "number of replicas, each with all services")
	flags.BoolVar(&cfg.NoRedis, "no-redis", false, "run without Redis")
	flags.BoolVar(&cfg.Seed, "seed", true, "insert the demo data")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if cfg.Replicas < 1 {
		return fmt.Errorf("-replicas is %d, and must be at least 1", cfg.Replicas)
	}
	if *microservices {
		cfg.Topology = stack.Microservices
	}
	s, err := stack.Start(ctx, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // a signal stopped the start, and all processes have ended
		}
		return err
	}
	fmt.Fprint(out, welcome(s, cfg))
	s.Supervise(ctx)
	release()
	return s.Stop(context.WithoutCancel(ctx))
}

func backup(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("dlsms-stack backup", flag.ContinueOnError)
	cfg := stack.BackupConfig{Log: out}
	flags.StringVar(&cfg.Dir, "dir", ".local", "directory of the database")
	flags.StringVar(&cfg.File, "file", "", "the new file (default: dlsms-TIME.dump, with the time in UTC)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	_, err := stack.Backup(ctx, cfg)
	return err
}

func restore(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("dlsms-stack restore", flag.ContinueOnError)
	cfg := stack.RestoreConfig{Log: out}
	flags.StringVar(&cfg.Dir, "dir", ".local", "directory of the database")
	flags.StringVar(&cfg.File, "file", "", "the dump to restore")
	flags.StringVar(&cfg.Binary, "binary", ".local/bin/dlsms", "path of the dlsms program")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return stack.Restore(ctx, cfg)
}

// settings returns the settings of the replicas that are in environ, such as RATE_LIMIT_PER_MINUTE
// after `RATE_LIMIT_PER_MINUTE=0 make run`. It leaves out DATABASE_URL and the others below,
// because the stack sets them and the values of the user would replace those of the stack.
func settings(environ []string) map[string]string {
	env := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		switch name {
		case "DATABASE_URL", "REDIS_URL", "REDIS_CA_FILE", "GRPC_ADDR", "HTTP_ADDR", "ADMIN_ADDR", "SERVICES":
		default:
			env[name] = value
		}
	}
	return env
}

// demoKey is the service key of the demo screen: see store/seed.go.
const demoKey = "dlsms-key-9007199254740991-demo-screen-key-everybody-can-read-this-key"

// demoUsers are the users of the demo data: see store/seed.go.
const demoUsers = `
  S2021001 to S2021010  students
  D0001                 works at the desk of the branch main
  L0001                 a librarian
  A0001                 an admin

The password of each is password123.
`

func welcome(s *stack.Stack, cfg stack.Config) string {
	grpcurl := ".local/bin/grpcurl"
	var b strings.Builder
	fmt.Fprintf(&b, "\nOpen http://%s in a browser.\n", s.HTTPAddr())
	if cfg.Seed {
		fmt.Fprint(&b, demoUsers)
	}
	fmt.Fprintf(&b, "\nDL-SMS serves gRPC on %s and HTTP on %s. ", s.Addr(), s.HTTPAddr())
	fmt.Fprintf(&b, "http://%s/docs shows all calls over HTTP.\n\n", s.HTTPAddr())
	fmt.Fprintf(&b, "With curl, in another terminal:\n\n  curl 'http://%s/v1/seats?availableOnly=true'\n", s.HTTPAddr())
	if cfg.Seed {
		fmt.Fprintf(&b, "  curl --json '{\"studentId\": \"S2021001\", \"password\": \"password123\"}' "+
			"http://%s/v1/auth/login\n", s.HTTPAddr())
	}
	if cfg.Seed {
		today := time.Now()
		fmt.Fprintf(&b, "\nAs a librarian:\n\n"+
			"  TOKEN=$(curl -s --json '{\"studentId\": \"L0001\", \"password\": \"password123\"}' "+
			"http://%[1]s/v1/auth/login |\n    sed 's/.*\"accessToken\": *\"\\([^\"]*\\)\".*/\\1/')\n"+
			"  curl -H \"Authorization: Bearer $TOKEN\" 'http://%[1]s/v1/admin/seats:export?branch=main' > seats.csv\n"+
			"  curl -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: text/csv' --data-binary @seats.csv "+
			"'http://%[1]s/v1/admin/seats:import?dryRun=true'\n"+
			"  curl -H \"Authorization: Bearer $TOKEN\" "+
			"'http://%[1]s/v1/reports/usage?from=%[2]s&to=%[3]s&by=USAGE_BY_WEEKDAY_HOUR'\n",
			s.HTTPAddr(), today.AddDate(0, 0, -28).Format(time.DateOnly), today.Format(time.DateOnly))
	}
	if cfg.Seed {
		fmt.Fprintf(&b, "\nThe screen of the branch main, with the codes that prove that a user is there:\n\n"+
			"  %s screen --server %s --key %s\n", cfg.Binary, s.Addr(), demoKey)
	}
	fmt.Fprint(&b, "\nWith grpcurl:\n\n")
	if _, err := os.Stat(grpcurl); err != nil {
		fmt.Fprintf(&b, "  make grpcurl    # once\n")
	}
	fmt.Fprintf(&b, "  %s -plaintext -d '{\"available_only\": true}' %s dlsms.v1.SeatService/GetSeats\n",
		grpcurl, s.Addr())
	if cfg.Seed {
		fmt.Fprintf(&b, "  %s -plaintext -d '{\"student_id\": \"S2021001\", \"password\": \"password123\"}' "+
			"%s dlsms.v1.AuthService/Login\n", grpcurl, s.Addr())
	}
	if s.TLSAddr() != "" {
		fmt.Fprintf(&b, "\nWith TLS: gRPC on %s and HTTP on https://%s, with the certificate in %s.\n",
			s.TLSAddr(), s.HTTPSAddr(), cfg.TLS)
	}
	var metrics, processes []string
	for _, r := range s.Replicas {
		metrics = append(metrics, "http://"+r.AdminAddr()+"/metrics")
		if cfg.Topology == stack.Microservices && r.Name() != "worker" {
			processes = append(processes, fmt.Sprintf("%s http://%s (gRPC %s)", r.Name(), r.HTTPAddr(), r.Addr()))
		}
	}
	if len(processes) > 0 {
		fmt.Fprintf(&b, "\nServices: %s", strings.Join(processes, ", "))
	}
	fmt.Fprintf(&b, "\nMetrics: %s\n", strings.Join(metrics, ", "))
	fmt.Fprintf(&b, "Database: psql \"$(cat %s/database-url)\"\n", cfg.Dir)
	fmt.Fprintf(&b, "Ctrl-C stops everything; the data stays in %s.\n\n", cfg.Dir)
	return b.String()
}
