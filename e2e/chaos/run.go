package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dlsms/dlsms/stack"
)

// plan has the parameters of a run.
type plan struct {
	binary   string
	dir      string
	duration time.Duration
	seed     uint64
	faults   []fault
	postgres map[string]string // additional settings, for a canary
	quiet    bool
	// rest is the longest pause of a client between two operations. If watch is not nil, it
	// observes the system during the faults.
	rest  time.Duration
	watch func(context.Context, *system)
}

const (
	clients = 32
	// maxSpeed bounds the speed of the system's clock, as a factor of real time. maxAdvance bounds
	// how far this clock advances in a run. It is less than firstDay (three days, in load.go), so
	// that no reservation of the plans branch begins during the run.
	maxSpeed   = 240
	maxAdvance = 48 * time.Hour
)

// faultsLike selects the faults whose names match a pattern. The pattern "none" selects no fault.
func (p *plan) faultsLike(pattern string) error {
	if pattern == "none" {
		p.faults = nil
		return nil
	}
	only, err := regexp.Compile(pattern)
	if err != nil {
		return fmt.Errorf("-faults: %w", err)
	}
	p.faults = slices.DeleteFunc(allFaults(), func(f fault) bool { return !only.MatchString(f.name) })
	if len(p.faults) == 0 {
		return fmt.Errorf("-faults: no fault matches %q", pattern)
	}
	return nil
}

// speed returns the speed of the system's clock, as a factor of real time.
func (p *plan) speed() int {
	return max(1, min(maxSpeed, int(maxAdvance/max(p.duration, time.Second))))
}

// run executes the plan and verifies the history.
func (p *plan) run(ctx context.Context, out io.Writer) (r *result, err error) {
	r = newResult(ctx, p)
	logf := func(format string, args ...any) {
		if !p.quiet {
			fmt.Fprintf(out, "%6s  "+format+"\n", append([]any{time.Since(r.began).Round(time.Second)}, args...)...)
		}
	}
	r.began = time.Now()
	logf("starting DL-SMS, seed %d", p.seed)
	s, err := startSystem(ctx, stack.Config{Binary: p.binary, PostgresSettings: p.postgres}, p.speed(), true)
	if err != nil {
		return r, err
	}
	var l *load
	defer func() {
		stopped := s.stop()
		if stopped != nil && err == nil {
			r.found.add(checkLog, "the system did not stop cleanly: %v", stopped)
		}
		if l != nil && p.dir != "" && (err != nil || r.found.count() > 0) {
			kept, failed := r.keep(l.history, err)
			logf("the history is in %s", kept)
			err = errors.Join(err, failed)
		}
	}()
	if l, err = startLoad(ctx, s, p, &r.found); err != nil {
		return r, err
	}
	defer l.streams.end()
	defer l.end()
	r.planSeats = l.plans
	logf("%d clients, no faults yet; metrics on %s", clients, strings.Join(s.adminAddrs(), ","))
	sleep(ctx, warmUp)
	before := l.history.ops.Load()
	sleep(ctx, baseTime)
	r.baseRate = float64(l.history.ops.Load()-before) / baseTime.Seconds()
	r.baseUntil, r.baseOperations = l.history.since(), l.history.ops.Load()
	logf("%d clients, faults for %s; a minute of the system's clock takes %s",
		clients, p.duration, time.Minute/time.Duration(p.speed()))

	faulty, stop := context.WithTimeout(ctx, p.duration)
	defer stop()
	var watching sync.WaitGroup
	if p.watch != nil {
		watching.Go(func() { p.watch(faulty, s) })
	}
	watching.Go(func() {
		every(faulty, progressEvery, func() {
			logf("%d operations, %d refused, %d faults", l.history.ops.Load(), l.history.refused.Load(), r.faults())
		})
	})
	if err := r.injectFaults(faulty, s, l.history); err != nil {
		return r, err
	}
	watching.Wait()
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	r.lasted = l.history.since()
	l.end()
	logf("the clients have stopped; verifying the history")
	// Set the system's clock to real speed. Otherwise new transitions would become due while the
	// worker finishes the old ones.
	r.clock = s.clock
	if err := s.setClock(ctx, s.clock.At(time.Now()), 1); err != nil {
		return r, err
	}
	r.count(l.history)
	if err := r.verify(ctx, s, l.history, p.speed()); err != nil {
		return r, err
	}
	if err := r.checkExports(ctx, s, l.clients); err != nil {
		return r, err
	}
	return r, r.catchUp(ctx, s, l.streams)
}

