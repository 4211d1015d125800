// Command bench measures DL-SMS as its clients see it, through nginx. `make bench` runs it. It
// compares DL-SMS with the system "limit", which is the same setup with minimal replicas
// (bench/limit). It starts both systems on this machine, runs load against them in turn with ghz,
// and writes tables and plots.
//
// With -compare (`make compare`) it compares architectures instead: the monolith over gRPC and over
// HTTP, microservices, and microservices with the cache of the original design (bench/gateway).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/dlsms/dlsms/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	binary := flags.String("binary", ".local/bin/dlsms", "the replica to measure")
	limitBinary := flags.String("limit", ".local/bin/dlsms-limit", "the replica to measure against")
	dir := flags.String("out", "", "directory for tables and plots; empty: none")
	isQuick := flags.Bool(
		"quick", false, "few and short rounds and a smaller library: a check of the benchmark, not for figures",
	)
	only := flags.String("only", "", "regular expression of the scenarios to run; empty: all")
	isComparison := flags.Bool("compare", false, "compare the architectures: gRPC, HTTP, monolith, microservices, cache")
	gateway := flags.String("gateway", ".local/bin/dlsms-gateway", "the gateway of the original, for -compare")
	toolDir := flags.String("tools", ".local/bin", "the directory of ghz and hey, for -compare")
	profiles := flags.String("profiles", "",
		"directory for CPU profiles of a replica and statistics of SQL statements, by scenario; empty: none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	b := &bench{scale: full, report: &report{}, out: out, began: time.Now()}
	if *isQuick {
		b.scale = quick
	}
	if *isComparison {
		size := fullStudy
		if *isQuick {
			size = quickStudy
		}
		err = b.compareArchitectures(ctx, size, programs{*binary, *limitBinary, *gateway, *toolDir}, *dir)
	} else {
		err = b.benchmark(ctx, *binary, *limitBinary, *profiles, wanted, *dir)
	}
	if err != nil {
		return err
	}
	if n := len(b.report.faults); n > 0 {
		return fmt.Errorf("%d scenarios had failures:\n\t%s", n, strings.Join(b.report.faults, "\n\t"))
	}
	return nil
}

// benchmark runs the scenarios and writes the report into dir, if that is not empty.
func (b *bench) benchmark(
	ctx context.Context, binary, limitBinary, profiles string, wanted *regexp.Regexp, dir string,
) error {
	if err := b.measureAll(ctx, binary, limitBinary, profiles, wanted); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n%s\n%s", b.report.about, b.report.goalTable())
	if dir == "" {
		return nil
	}
	if err := write(b.report, dir); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\nwritten: %s\n", dir)
	return nil
}

// scenario is one measurement.
type scenario struct {
	name string
	run  func(context.Context) error
}

// measureAll starts the systems, runs the scenarios and stops the systems.
func (b *bench) measureAll(
	ctx context.Context, binary, limitBinary, profiles string, wanted *regexp.Regexp,
) (err error) {
	if b.certificates, err = os.MkdirTemp("", "dlsms-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.certificates)) }()
	expires := b.began.Add(24 * time.Hour)
	if err := stack.MakeCertificate(b.certificates, []string{"127.0.0.1"}, b.began, expires); err != nil {
		return err
	}
	cfg := stack.Config{Binary: binary, Seed: true, Env: limitsOff(), TLS: b.certificates}
	b.progress("starting %s", ours)
	if b.ours, err = startSubject(ctx, ours, cfg); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.ours.stop()) }()
	if b.report.about, err = b.describe(ctx); err != nil {
		return err
	}
	b.progress("starting the limit")
	files, err := os.MkdirTemp("", "dlsms-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(files)) }()
	if b.limit, err = b.startLimit(ctx, binary, limitBinary, files); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.limit.stop()) }()

	// The scenarios for the 49 seats of the demo library come first; the later ones add seats.
	for _, s := range []scenario{
		{"rest", b.idle},
		{"reads", b.reads},
		{"tls", b.secure},
		{"observed", func(ctx context.Context) error { return b.observed(ctx, cfg) }},
		{"filters", b.filters},
		{"logins", b.logins},
		{"mix", b.mix},
		{"watch", b.watch},
		{"bookings", b.bookings},
		{"stampede", b.stampede},
		{"staff", b.staff},
		{"reports", func(ctx context.Context) error { return b.reports(ctx, cfg) }},
		{"retention", b.retention},
		{"growth", func(ctx context.Context) error { return b.grow(ctx, cfg) }},
	} {
		if !wanted.MatchString(s.name) {
			continue
		}
		if err := b.profiled(ctx, profiles, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// limitUsers is the number of users in the system "limit". Its minimal replicas make bookings for
// them in turn, because they do not read tokens.
const limitUsers = 5000

// startLimit starts the system "limit": minimal replicas (bench/limit) behind nginx. They answer
// GetSeats with answers of DL-SMS, which are stored in the directory files.
func (b *bench) startLimit(ctx context.Context, binary, limitBinary, files string) (*subject, error) {
	common, filtered, err := answers(ctx, b.ours)
	if err != nil {
		return nil, err
	}
	inJSON, err := b.ours.jsonAnswer(ctx)
	if err != nil {
		return nil, err
	}
	env := limitsOff()
	maps.Copy(env, map[string]string{
		"LIMIT_ANSWER":          filepath.Join(files, "answer"),
		"LIMIT_FILTERED_ANSWER": filepath.Join(files, "filtered"),
		"LIMIT_JSON":            filepath.Join(files, "json"),
		"LIMIT_USERS":           fmt.Sprint(limitUsers),
		"DB_MAX_CONNS":          "100",
	})
	for file, content := range map[string][]byte{
		"LIMIT_ANSWER": common, "LIMIT_FILTERED_ANSWER": filtered, "LIMIT_JSON": inJSON,
	} {
		if err := os.WriteFile(env[file], content, 0o600); err != nil {
			return nil, err
		}
	}
	s, err := startSubject(ctx, limit, stack.Config{Binary: limitBinary, Env: env, NoRedis: true})
	if err != nil {
		return nil, err
	}
	seed := exec.CommandContext(ctx, binary, "seed")
	seed.Env = append(os.Environ(), "DATABASE_URL="+s.Postgres.DatabaseURL())
	if said, err := seed.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("seed the limit: %w: %s", err, said), s.stop())
	}
	if _, err := s.addUsers(ctx, "limit-", limitUsers); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}
