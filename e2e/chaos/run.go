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
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dlsms/dlsms/stack"
)

// plan is what a run is.
type plan struct {
	binary   string
	dir      string
	duration time.Duration
	seed     uint64
	kinds    []kind
	postgres map[string]string // settings, for a run that must find something
	quiet    bool
	// rest is how long each client rests, at most, between two things; watch looks at the system meanwhile.
	rest  time.Duration
	watch func(context.Context, *site)
}

const (
	clients = 32
	// mostSpeed is how many times as fast as ours the system's clock goes, and mostTime how far it may get: before the first day of the plans.
	mostSpeed = 240
	mostTime  = 48 * time.Hour
)

// faultsLike chooses the kinds of faults.
func (p *plan) faultsLike(pattern string) error {
	only, err := regexp.Compile(pattern)
	if err != nil {
		return fmt.Errorf("-faults: %w", err)
	}
	p.kinds = slices.DeleteFunc(kinds(), func(k kind) bool { return !only.MatchString(k.name) })
	if len(p.kinds) == 0 {
		return fmt.Errorf("-faults: no kind of fault is like %q", pattern)
	}
	return nil
}

func (p *plan) speed() int {
	return max(1, min(mostSpeed, int(mostTime/max(p.duration, time.Second))))
}

// run does what the plan says and checks what came of it.
func (p *plan) run(ctx context.Context, out io.Writer) (r *result, err error) {
	r = newResult(ctx, p)
	say := func(format string, args ...any) {
		if !p.quiet {
			fmt.Fprintf(out, "%6s  "+format+"\n", append([]any{time.Since(r.began).Round(time.Second)}, args...)...)
		}
	}
	r.began = time.Now()
	say("starting DL-SMS, seed %d", p.seed)
	s, err := startSite(ctx, stack.Config{Binary: p.binary, PostgresSettings: p.postgres}, p.speed(), true)
	if err != nil {
		return r, err
	}
	var l *load
	defer func() {
		stopped := s.stop()
		if stopped != nil && err == nil {
			r.found.add(checkLog, "the system did not stop well: %v", stopped)
		}
		if l != nil && p.dir != "" && (err != nil || r.found.count() > 0) {
			kept, failed := r.keep(l.history, err)
			say("what the clients did is in %s", kept)
			err = errors.Join(err, failed)
		}
	}()
	if l, err = startLoad(ctx, s, p, &r.found); err != nil {
		return r, err
	}
	defer l.streams.end()
	defer l.end()
	r.planSeats = l.plans
	say("%d clients, and no fault yet", clients)
	pause(ctx, warmUp)
	before := l.history.ops.Load()
	pause(ctx, calmTime)
	r.calm = float64(l.history.ops.Load()-before) / calmTime.Seconds()
	r.calmUntil, r.calmOperations = l.history.since(), l.history.ops.Load()
	say("%d clients, faults for %s, a minute of the system's is %s", clients, p.duration, time.Minute/time.Duration(p.speed()))

	faults, stop := context.WithTimeout(ctx, p.duration)
	defer stop()
	var watching sync.WaitGroup
	if p.watch != nil {
		watching.Go(func() { p.watch(faults, s) })
	}
	watching.Go(func() {
		every(faults, progressEvery, func() {
			say("%d operations, %d refused, %d faults", l.history.ops.Load(), l.history.refused.Load(), r.faults())
		})
	})
	if err := r.breakThings(faults, s, l.history); err != nil {
		return r, err
	}
	watching.Wait()
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	r.lasted = l.history.since()
	l.end()
	say("the clients have stopped, and what they saw is checked")
	// From here on time goes as ours does, so that what is due can be done.
	r.clock = s.clock
	if err := s.setClock(ctx, s.clock.At(time.Now()), 1); err != nil {
		return r, err
	}
	r.count(l.history)
	if err := r.verify(ctx, s, l.history, p.speed()); err != nil {
		return r, err
	}
	return r, r.catchUp(ctx, s, l.streams)
}

// calmTime is for how long clients are looked at before the first fault.
const calmTime = 3 * time.Second

const progressEvery = 10 * time.Second

// breakThings breaks one process after the other until ctx ends, and heals each. At the same time it does so with
// connections, and an operator makes one mistake after the other.
func (r *result) breakThings(ctx context.Context, s *site, h *history) error {
	running, ctx := errgroup.WithContext(ctx)
	for lane := range lanes {
		kinds := slices.DeleteFunc(slices.Clone(r.plan.kinds), func(k kind) bool { return k.lane != lane })
		if len(kinds) == 0 {
			continue
		}
		chance := rand.New(rand.NewPCG(r.plan.seed, uint64(1000+lane)))
		running.Go(func() error {
			for ctx.Err() == nil {
				if err := r.breakOne(ctx, s, h, draw(kinds, chance), chance); err != nil {
					return err
				}
			}
			return nil
		})
	}
	running.Go(func() error { // also when there is nothing to break
		<-ctx.Done()
		return nil
	})
	return running.Wait()
}

// mostRecovery is how long clients may be without an answer once a fault is healed, whatever else is broken at the time.
const mostRecovery = 15 * time.Second

func (r *result) breakOne(ctx context.Context, s *site, h *history, k kind, chance *rand.Rand) error {
	whole := context.WithoutCancel(ctx)
	began := h.since()
	heal, err := k.begin(whole, s, chance)
	if err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	lasts, operations := ctx, h.ops.Load()
	if k.freezes() {
		lasts = whole
		r.freezes.Add(1)
	}
	pause(lasts, k.least+time.Duration(chance.Int64N(int64(k.most-k.least)+1)))
	err = heal(whole)
	if k.freezes() {
		r.thawed.Store(int64(h.since()))
		r.freezes.Add(-1)
	}
	if err != nil {
		return fmt.Errorf("heal %s: %w", k.name, err)
	}
	healed := h.since()
	if k.freezes() {
		r.frozenFor += healed - began
		r.frozenOperations += h.ops.Load() - operations
	}
	defer func(from time.Duration) { r.wasAway(k, from, h.since()) }(began)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !h.allServed(healed) {
		// While a replica is frozen, a client may have the bad luck that all its tries go there: it is judged after that.
		if r.freezes.Load() == 0 && h.since()-max(healed, time.Duration(r.thawed.Load())) > mostRecovery {
			r.found.add(checkLiveness, "%s after %q was healed, there are clients without an answer", mostRecovery, k.name)
			break
		}
		<-look.C
	}
	r.fault(k.name, h.since()-healed)
	pause(ctx, time.Duration(chance.Int64N(int64(400*time.Millisecond))))
	return nil
}

// keep writes down what the clients did, for a run that found something or did not come to its end.
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
