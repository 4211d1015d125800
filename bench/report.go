package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// report is the result of a run.
type report struct {
	about   about
	figures []figure
	against []comparison
	goals   []goal
	faults  []string
}

// goal is a goal and the measured value.
type goal struct {
	name, want, got string
	met             bool
}

func (r *report) add(f figure) { r.figures = append(r.figures, f) }

func (r *report) compare(c comparison) { r.against = append(r.against, c) }

// fault records a failure, which invalidates the run.
func (r *report) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

func (r *report) goal(name, want, got string, met bool) {
	r.goals = append(r.goals, goal{name, want, got, met})
}

func (r *report) atLeast(name string, got, want float64) {
	r.goal(name, fmt.Sprintf("≥ %g", want), fmt.Sprintf("%.2f", got), got >= want)
}

func (r *report) atMost(name string, got, want float64) {
	r.goal(name, fmt.Sprintf("≤ %g", want), fmt.Sprintf("%.2f", got), got <= want)
}

// document is a report that can be written into a directory.
type document interface {
	markdown(w io.Writer) error
	csv(w io.Writer) error
	plot(dir string) error
}

// write writes the summary, the figures and the plots of d into a directory.
func write(d document, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := toFile(filepath.Join(dir, "README.md"), d.markdown); err != nil {
		return err
	}
	if err := toFile(filepath.Join(dir, "figures.csv"), d.csv); err != nil {
		return err
	}
	return d.plot(dir)
}

func toFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	return write(f)
}

// goalTable returns the table of goals in Markdown.
func (r *report) goalTable() string {
	var b strings.Builder
	b.WriteString("| | goal | measured | |\n|---|---|---|---|\n")
	for _, g := range r.goals {
		outcome := "**missed**"
		if g.met {
			outcome = "met"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", g.name, g.want, g.got, outcome)
	}
	return b.String()
}

// Texts of the summary, in Markdown.
const (
	introduction = `This page is for an engineer who wants to know how fast DL-SMS is.
Run ` + "`make bench`" + ` to write it for your machine.

The load generator (ghz), nginx, three replicas, Postgres and Redis share the cores of one machine.
So compare ratios, and not the figures of different machines.

The *limit* is the most that this setup can reach: three replicas behind the same nginx,
without users, rules, logs and metrics.
Its GetSeats answers with stored bytes of the same size, and its CreateReservation is one INSERT.
DL-SMS and the limit run at the same time and are measured in turns.

[changes.md](changes.md) lists the effect of each optimization.
` + "`make bench-profiles`" + ` writes the [profiles](profiles).
`
	ratioHeader = `Each round gives one ratio. The table shows the median of the rounds.
CPU is the CPU time that replicas, nginx and Postgres together use for one call.
*DL-SMS* runs with the demo library, and *Big DL-SMS* with the many seats and reservations of the goals.

| scenario | clients | ratio of | RPS | P50 | P95 | P99 | CPU | CPU of replicas |
|---|---|---|---|---|---|---|---|---|
`
	figureHeader = `CPU is in µs a call; a CPU of 0 was not measured. Latencies are in ms, as a client sees them.

| scenario | clients | replicas | system | RPS | P50 | P95 | P99 | success | calls | CPU: replicas | nginx | Postgres |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
`
)

func (r *report) markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\n" + introduction + "\n")
	fmt.Fprintf(&b, "%s\n", r.about)
	if len(r.faults) > 0 {
		b.WriteString("## This run failed\n\n")
		for _, f := range r.faults {
			fmt.Fprintf(&b, "- %s\n", f)
		}
		b.WriteString("\n")
	}
	b.WriteString("## Goals\n\n" + r.goalTable() + "\n")
	b.WriteString("## Against the limit\n\n" + ratioHeader)
	for _, c := range r.against {
		fmt.Fprintf(
			&b, "| %s | %d | %s to %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |\n", c.figures[0].scenario,
			c.figures[0].clients, c.figures[0].subject, c.figures[1].subject, c.rps, c.p50, c.p95, c.p99, c.cpu, c.cpuReplica,
		)
	}
	b.WriteString("\n## All figures\n\n" + figureHeader)
	for _, f := range r.figures {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(f.cells(), " | "))
	}
	b.WriteString("\n![throughput](throughput.svg)\n![P95](p95.svg)\n![P99 under the mix](mix-p99.svg)\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// columns are the columns of figures.csv.
var columns = []string{
	"scenario", "concurrency", "replicas", "subject", "rps", "p50_ms", "p95_ms", "p99_ms", "success_percent", "calls",
	"cpu_replicas_us", "cpu_nginx_us", "cpu_postgres_us",
}

func (f figure) cells() []string {
	ms := func(d time.Duration) string { return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 1, 64) }
	us := func(d time.Duration) string { return strconv.FormatFloat(float64(d.Nanoseconds())/1000, 'f', 0, 64) }
	return []string{
		f.scenario, strconv.Itoa(f.clients), strconv.Itoa(f.replicas), f.subject, strconv.FormatFloat(f.rps, 'f', 1, 64),
		ms(f.p50), ms(f.p95), ms(f.p99), strconv.FormatFloat(f.success(), 'f', 2, 64), strconv.Itoa(f.calls),
		us(f.cpu.replicas), us(f.cpu.nginx), us(f.cpu.postgres),
	}
}

func (r *report) csv(w io.Writer) error {
	out := csv.NewWriter(w)
	rows := [][]string{columns}
	for _, f := range r.figures {
		rows = append(rows, f.cells())
	}
	return out.WriteAll(rows)
}
