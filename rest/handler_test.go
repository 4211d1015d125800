package rest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/server/edge/edgetest"
	"github.com/dlsms/dlsms/store/storetest"
)

func TestBookingOverHTTP(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	token := r.login(t, "STUDENT-1")
	a := r.do(t, "POST", "/v1/reservations", r.booking(0, ""), token...)
	var made struct {
		Reservation struct{ ID, Status string }
	}
	if err := json.Unmarshal(a.body, &made); err != nil || a.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", a.Status, a.body)
	}
	if want := "/v1/reservations/" + made.Reservation.ID; a.Header.Get("Location") != want ||
		made.Reservation.Status != "RESERVATION_STATUS_CONFIRMED" {
		t.Errorf("Location %q, want %q: %s", a.Header.Get("Location"), want, a.body)
	}
	if a = r.do(t, "GET", a.Header.Get("Location"), "", token...); a.StatusCode != http.StatusOK {
		t.Errorf("the new reservation is %s", a.Status)
	}
	p := r.do(t, "POST", "/v1/reservations", r.booking(0, ""), r.login(t, "STUDENT-2")...).problem(t, 409, "SEAT_TAKEN")
	if p.Type != "urn:dlsms:error:SEAT_TAKEN" || p.Title != "Seat taken" || p.Detail == "" ||
		p.Metadata["seat_id"] != fmt.Sprint(r.seats[0]) {
		t.Errorf("%+v", p)
	}
	id := strings.TrimPrefix(p.Instance, "urn:request:")
	if id == p.Instance {
		t.Errorf("the instance is %s", p.Instance)
	}
	r.logged(t, `"request_id":"`+id+`"`, `"http":true`, "CreateReservation", "SEAT_TAKEN")

	cancel := fmt.Sprintf("/v1/reservations/%s:cancel", made.Reservation.ID)
	if a = r.do(t, "POST", cancel, "", token...); a.StatusCode != http.StatusOK {
		t.Errorf("a cancel without a body is %s: %s", a.Status, a.body)
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	token := r.login(t, "STUDENT-1")
	reservation := func(a answer) string {
		t.Helper()
		var made struct{ Reservation struct{ ID string } }
		if err := json.Unmarshal(a.body, &made); err != nil || made.Reservation.ID == "" {
			t.Fatalf("%s: %s", a.Status, a.body)
		}
		return made.Reservation.ID
	}
	body := r.booking(0, "")
	first := reservation(r.do(t, "POST", "/v1/reservations", body, append(token, "Idempotency-Key", "key-1")...))
	for _, same := range [][]string{{"Idempotency-Key", "key-1"}, {"Idempotency-Key", `"key-1"`}} {
		if got := reservation(r.do(t, "POST", "/v1/reservations", body, slices.Concat(token, same)...)); got != first {
			t.Errorf("with %v the repeat made %s, want %s", same, got, first)
		}
	}
	withID := strings.TrimSuffix(body, "}") + `, "requestId": "key-1"}`
	both := r.do(t, "POST", "/v1/reservations", withID, append(token, "Idempotency-Key", "key-1")...)
	if got := reservation(both); got != first {
		t.Errorf("with both the repeat made %s, want %s", got, first)
	}
	p := r.do(t, "POST", "/v1/reservations", withID, append(token, "Idempotency-Key", "key-2")...).
		problem(t, 400, "INVALID_FIELDS")
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "#/requestId" {
		t.Errorf("%+v", p)
	}
	r.do(t, "POST", "/v1/reservations", r.booking(1, ""), append(token, "Idempotency-Key", "key-1")...).
		problem(t, 422, "REQUEST_ID_REUSED")
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	token := r.login(t, "STUDENT-1")
	large := `{"requestId": "` + strings.Repeat("x", maxBody) + `"}`
	for _, c := range []struct {
		what, method, path, body string
		headers                  []string
		status                   int
		reason, pointer          string
	}{
		{"broken JSON", "POST", "/v1/reservations", `{"seatId": `, nil, 400, "INVALID_FIELDS", "#"},
		{"text after the JSON", "POST", "/v1/reservations", `{} {}`, nil, 400, "INVALID_FIELDS", "#"},
		{"no object", "POST", "/v1/reservations", `[1]`, nil, 400, "INVALID_FIELDS", "#"},
		{"unknown field", "POST", "/v1/reservations", `{"seat": "1"}`, nil, 400, "INVALID_FIELDS", "#/seat"},
		{"a field twice", "POST", "/v1/reservations", `{"seatId": "1", "seatId": "2"}`, nil,
			400, "INVALID_FIELDS", "#/seatId"},
		{"a field in the query", "POST", "/v1/reservations?seatId=1", `{}`, nil, 400, "INVALID_FIELDS", "#/seatId"},
		{"a field in the query, no body", "POST", "/v1/reservations/1:cancel?x=1", ``, nil, 400, "INVALID_FIELDS", "#/x"},
		{"missing fields", "POST", "/v1/reservations", `{}`, nil, 400, "INVALID_FIELDS", "#/seatId"},
		{"id that is no number", "GET", "/v1/seats/a", ``, nil, 400, "INVALID_FIELDS", "#/seatId"},
		{"id in path and query", "GET", "/v1/seats/1?seatId=2", ``, nil, 400, "INVALID_FIELDS", "#/seatId"},
		{"unknown parameter", "GET", "/v1/seats?brunch=main", ``, nil, 400, "INVALID_FIELDS", "#/brunch"},
		{"unknown parameter, all fields in the path", "GET", "/v1/reservations/1?x=1", ``, nil, 400, "INVALID_FIELDS", "#/x"},
		{"unknown parameter of a stream", "GET", "/v1/seats:watch?brunch=main", ``, nil, 400, "INVALID_FIELDS", "#/brunch"},
		{"number that is not in the enum", "GET", "/v1/seats?amenities=1&amenities=99&pageSize=-1", ``, nil, 400,
			"INVALID_FIELDS", "#/amenities/1"},
		{"name that is not in the enum", "GET", "/v1/seats?amenities=SOFA", ``, nil, 400, "INVALID_FIELDS", "#/amenities/0"},
		{"time that is none", "GET", "/v1/seats?startTime=now", ``, nil, 400, "INVALID_FIELDS", "#/startTime"},
		{"a parameter twice", "GET", "/v1/seats?branch=a&branch=b", ``, nil, 400, "INVALID_FIELDS", "#/branch"},
		{"id of an event that is none", "GET", "/v1/notifications:subscribe", ``, []string{"Last-Event-ID", "x"},
			400, "INVALID_FIELDS", "#/afterId"},
		{"a form", "POST", "/v1/reservations", `seatId=1`,
			[]string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "", ""},
		{"text", "POST", "/v1/reservations", `{}`, []string{"Content-Type", "text/plain"}, 415, "", ""},
		{"another charset", "POST", "/v1/reservations", `{}`,
			[]string{"Content-Type", "application/json; charset=latin1"}, 415, "", ""},
		{"large body", "POST", "/v1/reservations", large, nil, 413, "", ""},
		{"unknown path", "GET", "/v1/nothing", ``, nil, 404, "", ""},
		{"unknown verb", "POST", "/v1/reservations/1:undo", ``, nil, 404, "", ""},
		{"root", "GET", "/v2", ``, nil, 404, "", ""},
		{"seat that does not exist", "GET", "/v1/seats/999999", ``, nil, 404, "SEAT_NOT_FOUND", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			p := r.do(t, c.method, c.path, c.body, append(slices.Clone(token), c.headers...)...).problem(t, c.status, c.reason)
			if p.Detail == "" || c.pointer != "" && (len(p.Errors) == 0 || p.Errors[0].Pointer != c.pointer) {
				t.Errorf("%+v", p)
			}
		})
	}
}

