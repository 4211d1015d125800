package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// These tests check what HTTP has beyond the RPCs: headers, entity tags, problems and requests that
// are none. They send requests by hand, through nginx unless they say otherwise.

// httpAnswer is an answer with its body and its request.
type httpAnswer struct {
	*http.Response

	t    *testing.T
	body []byte
}

// send sends a request to host:port. headers has names and values in turn.
func send(t *testing.T, addr, verb, uri, body string, headers ...string) httpAnswer {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, waitTimeout), verb, "http://"+addr+uri, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // follows no redirect
	if err != nil {
		t.Fatalf("%s %s: %v", verb, uri, err)
	}
	defer func() { _ = resp.Body.Close() }()
	read, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", verb, uri, err)
	}
	return httpAnswer{resp, t, read}
}

// send sends a request through nginx.
func (s *system) send(t *testing.T, verb, uri, body string, headers ...string) httpAnswer {
	t.Helper()
	return send(t, s.HTTPAddr(), verb, uri, body, headers...)
}

// message reads the message of an answer that must have this status.
func (a httpAnswer) message(status int, m proto.Message) {
	a.t.Helper()
	if a.StatusCode != status || a.Header.Get("Content-Type") != "application/json" {
		a.t.Fatalf("%s %s: %s, want %d: %s", a.Request.Method, a.Request.URL, a.Status, status, a.body)
	}
	if err := protojson.Unmarshal(a.body, m); err != nil {
		a.t.Fatalf("%s %s: %v: %s", a.Request.Method, a.Request.URL, err, a.body)
	}
}

// problem checks that the answer is a problem with this status and reason, and returns it.
func (a httpAnswer) problem(status int, reason string) e2e.Problem {
	a.t.Helper()
	p, err := e2e.CheckProblem(a.Request, a.Response, a.body)
	if err != nil || p.Status != status || p.Reason != reason {
		a.t.Errorf("%s %s: %s %q, want %d %q (%v): %s",
			a.Request.Method, a.Request.URL, a.Status, p.Reason, status, reason, err, a.body)
	}
	return p
}

// pointers returns the fields that a problem is about.
func pointers(p e2e.Problem) (list []string) {
	for _, e := range p.Errors {
		list = append(list, e.Pointer)
	}
	return list
}

func bearer(u student) []string { return []string{"Authorization", "Bearer " + u.Token} }

func jsonOf(t *testing.T, m proto.Message) string {
	t.Helper()
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestETagFollowsEveryBooking books and cancels on one replica, and asks all replicas with
// If-None-Match: a 304 is never stale, and the tag does not depend on the replica.
func TestETagFollowsEveryBooking(t *testing.T) {
	t.Parallel()
	s := shared(t)
	b, u := s.branch(t, 3), s.student(t)
	uri := "/v1/seats?branch=" + b.code
	addrs := []string{s.HTTPAddr()}
	for _, r := range s.Replicas {
		addrs = append(addrs, r.HTTPAddr())
	}
	ask := func(addr, tag string) httpAnswer { return send(t, addr, "GET", uri, "", "If-None-Match", tag) }
	free := send(t, addrs[0], "GET", uri, "").Header.Get("ETag")
	if !strings.HasPrefix(free, `W/"`) {
		t.Fatalf("the tag is %q", free)
	}
	for round := range 20 {
		client := student{u.WithConn(conn(t, s, round%len(s.Replicas))), t}
		booked := client.book(b.seats[round%3], fromNow(2*time.Hour))
		taken := ""
		for _, addr := range addrs {
			a := ask(addr, free)
			var got dlsmsv1.GetSeatsResponse
			a.message(http.StatusOK, &got)
			tag := a.Header.Get("ETag")
			if got.GetAvailableCount() != 2 || tag == free || (taken != "" && tag != taken) {
				t.Errorf("round %d, %s, after a booking: %d seats are free, the tag is %s, was %s, elsewhere %s",
					round, addr, got.GetAvailableCount(), tag, free, taken)
			}
			taken = tag
		}
		for _, tag := range []string{taken, strings.TrimPrefix(taken, "W/"), `"x", ` + taken, "*"} {
			a := ask(addrs[round%len(addrs)], tag)
			if a.StatusCode != http.StatusNotModified || len(a.body) > 0 || a.Header.Get("ETag") != taken {
				t.Errorf("If-None-Match %s: %s with the tag %s, want 304 with %s", tag, a.Status, a.Header.Get("ETag"), taken)
			}
		}
		client.cancel(booked.GetId())
		for _, addr := range addrs {
			if a := ask(addr, taken); a.StatusCode != http.StatusOK || a.Header.Get("ETag") != free {
				t.Errorf("round %d, %s, after the cancellation: %s with the tag %s, want 200 with %s",
					round, addr, a.Status, a.Header.Get("ETag"), free)
			}
		}
	}
	if got := send(t, addrs[0], "GET", uri, "").Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("the Cache-Control of seats is %q", got)
	}
}

