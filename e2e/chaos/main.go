// Command chaos proves that DL-SMS keeps its promises while everything around it fails: what `make chaos` calls. It starts the whole system
// on this machine with a fault proxy on every connection, lets clients use it, breaks one part after the other, and afterwards checks what
// the clients saw against what the contract says.
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

// historyDir is where the history of a run is kept that found something.
const historyDir = ".local/chaos"

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	var p plan
	flags.StringVar(&p.binary, "binary", ".local/bin/dlsms", "the replica to run")
	flags.DurationVar(&p.duration, "duration", 30*time.Minute, "how long faults go on")
	seed := flags.Uint64("seed", 0, "of everything that is random; 0: a new one")
	flags.StringVar(&p.dir, "out", historyDir, "directory for the history of a run that found something")
	faults := flags.String("faults", "", "a pattern of the kinds of faults; empty: all")
	canaries := flags.Bool("canaries", false, "instead, put known faults into the source, one after the other, and see whether each is found; run it where the source is")
	trials := flags.Bool("trials", false, "instead, break one thing many times, and measure what users see of it; run it where the source is")
	scale := flags.Float64("scale", 1, "of how many times, in the trials")
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
