package main

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlsms/dlsms/store/storetest"
)

// result is what came of a run.
type result struct {
	plan   *plan
	commit string
	began  time.Time
	lasted time.Duration

	planSeats []int64
	clock     storetest.Clock // of the system, while there were faults

	// calm is how many operations a second there were before the first fault, calmUntil when that was, and calmOperations how many by then.
	baseRate       float64
	baseUntil      time.Duration
	baseOperations int64
	// frozenFor is for how long a replica was frozen, and frozenOperations how many there were then. Only the lane of processes
	// writes them.
	frozenFor        time.Duration
	frozenOperations int64

	operations, reads, oldReads, refused, conflicts, tries int64
	busy                                                   int64
	judgedReads                                            int64 // while every replica could reach Postgres, so that they had to be fresh
	acknowledged, missing                                  int64
	unsure, unknown, resolvedDone, resolvedNot             int64
	transitions                                            map[string]int
	notifications, wrongStreams                            int64
	opened                                                 int64
	settled                                                time.Duration
	linear                                                 linear
	badRows, editReads                                     string
	edits                                                  int

	found violations

	mu      sync.Mutex
	byKind  map[string]*faultStats
	outages []span // of Postgres, for some replica
	broken  []span // of processes and connections

	freezes atomic.Int32 // that are in force
	thawed  atomic.Int64 // when the last one ended, since the beginning of the run
}

func newResult(ctx context.Context, p *plan) *result {
	return &result{plan: p, commit: commit(ctx), byKind: map[string]*faultStats{}}
}

// span is a time of the run.
type span struct{ from, until time.Duration }

// touches reports whether a call was under way at some time of it.
func (s span) touches(call, ret time.Duration) bool { return s.from <= ret && call <= s.until }

// tally is what is known of one kind of fault.
type faultStats struct {
	n       int
	slowest time.Duration
}

// wasAway notes that a fault of a process or a connection was in force, which may have kept a replica from Postgres. Its
// connections may take a while longer than its clients do to be back.
func (r *result) recordOutage(k fault, from, until time.Duration) {
	if k.target == operators {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, span{from, until})
	if !strings.Contains(k.name, "postgres") {
		return
	}
	r.outages = append(r.outages, span{from - clockMargin, until + reconnectTime})
}

// reconnectTime is how long a replica may answer from memory once Postgres can be reached again: a look that hangs is given up after 2 s.
const reconnectTime = 4 * time.Second

// outage reports whether some replica may have been without Postgres at some time of a call: it may have begun before Postgres went.
func (r *result) outage(call, ret time.Duration) bool {
	return slices.ContainsFunc(r.outages, func(s span) bool { return s.touches(call, ret) })
}

func (r *result) fault(kind string, recovery time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.byKind[kind]
	if t == nil {
		t = &faultStats{}
		r.byKind[kind] = t
	}
	t.n++
	t.slowest = max(t.slowest, recovery)
}

func (r *result) faults() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.byKind {
		n += t.n
	}
	return n
}

// A run with fewer operations a second than floor proves nothing. On a machine where the system, its faults and its clients get less done together,
// it must have had floorPart of what there was before the first fault, and that must have been calmFloor at least.
const (
	floor     = 100
	floorPart = 0.1
	baseFloor = 50
)

// A run of proofTime or more is meant as a proof, and a proof takes so many operations and faults.
const (
	proofTime       = 20 * time.Minute
	proofOperations = 1_000_000
	proofFaults     = 500
)

// rate is how many operations a second there were from the first fault on, without the time in which a replica was frozen: each
// call that nginx passes to it takes as long as a client's patience.
func (r *result) rate() float64 {
	return float64(r.operations-r.baseOperations-r.frozenOperations) / (r.lasted - r.baseUntil - r.frozenFor).Seconds()
}

// leastThawed is how long a run has to last without a frozen replica, or else there is no rate to judge.
const leastThawed = 2 * time.Second

// count takes over what the clients counted.
func (r *result) count(h *history) {
	r.operations, r.reads, r.refused, r.tries = h.ops.Load(), h.reads.Load(), h.refused.Load(), h.tries.Load()
	r.unsure, r.unknown = h.unsure.Load(), h.unknown.Load()
	slow := r.rate() < min(floor, floorPart*r.baseRate) && r.lasted-r.baseUntil-r.frozenFor >= leastThawed
	if r.baseRate < baseFloor || slow {
		r.found.add(checkActivity, "%.0f operations a second, %.0f before the first fault: that is no test", r.rate(), r.baseRate)
	}
}