// baseTime is the time before the first fault in which the base rate of operations is measured.
const baseTime = 3 * time.Second

const progressEvery = 10 * time.Second

// injectFaults injects faults until ctx ends. At most one fault of a target is active at a time.
// Faults of different targets overlap.
func (r *result) injectFaults(ctx context.Context, s *system, h *history) error {
	running, ctx := errgroup.WithContext(ctx)
	for target := range targets {
		faults := slices.DeleteFunc(slices.Clone(r.plan.faults), func(f fault) bool { return f.target != target })
		if len(faults) == 0 {
			continue
		}
		rng := rand.New(rand.NewPCG(r.plan.seed, uint64(1000+target)))
		running.Go(func() error {
			for ctx.Err() == nil {
				if err := r.injectFault(ctx, s, h, draw(faults, rng), rng); err != nil {
					return err
				}
			}
			return nil
		})
	}
	running.Go(func() error { // waits even if there is no fault to inject
		<-ctx.Done()
		return nil
	})
	return running.Wait()
}

// mostRecovery bounds the time from the end of a fault until every client has an answer again.
// Other faults may be active in this time.
const mostRecovery = 15 * time.Second

func (r *result) injectFault(ctx context.Context, s *system, h *history, f fault, rng *rand.Rand) error {
	uncancelled := context.WithoutCancel(ctx)
	began := h.since()
	heal, err := f.inject(uncancelled, s, rng)
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	faultCtx, operations := ctx, h.ops.Load()
	if f.freezes() {
		faultCtx = uncancelled
		r.freezes.Add(1)
	}
	sleep(faultCtx, f.least+time.Duration(rng.Int64N(int64(f.most-f.least)+1)))
	err = heal(uncancelled)
	if f.freezes() {
		r.lastFreeze.Store(int64(h.since()))
		r.freezes.Add(-1)
	}
	if err != nil {
		return fmt.Errorf("heal %s: %w", f.name, err)
	}
	healed := h.since()
	if f.freezes() {
		r.frozenFor += healed - began
		r.frozenOperations += h.ops.Load() - operations
	}
	defer func(from time.Duration) { r.recordOutage(f, from, h.since()) }(began)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !h.allServed(healed) {
		// While a replica is frozen, all tries of a client may reach this replica and fail. So the
		// time begins at the end of the last freeze.
		if r.freezes.Load() == 0 && h.since()-max(healed, time.Duration(r.lastFreeze.Load())) > mostRecovery {
			r.found.add(checkLiveness, "%s after %q was healed, some clients had no answer", mostRecovery, f.name)
			break
		}
		<-ticker.C
	}
	r.fault(f.name, h.since()-healed)
	sleep(ctx, time.Duration(rng.Int64N(int64(400*time.Millisecond))))
	return nil
}

// keep writes the history of a run that found a violation, or failed with the error cause, to a
// file.
func (r *result) keep(h *history, cause error) (file string, err error) {
	if err := os.MkdirAll(r.plan.dir, 0o755); err != nil {
		return "", err
	}
	kept := struct {
		Commit                string
		Seed                  uint64
		Error                 string `json:",omitempty"`
		Violations            []string
		NotLinearizable, Done []op
	}{Commit: r.commit, Seed: r.plan.seed, NotLinearizable: r.linear.failing}
	if cause != nil {
		kept.Error = cause.Error()
	}
	for _, v := range r.found.list() {
		kept.Violations = append(kept.Violations, v.String())
	}
	for i := range h.parts {
		kept.Done = append(kept.Done, h.parts[i].ops...)
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return "", err
	}
	file = filepath.Join(r.plan.dir, fmt.Sprintf("history-%d.json", r.plan.seed))
	return file, os.WriteFile(file, text, 0o600)
}