// TestFloorPlanFollowsEveryEdit edits the plan of a branch through one replica, and asks all replicas
// over HTTP with If-None-Match and over gRPC: no answer is stale.
func TestFloorPlanFollowsEveryEdit(t *testing.T) {
	t.Parallel()
	s := shared(t)
	b, editor := s.branch(t, 3), s.withRole(t, adminRole)
	uri := "/v1/branches/" + b.code + "/plan"
	addrs := []string{s.HTTPAddr()}
	for _, r := range s.Replicas {
		addrs = append(addrs, r.HTTPAddr())
	}
	listed, err := s.anonymous().Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{Branch: b.code})
	seat := need(editor, "seats", listed, err).GetSeats()[0]
	was := send(t, addrs[0], "GET", uri, "").Header.Get("ETag")
	for round := range int32(20) {
		admin := student{editor.WithConn(conn(t, s, int(round)%len(s.Replicas))), t}.Admin
		x, floor := 100*round, fmt.Sprint(round/2)
		if round%2 == 0 {
			set, err := admin.UpsertSeats(t.Context(), &dlsmsv1.UpsertSeatsRequest{Branch: b.code, Seats: []*dlsmsv1.SeatSpec{{
				Label: seat.GetLabel(), Area: seat.GetArea(), XCm: &x, YCm: &x, Desk: "D-1",
			}}})
			need(editor, "seats", set, err)
		} else {
			set, err := admin.UpsertArea(t.Context(), &dlsmsv1.UpsertAreaRequest{
				Branch: b.code, Name: seat.GetArea(), Floor: floor,
			})
			need(editor, "area", set, err)
		}
		right := func(p *dlsmsv1.GetFloorPlanResponse) bool {
			place := p.GetSeats()[0]
			return place.GetSeatId() == seat.GetId() && place.GetXCm() == x-x%200 && place.GetDesk() == "D-1" &&
				(round%2 == 0 || p.GetAreas()[0].GetFloor() == floor)
		}
		tag := ""
		for _, addr := range addrs {
			a := send(t, addr, "GET", uri, "", "If-None-Match", was)
			var got dlsmsv1.GetFloorPlanResponse
			a.message(http.StatusOK, &got)
			if now := a.Header.Get("ETag"); !right(&got) || now == was || tag != "" && now != tag {
				t.Errorf("round %d, %s: the tag is %s, was %s, elsewhere %s: %v", round, addr, now, was, tag, &got)
			}
			tag = a.Header.Get("ETag")
		}
		for i := range s.Replicas {
			got, err := e2e.Anonymous(conn(t, s, i)).Seats.GetFloorPlan(t.Context(),
				&dlsmsv1.GetFloorPlanRequest{Branch: b.code})
			if err != nil || !right(got) {
				t.Errorf("round %d, replica %d: %v, %v", round, i, got, err)
			}
		}
		again := send(t, addrs[int(round)%len(addrs)], "GET", uri, "", "If-None-Match", tag)
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("round %d: unchanged, it is %s", round, again.Status)
		}
		was = tag
	}
}

