package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"time"

	"github.com/dlsms/dlsms/e2e"
	"github.com/dlsms/dlsms/stack"
	"github.com/dlsms/dlsms/store/storetest"
)

// trial injects one fault, or one kind of overload, many times and measures its effect on users.
type trial struct {
	name string
	run  func(context.Context, *trialRun) error
}

func trials() []trial {
	return []trial{
		{"postgres killed", postgresKilled},
		{"replica killed", replicaKilled},
		{"rolling restart", rollingRestart},
		{"redis", redisUnavailable},
		{"workers killed", workersKilled},
		{"overload", overload},
		{"cancelled calls", cancelled},
		{"watchers", watchers},
		{"restored from a dump", restored},
		{"soak", soak},
	}
}

// trialRun is the state of a run of trials.
type trialRun struct {
	binary string
	scale  float64 // factor on the number and the duration of faults
	rng    *rand.Rand
	out    io.Writer
	began  time.Time
	missed int
}

// times scales a number of repetitions. It returns at least 1.
func (l *trialRun) times(n int) int { return max(1, int(float64(n)*l.scale)) }

// scaled scales a duration.
func (l *trialRun) scaled(d time.Duration) time.Duration { return time.Duration(float64(d) * l.scale) }

func (l *trialRun) logf(format string, args ...any) {
	fmt.Fprintf(l.out, "%7s  %s\n", time.Since(l.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// row prints a row of the table.
func (l *trialRun) row(title, goal string, met bool, format string, args ...any) {
	verdict := "met"
	if !met {
		verdict = "**missed**"
		l.missed++
	}
	fmt.Fprintf(l.out, "| %s | %s | %s | %s |\n", title, goal, fmt.Sprintf(format, args...), verdict)
}

// start starts a system without fault proxies. It uses the settings that the function settings
// returns, and those in env.
func (l *trialRun) start(ctx context.Context, env map[string]string) (*system, error) {
	return l.startBinary(ctx, l.binary, env)
}

// startBinary is like start, with another binary of the replicas.
func (l *trialRun) startBinary(ctx context.Context, binary string, env map[string]string) (*system, error) {
	l.logf("starting DL-SMS")
	return startSystem(ctx, stack.Config{Binary: binary, Env: env}, 1, false)
}

// slowPostgres delays each answer of Postgres by 40 ms. Then Postgres is the bottleneck. Without
// the delay the bottleneck would be the processors, which the load generator uses too.
const slowPostgres = `{"type": "latency", "stream": "downstream", "attributes": {"latency": 40}}`

// startSlow is like start, with the toxic slowPostgres between the replicas and Postgres.
func (l *trialRun) startSlow(ctx context.Context, env map[string]string) (_ *system, err error) {
	l.logf("starting DL-SMS; Postgres takes 40 ms for each answer")
	s := &system{proxies: newProxies(), journal: &e2e.LogRecorder{}}
	cfg := stack.Config{Binary: l.binary, Env: env}
	cfg.ProxyURLs = func(databaseURL, redisURL string) (string, string, error) {
		slow, err := s.proxyURL("replica-postgres", databaseURL)
		return slow, redisURL, err
	}
	if _, err := s.start(ctx, cfg, 1, false); err != nil {
		return nil, err
	}
	if _, err := s.links[0].addToxic(toxic{"slow", []string{slowPostgres}}); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func runTrials(ctx context.Context, out io.Writer, binary, only string, scale float64, seed uint64) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	l := &trialRun{binary: binary, scale: scale, rng: rand.New(rand.NewPCG(seed, 0)), out: out, began: time.Now()}
	fmt.Fprintf(out, "Trials: commit %s, seed %d\n", commit(ctx), seed)
	n := 0
	var failed []error
	for _, t := range trials() {
		if !wanted.MatchString(t.name) {
			continue
		}
		n++
		l.logf("%s", t.name)
		if err := t.run(ctx, l); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", t.name, err))
			l.logf("trial failed: %v", err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	switch {
	case n == 0:
		return fmt.Errorf("-only: no trial matches %q", only)
	case l.missed > 0:
		failed = append(failed, fmt.Errorf("%d goals missed", l.missed))
	}
	return errors.Join(failed...)
}

// The load of the trials. At every moment some calls are in progress, and the processors have
// enough spare time to catch up after a fault.
const (
	trialUsers = 24
	trialRest  = 20 * time.Millisecond
	warmUp     = 2 * time.Second
	baseline   = 15 * time.Second
)

// withSteadyLoad starts a system and a steady load, and then calls f. The parameter before of f has
// the calls of a period without faults, for comparison.
func (l *trialRun) withSteadyLoad(
	ctx context.Context, options loadOptions, f func(s *system, load *steady, before []call) error,
) (err error) {
	var s *system
	if options.slowPostgres {
		s, err = l.startSlow(ctx, nil)
	} else {
		s, err = l.startBinary(ctx, cmp.Or(options.binary, l.binary), nil)
	}
	if err != nil {
		return err
	}
	defer func() {
		if stopped := s.stop(); err == nil {
			err = stopped
		}
	}()
	load, err := startSteady(ctx, s, "steady", options)
	if err != nil {
		return err
	}
	defer load.end()
	sleep(ctx, warmUp)
	from := load.since()
	sleep(ctx, baseline)
	before := load.between(from, load.since())
	l.logf("%d users, %.0f calls a second, P99 %s",
		options.users, float64(len(before))/baseline.Seconds(), quantile(before, 0.99))
	return f(s, load, before)
}

// lostBookings ends the load and compares the acknowledged bookings with the database.
func (l *trialRun) lostBookings(ctx context.Context, s *system, load *steady, after string) error {
	load.end()
	acked, missing, err := load.missing(ctx, s)
	if err != nil {
		return err
	}
	l.row("acknowledged bookings lost, "+after, "0", len(missing) == 0 && acked > 0, "%d of %d", len(missing), acked)
	if len(missing) > 0 {
		l.logf("lost: %v", missing)
	}
	broken, err := storetest.Violations(ctx, s.Postgres.AdminURL(), 1)
	if err != nil {
		return err
	}
	l.row("violated invariants, "+after, "0", len(broken) == 0, "%d", len(broken))
	for _, b := range broken {
		l.logf("%s", b)
	}
	l.logErrors(s, after)
	return nil
}

// logErrors prints a row about log lines that must never occur.
func (l *trialRun) logErrors(s *system, after string) {
	err := s.journal.Err()
	found := "none"
	if err != nil {
		found = "some"
		l.logf("%v", err)
	}
	l.row("panics, errors and deadlocks in the log, "+after, "none", err == nil, "%s", found)
}

// postgresKilled is a trial. It verifies that no acknowledged booking is lost, and that the rate of
// successful calls recovers soon after Postgres accepts connections.
func postgresKilled(ctx context.Context, l *trialRun) error {
	options := loadOptions{users: trialUsers, rest: trialRest}
	return l.withSteadyLoad(ctx, options, func(s *system, load *steady, before []call) error {
		const share, window, goal = 0.9, 500 * time.Millisecond, 3 * time.Second
		usual := share * float64(succeeded(before)) / baseline.Seconds()
		n := l.times(100)
		var slowest time.Duration
		for i := range n {
			sleep(ctx, time.Duration(l.rng.Int64N(int64(time.Second))))
			if err := s.Postgres.Kill(); err != nil {
				return err
			}
			if err := s.Postgres.Start(ctx); err != nil {
				return err
			}
			accepts := load.since()
			from := accepts
			for ; load.rate(from, from+window) < usual && ctx.Err() == nil; from += 20 * time.Millisecond {
				sleep(ctx, from+window+20*time.Millisecond-load.since())
				if from-accepts > time.Minute {
					return fmt.Errorf("one minute after Postgres accepts connections there are %.0f calls a second, %.0f before",
						load.rate(from, from+window), usual/share)
				}
			}
			slowest = max(slowest, from-accepts)
			if (i+1)%10 == 0 {
				l.logf("killed %d times, slowest recovery %s", i+1, slowest)
			}
		}
		l.row(fmt.Sprintf("Postgres killed %d times: 90%% of the goodput again, after it accepts connections", n), "≤ 3 s",
			slowest <= goal, "%s at most", slowest)
		return l.lostBookings(ctx, s, load, fmt.Sprintf("Postgres killed %d times", n))
	})
}

// replicaKilled is a trial. It verifies that no call fails if clients use the retry policy of
// README.md.
func replicaKilled(ctx context.Context, l *trialRun) error {
	options := loadOptions{users: trialUsers, rest: trialRest}
	return l.withSteadyLoad(ctx, options, func(s *system, load *steady, _ []call) error {
		n := l.times(200)
		from := load.since()
		for i := range n {
			r := s.Replicas[l.rng.IntN(len(s.Replicas))]
			if err := r.Kill(); err != nil {
				return err
			}
			sleep(ctx, time.Duration(l.rng.Int64N(int64(300*time.Millisecond))))
			if err := r.Start(ctx); err != nil {
				return err
			}
			sleep(ctx, time.Duration(l.rng.Int64N(int64(300*time.Millisecond))))
			if (i+1)%20 == 0 {
				l.logf("killed %d times", i+1)
			}
		}
		until := load.since()
		load.end() // so that calls in progress count too
		calls := load.between(from, load.since())
		l.failedCalls(fmt.Sprintf("a replica killed %d times", n), calls)
		const goal = time.Second
		gap := longestGap(calls, trialUsers, from, until)
		l.row(fmt.Sprintf("a replica killed %d times: longest time in which a user has no successful call", n), "≤ 1 s",
			gap <= goal, "%s", gap.Round(time.Millisecond))
		return l.lostBookings(ctx, s, load, fmt.Sprintf("a replica killed %d times", n))
	})
}

// failedCalls prints a row with the number of calls that failed despite the retry policy.
func (l *trialRun) failedCalls(during string, calls []call) {
	failed := len(calls) - succeeded(calls)
	l.row(during+": calls that failed", "0", failed == 0 && len(calls) > 0, "%d of %d", failed, len(calls))
	for _, c := range calls {
		if c.err != nil {
			l.logf("at %s: %v", c.at, c.err)
			return
		}
	}
}

// rollingRestart is a trial. It restarts the replicas one by one, as an operator does. It verifies
// that no call over gRPC needs more than two retries, and that no POST over HTTP needs a retry.
func rollingRestart(ctx context.Context, l *trialRun) error {
	const tries = 3 // one call and two retries
	grpc := loadOptions{users: trialUsers, rest: trialRest, tries: tries}
	if err := l.restartReplicas(ctx, grpc, "at most 2 retries"); err != nil {
		return err
	}
	return l.restartReplicas(ctx, postLoad(), "POST over HTTP without retries")
}

func (l *trialRun) restartReplicas(ctx context.Context, options loadOptions, clients string) error {
	return l.withSteadyLoad(ctx, options, func(s *system, load *steady, _ []call) error {
		n := l.times(20)
		from := load.since()
		for i := range n {
			if err := s.restartInTurn(ctx); err != nil {
				return err
			}
			l.logf("all replicas restarted %d times", i+1)
		}
		load.end()
		l.failedCalls(fmt.Sprintf("replicas restarted one by one, %d times, %s", n, clients),
			load.between(from, load.since()))
		return l.lostBookings(ctx, s, load, fmt.Sprintf("all replicas restarted %d times, %s", n, clients))
	})
}
