package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// studyColumns are the columns of figures.csv. The last ones are the parts of a call's CPU time.
func studyColumns() []string {
	all := []string{
		"scenario", "subject", "protocol", "clients", "rate", "requests_per_second", "p50_ms", "p95_ms", "p99_ms",
		"success_percent", "calls", "cores_busy", "cpu_us",
	}
	for _, name := range partNames {
		all = append(all, "cpu_"+strings.ReplaceAll(strings.ToLower(name), " ", "_")+"_us")
	}
	return all
}

func (f finding) cells() []string {
	all := []string{
		f.scenario, f.contender, f.protocol, strconv.Itoa(f.clients), strconv.Itoa(f.rate), number(f.rps, 1), inMillis(f.p50),
		inMillis(f.p95), inMillis(f.p99), number(f.success(), 2), strconv.Itoa(f.calls), number(f.cores, 2),
		inMicros(f.parts.total()),
	}
	for _, d := range f.parts {
		all = append(all, inMicros(d))
	}
	return all
}

func (r *findings) csv(w io.Writer) error {
	rows := [][]string{studyColumns()}
	for _, f := range r.figures {
		rows = append(rows, f.cells())
	}
	return csv.NewWriter(w).WriteAll(rows)
}

func number(x float64, decimals int) string { return strconv.FormatFloat(x, 'f', decimals, 64) }

func inMillis(d time.Duration) string { return number(d.Seconds()*1e3, 1) }

func inMicros(d time.Duration) string { return number(d.Seconds()*1e6, 0) }

// whole formats a rate without its unit.
func whole(x float64) string { return strings.TrimSuffix(perSecond(x), "/s") }

// against says how a ratio differs from 1, such as "12% more than".
func against(ratio float64) string {
	switch percent := 100 * (ratio - 1); {
	case ratio >= 2:
		return number(ratio, 1) + " times as much as"
	case percent >= 3:
		return number(percent, 0) + "% more than"
	case percent <= -3:
		return number(-percent, 0) + "% less than"
	default:
		return "as much as"
	}
}

// page builds a page in Markdown.
type page struct{ strings.Builder }

func (p *page) printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }

// table writes the head of a table.
func (p *page) table(columns ...string) {
	p.row(columns...)
	p.printf("|%s\n", strings.Repeat("---|", len(columns)))
}

func (p *page) row(cells ...string) { p.printf("| %s |\n", strings.Join(cells, " | ")) }

func (r *findings) markdown(w io.Writer) error {
	p := &page{}
	p.printf("# Comparison of the architectures\n\n%s\n%s\n", studyIntroduction, r.about)
	if len(r.faults) > 0 {
		p.printf("## This run failed\n\n")
		for _, f := range r.faults {
			p.printf("- %s\n", f)
		}
		p.printf("\n")
	}
	for _, section := range []func(*page){
		r.conclusions, r.subjects, r.claims, r.throughput, r.cpu, r.latency, r.fresh, r.booked, r.streamed, r.rushed,
		r.decoded,
	} {
		section(p)
		p.printf("\n")
	}
	p.printf("## Goals\n\n%s\n%s", r.goalTable(), studyMethod)
	_, err := io.WriteString(w, p.String())
	return err
}