// TestChunkedBodyIsLimited sends a large body whose length the server learns at its end.
func TestChunkedBodyIsLimited(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	// net/http does not know the length of a body of this type.
	body := struct{ io.Reader }{strings.NewReader(`{"studentId": "` + strings.Repeat("x", maxBody) + `"}`)}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/v1/auth/login", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got %s", resp.Status)
	}
}

// TestLateBodyIsRefused sends the headers of a request and a part of its body. The answer comes after
// bodyTimeout.
func TestLateBodyIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST /v1/auth/verify HTTP/1.1\r\nHost: test\r\n"+
		"Content-Type: application/json\r\nContent-Length: 64\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer{resp, text}.problem(t, http.StatusRequestTimeout, "")
}

func TestMethods(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for path, allowed := range map[string]string{
		"/v1/seats": "GET", "/v1/seats/1": "GET", "/v1/auth/login": "POST", "/v1/reservations": "GET, POST",
		"/v1/reservations/1:cancel": "POST", "/v1/seats:watch": "GET", "/healthz": "GET",
	} {
		a := r.do(t, "DELETE", path, "")
		a.problem(t, 405, "")
		if got := a.Header.Get("Allow"); got != allowed {
			t.Errorf("%s allows %q, want %q", path, got, allowed)
		}
	}
	a := r.do(t, "HEAD", "/v1/seats", "")
	if a.StatusCode != http.StatusOK || len(a.body) != 0 || a.Header.Get("ETag") == "" {
		t.Errorf("HEAD is %s with %d bytes and the tag %q", a.Status, len(a.body), a.Header.Get("ETag"))
	}
	a = r.do(t, "HEAD", "/v1/seats:watch", "") // it ends
	if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD of a stream is %s with %v", a.Status, a.Header)
	}
	a = r.do(t, "POST", "/v1/reservations", "", "X-Http-Method-Override", "GET")
	a.problem(t, 401, "TOKEN_MISSING") // it is still a POST
	r.logged(t, "CreateReservation", "TOKEN_MISSING")
}

