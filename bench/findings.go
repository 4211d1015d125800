package main

import (
	"fmt"
	"strconv"
	"time"
)

// findings is the result of a comparison of the architectures.
type findings struct {
	*report

	about    about
	figures  []finding
	stale    []staleness
	rushes   []rush
	decoders []decoder
}

// kind says what a load does.
type kind struct {
	scenario string
	clients  int // 0: an open loop
	rate     int // calls a second; 0: a closed loop
}

// The scenarios.
const (
	reading   = "GetSeats"
	atRate    = "GetSeats at a rate"
	booking   = "CreateReservation"
	streaming = "WatchSeats, change to client"
)

func (k kind) String() string {
	if k.rate > 0 {
		return fmt.Sprintf("%s, %d a second", k.scenario, k.rate)
	}
	return fmt.Sprintf("%s, %d clients", k.scenario, k.clients)
}

// finding is the result of one load on one contender. The rate and the CPU are means over the rounds,
// the latencies are medians.
type finding struct {
	kind

	contender     string
	protocol      string
	calls, failed int
	rps           float64
	p50, p95, p99 time.Duration
	parts         partTimes // of a call
	cores         float64   // that were busy
}

// success returns the percentage of calls that did not fail.
func (f finding) success() float64 {
	return figure{calls: f.calls, failed: f.failed}.success()
}

// rush is GetSeats beside many logins.
type rush struct {
	name         string
	idle, during []measurement // by round
	logins       []float64     // a second, by round
}

// p99 returns the median of the P99 of the rounds.
func p99(rounds []measurement) time.Duration {
	all := make([]time.Duration, len(rounds))
	for i, m := range rounds {
		all[i] = m.percentile(99)
	}
	return median(all)
}

// ratio returns how many times as long reads take beside logins, by P99.
func (r rush) ratio() float64 { return p99(r.during).Seconds() / p99(r.idle).Seconds() }

// decoder is one way to decode an answer.
type decoder struct {
	name  string
	bytes int
	time  time.Duration
}

// add adds the finding of a load.
func (r *findings) add(k kind, c *contender, rounds []measurement) {
	f := finding{kind: k, contender: c.name, protocol: c.protocol()}
	var seconds float64
	var p50, p95, p99 []time.Duration
	for _, m := range rounds {
		f.calls, f.failed = f.calls+m.calls, f.failed+m.failed
		f.parts, seconds = f.parts.plus(m.parts), seconds+m.seconds
		p50, p95, p99 = append(p50, m.percentile(50)), append(p95, m.percentile(95)), append(p99, m.percentile(99))
	}
	f.rps, f.cores = float64(f.calls)/seconds, f.parts.total().Seconds()/seconds
	f.p50, f.p95, f.p99 = median(p50), median(p95), median(p99)
	f.parts = f.parts.each(f.calls)
	r.figures = append(r.figures, f)
}

// find returns the finding of a contender.
func (r *findings) find(k kind, contender string) finding {
	for _, f := range r.figures {
		if f.kind == k && f.contender == contender {
			return f
		}
	}
	return finding{kind: k, contender: contender}
}

// kinds returns the loads of a scenario, in the order in which they were measured.
func (r *findings) kinds(scenario string) (list []kind) {
	for _, f := range r.figures {
		if f.scenario == scenario && (len(list) == 0 || list[len(list)-1] != f.kind) {
			list = append(list, f.kind)
		}
	}
	return list
}

// typical returns the load in the middle of a scenario, for texts and the plot of parts.
func (r *findings) typical(scenario string) kind {
	list := r.kinds(scenario)
	if len(list) == 0 {
		return kind{scenario: scenario}
	}
	return list[(len(list)-1)/2]
}

// ratio returns the ratio of a contender to another one.
func (r *findings) ratio(k kind, of, to string, value func(finding) float64) float64 {
	return value(r.find(k, of)) / value(r.find(k, to))
}

// ratios returns the lowest and the highest ratio over the loads of a scenario.
func (r *findings) ratios(scenario, of, to string, value func(finding) float64) (lowest, highest float64) {
	for i, k := range r.kinds(scenario) {
		x := r.ratio(k, of, to, value)
		if i == 0 {
			lowest, highest = x, x
		}
		lowest, highest = min(lowest, x), max(highest, x)
	}
	return lowest, highest
}

// Values of a finding: the calls a second, and the CPU of a call in seconds.
var (
	rate       = func(f finding) float64 { return f.rps }
	systemCPU  = func(f finding) float64 { return f.parts.system().Seconds() }
	servingCPU = func(f finding) float64 { return (f.parts[servicePart] + f.parts[nginxPart]).Seconds() }
)

// conclude compares the findings with the goals.
func (r *findings) conclude() {
	list := r.kinds(reading)
	if len(list) == 0 {
		return
	}
	reads := fmt.Sprintf("GET /v1/seats, c = %d to %d", list[0].clients, list[len(list)-1].clients)
	_, stored := r.ratios(reading, nameB, nameLimitJSON, servingCPU)
	r.atMost(reads+": CPU of replicas and nginx, divided by stored JSON's", stored, 1.15)
	_, unchanged := r.ratios(reading, nameB304, nameB, systemCPU)
	r.atMost(reads+": CPU of a 304, divided by a 200's", unchanged, 0.6)
	micro, _ := r.ratios(reading, nameC, nameB, rate)
	r.atLeast(reads+": requests/s of microservices, divided by the monolith's", micro, 0.9)
	booked, _ := r.ratios(booking, nameB, nameA, rate)
	r.atLeast("POST /v1/reservations: bookings a second, divided by those over gRPC", booked, 0.9)

	var checked, stale int
	for _, s := range r.stale {
		if s.contender.gateway == nil {
			checked += s.busy.checked + s.burst.checked
			stale += s.busy.stale + s.burst.stale
		}
	}
	r.goal("stale answers without the cache (A to C)", "0", fmt.Sprintf("%d of %d", stale, checked),
		stale == 0 && checked > 0)

	for _, k := range r.kinds(streaming) {
		found := r.find(k, nameB).p99
		r.goal(fmt.Sprintf("server-sent events of B, %d streams: P99 from the call to the client", k.clients), "≤ 100 ms",
			millis(found), found > 0 && found <= 100*time.Millisecond)
	}
	for _, rush := range r.rushes {
		if rush.name == rushApart {
			r.atMost(fmt.Sprintf("P99 at %d/s beside %d logins, %s, divided by P99 alone", rushRate, rushClients, rush.name),
				rush.ratio(), 3)
		}
	}
}

// micros formats the time of a call in µs.
func micros(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Nanoseconds())/1000, 'f', 0, 64) + " µs"
}
