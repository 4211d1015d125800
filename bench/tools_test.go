package main

import (
	"testing"
	"time"
)

func TestReadHeyCountsMeasuredTime(t *testing.T) {
	t.Parallel()
	began := time.Now()
	from, to := began.Add(time.Second), began.Add(3*time.Second)
	s, err := readHey([]byte(`{
		"offsets":   [0.5,   1.5,   2.5,   2.9,   3.5],
		"latencies": [0.001, 0.003, 0.002, 0.004, 0.001],
		"codes":     [200,   200,   200,   503,   200],
		"errors":    {"connection reset by peer": 2}}`), began, from, to, 200)
	if err != nil {
		t.Fatal(err)
	}
	if s.calls != 2 || s.rps() != 1 || s.percentile(50) != 3*time.Millisecond {
		t.Errorf("%d calls, %g a second, P50 %s; want 2, 1, 3ms", s.calls, s.rps(), s.percentile(50))
	}
	if s.failed != 3 || s.failures["status 503"] != 1 || s.failures["connection reset by peer"] != 2 {
		t.Errorf("%d failed: %v", s.failed, s.failures)
	}
	for _, broken := range []string{
		"", "Summary:", `{"offsets":[],"latencies":[],"codes":[],"errors":{}}`,
		`{"offsets":[],"latencies":[1],"codes":[200],"errors":{}}`,
	} {
		if _, err := readHey([]byte(broken), began, from, to, 200); err == nil {
			t.Errorf("%q is accepted", broken)
		}
	}
}

func TestReadGhzCountsMeasuredTime(t *testing.T) {
	t.Parallel()
	from := time.Date(2027, 3, 1, 12, 0, 1, 0, time.UTC)
	s, err := readGhz([]byte(`{"details": [
		{"timestamp": "2027-03-01T12:00:00.9Z", "latency": 9000000, "status": "OK"},
		{"timestamp": "2027-03-01T12:00:01.1Z", "latency": 3000000, "status": "OK"},
		{"timestamp": "2027-03-01T12:00:02.9Z", "latency": 2000000, "status": "OK"},
		{"timestamp": "2027-03-01T12:00:02.9Z", "latency": 2000000, "status": "Unavailable", "error": "draining"},
		{"timestamp": "2027-03-01T12:00:03Z", "latency": 9000000, "status": "OK"}]}`), from, from.Add(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if s.calls != 2 || s.rps() != 1 || s.percentile(99) != 3*time.Millisecond {
		t.Errorf("%d calls, %g a second, P99 %s; want 2, 1, 3ms", s.calls, s.rps(), s.percentile(99))
	}
	if s.failed != 1 || s.failures["Unavailable: draining"] != 1 {
		t.Errorf("%d failed: %v", s.failed, s.failures)
	}
	if _, err := readGhz([]byte(`{"details": []}`), from, from.Add(time.Second)); err == nil {
		t.Error("an output without calls is accepted")
	}
}