func TestIdempotencyKeyIsTheRequestID(t *testing.T) {
	t.Parallel()
	s := shared(t)
	seats := s.branch(t, 3).seats
	u, owner := s.student(t), s.student(t)
	owner.book(seats[2], tomorrow(5, 6))
	for path, requests := range map[string][2]proto.Message{
		"/v1/reservations": {tomorrow(0, 1).booking(seats[0]), tomorrow(0, 1).booking(seats[1])},
		"/v1/waitlist":     {tomorrow(5, 6).waiting(seats[2]), tomorrow(5, 7).waiting(seats[2])},
	} {
		body := jsonOf(t, requests[0])
		withID := func(id string) string { return strings.TrimSuffix(body, "}") + `,"requestId":"` + id + `"}` }
		post := func(body string, headers ...string) httpAnswer {
			return s.send(t, "POST", path, body, append(bearer(u), headers...)...)
		}
		first := post(body, "Idempotency-Key", "a-key")
		if first.StatusCode != http.StatusCreated {
			t.Fatalf("%s: %s %s", path, first.Status, first.body)
		}
		for i, same := range []httpAnswer{
			post(body, "Idempotency-Key", "a-key"),
			post(body, "Idempotency-Key", `"a-key"`),
			post(withID("a-key")),
			post(withID("a-key"), "Idempotency-Key", `"a-key"`),
		} {
			if same.StatusCode != http.StatusCreated || !sameJSON(t, same.body, first.body) ||
				same.Header.Get("Location") != first.Header.Get("Location") {
				t.Errorf("%s: repeat %d is %s %s, the first answer was %s", path, i, same.Status, same.body, first.body)
			}
		}
		p := post(withID("a-key"), "Idempotency-Key", "another").problem(400, "INVALID_FIELDS")
		if got := pointers(p); !slices.Equal(got, []string{"#/requestId"}) {
			t.Errorf("%s: two different ids: %v", path, got)
		}
		post(jsonOf(t, requests[1]), "Idempotency-Key", "a-key").problem(422, "REQUEST_ID_REUSED")
	}
	if n := value[int](t, s, `SELECT count(*) FROM reservations WHERE user_id = $1`, u.id()); n != 1 {
		t.Errorf("%d reservations, want 1", n)
	}
	if n := value[int](t, s, `SELECT count(*) FROM waitlist_entries WHERE user_id = $1`, u.id()); n != 1 {
		t.Errorf("%d waitlist entries, want 1", n)
	}
}

// sameJSON reports whether two texts are equal except for spaces, which protojson adds at random.
func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y bytes.Buffer
	if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
		t.Errorf("not JSON: %s, %s", a, b)
	}
	return bytes.Equal(x.Bytes(), y.Bytes())
}

