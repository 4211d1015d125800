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
type kind struct {
	name string
	// begin breaks it, as chance has it, and returns what heals it, which returns once what was broken is whole.
	begin func(ctx context.Context, s *site, chance *rand.Rand) (heal func(context.Context) error, err error)
	// How long it stays broken, at least and at most.
	least, most time.Duration
	// between says that it is about what connects two, and not about a process.
	between bool
}

// kinds are all of them. Each is about as likely as every other.
func kinds() []kind {
	all := []kind{
		{"replica killed", killed(anyReplica), 0, 400 * time.Millisecond, false},
		{"replica stopped", stopped(anyReplica), 300 * time.Millisecond, 2500 * time.Millisecond, false},
		{"replica restarted", restarted(anyReplica), 0, 0, false},
		{"nginx killed", killed(proxy), 0, 200 * time.Millisecond, false},
		{"nginx stopped", stopped(proxy), 200 * time.Millisecond, time.Second, false},
		{"redis killed", killed(cache), 0, time.Second, false},
		{"redis stopped", stopped(cache), 300 * time.Millisecond, 2 * time.Second, false},
		{"redis restarted", restarted(cache), 0, 0, false},
		{"redis flushed", flushed, 0, 0, false},
		{"postgres killed", killed(database), 0, 300 * time.Millisecond, false},
		{"postgres stopped", stopped(database), 200 * time.Millisecond, 1500 * time.Millisecond, false},
		{"postgres restarted", restarted(database), 0, 0, false},
	}
	for _, between := range []string{"client-nginx", "nginx-replica", "replica-postgres", "replica-redis"} {
		for _, t := range toxics {
			all = append(all, kind{between + " " + t.name, poisoned(between, t), 200 * time.Millisecond, 1500 * time.Millisecond, true})
		}
	}
	return all
}

type beginning = func(context.Context, *site, *rand.Rand) (func(context.Context) error, error)

// victim chooses a process.
type victim func(*site, *rand.Rand) *stack.Process

func anyReplica(s *site, chance *rand.Rand) *stack.Process {
	return s.Replicas[chance.IntN(len(s.Replicas))].Process
}
func proxy(s *site, _ *rand.Rand) *stack.Process    { return s.Nginx.Process }
func cache(s *site, _ *rand.Rand) *stack.Process    { return s.Redis.Process }
func database(s *site, _ *rand.Rand) *stack.Process { return s.Postgres.Process }

// killed ends a process with SIGKILL, and starts it again.
func killed(v victim) beginning {
	return func(_ context.Context, s *site, chance *rand.Rand) (func(context.Context) error, error) {
		p := v(s, chance)
		return p.Start, p.Kill()
	}
}

// restarted ends a process as an operator does.
func restarted(v victim) beginning {
	return func(ctx context.Context, s *site, chance *rand.Rand) (func(context.Context) error, error) {
		p := v(s, chance)
		return p.Start, p.Stop(ctx)
	}
}

// stopped has a process, and all that it has started, stand still.
func stopped(v victim) beginning {
	return func(_ context.Context, s *site, chance *rand.Rand) (func(context.Context) error, error) {
		p := v(s, chance)
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

func flushed(ctx context.Context, s *site, _ *rand.Rand) (func(context.Context) error, error) {
	return func(context.Context) error { return nil }, s.flushRedis(ctx)
}

// poisoned puts a toxic on one of the links between two.
func poisoned(between string, t toxic) beginning {
	return func(_ context.Context, s *site, chance *rand.Rand) (func(context.Context) error, error) {
		var those []*link
		for _, l := range s.links {
			if l.between == between {
				those = append(those, l)
			}
		}
		heal, err := those[chance.IntN(len(those))].poison(t)
		return func(context.Context) error { return heal() }, err
	}
}
