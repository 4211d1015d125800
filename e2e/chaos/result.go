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

// result is the outcome of a run.
type result struct {
	plan   *plan
	commit string
	began  time.Time
	lasted time.Duration

	planSeats []int64
	clock     storetest.Clock // of the system during the faults

	// baseRate is the number of operations a second before the first fault. baseUntil is the end of
	// the time without faults, and baseOperations the number of operations until then.
	baseRate       float64
	baseUntil      time.Duration
	baseOperations int64
	// frozenFor is the total time in which a replica was frozen, and frozenOperations the number of
	// operations in that time. Only the goroutine that injects faults into processes writes these
	// fields.
	frozenFor        time.Duration
	frozenOperations int64

	operations, reads, oldReads, refused, conflicts, tries int64
	busy                                                   int64
	// judgedReads counts the reads that had to be fresh, because every replica could reach
	// Postgres.
	judgedReads                                int64
	acknowledged, missing                      int64
	unsure, unknown, resolvedDone, resolvedNot int64
	transitions                                map[string]int
	notifications, wrongStreams                int64
	opened, openedHTTP                         int64
	overHTTP, notModified                      int64 // operations
	// judged304 counts the reads of one seat with a 304 that had to be fresh.
	judged304          int64
	settled            time.Duration
	linear             linear
	badRows, editReads string
	edits              int
	staff              staffCounts    // changes by the librarian
	countedHours       int64          // hours with sums of reports
	countedEvents      int64          // in these sums
	exportedRows       int            // in the exports of clients
	checkIns           map[string]int // check-ins by answer: a reason, or the proof and the name of the screen

	found violations

	mu      sync.Mutex
	byKind  map[string]*faultStats
	outages []span // times in which a replica may be without Postgres
	broken  []span // times with a fault of a process or connection

	freezes    atomic.Int32 // number of replicas that are frozen now
	lastFreeze atomic.Int64 // end of the last freeze, since the start of the run
}

func newResult(ctx context.Context, p *plan) *result {
	return &result{
		plan: p, commit: commit(ctx), byKind: map[string]*faultStats{}, checkIns: map[string]int{},
	}
}

// span is an interval of the run.
type span struct{ from, until time.Duration }

// touches reports whether a call was in progress at some time of the span.
func (s span) touches(call, ret time.Duration) bool { return s.from <= ret && call <= s.until }

// faultStats has the number of faults of one name, and the slowest recovery from them.
type faultStats struct {
	n       int
	slowest time.Duration
}

// recordOutage records the time of a fault of a process or connection. If the fault may have
// separated a replica from Postgres, it also records an outage, which ends reconnectTime later. In
// this time a replica may still have no connection to Postgres, although its clients have answers
// again.
func (r *result) recordOutage(f fault, from, until time.Duration) {
	if f.target == operators {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, span{from, until})
	if !strings.Contains(f.name, "postgres") {
		return
	}
	r.outages = append(r.outages, span{from - clockMargin, until + reconnectTime})
}

// reconnectTime bounds how long a replica may still answer from memory after it can reach Postgres
// again. A refresh that hangs times out after 2 s.
const reconnectTime = 4 * time.Second

// outage reports whether a replica may have been without Postgres at some time of a call.
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

// A run with too few operations proves nothing. The base rate is the number of operations a second
// before the first fault. It must be at least baseFloor. After the first fault, the rate must be at
// least floor, or floorPart of the base rate if that is less: a slow machine also runs the system
// and the faults.
const (
	floor     = 100
	floorPart = 0.1
	baseFloor = 50
)

// The result of a run of proofTime or longer counts as a proof only if the run had at least
// proofOperations operations and proofFaults faults.
const (
	proofTime       = 20 * time.Minute
	proofOperations = 1_000_000
	proofFaults     = 500
)

// rate returns the operations a second since the first fault. The time in which a replica was
// frozen does not count, because each call that nginx passes to a frozen replica takes tryTimeout.
func (r *result) rate() float64 {
	return float64(r.operations-r.baseOperations-r.frozenOperations) / (r.lasted - r.baseUntil - r.frozenFor).Seconds()
}

// minUnfrozen is the least time without a frozen replica for which the rate is checked. The rate of
// a shorter time is too inexact.
const minUnfrozen = 2 * time.Second

// count takes the counters from the history and checks the rate.
func (r *result) count(h *history) {
	r.operations, r.reads, r.refused, r.tries = h.ops.Load(), h.reads.Load(), h.refused.Load(), h.tries.Load()
	r.unsure, r.unknown = h.unsure.Load(), h.unknown.Load()
	r.overHTTP, r.notModified = h.overHTTP.Load(), h.notModified.Load()
	if r.notModified == 0 {
		r.found.add(checkActivity, "no read over HTTP was answered with 304: that is no test")
	}
	slow := r.rate() < min(floor, floorPart*r.baseRate) && r.lasted-r.baseUntil-r.frozenFor >= minUnfrozen
	if r.baseRate < baseFloor || slow {
		r.found.add(checkActivity, "%.0f operations a second, %.0f before the first fault: too few for a test",
			r.rate(), r.baseRate)
	}
}