// TestMalformedRequestsAreRefused sends requests that are no calls.
func TestMalformedRequestsAreRefused(t *testing.T) {
	t.Parallel()
	s := shared(t)
	seat, u := s.branch(t, 1).seats[0], s.student(t)
	booking := jsonOf(t, tomorrow(0, 1).booking(seat))
	with := func(field string) string { return strings.TrimSuffix(booking, "}") + "," + field + "}" }
	const form, reservations = "application/x-www-form-urlencoded", "/v1/reservations"
	for name, test := range map[string]struct {
		verb, uri, body string
		headers         []string
		status          int
		reason          string
		pointer         string // of the one field, empty: none
		allow           string
	}{
		"an unknown field": {"POST", reservations, with(`"seat":1`), nil, 400, "INVALID_FIELDS", "#/seat", ""},
		"a field twice":    {"POST", reservations, with(`"seatId":1`), nil, 400, "INVALID_FIELDS", "#/seatId", ""},
		"a field of another type": {
			"POST", reservations, `{"seatId":[]}`, nil, 400, "INVALID_FIELDS", "#/seatId", "",
		},
		"broken JSON":   {"POST", reservations, booking[:len(booking)-1], nil, 400, "INVALID_FIELDS", "#", ""},
		"trailing data": {"POST", reservations, booking + "{}", nil, 400, "INVALID_FIELDS", "#", ""},
		"a list":        {"POST", reservations, "[]", nil, 400, "INVALID_FIELDS", "#", ""},
		"no UTF-8": {
			"POST", reservations, with("\"requestId\":\"\xff\""), nil, 400, "INVALID_FIELDS", "#/requestId", "",
		},
		"a query of a POST": {
			"POST", reservations + "?seatId=1", booking, nil, 400, "INVALID_FIELDS", "#/seatId", "",
		},
		"an unknown parameter":         {"GET", "/v1/seats?brunch=main", "", nil, 400, "INVALID_FIELDS", "#/brunch", ""},
		"an unknown parameter of RPCs": {"GET", reservations + "?x=1", "", nil, 400, "INVALID_FIELDS", "#/x", ""},
		"an unknown parameter of a stream": {
			"GET", "/v1/notifications:subscribe?x=1", "", nil, 400, "INVALID_FIELDS", "#/x", "",
		},
		"a parameter of another type": {"GET", "/v1/seats?pageSize=x", "", nil, 400, "INVALID_FIELDS", "#/pageSize", ""},
		"a field of a path":           {"GET", "/v1/seats/window", "", nil, 400, "INVALID_FIELDS", "#/seatId", ""},
		"a Last-Event-ID that is no id": {
			"GET", "/v1/notifications:subscribe", "", []string{"Last-Event-ID", "x"}, 400, "INVALID_FIELDS", "#/afterId", "",
		},

		"another Content-Type": {"POST", reservations, booking, []string{"Content-Type", "text/plain"}, 415, "", "", ""},
		"a form":               {"POST", reservations, "seatId=1", []string{"Content-Type", form}, 415, "", "", ""},
		"no Content-Type":      {"POST", reservations, booking, []string{"Content-Type", ""}, 415, "", "", ""},
		"another charset": {
			"POST", reservations, booking, []string{"Content-Type", "application/json; charset=latin1"}, 415, "", "", "",
		},
		"a body above 64 KiB": {
			"POST", reservations, with(`"x":"` + strings.Repeat("x", 64<<10) + `"`), nil, 413, "", "", "",
		},
		"a body above the limit of nginx": {
			"POST", reservations, with(`"x":"` + strings.Repeat("x", 256<<10) + `"`), nil, 413, "", "", "",
		},

		"GET of a POST":    {"GET", "/v1/auth/login", "", nil, 405, "", "", "POST"},
		"HEAD of a POST":   {"HEAD", "/v1/auth/login", "", nil, 405, "", "", "POST"},
		"POST of a GET":    {"POST", "/v1/branches", "{}", nil, 405, "", "", "GET"},
		"POST of seats":    {"POST", "/v1/seats", "{}", nil, 405, "", "", "GET"},
		"POST of a stream": {"POST", "/v1/seats:watch", "{}", nil, 405, "", "", "GET"},
		"DELETE":           {"DELETE", reservations + "/1", "", nil, 405, "", "", "GET"},
		"PUT":              {"PUT", reservations, booking, nil, 405, "", "", "GET, POST"},
		"OPTIONS":          {"OPTIONS", "/v1/seats", "", nil, 405, "", "", "GET"},
		"a form is no GET": {
			"POST", "/v1/branches", "x=1", []string{"Content-Type", form}, 405, "", "", "GET",
		},
		"an override of the method": {
			"POST", "/v1/branches", "{}", []string{"X-HTTP-Method-Override", "GET"}, 405, "", "", "GET",
		},
		"an unknown path":          {"GET", "/v1/seat", "", nil, 404, "", "", ""},
		"an unknown verb":          {"POST", reservations + "/1:confirm", "{}", nil, 404, "", "", ""},
		"an empty id":              {"GET", "/v1/seats/", "", nil, 400, "INVALID_FIELDS", "#/seatId", ""},
		"a path of gRPC":           {"POST", "/dlsms.v1.SeatService/GetSeats", "{}", nil, 404, "", "", ""},
		"a path of the admin port": {"GET", "/metrics", "", nil, 404, "", "", ""},
	} {
		headers := append(bearer(u), "x-request-id", "malformed-1")
		a := s.send(t, test.verb, test.uri, test.body, append(headers, test.headers...)...)
		if test.verb == http.MethodHead { // it has no body to check
			if a.StatusCode != test.status || a.Header.Get("Allow") != test.allow || len(a.body) > 0 {
				t.Errorf("%s: %s %v", name, a.Status, a.Header)
			}
			continue
		}
		p := a.problem(test.status, test.reason)
		var want []string
		if test.pointer != "" {
			want = []string{test.pointer}
		}
		if got := pointers(p); !slices.Equal(got, want) {
			t.Errorf("%s: the problem is about %q, want %q: %s", name, got, want, a.body)
		}
		if got := a.Header.Get("Allow"); got != test.allow {
			t.Errorf("%s: Allow is %q, want %q", name, got, test.allow)
		}
		if p.Instance != "urn:request:malformed-1" || p.Detail == "" {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	if n := value[int](t, s, `SELECT count(*) FROM reservations WHERE user_id = $1`, u.id()); n != 0 {
		t.Errorf("the requests made %d reservations", n)
	}
}

// TestHeadIsGetWithoutBody compares the headers of HEAD and GET.
func TestHeadIsGetWithoutBody(t *testing.T) {
	t.Parallel()
	s := shared(t)
	u, code := s.student(t), s.branch(t, 1).code
	for _, uri := range []string{
		"/v1/seats?branch=" + code, "/v1/branches", "/v1/reservations", "/v1/notifications", "/v1/waitlist",
		"/v1/reservations/7", "/healthz", "/v1/openapi.json",
	} {
		get, head := s.send(t, "GET", uri, "", bearer(u)...), s.send(t, "HEAD", uri, "", bearer(u)...)
		if head.StatusCode != get.StatusCode || len(head.body) > 0 {
			t.Errorf("HEAD %s is %s with %d bytes, GET is %s", uri, head.Status, len(head.body), get.Status)
		}
		for _, name := range []string{"Content-Type", "ETag", "Cache-Control"} {
			if head.Header.Get(name) != get.Header.Get(name) {
				t.Errorf("%s of HEAD %s is %q, of GET %q", name, uri, head.Header.Get(name), get.Header.Get(name))
			}
		}
	}
	// A HEAD of a stream ends, and has the headers of the stream.
	for _, uri := range []string{"/v1/seats:watch", "/v1/notifications:subscribe"} {
		head := s.send(t, "HEAD", uri, "", bearer(u)...)
		if head.StatusCode != http.StatusOK || head.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("HEAD %s is %s %v", uri, head.Status, head.Header)
		}
	}
}

func TestTokensAreNotStored(t *testing.T) {
	t.Parallel()
	s := shared(t)
	u := s.student(t)
	body := fmt.Sprintf(`{"studentId":%q,"password":%q}`, u.User.GetStudentId(), password)
	a := s.send(t, "POST", "/v1/auth/login", body)
	a.message(http.StatusOK, &dlsmsv1.LoginResponse{})
	if got := a.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("the Cache-Control of a login is %q", got)
	}
}

