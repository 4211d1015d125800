package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/dlsms/dlsms/stack"
)

// service answers requests and records them.
type service struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
}

func newService(t *testing.T, answer func(*http.Request) (status int, body string)) *service {
	t.Helper()
	s := &service{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI())
		s.mu.Unlock()
		status, body := answer(r)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}

// received returns the requests since the last call.
func (s *service) received() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.requests
	s.requests = nil
	return list
}

// system is a gateway in front of a real Redis and of services that record requests.
type system struct {
	t                               *testing.T
	url                             string
	cache                           *redis.Client
	auth, seat, reservation, notify *service
}

func newSystem(t *testing.T) *system {
	t.Helper()
	server, err := stack.StartRedis(t.Context(), stack.RedisConfig{})
	if err != nil {
		t.Fatal(err)
	}
	options, err := redis.ParseURL(server.RedisURL())
	if err != nil {
		t.Fatal(err)
	}
	options.DisableIdentity = true
	s := &system{t: t, cache: redis.NewClient(options)}
	t.Cleanup(func() {
		_ = s.cache.Close()
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	ok := func(r *http.Request) (int, string) { return http.StatusOK, fmt.Sprintf("%q", r.URL.RequestURI()) }
	s.auth, s.seat, s.notify = newService(t, ok), newService(t, ok), newService(t, ok)
	s.reservation = newService(t, func(r *http.Request) (int, string) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "taken") {
			return http.StatusConflict, `{"reason":"SEAT_TAKEN"}`
		}
		return http.StatusCreated, `{"reservation":{"id":"1","seat":{"id":"7","branch":"main"}}}`
	})
	g := httptest.NewServer(newGateway(s.cache, services{
		auth: address(t, s.auth), seat: address(t, s.seat),
		reservation: address(t, s.reservation), notify: address(t, s.notify),
	}))
	t.Cleanup(g.Close)
	s.url = g.URL
	return s
}

func address(t *testing.T, s *service) *url.URL {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (s *system) do(method, path, body string) (status int, answer string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestEachPathHasItsService(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for path, want := range map[string]*service{
		"/v1/auth/login":              s.auth,
		"/v1/branches":                s.seat,
		"/v1/seats/7":                 s.seat,
		"/v1/reservations/7:checkIn":  s.reservation,
		"/v1/waitlist":                s.notify,
		"/v1/notifications?afterId=3": s.notify,
	} {
		if status, _ := s.do(http.MethodGet, path, ""); status/100 != 2 {
			t.Errorf("%s: %d", path, status)
		}
		if got := want.received(); len(got) != 1 || got[0] != "GET "+path {
			t.Errorf("%s: its service received %q", path, got)
		}
	}
	if status, _ := s.do(http.MethodGet, "/v2/seats", ""); status != http.StatusNotFound {
		t.Errorf("an unknown path has status %d", status)
	}
}

func TestListsComeFromCache(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	const list = "/v1/seats?branch=main&availableOnly=true"
	for range 3 {
		if status, answer := s.do(http.MethodGet, list, ""); status != http.StatusOK || answer != fmt.Sprintf("%q", list) {
			t.Fatalf("the list is %d %s", status, answer)
		}
	}
	if got := s.seat.received(); len(got) != 1 {
		t.Errorf("the seat service received %q for 3 reads", got)
	}
	expires, err := s.cache.TTL(t.Context(), "seats:available:main").Result()
	if err != nil || expires <= 0 || expires > cacheTime {
		t.Errorf("the list expires in %s, %v; want at most %s", expires, err, cacheTime)
	}
	for _, other := range []string{
		"/v1/seats?branch=main", "/v1/seats?branch=main&availableOnly=false",
		"/v1/seats?branch=main&availableOnly=true&pageSize=3", "/v1/seats/7?branch=main&availableOnly=true",
	} {
		for range 2 {
			s.do(http.MethodGet, other, "")
		}
		if got := s.seat.received(); len(got) != 2 {
			t.Errorf("%s: the seat service received %q for 2 reads", other, got)
		}
	}
}

func TestChangesDeleteLists(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	lists := []string{"", "branch=main&", "branch=science&"}
	// read returns the branches whose list was not in the cache.
	read := func() (missed string) {
		for _, branch := range lists {
			s.do(http.MethodGet, "/v1/seats?"+branch+"availableOnly=true", "")
			if len(s.seat.received()) > 0 {
				missed += branch + " "
			}
		}
		return missed
	}
	const both = " branch=main& "
	if got := read(); got != " branch=main& branch=science& " {
		t.Fatalf("at the start, not in the cache: %q", got)
	}
	for _, c := range []struct{ path, body, missed string }{
		{"/v1/reservations", `{"seatId":"7"}`, both},
		{"/v1/reservations/1:cancel", "", both},
		{"/v1/reservations", `{"seatId":"taken"}`, ""},
		{"/v1/reservations/1:checkIn", "", ""},
	} {
		if _, answer := s.do(http.MethodPost, c.path, c.body); !strings.HasPrefix(answer, "{") {
			t.Errorf("POST %s has the answer %q", c.path, answer)
		}
		if got := read(); got != c.missed {
			t.Errorf("after POST %s of %s, not in the cache: %q, want %q", c.path, c.body, got, c.missed)
		}
	}
}