// checkConflicts says whether clients were in each other's way at all: it is known when the history has been read.
func (r *result) checkConflicts() {
	if r.conflicts == 0 {
		r.found.add(checkActivity, "nobody wanted what somebody else had: that is no test")
	}
}

// Reads of a catalog that is edited in a row may take mostSlower times as long as reads before the first fault, at the P99,
// and longEnough in any case: beyond that the edits stop the readers. It takes leastEditReads to say so.
const (
	mostSlower     = 10
	slowRead       = 500 * time.Millisecond
	leastEditReads = 200
)

// checkEdits says whether reads took much longer while the catalog was edited. Reads beside another fault do not count.
func (r *result) checkEdits(h *history, reads []op) {
	var before, during []call
	for _, ops := range h.all() {
		for _, o := range ops {
			if o.Kind == read && o.Return < r.baseUntil {
				before = append(before, call{took: o.Return - o.Call})
			}
		}
	}
	for _, o := range reads {
		if !slices.ContainsFunc(r.broken, func(s span) bool { return s.touches(o.Call, o.Return) }) {
			during = append(during, call{took: o.Return - o.Call})
		}
	}
	usual, slow := quantile(before, 0.99), quantile(during, 0.99)
	r.editReads = fmt.Sprintf("%d looks, of which %d with no other fault beside: P99 %s, %s before the first fault",
		len(reads), len(during), slow.Round(time.Millisecond), usual.Round(time.Millisecond))
	if len(during) >= leastEditReads && slow > max(slowRead, mostSlower*usual) {
		r.found.add(checkActivity, "reads stood still while the catalog was edited: %s", r.editReads)
	}
}

// String is the table of a run.
func (r *result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nDL-SMS under faults: commit %s, seed %d, %s, %d clients\n\n", r.commit, r.plan.seed, r.lasted.Round(time.Second), clients)
	row := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", what, fmt.Sprintf(format, args...))
	}
	fmt.Fprint(&b, "| | |\n|---|---|\n")
	row("operations", "%d, %.0f a second, %.0f before the first fault, in %d tries", r.operations, r.rate(), r.baseRate, r.tries)
	row("of these acknowledged writes", "%d, of which %d are not there", r.acknowledged+r.missing, r.missing)
	row("refused", "%d, of which %d conflicts over a seat, %d of plans as their user was busy", r.refused, r.conflicts, r.busy)
	row("reads of a seat checked", "%d, of which %d had to be fresh; %d were as of an earlier time, as they said", r.reads, r.judgedReads, r.oldReads)
	row("without an answer at some try", "%d answered by a later try, %d never answered", r.unsure, r.unknown)
	row("resolved by looking them up", "%d were done, %d were not", r.resolvedDone, r.resolvedNot)
	row("linearizability", "%d operations on %d seat-days, %d not linearizable", r.linear.operations, r.linear.partitions, len(r.linear.broken))
	var transitions []string
	for _, kind := range slices.Sorted(maps.Keys(r.transitions)) {
		transitions = append(transitions, fmt.Sprintf("%d %s", r.transitions[kind], kind))
	}
	row("transitions", "%s", strings.Join(transitions, ", "))
	row("streams", "%d notifications over streams opened %d times, %d streams that did not bring what there is", r.notifications, r.opened, r.wrongStreams)
	row("all that was due done", "%s after the last fault", r.settled.Round(time.Millisecond))
	row("bad rows by an operator", "%s", r.badRows)
	row("edits of the catalog", "%d, %s", r.edits, r.editReads)
	row("faults", "%d", r.faults())
	row("violations", "%d", r.found.count())
	if r.plan.duration >= proofTime && (r.operations < proofOperations || r.faults() < proofFaults) {
		row("fewer than a proof takes", "%d operations and %d faults: a longer DURATION has them", proofOperations, proofFaults)
	}
	fmt.Fprint(&b, "\n| fault | times | slowest recovery |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(r.byKind)) {
		fmt.Fprintf(&b, "| %s | %d | %s |\n", name, r.byKind[name].n, r.byKind[name].slowest.Round(time.Millisecond))
	}
	for _, v := range r.found.list() {
		fmt.Fprintf(&b, "\nVIOLATION: %s", v)
	}
	b.WriteByte('\n')
	return b.String()
}

// commit is that of the work tree, or "unknown" outside of one.
func commit(ctx context.Context) string {
	text, err := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}