// conclusions writes what a reader should remember.
func (r *findings) conclusions(p *page) {
	k := r.typical(reading)
	a, b, c, d := r.find(k, nameA), r.find(k, nameB), r.find(k, nameC), r.find(k, nameD)
	p.printf("## Conclusions\n\n")
	p.printf("1. **Requests a second also measure the load generator.** All processes share %d cores.\n"+
		"   With %d clients, ghz takes %s a call and hey %s;\n"+
		"   the gRPC monolith itself takes %s, and the HTTP/JSON monolith %s.\n",
		runtime.NumCPU(), k.clients, micros(a.parts[loadPart]), micros(b.parts[loadPart]),
		micros(a.parts.system()), micros(b.parts.system()))
	r.concludeProtocol(p, k)
	r.concludeTopology(p, k)
	p.printf("4. **Cache:** a read takes %s with the gateway and its cache of 60 s, and %s without.\n",
		micros(d.parts.system()), micros(c.parts.system()))
	if s, ok := r.cached(); ok {
		p.printf("   With it, %s of the answers after an acknowledged change were stale, by at most %s,\n"+
			"   and a list did not show the start of a reservation for %s.\n",
			portion(s.busy), age(s.busy.greatest, false), age(s.begun, s.limited))
	}
	p.printf("5. **Instead of a cache:** a request with `If-None-Match` takes %s instead of %s if nothing has changed,\n"+
		"   and its answer is as fresh as any other.\n",
		micros(r.find(k, nameB304).parts.system()), micros(b.parts.system()))
	low, high := r.ratios(reading, nameC, nameB, rate)
	p.printf("6. **Do REST microservices scale better?** The measurement of the slides cannot show it,\n"+
		"   because it changes tool, protocol, topology and cache at once.\n"+
		"   The topology alone changes the reads a second by a factor of %.2f to %.2f here.\n", low, high)
}

// each writes a value for each load of a scenario, such as "3.2, 3.1 and 7.4".
func (r *findings) each(scenario string, value func(kind) string) string {
	var all []string
	for _, k := range r.kinds(scenario) {
		all = append(all, value(k))
	}
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	return strings.Join(all[:len(all)-1], ", ") + " and " + all[len(all)-1]
}

func (r *findings) concludeProtocol(p *page, k kind) {
	a, b := r.find(k, nameA), r.find(k, nameB)
	p.printf("2. **Protocol:** without the CPU of ghz and hey, a read over HTTP/JSON takes %s one over gRPC.\n",
		against(r.ratio(k, nameB, nameA, systemCPU)))
	p99 := func(name string) string {
		return r.each(atRate, func(k kind) string { return inMillis(r.find(k, name).p99) })
	}
	p.printf("   With the same load generator for both, it takes %s of the CPU of one over gRPC\n"+
		"   at %s reads a second.\n   P99 is %s ms over gRPC, and %s ms over HTTP/JSON.\n",
		r.each(atRate, func(k kind) string { return number(100*r.ratio(k, nameB, nameA, systemCPU), 0) + "%" }),
		r.each(atRate, func(k kind) string { return strconv.Itoa(k.rate) }), p99(nameA), p99(nameB))
	if len(r.decoders) > 1 {
		binary, text := r.decoders[0], r.decoders[1]
		p.printf("   An answer has %d bytes in protobuf and %d in JSON; a Go client decodes it in %s and %s.\n"+
			"   Together with this work of the client, a read takes %s over gRPC and %s over HTTP/JSON.\n",
			binary.bytes, text.bytes, micros(binary.time), micros(text.time),
			micros(a.parts.system()+binary.time), micros(b.parts.system()+text.time))
	}
}

func (r *findings) concludeTopology(p *page, k kind) {
	p.printf("3. **Topology:** a read takes %s in microservices, where one process serves all reads,\n"+
		"   and %s in the monolith, where three replicas do, over the same protocol.\n",
		micros(r.find(k, nameC).parts.system()), micros(r.find(k, nameB).parts.system()))
	if list := r.kinds(atRate); len(list) > 0 {
		last := list[len(list)-1]
		p.printf("   One process has less room: at %d reads a second its P95 is %s ms, and that of the replicas %s ms.\n",
			last.rate, inMillis(r.find(last, nameC).p95), inMillis(r.find(last, nameB).p95))
	}
	p.printf("   Microservices isolate: see [a login rush](#a-login-rush).\n")
}

func portion(c staleCount) string {
	if c.stale == 0 {
		return "none"
	}
	return number(100*float64(c.stale)/float64(max(c.checked, 1)), 2) + "%"
}