func TestTokens(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	a := r.do(t, "GET", "/v1/waitlist", "")
	a.problem(t, 401, "TOKEN_MISSING")
	if got := a.Header.Get("WWW-Authenticate"); got != "Bearer" {
		t.Errorf("without a token: WWW-Authenticate %q", got)
	}
	a = r.do(t, "GET", "/v1/waitlist", "", "Authorization", "Bearer nonsense")
	a.problem(t, 401, "TOKEN_INVALID")
	if got := a.Header.Get("WWW-Authenticate"); got != `Bearer error="invalid_token"` {
		t.Errorf("with a token that is none: WWW-Authenticate %q", got)
	}
	// A request that can't be read is authenticated like any other.
	r.do(t, "POST", "/v1/reservations", `{"seat`).problem(t, 401, "TOKEN_MISSING")
	r.do(t, "GET", "/v1/reservations?x=1", "").problem(t, 401, "TOKEN_MISSING")
	r.do(t, "POST", "/v1/reservations", "x", "Content-Type", "text/plain").problem(t, 401, "TOKEN_MISSING")
	r.do(t, "POST", "/v1/reservations", strings.Repeat("x", maxBody+1)).problem(t, 401, "TOKEN_MISSING")
}

// TestLimitsHoldOverHTTP checks that requests that can't be read count, too.
func TestLimitsHoldOverHTTP(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *server.Config, _ *Config) { c.Limits = edge.RateLimits{PerUserPerMinute: 2} })
	token := r.login(t, "STUDENT-1")
	for range 2 {
		r.do(t, "POST", "/v1/reservations", `{"seat`, token...).problem(t, 400, "INVALID_FIELDS")
	}
	a := r.do(t, "GET", "/v1/waitlist", "", token...)
	a.problem(t, 429, "RATE_LIMITED")
	if a.Header.Get("Retry-After") == "" {
		t.Error("a limit without Retry-After")
	}
}

