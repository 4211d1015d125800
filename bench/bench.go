package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// scale is the size of a run.
type scale struct {
	rounds        int
	warm, measure time.Duration
	readClients   []int // numbers of GetSeats clients
	bookClients   []int // numbers of CreateReservation clients
	stampedes     int
	streams       int
	idleTime      time.Duration
	growth        growth
}

// growth is the size of the big library in the scenario growth.
type growth struct {
	seats, branches        int
	reservations, upcoming int // reservations is the total, with the upcoming ones
}

var (
	full = scale{
		rounds:      3,
		warm:        2 * time.Second,
		measure:     8 * time.Second,
		readClients: []int{50, 100, 150, 200},
		bookClients: []int{50, 150},
		stampedes:   10,
		streams:     3000,
		idleTime:    30 * time.Second,
		growth:      growth{50_000, 300, 5_000_000, 500_000},
	}
	quick = scale{
		rounds: 1, warm: time.Second, measure: 3 * time.Second,
		readClients: []int{50, 200}, bookClients: []int{50, 150}, stampedes: 3, streams: 600, idleTime: 5 * time.Second,
		growth: growth{5_000, 30, 100_000, 10_000},
	}
)

// bench is a run of the benchmark. It compares two systems. ours is DL-SMS. limit is the same setup
// with minimal replicas (bench/limit) in place of those of DL-SMS.
type bench struct {
	scale
	ours, limit *subject
	// certificates is the directory of the certificate of ours.
	certificates string
	report       *report
	out          io.Writer
	began        time.Time
}

// progress writes a line of progress.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.out, "%6s  %s\n", time.Since(b.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// figure is the result of one scenario over all rounds.
type figure struct {
	scenario string
	clients  int
	subject  string
	replicas int
	calls    int // in all rounds
	failed   int
	refused  int // answered with a code of load.allowed
	// rps and the latencies are medians over the rounds.
	rps           float64
	p50, p95, p99 time.Duration
	cpu           cpuTimes // per call
}

// success returns the percentage of calls that did not fail.
func (f figure) success() float64 {
	all := f.calls + f.refused + f.failed
	if all == 0 {
		return 0
	}
	return 100 * float64(all-f.failed) / float64(all)
}

// comparison has the figures of one scenario on two subjects, the measured systems. The other
// fields are ratios of the first subject to the second, as medians over the rounds.
type comparison struct {
	figures    [2]figure
	rps        float64
	p50, p95   float64
	p99        float64
	cpu        float64 // all processes, per call
	cpuReplica float64
}

// compare runs one scenario on two subjects in turn, so that other activity of the machine affects
// both. loadOf returns the load for a subject. A failed call is reported as a fault, which fails
// the run.
func (b *bench) compare(ctx context.Context, scenario string, clients int, subjects [2]*subject,
	loadOf func(s *subject) (load, error),
) (comparison, error) {
	var samples [2][]sample
	for round := range b.rounds {
		for i := range subjects {
			i = (i + round) % 2
			s := subjects[i]
			l, err := loadOf(s)
			if err != nil {
				return comparison{}, fmt.Errorf("%s: %w", scenario, err)
			}
			sample, err := l.run(ctx, s)
			if err != nil {
				return comparison{}, fmt.Errorf("%s on %s: %w", scenario, s.name, err)
			}
			b.progress("%s, %d clients, %s, round %d of %d: %s, P95 %s, P99 %s", scenario, clients, s.name, round+1, b.rounds,
				perSecond(sample.rps()), millis(sample.percentile(95)), millis(sample.percentile(99)))
			if err := sample.failure(); err != nil {
				b.report.fault("%s with %d clients on %s: %v", scenario, clients, s.name, err)
			}
			samples[i] = append(samples[i], sample)
		}
	}
	var c comparison
	for i, s := range subjects {
		c.figures[i] = summary(scenario, clients, s, samples[i])
		b.report.add(c.figures[i])
	}
	ratio := func(of func(sample) float64) float64 {
		ratios := make([]float64, b.rounds)
		for round := range ratios {
			ratios[round] = of(samples[0][round]) / of(samples[1][round])
		}
		return median(ratios)
	}
	at := func(p float64) func(sample) float64 {
		return func(s sample) float64 { return s.percentile(p).Seconds() }
	}
	c.rps, c.p50, c.p95, c.p99 = ratio(sample.rps), ratio(at(50)), ratio(at(95)), ratio(at(99))
	c.cpu = ratio(func(s sample) float64 { return s.cpu.total().Seconds() / float64(s.calls) })
	c.cpuReplica = ratio(func(s sample) float64 { return s.cpu.replicas.Seconds() / float64(s.calls) })
	b.report.compare(c)
	return c, nil
}

func summary(scenario string, clients int, s *subject, samples []sample) figure {
	f := figure{scenario: scenario, clients: clients, subject: s.name, replicas: len(s.Replicas)}
	var rps []float64
	var p50, p95, p99 []time.Duration
	var cpu cpuTimes
	for _, s := range samples {
		f.calls += s.calls
		f.failed += s.failed
		f.refused += s.refused
		rps = append(rps, s.rps())
		p50, p95, p99 = append(p50, s.percentile(50)), append(p95, s.percentile(95)), append(p99, s.percentile(99))
		cpu.replicas += s.cpu.replicas
		cpu.nginx += s.cpu.nginx
		cpu.postgres += s.cpu.postgres
	}
	f.rps, f.p50, f.p95, f.p99 = median(rps), median(p50), median(p95), median(p99)
	if n := time.Duration(f.calls); n > 0 {
		f.cpu = cpuTimes{cpu.replicas / n, cpu.nginx / n, cpu.postgres / n}
	}
	return f
}

// median returns the middle value. If the number of values is even, it returns the lower of the two
// middle values.
func median[T cmp.Ordered](values []T) T {
	var zero T
	if len(values) == 0 {
		return zero
	}
	return slices.Sorted(slices.Values(values))[(len(values)-1)/2]
}

// millis formats a latency.
func millis(d time.Duration) string {
	switch ms := float64(d.Microseconds()) / 1000; {
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	default:
		return fmt.Sprintf("%.0f ms", ms)
	}
}
