// Command dlsms-stack runs all of DL-SMS on this machine until it is told to end: what `make run` calls.
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

	"github.com/dlsms/dlsms/stack"
)

func main() {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		ends = append(ends, syscall.SIGHUP) // the terminal is closed
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	err := run(ctx, stop, os.Args[1:], os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "dlsms:", err)
		os.Exit(1)
	}
}

// run starts the system and stops it when ctx ends, which is the ordinary end and no error. From then on a second signal ends
// this process at once, as release gives the signals back; the kernel then ends the children.
func run(ctx context.Context, release func(), args []string, out io.Writer) error {
	flags := flag.NewFlagSet("dlsms-stack", flag.ContinueOnError)
	cfg := stack.Config{Seed: true, Log: out, Env: settings(os.Environ())}
	flags.StringVar(&cfg.Dir, "dir", ".local", "directory for the database and the secrets")
	flags.StringVar(&cfg.Binary, "binary", ".local/bin/dlsms", "the program to run")
	flags.StringVar(&cfg.Listen, "listen", "127.0.0.1:9090", "address for clients")
	flags.IntVar(&cfg.Replicas, "replicas", 3, "number of replicas")
	flags.BoolVar(&cfg.NoRedis, "no-redis", false, "run without Redis")
	flags.BoolVar(&cfg.Seed, "seed", true, "put the demo data in")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if cfg.Replicas < 1 {
		return fmt.Errorf("-replicas is %d, and has to be 1 at least", cfg.Replicas)
	}
	s, err := stack.Start(ctx, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to end while starting, and all is stopped
		}
		return err
	}
	fmt.Fprint(out, welcome(s, cfg))
	s.KeepUp(ctx)
	release()
	return s.Stop(context.WithoutCancel(ctx))
}

// settings are those of the environment, such as RATE_LIMIT_PER_MINUTE=0 make run, without the addresses that the stack makes itself.
func settings(environ []string) map[string]string {
	env := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		switch name {
		case "DATABASE_URL", "REDIS_URL", "GRPC_ADDR", "ADMIN_ADDR":
		default:
			env[name] = value
		}
	}
	return env
}

func welcome(s *stack.Stack, cfg stack.Config) string {
	grpcurl := ".local/bin/grpcurl"
	var b strings.Builder
	fmt.Fprintf(&b, "\nDL-SMS serves gRPC on %s. To try it, in another terminal:\n\n", s.Addr())
	if _, err := os.Stat(grpcurl); err != nil {
		fmt.Fprintf(&b, "  make grpcurl    # once\n")
	}
	fmt.Fprintf(&b, "  %s -plaintext %s list\n", grpcurl, s.Addr())
	fmt.Fprintf(&b, "  %s -plaintext -d '{\"available_only\": true}' %s dlsms.v1.SeatService/GetSeats\n", grpcurl, s.Addr())
	if cfg.Seed {
		fmt.Fprintf(&b, "  %s -plaintext -d '{\"student_id\": \"S2021001\", \"password\": \"password123\"}' %s dlsms.v1.AuthService/Login\n", grpcurl, s.Addr())
	}
	for i, r := range s.Replicas {
		if i == 0 {
			fmt.Fprintf(&b, "\nMetrics: http://%s/metrics", r.AdminAddr())
		} else {
			fmt.Fprintf(&b, ", http://%s/metrics", r.AdminAddr())
		}
	}
	fmt.Fprintf(&b, "\nDatabase: psql \"$(cat %s/database-url)\"\nCtrl-C stops everything; the data stays in %[1]s.\n\n", cfg.Dir)
	return b.String()
}
