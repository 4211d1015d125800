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
	rounds   map[kind]map[string][]measurement // by contender
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

// finding is the result of one load on one contender: medians over the rounds.
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
	name           string
	idle, during   []measurement
	ratios, logins []float64 // of P99; a second
}

// decoder is one way to decode an answer.
type decoder struct {
	name  string
	bytes int
	time  time.Duration
}

// add adds the finding of a load.
func (r *findings) add(k kind, c *contender, rounds []measurement) {
	f := finding{kind: k, contender: c.name, protocol: c.protocol()}
	var rps, cores []float64
	var p50, p95, p99 []time.Duration
	for _, m := range rounds {
		f.calls, f.failed = f.calls+m.calls, f.failed+m.failed
		f.parts = f.parts.plus(m.parts)
		rps, cores = append(rps, m.rps()), append(cores, m.cores())
		p50, p95, p99 = append(p50, m.percentile(50)), append(p95, m.percentile(95)), append(p99, m.percentile(99))
	}
	f.rps, f.cores, f.p50, f.p95, f.p99 = median(rps), median(cores), median(p50), median(p95), median(p99)
	f.parts = f.parts.each(f.calls)
	r.figures = append(r.figures, f)
	if r.rounds == nil {
		r.rounds = map[kind]map[string][]measurement{}
	}
	if r.rounds[k] == nil {
		r.rounds[k] = map[string][]measurement{}
	}
	r.rounds[k][c.name] = rounds
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

// ratio returns the ratio of a contender to another one, as the median over the rounds.
func (r *findings) ratio(k kind, of, to string, value func(measurement) float64) float64 {
	var ratios []float64
	for i, m := range r.rounds[k][of] {
		ratios = append(ratios, value(m)/value(r.rounds[k][to][i]))
	}
	return median(ratios)
}

// ratios returns the lowest and the highest ratio over the loads of a scenario.
func (r *findings) ratios(scenario, of, to string, value func(measurement) float64) (lowest, highest float64) {
	for i, k := range r.kinds(scenario) {
		x := r.ratio(k, of, to, value)
		if i == 0 {
			lowest, highest = x, x
		}
		lowest, highest = min(lowest, x), max(highest, x)
	}
	return lowest, highest
}

func perCall(of func(partTimes) time.Duration) func(measurement) float64 {
	return func(m measurement) float64 { return of(m.parts).Seconds() / float64(m.calls) }
}

var (
	rate       = func(m measurement) float64 { return m.rps() }
	systemCPU  = perCall(partTimes.system)
	servingCPU = perCall(func(t partTimes) time.Duration { return t[servicePart] + t[nginxPart] })
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
		p99 := r.find(k, nameB).p99
		r.goal(fmt.Sprintf("server-sent events, %d streams: P99 from the call to the client", k.clients), "≤ 100 ms",
			millis(p99), p99 > 0 && p99 <= 100*time.Millisecond)
	}
	for _, rush := range r.rushes {
		if rush.name == rushApart {
			r.atMost(fmt.Sprintf("P99 at %d/s beside %d logins, %s, divided by P99 alone", rushRate, rushClients, rush.name),
				median(rush.ratios), 3)
		}
	}
}

// micros formats the time of a call in µs.
func micros(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Nanoseconds())/1000, 'f', 0, 64) + " µs"
}
