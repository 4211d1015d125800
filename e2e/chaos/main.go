// Command chaos runs clients under random faults and verifies the results. It starts the whole
// system on this machine, with a fault proxy on every connection, and injects faults. Then it
// checks the history of the clients against the contract. `make chaos` calls it.
//
// A canary is a bug that is compiled into the system on purpose. `make canaries` verifies that the
// checks find each canary.
//
// A trial injects one fault, or one kind of overload, many times and measures its effect on users:
// `make trials`. Some trials have a control: a second measurement, for comparison.
//
// The system has its own clock, which runs faster than real time during the faults. So a run
// contains no-shows and expired offers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// historyDir is the directory for the history of a run with violations.
const historyDir = ".local/chaos"

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	var p plan
	flags.StringVar(&p.binary, "binary", ".local/bin/dlsms", "the replica to run")
	flags.DurationVar(&p.duration, "duration", 30*time.Minute, "duration of the faults")
	seed := flags.Uint64("seed", 0, "seed of all random decisions; 0: a new one")
	flags.StringVar(&p.dir, "out", historyDir, "directory for the history of a run with violations")
	faults := flags.String("faults", "", "a pattern of the faults to inject; empty: all; none: no fault")
	canaries := flags.Bool("canaries", false,
		"instead, insert known bugs one at a time and verify that the checks find them; run it where the source is")
	trials := flags.Bool("trials", false,
		"instead, inject one fault many times and measure its effect on users; run it where the source is")
	scale := flags.Float64("scale", 1, "factor on the number and the duration of the faults of trials")
	only := flags.String("only", "", "a pattern of the canaries or trials; empty: all")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := p.faultsLike(*faults); err != nil {
		return err
	}
	p.seed = *seed
	if p.seed == 0 {
		p.seed = uint64(time.Now().UnixNano())
	}
	switch {
	case *canaries:
		return runCanaries(ctx, out, *only, p.seed)
	case *trials:
		return runTrials(ctx, out, p.binary, *only, *scale, p.seed)
	}
	r, err := p.run(ctx, out)
	if err != nil {
		return fmt.Errorf("%w (seed %d)", err, p.seed)
	}
	fmt.Fprint(out, r)
	if n := r.found.count(); n > 0 {
		return fmt.Errorf("%d violations (seed %d)", n, p.seed)
	}
	return nil
}
