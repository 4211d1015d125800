package main

import (
	"encoding/csv"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// measured returns a measurement of a second with a CPU time of a call for the load generator, nginx
// and the services.
func measured(calls int, p99, load, nginx, services time.Duration) measurement {
	m := measurement{sample: sample{calls: calls, seconds: 1}}
	for range calls {
		m.latencies = append(m.latencies, p99)
	}
	m.parts[loadPart] = load * time.Duration(calls)
	m.parts[nginxPart] = nginx * time.Duration(calls)
	m.parts[servicePart] = services * time.Duration(calls)
	return m
}

// someFindings returns findings that meet all goals, except for the ones that change makes worse.
func someFindings(change func(*findings)) *findings {
	const us = time.Microsecond
	r := &findings{report: &report{}}
	web := func(name string) *contender { return &contender{name: name, http: true} }
	for _, clients := range []int{50, 100, 200} {
		k := kind{scenario: reading, clients: clients}
		wait := time.Duration(clients) * time.Millisecond / 5
		r.add(k, &contender{name: nameA}, []measurement{measured(400, wait, 400*us, 40*us, 60*us)})
		r.add(k, web(nameB), []measurement{measured(800, wait/2, 100*us, 40*us, 70*us)})
		r.add(k, web(nameB304), []measurement{measured(900, wait/2, 80*us, 30*us, 30*us)})
		r.add(k, web(nameC), []measurement{measured(760, wait/2, 100*us, 40*us, 80*us)})
		r.add(k, web(nameD), []measurement{measured(1600, wait/4, 100*us, 0, 10*us)})
		r.add(k, &contender{name: nameLimit}, []measurement{measured(450, wait, 400*us, 40*us, 45*us)})
		r.add(k, web(nameLimitJSON), []measurement{measured(850, wait/2, 100*us, 40*us, 60*us)})
	}
	for _, name := range contenderNames {
		r.add(kind{scenario: atRate, rate: 500}, web(name), []measurement{measured(500, 2*time.Millisecond, us, us, us)})
	}
	book := kind{scenario: booking, clients: 50}
	r.add(book, &contender{name: nameA}, []measurement{measured(300, us, us, us, us)})
	r.add(book, web(nameB), []measurement{measured(280, us, us, us, us)})
	events := kind{scenario: streaming, clients: 1000}
	r.add(events, web(nameB), []measurement{measured(9, 80*time.Millisecond, us, us, us)})
	for _, name := range []string{nameA, nameB, nameB304, nameC} {
		right := staleness{contender: web(name), busy: staleCount{checked: 25_000}, burst: staleCount{checked: 10}}
		r.stale = append(r.stale, right)
	}
	d := web(nameD)
	d.gateway = &goGateway{}
	r.stale = append(r.stale, staleness{
		contender: d, busy: staleCount{checked: 1000, stale: 31, greatest: 40 * time.Millisecond},
		burst: staleCount{checked: 10, stale: 1, greatest: 58 * time.Second}, begun: 59 * time.Second,
	})
	idle := measured(9, time.Millisecond, us, us, us)
	for _, x := range []struct {
		name  string
		times int
	}{{"monolith", 50}, {rushApart, 2}, {"auth apart, same weight", 20}} {
		during := measured(9, time.Duration(x.times)*time.Millisecond, us, us, us)
		r.rushes = append(r.rushes, rush{
			x.name, []measurement{idle}, []measurement{during}, []float64{9.5},
		})
	}
	r.decoders = []decoder{{"protobuf", 3000, 20 * us}, {"JSON", 9000, 150 * us}}
	if change != nil {
		change(r)
	}
	r.conclude()
	return r
}

// replaceRounds replaces what was measured of a contender.
func (r *findings) replaceRounds(k kind, name string, m measurement) {
	i := slices.IndexFunc(r.figures, func(f finding) bool { return f.kind == k && f.contender == name })
	r.add(k, &contender{name: name}, []measurement{m})
	last := len(r.figures) - 1
	r.figures[i], r.figures = r.figures[last], r.figures[:last]
}

func TestGoalsOfComparison(t *testing.T) {
	t.Parallel()
	const us = time.Microsecond
	reads := kind{scenario: reading, clients: 200}
	const (
		getSeats  = "GET /v1/seats, c = 50 to 200: "
		rushReads = "P99 at 200/s beside 100 logins, auth apart, nice 10, "
	)
	missed := func(change func(*findings)) (list []string) {
		r := someFindings(change)
		if len(r.goals) != 7 {
			t.Errorf("%d goals, want 7", len(r.goals))
		}
		for _, g := range r.goals {
			if !g.met {
				list = append(list, g.name+" is "+g.got)
			}
		}
		return list
	}
	if got := missed(nil); len(got) != 0 {
		t.Errorf("missed: %q", got)
	}
	for want, change := range map[string]func(*findings){
		getSeats + "CPU of replicas and nginx, divided by stored JSON's is 1.20": func(r *findings) {
			r.replaceRounds(reads, nameB, measured(800, us, 9*us, 40*us, 80*us))
		},
		getSeats + "CPU of a 304, divided by a 200's is 0.64": func(r *findings) {
			r.replaceRounds(reads, nameB304, measured(900, us, 9*us, 30*us, 40*us))
		},
		getSeats + "requests/s of microservices, divided by the monolith's is 0.50": func(r *findings) {
			r.replaceRounds(reads, nameC, measured(400, us, us, us, us))
		},
		"POST /v1/reservations: bookings a second, divided by those over gRPC is 0.80": func(r *findings) {
			r.replaceRounds(kind{scenario: booking, clients: 50}, nameB, measured(240, us, us, us, us))
		},
		"stale answers without the cache (A to C) is 1 of 100040": func(r *findings) { r.stale[3].burst.stale = 1 },
		"server-sent events of B, 1000 streams: P99 from the call to the client is 120 ms": func(r *findings) {
			r.replaceRounds(kind{scenario: streaming, clients: 1000}, nameB, measured(9, 120*time.Millisecond, us, us, us))
		},
		rushReads + "divided by P99 alone is 4.00": func(r *findings) {
			r.rushes[1].during = []measurement{measured(9, 4*time.Millisecond, us, us, us)}
		},
	} {
		if got := missed(change); len(got) != 1 || got[0] != want {
			t.Errorf("missed: %q, want %q", got, want)
		}
	}
}

// TestCoresFollowFromCPUOfCall checks the equation that the page explains: requests a second × CPU
// of a call = busy cores.
func TestCoresFollowFromCPUOfCall(t *testing.T) {
	t.Parallel()
	for _, f := range someFindings(nil).figures {
		if got := f.rps * f.parts.total().Seconds(); got < f.cores-0.001 || got > f.cores+0.001 {
			t.Errorf("%s of %s: %g requests a second × %s are %.3f cores, want %.3f", f.kind, f.contender, f.rps,
				f.parts.total(), got, f.cores)
		}
	}
}

// TestComparisonPage checks the form of a page: tables have the same number of cells in each row,
// no line is too long, and links inside the page have a heading.
func TestComparisonPage(t *testing.T) {
	t.Parallel()
	r := someFindings(nil)
	text := r.text(t)
	headings := map[string]bool{}
	for line := range strings.Lines(text) {
		if heading, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			headings[strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(heading), " ", "-"), ",", "")] = true
		}
	}
	columns := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > 120 {
			t.Errorf("a line has %d columns: %s", n, line)
		}
		cells := strings.Count(line, "|")
		if columns > 0 && cells > 0 && cells != columns {
			t.Errorf("a row has %d cells, and its table %d: %s", cells-1, columns-1, line)
		}
		columns = cells
		if strings.Contains(line, "%!") || strings.Contains(line, "NaN") {
			t.Errorf("a value is missing: %s", line)
		}
		for _, link := range strings.Split(line, "](#")[1:] {
			if anchor, _, _ := strings.Cut(link, ")"); !headings[anchor] {
				t.Errorf("a link to #%s, which is no heading", anchor)
			}
		}
	}
	for _, want := range []string{
		"With 100 clients, ghz takes 400 µs a call and hey 100 µs;",
		"a read over HTTP/JSON takes 10% more than one over gRPC.",
		"With it, 3.10% of the answers after an acknowledged change were stale, by at most 40 ms,",
		"and a list did not show the start of a reservation for 59.0 s.",
		"The topology alone changes the reads a second by a factor of 0.95 to 0.95 here.",
		"| B | 100 | 100 | 40 | 0 | 70 | 0 | 0 | 210 | 110 | 0.17 |",
		"| D | 1000 | 31 | 3.10% | 40 ms | 10 | 1 | 58.0 s | 59.0 s |",
		"| monolith | 1.0 | 50.0 | 50.0 | 9.5 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q:\n%s", want, text)
		}
	}

	if strings.Contains(text, "This run failed") {
		t.Error("a page of a run without faults says that it failed")
	}
	r.fault("reads on B: 3 calls failed")
	if text := r.text(t); !strings.Contains(text, "## This run failed\n\n- reads on B: 3 calls failed\n") {
		t.Error("the page does not name a fault")
	}
}