// age formats the age of a list. limited says that the check ended earlier than the list was right.
func age(d time.Duration, limited bool) string {
	text := millis(d)
	if d >= time.Second {
		text = number(d.Seconds(), 1) + " s"
	}
	if limited {
		text = "more than " + text
	}
	return text
}

// claims writes what the original says, and what was measured.
func (r *findings) claims(p *page) {
	p.printf("## The slides, the measurements, and the reasons\n\n%s\n", claimsHead)
	p.table("", "the slides say", "measured here", "why")
	list := r.kinds(reading)
	if len(list) == 0 {
		return
	}
	first, last := list[0], list[len(list)-1]
	lowB, highB := r.ratios(reading, nameB, nameA, rate)
	lowD, highD := r.ratios(reading, nameD, nameA, rate)
	p.row("1", "REST: 7 to 8 times gRPC's requests/s",
		fmt.Sprintf("D: %.1f to %.1f times A's; B: %.1f to %.1f times", lowD, highD, lowB, highB),
		"tool, protocol, cache")
	p95 := func(k kind, name string) string { return inMillis(r.find(k, name).p95) }
	p.row("2", "gRPC's P95 rises from 508 to 1,310 ms",
		fmt.Sprintf("A: from %s to %s ms; B: from %s to %s ms", p95(first, nameA), p95(last, nameA), p95(first, nameB),
			p95(last, nameB)), "closed loop")
	var calls, failed int
	for _, k := range list {
		a := r.find(k, nameA)
		calls, failed = calls+a.calls, failed+a.failed
	}
	p.row("3", "0.5 to 3.4% of the gRPC calls fail", fmt.Sprintf("A: %d of %d", failed, calls), "limits of a proxy")
	k := r.typical(reading)
	withCache, _ := r.cached()
	p.row("4", "the seat list is cached for 60 s",
		fmt.Sprintf("D: %s C's CPU; stale answers: %s", against(r.ratio(k, nameD, nameC, systemCPU)),
			portion(withCache.busy)), "race, time")
	p.row("5", "the conclusion rests on requests/s", r.equalRateEffect(), "CPU of a call")
	a, b, d := r.find(k, nameA), r.find(k, nameB), r.find(k, nameD)
	light := a.parts.system() + b.parts[loadPart]
	p.printf("\n"+claimsWhy, micros(a.parts[loadPart]), micros(b.parts[loadPart]),
		light.Seconds()/d.parts.total().Seconds())
}

// cached returns the stale answers of the subject with the cache. ok is false if it was not measured.
func (r *findings) cached() (s staleness, ok bool) {
	i := slices.IndexFunc(r.stale, func(s staleness) bool { return s.contender.gateway != nil })
	if i < 0 {
		return staleness{}, false
	}
	return r.stale[i], true
}

// equalRateEffect compares the latencies at the highest rate.
func (r *findings) equalRateEffect() string {
	list := r.kinds(atRate)
	if len(list) == 0 {
		return ""
	}
	k := list[len(list)-1]
	var texts []string
	for _, name := range []string{nameA, nameB, nameC, nameD} {
		texts = append(texts, name+" "+inMillis(r.find(k, name).p99))
	}
	return fmt.Sprintf("P99 at %d/s, ms: %s", k.rate, strings.Join(texts, ", "))
}

func (r *findings) subjects(p *page) { p.printf("## Subjects\n\n%s", subjectTable) }

// throughput writes the original's table and its plots.
func (r *findings) throughput(p *page) {
	p.printf("## The original's table\n\n%s\n", throughputHead)
	p.table("subject", "clients", "requests/s", "P50, ms", "P95, ms", "P99, ms", "success, %")
	for _, f := range r.figures {
		if f.scenario == reading {
			p.row(f.contender, strconv.Itoa(f.clients), whole(f.rps), inMillis(f.p50), inMillis(f.p95), inMillis(f.p99),
				number(f.success(), 2))
		}
	}
	p.printf("\n![requests a second](throughput.svg)\n![P95](p95.svg)\n![P99](p99.svg)\n")
}