// checkConflicts checks that some bookings conflicted. verify calls it after it has counted the
// conflicts.
func (r *result) checkConflicts() {
	if r.conflicts == 0 {
		r.found.add(checkActivity, "no booking conflicted with another: the run proves nothing")
	}
}

// While the catalog is edited, the P99 of reads may be at most maxSlowdown times the P99 before the
// first fault, or slowRead if that is longer. A longer P99 means that edits block readers. The
// check needs at least leastEditReads reads.
const (
	maxSlowdown    = 10
	slowRead       = 500 * time.Millisecond
	leastEditReads = 200
)

// checkEdits checks the latency of reads while the catalog was edited. Reads during another fault
// do not count.
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
	r.editReads = fmt.Sprintf("%d reads, %d of them without another fault: P99 %s, %s before the first fault",
		len(reads), len(during), slow.Round(time.Millisecond), usual.Round(time.Millisecond))
	if len(during) >= leastEditReads && slow > max(slowRead, maxSlowdown*usual) {
		r.found.add(checkActivity, "reads were blocked while the catalog was edited: %s", r.editReads)
	}
}

// String returns the tables of a run.
func (r *result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nDL-SMS under faults: commit %s, seed %d, %s, %d clients\n\n",
		r.commit, r.plan.seed, r.lasted.Round(time.Second), clients)
	row := func(title, format string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", title, fmt.Sprintf(format, args...))
	}
	fmt.Fprint(&b, "| | |\n|---|---|\n")
	row("operations", "%d, %.0f a second, %.0f before the first fault, in %d tries",
		r.operations, r.rate(), r.baseRate, r.tries)
	row("operations over HTTP", "%d; %d of them answered with 304, which are %d reads of one seat that had to be fresh",
		r.overHTTP, r.notModified, r.judged304)
	row("acknowledged writes", "%d, %d of them lost", r.acknowledged+r.missing, r.missing)
	row("refused operations", "%d, %d of them conflicts over a seat, %d because the user was busy",
		r.refused, r.conflicts, r.busy)
	row("reads of one seat", "%d, %d of them had to be fresh; %d were as of an earlier time, and reported it",
		r.reads, r.judgedReads, r.oldReads)
	row("tries without an answer", "%d operations answered by a later try, %d never answered", r.unsure, r.unknown)
	row("unanswered operations, looked up in the database", "%d were done, %d were not", r.resolvedDone, r.resolvedNot)
	row("linearizability", "%d operations on %d seat-days, %d seat-days not linearizable",
		r.linear.operations, r.linear.partitions, len(r.linear.broken))
	row("answers to check-ins", "%s", r.checkInSummary())
	var transitions []string
	for _, kind := range slices.Sorted(maps.Keys(r.transitions)) {
		transitions = append(transitions, fmt.Sprintf("%d %s", r.transitions[kind], kind))
	}
	row("transitions", "%s", strings.Join(transitions, ", "))
	row("sums of reports", "%d events in %d hours", r.countedEvents, r.countedHours)
	row("exports of clients", "%d rows", r.exportedRows)
	row("streams", "%d notifications over streams opened %d times, %d of them over HTTP; "+
		"%d streams with missing or wrong messages", r.notifications, r.opened, r.openedHTTP, r.wrongStreams)
	row("all due transitions done", "%s after the last fault", r.settled.Round(time.Millisecond))
	row("bad rows by an operator", "%s", r.badRows)
	row("edits of the catalog", "%d, %s", r.edits, r.editReads)
	row("changes by a librarian",
		"%d closures, %d of them lifted; policies set %d times, strikes forgiven %d times, seats changed %d times, "+
			"and imported %d times",
		r.staff.closures, r.staff.lifted, r.staff.policies, r.staff.forgiven, r.staff.seats, r.staff.imports)
	row("faults", "%d", r.faults())
	row("violations", "%d", r.found.count())
	if r.plan.duration >= proofTime && (r.operations < proofOperations || r.faults() < proofFaults) {
		row("too short for a proof", "it needs %d operations and %d faults: use a longer DURATION",
			proofOperations, proofFaults)
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

// commit returns the commit of the work tree, or "unknown" outside of one.
func commit(ctx context.Context) string {
	describe := []string{"-c", "safe.directory=*", "describe", "--always", "--dirty", "--abbrev=12"}
	text, err := exec.CommandContext(ctx, "git", describe...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}
