package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dlsms/dlsms/stack"
)

// fault is one way to break the system.
type fault struct {
	name string
	// inject breaks the system and returns the function that heals it. heal returns when the broken
	// part works again.
	inject func(ctx context.Context, s *system, rng *rand.Rand) (heal func(context.Context) error, err error)
	// least and most bound the duration of the fault.
	least, most time.Duration
	target      target
	// oneIn makes the fault rarer than the other faults of its target. If draw selects the fault,
	// it keeps it once in oneIn times, and otherwise selects again. With 0, draw always keeps it.
	oneIn int
}

// draw chooses one of the faults at random.
func draw(faults []fault, rng *rand.Rand) fault {
	for {
		f := faults[rng.IntN(len(faults))]
		if f.oneIn == 0 || rng.IntN(f.oneIn) == 0 {
			return f
		}
	}
}

// target is the part of the system that a fault acts on. At most one fault of a target is active at
// a time. Faults of different targets can be active at the same time.
type target int

const (
	processes target = iota
	links            // connections between two processes
	operators        // SQL statements that an operator runs
	targets
)

// freezeTime is longer than idle_in_transaction_session_timeout (10 s). If a replica is stopped for
// so long, Postgres ends its open transactions. When the replica continues, it finds its
// connections broken.
const freezeTime = 15 * time.Second

// freezes reports whether the fault stops a replica for freezeTime. Such a fault always lasts that
// long, even if the run ends earlier. By then Postgres has rolled back the transactions that the
// replica had open. If the replica continued earlier, it could commit such a transaction seconds
// after the times in its events.
func (f fault) freezes() bool { return f.least >= freezeTime }

// allFaults returns all faults. Faults of one target are about equally likely, except "replica
// frozen", which is rarer. A freeze lasts 15 s. If it were as likely as the others, a replica would
// be frozen half of the time.
func allFaults() []fault {
	all := []fault{
		{"replica killed", killed(anyReplica), 0, 400 * time.Millisecond, processes, 0},
		{"replica stopped", stopped(anyReplica), 300 * time.Millisecond, 2500 * time.Millisecond, processes, 0},
		{"replica frozen", stopped(anyReplica), freezeTime, freezeTime, processes, 6},
		{"replica restarted", restarted(anyReplica), 0, 0, processes, 0},
		{"nginx killed", killed(proxy), 0, 200 * time.Millisecond, processes, 0},
		{"nginx stopped", stopped(proxy), 200 * time.Millisecond, time.Second, processes, 0},
		{"redis killed", killed(cache), 0, time.Second, processes, 0},
		{"redis stopped", stopped(cache), 300 * time.Millisecond, 2 * time.Second, processes, 0},
		{"redis restarted", restarted(cache), 0, 0, processes, 0},
		{"redis flushed", flushed, 0, 0, processes, 0},
		{"postgres killed", killed(database), 0, 300 * time.Millisecond, processes, 0},
		{"postgres stopped", stopped(database), 200 * time.Millisecond, 1500 * time.Millisecond, processes, 0},
		{"postgres restarted", restarted(database), 0, 0, processes, 0},
	}
	for _, between := range []string{"client-nginx", "nginx-replica", "replica-postgres", "replica-redis"} {
		for _, t := range toxics {
			all = append(all, fault{
				between + " " + t.name, withToxic(between, t), 200 * time.Millisecond, 1500 * time.Millisecond, links, 0,
			})
		}
	}
	return append(all,
		fault{"operator writes bad rows", byOperator((*operator).writeBadRow), 0, 0, operators, 0},
		fault{"operator has a poison row", byOperator((*operator).poison), 0, 0, operators, 0},
		fault{"operator edits the catalog", byOperator((*operator).edit), 0, 0, operators, 0},
		fault{"commits are slow", byOperator((*operator).slowCommits), time.Second, 4 * time.Second, operators, 0},
	)
}

// injector is the type of fault.inject.
type injector = func(context.Context, *system, *rand.Rand) (func(context.Context) error, error)

// victim chooses the process that a fault acts on.
type victim func(*system, *rand.Rand) *stack.Process

func anyReplica(s *system, rng *rand.Rand) *stack.Process {
	return s.Replicas[rng.IntN(len(s.Replicas))].Process
}
func proxy(s *system, _ *rand.Rand) *stack.Process    { return s.Nginx.Process }
func cache(s *system, _ *rand.Rand) *stack.Process    { return s.Redis.Process }
func database(s *system, _ *rand.Rand) *stack.Process { return s.Postgres.Process }

// killed ends a process with SIGKILL and starts it again.
func killed(v victim) injector {
	return func(_ context.Context, s *system, rng *rand.Rand) (func(context.Context) error, error) {
		p := v(s, rng)
		return p.Start, p.Kill()
	}
}

// restarted stops a process as an operator does, and starts it again.
func restarted(v victim) injector {
	return func(ctx context.Context, s *system, rng *rand.Rand) (func(context.Context) error, error) {
		p := v(s, rng)
		return p.Start, p.Stop(ctx)
	}
}

// stopped sends SIGSTOP to a process and all its descendants. The heal function sends SIGCONT.
func stopped(v victim) injector {
	return func(_ context.Context, s *system, rng *rand.Rand) (func(context.Context) error, error) {
		p := v(s, rng)
		all, err := family(p.PID())
		if err != nil {
			return nil, err
		}
		resume := func(context.Context) error { return signalAll(all, syscall.SIGCONT) }
		if err := signalAll(all, syscall.SIGSTOP); err != nil {
			return nil, errors.Join(err, resume(context.Background()))
		}
		return resume, nil
	}
}

// signalAll sends a signal to processes. It ignores processes that have ended.
func signalAll(pids []int, sig syscall.Signal) error {
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("signal %v to %d: %w", sig, pid, err))
		}
	}
	return errors.Join(errs...)
}

// family returns the ids of a process and all its descendants, the process first.
func family(pid int) ([]int, error) {
	if pid == 0 {
		return nil, errors.New("the process is not running")
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", all[i], all[i]))
		if err != nil && i == 0 {
			return nil, err
		}
		for child := range strings.FieldsSeq(string(text)) {
			n, err := strconv.Atoi(child)
			if err != nil {
				return nil, err
			}
			all = append(all, n)
		}
	}
	return all, nil
}

// flushed deletes everything in Redis.
func flushed(ctx context.Context, s *system, _ *rand.Rand) (func(context.Context) error, error) {
	return func(context.Context) error { return nil }, s.flushRedis(ctx)
}

// withToxic adds a toxic (see proxy.go) to one of the connections between these two parts, chosen
// at random.
func withToxic(between string, t toxic) injector {
	return func(_ context.Context, s *system, rng *rand.Rand) (func(context.Context) error, error) {
		var candidates []*link
		for _, l := range s.links {
			if l.between == between {
				candidates = append(candidates, l)
			}
		}
		heal, err := candidates[rng.IntN(len(candidates))].addToxic(t)
		return func(context.Context) error { return heal() }, err
	}
}
