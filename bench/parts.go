package main

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"
)

// part is a kind of process that takes part in a call.
type part int

const (
	loadPart part = iota
	nginxPart
	gatewayPart
	servicePart
	postgresPart
	redisPart
	partCount
)

// partNames are the names of the parts in tables and plots.
var partNames = [partCount]string{"load generator", "nginx", "Go gateway", "services", "Postgres", "Redis"}

// partTimes is the processor time, user and system, of each part.
type partTimes [partCount]time.Duration

func (t partTimes) minus(o partTimes) partTimes {
	for p := range t {
		t[p] -= o[p]
	}
	return t
}

func (t partTimes) plus(o partTimes) partTimes {
	for p := range t {
		t[p] += o[p]
	}
	return t
}

// each returns the time of one of n calls.
func (t partTimes) each(n int) partTimes {
	for p := range t {
		t[p] /= time.Duration(max(n, 1))
	}
	return t
}

func (t partTimes) total() (sum time.Duration) {
	for _, d := range t {
		sum += d
	}
	return sum
}

// system returns the time of all parts but the load generator.
func (t partTimes) system() time.Duration { return t.total() - t[loadPart] }

// partsOf returns the processor time of the parts of a contender. The load generator is the process
// tool, or this process if tool is 0.
func partsOf(c *contender, tool int) (partTimes, error) {
	all, err := processes()
	if err != nil {
		return partTimes{}, err
	}
	var t partTimes
	for p, roots := range c.processes() {
		for _, pid := range roots {
			t[p] += treeTime(all, pid)
		}
	}
	if tool != 0 {
		if !slices.ContainsFunc(all, func(p process) bool { return p.pid == tool }) {
			return t, errors.New("the load generator ended within the measured time")
		}
		t[loadPart] = treeTime(all, tool)
		return t, nil
	}
	var self syscall.Rusage // of this process without its children, which are the contenders
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return t, err
	}
	t[loadPart] = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	return t, nil
}

// startMeter measures the parts of a contender, with a load generator as in partsOf.
func startMeter(
	ctx context.Context, c *contender, tool int, from time.Time, measure time.Duration,
) *stopwatch[partTimes] {
	return startStopwatch(ctx, func() (partTimes, error) { return partsOf(c, tool) }, from, measure)
}
