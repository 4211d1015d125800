package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dlsms/dlsms/availability"
	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/server/edge/edgetest"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// within bounds how long a test waits for an expected event.
const within = edgetest.Within

// testReplica is a replica with a Postgres that serves HTTP.
type testReplica struct {
	*Server
	services *server.Server
	db       *storetest.DB
	url      string
	log      *edgetest.Log
	seats    []int64
}

// start starts a replica with three seats. change may change its settings.
func start(t testing.TB, change func(*server.Config, *Config)) *testReplica {
	t.Helper()
	db := storetest.NewDB(t)
	r := &testReplica{db: db, seats: db.Seats(t, 3), log: &edgetest.Log{}}
	ring, err := identity.ParseKeyRing("test:qL2vN8xR4tW6yB1dF3hJ5kM7pS9uZ0aC")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	wakeups, arrivals := &server.Wakeups{}, &server.Arrivals{}
	config := server.Config{
		Store: db.Open(t, library.DefaultPolicy()), Wakeups: wakeups, Arrivals: arrivals,
		MaxStaleness: time.Minute, Log: log,
		Keys: ring, TokenTTL: time.Hour, BcryptCost: 4, DBConns: 16, DrainTimeout: within, Now: time.Now,
	}
	changes := feed.New(config.Store, feed.Options{MaxStaleness: time.Minute})
	config.Seats, config.Wake = availability.New(changes, availability.Options{PastTolerance: time.Minute}), changes.Wake
	changes.Subscribe(feed.Subscriber{OnEvents: func(d feed.Delta) {
		wakeups.Notify(d.Events)
		arrivals.Notify(d.Events)
	}})
	settings := Config{Log: log}
	if change != nil {
		change(&config, &settings)
	}
	if r.services, err = server.New(config); err != nil {
		t.Fatal(err)
	}
	settings.Calls, settings.GetSeats = r.services.InProcess(), r.services.GetSeatsJSON
	settings.GetFloorPlan = r.services.GetFloorPlanJSON
	settings.Healthy, settings.Session = r.services.Healthy, r.services.VerifySession
	handler, err := NewHandler(settings)
	if err != nil {
		t.Fatal(err)
	}
	r.Server = NewServer(handler)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + l.Addr().String()
	background, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = changes.Run(background) })
	running.Go(func() { _ = config.Seats.Run(background) })
	running.Go(func() {
		if err := r.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		if err := r.services.Shutdown(context.Background(), r.Shutdown); err != nil {
			t.Error(err)
		}
		stop()
		running.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := r.services.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return r
}

// answer is the answer to a request.
type answer struct {
	*http.Response
	body []byte
}

// problem returns the problem of an answer, which must be one with the status and reason.
func (a answer) problem(t testing.TB, status int, reason string) problem {
	t.Helper()
	var p problem
	if a.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%s is %s: %s", a.Status, a.Header.Get("Content-Type"), a.body)
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	if a.StatusCode != status || p.Status != status || p.Reason != reason {
		t.Fatalf("got %s with %s, want %d with %s", a.Status, a.body, status, reason)
	}
	return p
}

// do sends a request. headers are names and values in turn.
func (r *testReplica) do(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return send(t, req, headers...)
}

// send sends a request with further headers, names and values in turn, and reads the answer.
func send(t testing.TB, req *http.Request, headers ...string) answer {
	t.Helper()
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp, text}
}

// login registers a student and returns the header of its token.
func (r *testReplica) login(t testing.TB, studentID string) []string {
	t.Helper()
	user := fmt.Sprintf(`{"studentId": %q, "name": "Ada", "email": "ada@university.example", "password": "correct horse"}`,
		studentID)
	if a := r.do(t, "POST", "/v1/auth/register", user); a.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", a.Status, a.body)
	}
	a := r.do(t, "POST", "/v1/auth/login", fmt.Sprintf(`{"studentId": %q, "password": "correct horse"}`, studentID))
	var login struct{ AccessToken string }
	if err := json.Unmarshal(a.body, &login); err != nil || login.AccessToken == "" {
		t.Fatalf("%s: %s", a.Status, a.body)
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("a cache may store a token: %v", a.Header)
	}
	return []string{"Authorization", "Bearer " + login.AccessToken}
}

// booking returns the body of a reservation of the seat at index for the next hour.
func (r *testReplica) booking(index int, more string) string {
	end := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	return fmt.Sprintf(`{"seatId": "%d", "endTime": %q%s}`, r.seats[index], end, more)
}

// logged waits for a line of the log with all of the words.
func (r *testReplica) logged(t testing.TB, words ...string) {
	t.Helper()
	edgetest.Eventually(t, "no line with "+strings.Join(words, " and "), func() bool {
		for line := range bytes.Lines([]byte(r.log.String())) {
			all := true
			for _, w := range words {
				all = all && bytes.Contains(line, []byte(w))
			}
			if all {
				return true
			}
		}
		return false
	})
}
