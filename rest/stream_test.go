package rest

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// event is one server-sent event.
type event struct{ name, id, data string }

// events opens a stream. It returns the headers of the answer, and a function that waits for the next
// event.
func (r *testReplica) events(t *testing.T, path string, headers ...string) (header http.Header, next func() event) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	return resp.Header, func() (e event) {
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "event":
				e.name = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			case "":
				if e != (event{}) {
					return e
				}
			}
		}
		t.Errorf("the stream ended: %v", lines.Err())
		return e
	}
}

func TestWatchOverHTTP(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	header, next := r.events(t, "/v1/seats:watch")
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if e := next(); e.name != "snapshot" || strings.Count(e.data, `"label"`) != 3 {
		t.Errorf("first came %+v", e)
	}
	a := r.do(t, "POST", "/v1/reservations", r.booking(0, ""), r.login(t, "STUDENT-1")...)
	if a.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", a.Status, a.body)
	}
	if e := next(); e.name != "change" || !strings.Contains(e.data, `"available":false`) {
		t.Errorf("after a booking came %+v", e)
	}
}

// TestStreamEndsWithAProblem stops the server under a stream.
func TestStreamEndsWithAProblem(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	_, next := r.events(t, "/v1/notifications:subscribe", r.login(t, "STUDENT-1")...)
	if err := r.services.Shutdown(t.Context(), r.Shutdown); err != nil {
		t.Error(err)
	}
	e := next()
	var p problem
	if err := json.Unmarshal([]byte(e.data), &p); err != nil || e.name != "error" ||
		p.Status != 503 || p.Reason != "UNAVAILABLE" {
		t.Errorf("the last event is %+v", e)
	}
}

func TestRefusedStreamIsAProblem(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	r.do(t, "GET", "/v1/notifications:subscribe", "").problem(t, 401, "TOKEN_MISSING")
	r.do(t, "GET", "/v1/seats:watch?branch=nowhere", "").problem(t, 404, "BRANCH_NOT_FOUND")
}