func TestETag(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	a := r.do(t, "GET", "/v1/seats", "")
	tag := a.Header.Get("ETag")
	if a.StatusCode != http.StatusOK || tag == "" {
		t.Fatalf("%s with the tag %q", a.Status, tag)
	}
	a = r.do(t, "GET", "/v1/seats", "", "If-None-Match", tag)
	if a.StatusCode != http.StatusNotModified || len(a.body) > 0 {
		t.Errorf("unchanged, it is %s with %d bytes", a.Status, len(a.body))
	}
	made := r.do(t, "POST", "/v1/reservations", r.booking(1, ""), r.login(t, "STUDENT-1")...)
	if made.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", made.Status, made.body)
	}
	a = r.do(t, "GET", "/v1/seats", "", "If-None-Match", tag)
	if a.StatusCode != http.StatusOK || a.Header.Get("ETag") == tag ||
		!strings.Contains(string(a.body), `"availableCount":2`) {
		t.Errorf("after a booking, it is %s with %s", a.Status, a.body)
	}
}

// TestFloorPlanETag asks for a floor plan after a booking, which does not change it, and after changes
// of a seat and of an area.
func TestFloorPlanETag(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	const path = "/v1/branches/branch-0/plan"
	a := r.do(t, "GET", path, "")
	tag := a.Header.Get("ETag")
	var plan dlsmsv1.GetFloorPlanResponse
	if err := protojson.Unmarshal(a.body, &plan); err != nil || len(plan.GetSeats()) != 3 || plan.GetAsOf() == nil {
		t.Fatalf("%s: %v: %s", a.Status, err, a.body)
	}
	if tag == "" || a.Header.Get("Cache-Control") != "no-cache" || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("the headers are %v", a.Header)
	}
	if head := r.do(t, "HEAD", path, ""); head.StatusCode != http.StatusOK || head.Header.Get("ETag") != tag {
		t.Errorf("HEAD: %s with %v", head.Status, head.Header)
	}
	made := r.do(t, "POST", "/v1/reservations", r.booking(1, ""), r.login(t, "STUDENT-1")...)
	if made.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", made.Status, made.body)
	}
	a = r.do(t, "GET", path, "", "If-None-Match", tag)
	if a.StatusCode != http.StatusNotModified || len(a.body) > 0 || a.Header.Get("ETag") != tag {
		t.Errorf("after a booking, it is %s with %d bytes", a.Status, len(a.body))
	}
	for sql, text := range map[string]string{
		`UPDATE seats SET desk = 'Table 7' WHERE id = $1`: `"desk":"Table 7"`,
		`INSERT INTO areas (library_id, branch_id, name, floor)
			SELECT 1, branch_id, area, 'Basement' FROM seats WHERE id = $1`: `"floor":"Basement"`,
	} {
		r.db.Exec(t, sql, r.seats[0])
		a = r.do(t, "GET", path, "", "If-None-Match", tag)
		if a.StatusCode != http.StatusOK || a.Header.Get("ETag") == tag || !strings.Contains(string(a.body), text) {
			t.Errorf("after %s, it is %s with the tag %s: %s", sql, a.Status, a.Header.Get("ETag"), a.body)
		}
		tag = a.Header.Get("ETag")
	}

	r.do(t, "GET", "/v1/branches/none/plan", "").problem(t, http.StatusNotFound, "BRANCH_NOT_FOUND")
	r.do(t, "POST", path, "").problem(t, http.StatusMethodNotAllowed, "")
	for _, query := range []string{"?floor=1", "?branch=main"} {
		if p := r.do(t, "GET", path+query, "").problem(t, http.StatusBadRequest, "INVALID_FIELDS"); len(p.Errors) != 1 {
			t.Errorf("%s: %+v", query, p)
		}
	}
	r.logged(t, "GetFloorPlan", "BRANCH_NOT_FOUND")
}