// TestMalformedRequestsAreCalls checks that a request that is no call is authenticated, limited and
// logged like one.
func TestMalformedRequestsAreCalls(t *testing.T) {
	t.Parallel()
	env := strictSettings()
	env["LOG_LEVEL"] = "info"
	s := start(t, stack.Config{Replicas: 1, NoRedis: true, Env: env})
	sent := 0
	malformed := map[string]func(headers ...string) httpAnswer{
		"broken JSON": func(headers ...string) httpAnswer {
			return s.send(t, "POST", "/v1/reservations", "{", headers...)
		},
		"an unknown field": func(headers ...string) httpAnswer {
			return s.send(t, "POST", "/v1/waitlist", `{"x":1}`, headers...)
		},
		"an unknown parameter": func(headers ...string) httpAnswer {
			return s.send(t, "GET", "/v1/notifications?x=1", "", headers...)
		},
		"a path that is no id": func(headers ...string) httpAnswer {
			return s.send(t, "GET", "/v1/reservations/x", "", headers...)
		},
		"a stream": func(headers ...string) httpAnswer {
			return s.send(t, "GET", "/v1/notifications:subscribe?x=1", "", headers...)
		},
		"a body that is too large": func(headers ...string) httpAnswer {
			return s.send(t, "POST", "/v1/reservations", `{"x":"`+strings.Repeat("x", 64<<10)+`"}`, headers...)
		},
		"another Content-Type": func(headers ...string) httpAnswer {
			return s.send(t, "POST", "/v1/reservations", "{}", append(headers, "Content-Type", "text/plain")...)
		},
	}
	for name, request := range malformed {
		u := s.student(t)
		// logged checks that the log has the line of the last request.
		logged := func(texts ...string) {
			t.Helper()
			var line string
			id := fmt.Sprintf(`"request_id":"%s-%d"`, strings.ReplaceAll(name, " ", "-"), sent)
			eventually(t, "the request is in the log: "+id, func() bool {
				line = s.log.Find(id)
				return line != ""
			})
			for _, text := range append(texts, `"msg":"rpc"`, `"http":true`) {
				if !strings.Contains(line, text) {
					t.Errorf("%s: the log lacks %s: %s", name, text, line)
				}
			}
		}
		as := func(token string) httpAnswer {
			sent++
			id := fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), sent)
			headers := []string{"x-request-id", id}
			if token != "" {
				headers = append(headers, "Authorization", "Bearer "+token)
			}
			a := request(headers...)
			if got := a.Header.Get("X-Request-Id"); got != id {
				t.Errorf("%s: the X-Request-Id is %q, want %q", name, got, id)
			}
			return a
		}
		as("").problem(http.StatusUnauthorized, "TOKEN_MISSING")
		logged(`"reason":"TOKEN_MISSING"`)
		as("x"+u.Token).problem(http.StatusUnauthorized, "TOKEN_INVALID")
		logged(`"reason":"TOKEN_INVALID"`)
		user := fmt.Sprintf(`"user_id":%d`, u.id())
		for i := range callsAMinute {
			if a := as(u.Token); a.StatusCode/100 != 4 || a.StatusCode == http.StatusTooManyRequests {
				t.Errorf("%s: request %d is %s", name, i, a.Status)
			}
			logged(user, `"reason":"INVALID_FIELDS"`)
		}
		as(u.Token).problem(http.StatusTooManyRequests, "RATE_LIMITED")
		logged(user, `"reason":"RATE_LIMITED"`)
	}
}