// cpu writes the processor time of a call by part.
func (r *findings) cpu(p *page) {
	p.printf("## CPU of a call\n\n%s\n", cpuHead)
	p.table(append(append([]string{"subject", "clients"}, partNames[:]...), "sum", "system", "cores")...)
	for _, f := range r.figures {
		if f.scenario != reading {
			continue
		}
		cells := []string{f.contender, strconv.Itoa(f.clients)}
		for _, d := range f.parts {
			cells = append(cells, inMicros(d))
		}
		p.row(append(cells, inMicros(f.parts.total()), inMicros(f.parts.system()), number(f.cores, 2))...)
	}
	p.printf("\n![CPU of a call](cpu.svg)\n")
}

// latency writes the latencies at equal rates.
func (r *findings) latency(p *page) {
	p.printf("## Latency at equal rates\n\n%s\n", latencyHead)
	p.table("calls/s", "subject", "P50, ms", "P95, ms", "P99, ms", "cores busy")
	for _, f := range r.figures {
		if f.scenario == atRate {
			p.row(strconv.Itoa(f.rate), f.contender, number(f.p50.Seconds()*1e3, 2), number(f.p95.Seconds()*1e3, 2),
				number(f.p99.Seconds()*1e3, 2), number(f.cores, 2))
		}
	}
	p.printf("\n![P99 at equal rates](latency.svg)\n")
}

// fresh writes the stale answers.
func (r *findings) fresh(p *page) {
	p.printf("## Stale answers\n\n%s\n", freshHead)
	p.table("subject", "answers", "stale", "share", "oldest", "bursts", "stale bursts", "oldest in bursts",
		"after the start")
	for _, s := range r.stale {
		p.row(s.contender.name, strconv.Itoa(s.busy.checked), strconv.Itoa(s.busy.stale), portion(s.busy),
			age(s.busy.greatest, false), strconv.Itoa(s.burst.checked), strconv.Itoa(s.burst.stale),
			age(s.burst.greatest, s.burst.limited), age(s.begun, s.limited))
	}
}

// booked writes the bookings.
func (r *findings) booked(p *page) {
	p.printf("## Bookings\n\n%s\n", bookedHead)
	p.table("clients", "subject", "bookings/s", "P50, ms", "P95, ms", "P99, ms", "success, %", "system CPU, µs")
	for _, f := range r.figures {
		if f.scenario == booking {
			p.row(strconv.Itoa(f.clients), f.contender, whole(f.rps), inMillis(f.p50), inMillis(f.p95), inMillis(f.p99),
				number(f.success(), 2), inMicros(f.parts.system()))
		}
	}
}

// streamed writes the delays of server-sent events.
func (r *findings) streamed(p *page) {
	p.printf("## Server-sent events\n\n%s\n", streamedHead)
	p.table("subject", "streams", "events", "P50, ms", "P95, ms", "P99, ms")
	for _, f := range r.figures {
		if f.scenario == streaming {
			p.row(f.contender, strconv.Itoa(f.clients), strconv.Itoa(f.calls), inMillis(f.p50), inMillis(f.p95), inMillis(f.p99))
		}
	}
}

// rushed writes the login rushes.
func (r *findings) rushed(p *page) {
	p.printf("## A login rush\n\n%s\n", rushedHead)
	p.table("", "P99 without logins, ms", "P99 beside logins, ms", "ratio", "logins/s")
	for _, rush := range r.rushes {
		p.row(rush.name, inMillis(p99(rush.idle)), inMillis(p99(rush.during)), number(rush.ratio(), 1),
			number(median(rush.logins), 1))
	}
}

// decoded writes the sizes and the time of a client to decode an answer.
func (r *findings) decoded(p *page) {
	p.printf("## Size of an answer, and time to decode it\n\n%s\n", decodedHead)
	p.table("encoding", "bytes", "time to decode, µs")
	for _, d := range r.decoders {
		p.row(d.name, strconv.Itoa(d.bytes), inMicros(d.time))
	}
}
