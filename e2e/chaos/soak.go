package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// soakTime is the duration of the soak at full scale.
const soakTime = time.Hour

// resource is a metric of a process that must not grow with time. Its last value may be at most its
// early value times share, plus the constant more.
type resource struct {
	title, metric string
	share, more   float64
}

var resources = []resource{
	{"goroutines", "go_goroutines", 1.1, 30},
	{"open files", "process_open_fds", 1.1, 10},
	{"memory, MiB", "process_resident_memory_bytes", 1.15, 0},
}

// sample has the values of all resources of one replica at one time.
type sample []float64

// soak is a trial. It runs the clients for an hour at half load, with all faults except those that
// end a replica. A resource of a replica that grows in this time is a leak.
func soak(ctx context.Context, l *trialRun) error {
	p := &plan{
		binary: l.binary, dir: historyDir, duration: l.scaled(soakTime), seed: l.rng.Uint64(),
		rest: 40 * time.Millisecond,
	}
	ends := regexp.MustCompile(`^replica (killed|restarted)`)
	p.faults = slices.DeleteFunc(allFaults(), func(f fault) bool { return ends.MatchString(f.name) })
	var samples [replicas][]sample
	p.watch = func(ctx context.Context, s *system) {
		every(ctx, p.duration/200, func() {
			for i := range samples {
				if now, err := s.resources(ctx, i); err == nil { // a stopped replica does not answer
					samples[i] = append(samples[i], now)
				}
			}
		})
	}
	r, err := p.run(ctx, l.out)
	if err != nil {
		return err
	}
	title := fmt.Sprintf("soak of %s, %d operations, %d faults: ", p.duration, r.operations, r.faults())
	l.row(title+"violations", "0", r.found.count() == 0, "%d", r.found.count())
	for _, v := range r.found.list() {
		l.logf("%s", v)
	}
	for k, v := range resources {
		flat := true
		var summary []string
		for i := range samples {
			quarter := len(samples[i]) / 4
			if quarter == 0 {
				return fmt.Errorf("replica %d returned only %d samples: too few for a test", i, len(samples[i]))
			}
			early, late := median(samples[i][quarter:2*quarter], k), median(samples[i][3*quarter:], k)
			flat = flat && late <= v.share*early+v.more
			summary = append(summary, fmt.Sprintf("%.0f to %.0f", early, late))
		}
		l.row(title+v.title+" of each replica, from the second quarter to the last", "constant",
			flat, "%s", strings.Join(summary, ", "))
	}
	return nil
}

func median(samples []sample, k int) float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, s[k])
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// resources reads the resources of a replica.
func (s *system) resources(ctx context.Context, replica int) (sample, error) {
	names := make([]string, len(resources))
	for i, v := range resources {
		names[i] = v.metric
	}
	now, err := s.metrics(ctx, replica, names...)
	for i, name := range names {
		if err == nil && strings.HasSuffix(name, "_bytes") {
			now[i] /= 1 << 20
		}
	}
	return now, err
}

// metrics reads metrics of a replica that have no labels. It fails if a metric is missing.
func (s *system) metrics(ctx context.Context, replica int, names ...string) ([]float64, error) {
	ctx, end := context.WithTimeout(ctx, tryTimeout)
	defer end()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.AdminAddr(replica)+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	summary := map[string]string{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		summary[name] = value
	}
	values := make([]float64, len(names))
	for i, name := range names {
		if values[i], err = strconv.ParseFloat(summary[name], 64); err != nil {
			return nil, fmt.Errorf("metric %s of replica %d: %w", name, replica, err)
		}
	}
	return values, lines.Err()
}

// waitForTotal waits until a metric, summed over all replicas, has fallen to limit, but no longer
// than timeout. It returns the last sum, and how long it waited.
func (s *system) waitForTotal(
	ctx context.Context, metric string, limit int, timeout time.Duration,
) (n int, took time.Duration, err error) {
	for began := time.Now(); ; sleep(ctx, retryAfter) {
		n, err = s.total(ctx, metric)
		took = time.Since(began)
		if err != nil || n <= limit || took > timeout {
			return n, took, err
		}
	}
}

// total returns the sum of a metric over all replicas.
func (s *system) total(ctx context.Context, metric string) (n int, err error) {
	for i := range s.Replicas {
		values, err := s.metrics(ctx, i, metric)
		if err != nil {
			return 0, err
		}
		n += int(values[0])
	}
	return n, nil
}