func (r *findings) text(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	if err := r.markdown(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestComparisonInWords(t *testing.T) {
	t.Parallel()
	for ratio, want := range map[float64]string{
		0.5: "50% less than", 0.971: "as much as", 1.02: "as much as", 1.12: "12% more than", 2.04: "2.0 times as much as",
	} {
		if got := against(ratio); got != want {
			t.Errorf("a ratio of %g is %q, want %q", ratio, got, want)
		}
	}
	for _, c := range []struct {
		d       time.Duration
		limited bool
		want    string
	}{
		{0, false, "0.0 ms"}, {4 * time.Millisecond, false, "4.0 ms"}, {59400 * time.Millisecond, false, "59.4 s"},
		{2 * time.Second, true, "more than 2.0 s"},
	} {
		if got := age(c.d, c.limited); got != c.want {
			t.Errorf("an age of %s is %q, want %q", c.d, got, c.want)
		}
	}
}

// TestPlotsOfComparison draws all plots.
func TestPlotsOfComparison(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := write(someFindings(nil), dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"throughput", "p95", "p99", "cpu", "latency"} {
		for _, format := range []string{".svg", ".png"} {
			if info, err := os.Stat(dir + "/" + name + format); err != nil || info.Size() < 1000 {
				t.Errorf("%s%s: %v", name, format, err)
			}
		}
	}
	rows, err := csv.NewReader(open(t, dir+"/figures.csv")).ReadAll()
	if err != nil || len(rows) != len(someFindings(nil).figures)+1 {
		t.Errorf("figures.csv has %d rows, %v", len(rows), err)
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestComparisonHasTextsOfReport checks docs/comparison: README.md has the texts that a comparison
// writes now, and the figures of figures.csv.
func TestComparisonHasTextsOfReport(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/comparison/README.md")
	if err != nil {
		t.Fatal(err)
	}
	rest := string(page)
	for _, text := range []string{
		studyIntroduction, subjectTable, claimsHead, throughputHead, cpuHead, latencyHead, freshHead, bookedHead,
		streamedHead, rushedHead, decodedHead, studyMethod,
	} {
		_, after, found := strings.Cut(rest, text)
		if !found {
			t.Fatalf("README.md does not have this text, or not in this order: run `make compare`\n%s", text)
		}
		rest = after
	}
	rows, err := csv.NewReader(open(t, "../docs/comparison/figures.csv")).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rows[0], studyColumns()) {
		t.Errorf("figures.csv has the columns %q", rows[0])
	}
	for _, row := range rows[1:] {
		cells := map[string]string{}
		for i, name := range rows[0] {
			cells[name] = row[i]
		}
		if cells["scenario"] != reading {
			continue
		}
		want := strings.Join([]string{cells["p50_ms"], cells["p95_ms"], cells["p99_ms"], cells["success_percent"]}, " | ")
		if !strings.Contains(string(page), "| "+cells["subject"]+" | "+cells["clients"]+" | ") ||
			!strings.Contains(string(page), want) {
			t.Errorf("README.md has no row of %s with %s clients and %s", cells["subject"], cells["clients"], want)
		}
	}
}
