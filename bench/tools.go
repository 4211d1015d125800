package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// tools runs ghz (gRPC) and hey (HTTP), the load generators that measured the original design. Each
// is a process of its own, so its CPU time is counted apart from that of the benchmark.
type tools struct {
	ghz, hey string // programs
	// protoset and request are files for ghz. With the request encoded in advance, ghz costs less
	// than with a request in JSON.
	protoset, request string
}

func newTools(bin, dir string) (*tools, error) {
	t := &tools{
		ghz:      filepath.Join(bin, "ghz"),
		hey:      filepath.Join(bin, "hey"),
		protoset: filepath.Join(dir, "protoset"),
		request:  filepath.Join(dir, "request"),
	}
	for _, program := range []string{t.ghz, t.hey} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: run `make compare`, which builds it", err)
		}
	}
	set, err := protoset()
	if err != nil {
		return nil, err
	}
	return t, errors.Join(os.WriteFile(t.protoset, set, 0o600), os.WriteFile(t.request, encodedRequest, 0o600))
}

// heyOutput is a template of hey. Its own output has no errors (csv) or no single latencies (the
// default).
const heyOutput = `{"offsets":{{jsonify .Offsets}},"latencies":{{jsonify .Lats}},` +
	`"codes":{{jsonify .StatusCodes}},"errors":{{jsonify .ErrorDist}}}`

// command returns the command that reads seats with a number of clients for d.
func (t *tools) command(c *contender, clients int, d time.Duration, etag string) []string {
	count, length := strconv.Itoa(clients), d.String()
	if !c.http {
		return []string{
			t.ghz, "--insecure", "--protoset", t.protoset, "--call", strings.TrimPrefix(getSeats, "/"),
			"--binary-file", t.request, "--concurrency", count,
			"--connections", strconv.Itoa(max(1, clients/clientsPerConnection)),
			"--duration", length, "--duration-stop", "ignore", "--format", "json", c.addr,
		}
	}
	args := []string{t.hey, "-z", length, "-c", count, "-o", heyOutput}
	if etag != "" {
		args = append(args, "-H", "If-None-Match: "+etag)
	}
	return append(args, "http://"+c.addr+availableNowPath)
}

// measurement is the result of one load on a contender.
type measurement struct {
	sample

	parts partTimes
}

// spareTime is how much longer than the measured time ghz and hey run.
const spareTime = 300 * time.Millisecond

// run reads seats with ghz or hey.
func (t *tools) run(
	ctx context.Context, c *contender, clients int, warm, measure time.Duration,
) (measurement, error) {
	var etag string
	wanted := http.StatusOK
	if c.conditional {
		a := dialHTTP(c.addr, "", true)
		defer a.close()
		if err := a.getSeats(ctx); err != nil {
			return measurement{}, err
		}
		etag, wanted = a.tags.of(availableNowPath).etag, http.StatusNotModified
	}
	args := t.command(c, clients, warm+measure+spareTime, etag)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return measurement{}, err
	}
	meter := startMeter(ctx, c, cmd.Process.Pid, began.Add(warm), measure)
	err := cmd.Wait()
	from, to, parts, meterErr := meter.result()
	if ctx.Err() != nil {
		return measurement{}, ctx.Err()
	}
	if err = errors.Join(err, meterErr); err != nil {
		return measurement{}, fmt.Errorf("%s: %w: %.500s", filepath.Base(args[0]), err, messages.String())
	}
	var s sample
	if c.http {
		s, err = readHey(out.Bytes(), began, from, to, wanted)
	} else {
		s, err = readGhz(out.Bytes(), from, to)
	}
	if err != nil {
		return measurement{}, fmt.Errorf("the output of %s: %w", filepath.Base(args[0]), err)
	}
	return measurement{s, parts}, nil
}

// readGhz reads the output of ghz in JSON. It counts the calls between two times.
func readGhz(out []byte, from, to time.Time) (sample, error) {
	var report struct {
		Details []struct {
			Timestamp time.Time     `json:"timestamp"`
			Latency   time.Duration `json:"latency"`
			Error     string        `json:"error"`
			Status    string        `json:"status"`
		} `json:"details"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return sample{}, err
	}
	s := sample{seconds: to.Sub(from).Seconds(), failures: map[string]int{}}
	for _, d := range report.Details {
		switch {
		case d.Status != codes.OK.String():
			s.failed++
			s.failures[d.Status+": "+d.Error]++
		case !d.Timestamp.Before(from) && d.Timestamp.Before(to):
			s.calls++
			s.latencies = append(s.latencies, d.Latency)
		}
	}
	return s.checked()
}

// readHey reads the output of heyOutput. It counts the requests between two times. began is the
// start of hey. A status other than the wanted one is a failure.
func readHey(out []byte, began, from, to time.Time, wanted int) (sample, error) {
	var report struct {
		Offsets   []float64      `json:"offsets"`   // in seconds from the start of hey
		Latencies []float64      `json:"latencies"` // in seconds
		Codes     []int          `json:"codes"`
		Errors    map[string]int `json:"errors"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return sample{}, err
	}
	if len(report.Offsets) != len(report.Latencies) || len(report.Codes) != len(report.Latencies) {
		return sample{}, errors.New("there is not one status and one offset for each latency")
	}
	s := sample{seconds: to.Sub(from).Seconds(), failures: map[string]int{}}
	for message, n := range report.Errors {
		s.failed += n
		s.failures[message] += n
	}
	seconds := func(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }
	for i, code := range report.Codes {
		at := began.Add(seconds(report.Offsets[i]))
		switch {
		case code != wanted:
			s.failed++
			s.failures[fmt.Sprintf("status %d", code)]++
		case !at.Before(from) && at.Before(to):
			s.calls++
			s.latencies = append(s.latencies, seconds(report.Latencies[i]))
		}
	}
	return s.checked()
}

// checked sorts the latencies. It returns an error if there are none.
func (s sample) checked() (sample, error) {
	if s.calls == 0 && s.failed == 0 {
		return sample{}, errors.New("there are no calls in the measured time")
	}
	slices.Sort(s.latencies)
	return s, nil
}
