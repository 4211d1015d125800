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

// kind is one way to break the system.
type fault struct {
	name string
	// begin breaks it, as chance has it, and returns what heals it, which returns once what was broken is whole.
	inject func(ctx context.Context, s *system, rng *rand.Rand) (heal func(context.Context) error, err error)
	// How long it stays broken, at least and at most.
	least, most time.Duration
	target      target
	// oneIn is how much less likely it is than others of its lane; 0: as likely.
	oneIn int
}

// draw chooses one of several kinds.
func draw(faults []fault, rng *rand.Rand) fault {
	for {
		k := faults[rng.IntN(len(faults))]
		if k.oneIn == 0 || rng.IntN(k.oneIn) == 0 {
			return k
		}
	}
}

// lane is what a kind of fault is about. Faults of one lane come one after the other, those of different lanes at the same time.
type target int

const (
	processes target = iota
	links            // connections between two processes
	operators        // what an operator does by SQL
	targets
)

// The longest freeze is above idle_in_transaction_session_timeout: Postgres ends the transactions of a replica that stands
// still for so long, so the replica finds broken connections when it goes on.
const freezeTime = 15 * time.Second

// freezes reports whether a fault of the kind keeps a replica from answering for longer than a client tries. Such a fault
// always lasts for its whole time, also at the end of a run: a transaction that was open when it began is then rolled back,
// and cannot commit seconds after the times in its events.
func (k fault) freezes() bool { return k.least >= freezeTime }

// kinds are all of them. Each is about as likely as every other of its lane, but for the freeze: it lasts for so long that a
// replica would be frozen for half of the time.
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
			all = append(all, fault{between + " " + t.name, withToxic(between, t), 200 * time.Millisecond, 1500 * time.Millisecond, links, 0})
		}
	}
	return append(all,
		fault{"operator writes bad rows", byOperator((*operator).writeBadRow), 0, 0, operators, 0},
		fault{"operator has a poison row", byOperator((*operator).poison), 0, 0, operators, 0},
		fault{"operator edits the catalog", byOperator((*operator).edit), 0, 0, operators, 0},
	)
}

type injector = func(context.Context, *system, *rand.Rand) (func(context.Context) error, error)

// victim chooses a process.
type victim func(*system, *rand.Rand) *stack.Process

func anyReplica(s *system, rng *rand.Rand) *stack.Process {
	return s.Replicas[rng.IntN(len(s.Replicas))].Process
}
func proxy(s *system, _ *rand.Rand) *stack.Process    { return s.Nginx.Process }
func cache(s *system, _ *rand.Rand) *stack.Process    { return s.Redis.Process }
func database(s *system, _ *rand.Rand) *stack.Process { return s.Postgres.Process }

// killed ends a process with SIGKILL, and starts it again.
func killed(v victim) injector {
	return func(_ context.Context, s *system, rng *rand.Rand) (func(context.Context) error, error) {
		p := v(s, rng)
		return p.Start, p.Kill()
	}
}

// restarted ends a process as an operator does.
func restarted(v victim) injector {
	return func(ctx context.Context, s *system, rng *rand.Rand) (func(context.Context) error, error) {
		p := v(s, rng)
		return p.Start, p.Stop(ctx)
	}
}

// stopped has a process, and all that it has started, stand still.
func stopped(v victim) injector {
	return func(_ context.Context, s *system, rng *rand.Rand) (func(context.Context) error, error) {
		p := v(s, rng)
		all, err := family(p.PID())
		if err != nil {
			return nil, err
		}
		goOn := func(context.Context) error { return signalAll(all, syscall.SIGCONT) }
		if err := signalAll(all, syscall.SIGSTOP); err != nil {
			return nil, errors.Join(err, goOn(context.Background()))
		}
		return goOn, nil
	}
}

// signalAll sends a signal to processes, of which some may have ended.
func signalAll(pids []int, sig syscall.Signal) error {
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("signal %v to %d: %w", sig, pid, err))
		}
	}
	return errors.Join(errs...)
}

// family returns the process ids of a process and of all that it has started, the first first.
func family(pid int) ([]int, error) {
	if pid == 0 {
		return nil, errors.New("the process does not run")
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

func flushed(ctx context.Context, s *system, _ *rand.Rand) (func(context.Context) error, error) {
	return func(context.Context) error { return nil }, s.flushRedis(ctx)
}

// poisoned puts a toxic on one of the links between two.
func withToxic(between string, t toxic) injector {
	return func(_ context.Context, s *system, rng *rand.Rand) (func(context.Context) error, error) {
		var those []*link
		for _, l := range s.links {
			if l.between == between {
				those = append(those, l)
			}
		}
		heal, err := those[rng.IntN(len(those))].addToxic(t)
		return func(context.Context) error { return heal() }, err
	}
}