// TestOriginsOfPages checks that a page of another origin can read answers only if CORS_ORIGINS has
// its origin.
func TestOriginsOfPages(t *testing.T) {
	t.Parallel()
	const origin = "https://library.example"
	preflight := []string{
		"Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization",
	}
	off := shared(t)
	for _, a := range []httpAnswer{
		off.send(t, "OPTIONS", "/v1/reservations", "", preflight...),
		off.send(t, "GET", "/v1/branches", "", "Origin", origin),
	} {
		for name := range a.Header {
			if strings.HasPrefix(name, "Access-Control") {
				t.Errorf("without CORS_ORIGINS, %s has the header %s", a.Request.URL, name)
			}
		}
	}
	env := e2e.NoRateLimits()
	env["CORS_ORIGINS"] = "https://other.example, " + origin
	on := start(t, stack.Config{Replicas: 1, NoRedis: true, Env: env})
	a := on.send(t, "OPTIONS", "/v1/reservations", "", preflight...)
	if a.StatusCode != http.StatusNoContent || a.Header.Get("Access-Control-Allow-Origin") != origin ||
		!strings.Contains(a.Header.Get("Access-Control-Allow-Methods"), "POST") ||
		!strings.Contains(strings.ToLower(a.Header.Get("Access-Control-Allow-Headers")), "authorization") ||
		a.Header.Get("Vary") != "Origin" {
		t.Errorf("the preflight is %s %v", a.Status, a.Header)
	}
	for _, a := range []httpAnswer{
		on.send(t, "GET", "/v1/branches", "", "Origin", origin),
		on.send(t, "GET", "/v1/reservations", "", "Origin", origin), // a problem
	} {
		if a.Header.Get("Access-Control-Allow-Origin") != origin || a.Header.Get("Vary") != "Origin" ||
			a.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("an answer to an allowed origin has %v", a.Header)
		}
	}
	a = on.send(t, "GET", "/v1/branches", "", "Origin", "https://evil.example")
	if a.Header.Get("Access-Control-Allow-Origin") != "" || a.Header.Get("Vary") != "Origin" {
		t.Errorf("an answer to another origin has %v", a.Header)
	}
	on.send(t, "OPTIONS", "/v1/reservations", "", "Origin", "https://evil.example",
		"Access-Control-Request-Method", "POST").problem(http.StatusMethodNotAllowed, "")
}
