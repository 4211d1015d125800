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

// trial breaks one thing many times and measures what a user sees of it.
type trial struct {
	name string
	run  func(context.Context, *trialRun) error
}

func trials() []trial {
	return []trial{
		{"postgres killed", postgresKilled},
		{"replica killed", replicaKilled},
		{"rolling restart", rollingRestart},
		{"redis", redisGone},
		{"workers killed", workersKilled},
		{"overload", overload},
		{"cancelled calls", cancelled},
		{"watchers", watchers},
		{"restored from a dump", restored},
		{"soak", soak},
	}
}

// lab is what a trial works with.
type trialRun struct {
	binary string
	scale  float64 // of how often each thing is done
	rng    *rand.Rand
	out    io.Writer
	began  time.Time
	missed int
}

// times returns how often to do what is done n times at full scale, and once at least.
func (l *trialRun) times(n int) int { return max(1, int(float64(n)*l.scale)) }

// lasting returns how long what lasts d at full scale is to last.
func (l *trialRun) lasting(d time.Duration) time.Duration { return time.Duration(float64(d) * l.scale) }

func (l *trialRun) logf(format string, args ...any) {
	fmt.Fprintf(l.out, "%7s  %s\n", time.Since(l.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// figure prints a row of the table.
func (l *trialRun) row(what, goal string, met bool, format string, args ...any) {
	verdict := "met"
	if !met {
		verdict = "**missed**"
		l.missed++
	}
	fmt.Fprintf(l.out, "| %s | %s | %s | %s |\n", what, goal, fmt.Sprintf(format, args...), verdict)
}

// site starts a system with the shipped defaults, on which nothing is between.
func (l *trialRun) system(ctx context.Context, env map[string]string) (*system, error) {
	return l.startBinary(ctx, l.binary, env)
}

// siteOf is site with replicas of another binary.
func (l *trialRun) startBinary(ctx context.Context, binary string, env map[string]string) (*system, error) {
	l.logf("starting DL-SMS")
	return startSystem(ctx, stack.Config{Binary: binary, Env: env}, 1, false)
}

// slowPostgres takes so many milliseconds for each answer, so that it, and not the processors that the load needs too, is what there is too
// little of.
const slowPostgres = `{"type": "latency", "stream": "downstream", "attributes": {"latency": 40}}`

// slowSite is site with a slow Postgres.
func (l *trialRun) startSlow(ctx context.Context, env map[string]string) (_ *system, err error) {
	l.logf("starting DL-SMS, with a Postgres that takes 40 ms for each answer")
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
			l.logf("could not be carried out: %v", err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	switch {
	case n == 0:
		return fmt.Errorf("-only: no trial is like %q", only)
	case l.missed > 0:
		failed = append(failed, fmt.Errorf("%d goals are missed", l.missed))
	}
	return errors.Join(failed...)
}

// The load of the trials: enough users to have something under way at each moment, and room to make up for what was missed.
const (
	trialUsers = 24
	trialRest  = 20 * time.Millisecond
	warmUp     = 2 * time.Second
	baseline   = 15 * time.Second
)

// steadily runs f while the steady load is on a system of its own, and tells what the load was before.
func (l *trialRun) withSteadyLoad(ctx context.Context, options loadOptions, f func(s *system, load *steady, before []call) error) (err error) {
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
	l.logf("%d users, %.0f calls a second, P99 %s", options.users, float64(len(before))/baseline.Seconds(), quantile(before, 0.99))
	return f(s, load, before)
}

// kept ends the load, and holds what was acknowledged against what is there.
func (l *trialRun) kept(ctx context.Context, s *system, load *steady, after string) error {
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
	l.row("broken rules, "+after, "0", len(broken) == 0, "%d", len(broken))
	for _, b := range broken {
		l.logf("%s", b)
	}
	l.quiet(s, after)
	return nil
}

// quiet tells whether the log has nothing that must never be there.
func (l *trialRun) quiet(s *system, after string) {
	err := s.journal.Err()
	summary := "none"
	if err != nil {
		summary = "some"
		l.logf("%v", err)
	}
	l.row("panics, errors and deadlocks in the log, "+after, "none", err == nil, "%s", summary)
}

// postgresKilled: what was acknowledged is there, and all goes on as before soon after Postgres accepts connections.
func postgresKilled(ctx context.Context, l *trialRun) error {
	return l.withSteadyLoad(ctx, loadOptions{users: trialUsers, rest: trialRest}, func(s *system, load *steady, before []call) error {
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
					return fmt.Errorf("a minute after Postgres accepts connections there are %.0f calls a second, %.0f were usual", load.rate(from, from+window), usual/share)
				}
			}
			slowest = max(slowest, from-accepts)
			if (i+1)%10 == 0 {
				l.logf("killed %d times, slowest recovery %s", i+1, slowest)
			}
		}
		l.row(fmt.Sprintf("Postgres killed %d times: 90%% of the goodput again, after it accepts connections", n), "≤ 3 s", slowest <= goal, "%s at most", slowest)
		return l.kept(ctx, s, load, fmt.Sprintf("Postgres killed %d times", n))
	})
}

// replicaKilled: with the retry policy of the README nobody sees it.
func replicaKilled(ctx context.Context, l *trialRun) error {
	return l.withSteadyLoad(ctx, loadOptions{users: trialUsers, rest: trialRest}, func(s *system, load *steady, _ []call) error {
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
		load.end() // so that what is under way counts too
		calls := load.between(from, load.since())
		l.calls(fmt.Sprintf("a replica killed %d times", n), calls)
		const goal = time.Second
		gap := longestGap(calls, trialUsers, from, until)
		l.row(fmt.Sprintf("a replica killed %d times: longest time in which a user has no call that succeeds", n), "≤ 1 s", gap <= goal, "%s", gap.Round(time.Millisecond))
		return l.kept(ctx, s, load, fmt.Sprintf("a replica killed %d times", n))
	})
}

// calls tells how many failed in spite of the retry policy.
func (l *trialRun) calls(while string, calls []call) {
	failed := len(calls) - succeeded(calls)
	l.row(while+": calls that failed", "0", failed == 0 && len(calls) > 0, "%d of %d", failed, len(calls))
	for _, c := range calls {
		if c.err != nil {
			l.logf("at %s: %v", c.at, c.err)
			return
		}
	}
}

// rollingRestart: as an operator does it, one replica after the other.
func rollingRestart(ctx context.Context, l *trialRun) error {
	const tries = 3 // one and two retries
	return l.withSteadyLoad(ctx, loadOptions{users: trialUsers, rest: trialRest, tries: tries}, func(s *system, load *steady, _ []call) error {
		n := l.times(20)
		from := load.since()
		for i := range n {
			for _, r := range s.Replicas {
				if err := r.Restart(ctx); err != nil {
					return err
				}
			}
			l.logf("restarted all %d times", i+1)
		}
		load.end()
		l.calls(fmt.Sprintf("all replicas restarted one after the other, %d times, at most 2 retries", n), load.between(from, load.since()))
		return l.kept(ctx, s, load, fmt.Sprintf("all replicas restarted %d times", n))
	})
}