// TestNoNotModifiedWithoutPostgres: an answer from memory may be outdated, so a client must get its
// asOf, even if it has the same seats already.
func TestNoNotModifiedWithoutPostgres(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	tag := r.do(t, "GET", "/v1/seats", "").Header.Get("ETag")
	ask := func() answer { return r.do(t, "GET", "/v1/seats", "", "If-None-Match", tag) }
	const plan = "/v1/branches/branch-0/plan"
	planTag := r.do(t, "GET", plan, "").Header.Get("ETag")
	name := storetest.Value[string](t, r.db, `SELECT current_database()`)
	admin := storetest.NewDB(t) // another connection, to close the database of r and open it again
	admin.Exec(t, `ALTER DATABASE `+name+` ALLOW_CONNECTIONS false`)
	admin.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, name)
	ended := time.Now()
	a := ask()
	var got dlsmsv1.GetSeatsResponse
	if err := protojson.Unmarshal(a.body, &got); err != nil {
		t.Fatalf("without Postgres, %s: %v: %s", a.Status, err, a.body)
	}
	if a.StatusCode != http.StatusOK || a.Header.Get("ETag") != tag ||
		got.GetTotalCount() != 3 || got.GetAsOf().AsTime().After(ended) {
		t.Errorf("without Postgres, %s with the tag %s, was %s: %s", a.Status, a.Header.Get("ETag"), tag, a.body)
	}
	if a := r.do(t, "GET", plan, "", "If-None-Match", planTag); a.StatusCode != http.StatusOK || planTag == "" {
		t.Errorf("without Postgres, the floor plan is %s: %s", a.Status, a.body)
	}
	admin.Exec(t, `ALTER DATABASE `+name+` ALLOW_CONNECTIONS true`)
	edgetest.Eventually(t, "with Postgres again, there is a 304", func() bool {
		return ask().StatusCode == http.StatusNotModified
	})
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	const allowed, other = "https://library.example", "https://other.example"
	off := start(t, nil)
	if a := off.do(t, "GET", "/v1/branches", "", "Origin", allowed); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("without CORS_ORIGINS, another origin may read answers")
	}
	on := start(t, func(_ *server.Config, c *Config) { c.Origins = []string{allowed} })
	a := on.do(t, "GET", "/v1/branches", "", "Origin", allowed)
	if a.Header.Get("Access-Control-Allow-Origin") != allowed || a.Header.Get("Vary") != "Origin" {
		t.Errorf("the allowed origin gets %v", a.Header)
	}
	if a = on.do(t, "GET", "/v1/branches", "", "Origin", other); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("another origin may read answers")
	}
	preflight := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization"}
	a = on.do(t, "OPTIONS", "/v1/reservations", "", append(preflight, "Origin", allowed)...)
	if a.StatusCode != http.StatusNoContent ||
		!strings.Contains(a.Header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("the preflight is %s with %v", a.Status, a.Header)
	}
	on.do(t, "OPTIONS", "/v1/reservations", "", append(preflight, "Origin", other)...).problem(t, 405, "")
}

// TestPathsOfOtherServices checks a process that runs the seat service alone.
func TestPathsOfOtherServices(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *server.Config, _ *Config) { c.Services = []server.Service{server.SeatService} })
	if a := r.do(t, "GET", "/v1/seats", ""); a.StatusCode != http.StatusOK {
		t.Errorf("its own service is %s", a.Status)
	}
	for _, path := range []string{"/v1/waitlist", "/v1/notifications:subscribe", "/v1/reservations"} {
		r.do(t, "GET", path, "").problem(t, 404, "")
	}
	r.do(t, "POST", "/v1/auth/login", "{}").problem(t, 404, "")
}

func TestHealth(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	if a := r.do(t, "GET", "/healthz", ""); a.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", a.Status, a.body)
	}
}
