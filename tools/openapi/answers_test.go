package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/dlsms/dlsms/stack"
)

// TestAnswersFollowTheDocument calls every operation of the document on a real system. It validates
// each request and each answer against the document.
func TestAnswersFollowTheDocument(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	student := func(n int) {
		login := v.call("POST", "/v1/auth/login", map[string]any{
			"studentId": fmt.Sprintf("S202100%d", n), "password": "password123",
		}, 200)
		v.token = login["accessToken"].(string)
	}
	end := time.Now().Add(2 * time.Hour).UTC().Format(time.RFC3339)
	id := func(answer map[string]any, field string) string { return answer[field].(map[string]any)["id"].(string) }

	v.call("GET", "/v1/branches", nil, 200)
	seats := v.call("GET", "/v1/seats?branch=main&amenities=AMENITY_POWER_OUTLET&pageSize=2", nil, 200)
	seat := seats["seats"].([]any)[0].(map[string]any)["id"].(string)
	v.headers = http.Header{"If-None-Match": {v.etag}}
	v.call("GET", "/v1/seats?branch=main&amenities=AMENITY_POWER_OUTLET&pageSize=2", nil, 304)
	v.headers = nil
	v.call("GET", "/v1/seats?branch=nowhere", nil, 404)
	v.call("GET", "/v1/branches/main/plan", nil, 200)
	v.headers = http.Header{"If-None-Match": {v.etag}}
	v.call("GET", "/v1/branches/main/plan", nil, 304)
	v.headers = nil
	v.call("GET", "/v1/auth/account", nil, 401)
	v.call("POST", "/v1/auth/register", map[string]any{
		"studentId": "NEW-1", "name": "New", "email": "new@university.example", "password": "password123",
	}, 201)
	v.call("POST", "/v1/auth/login", map[string]any{"studentId": "NEW-1", "password": "wrong password"}, 401)

	student(1)
	v.call("POST", "/v1/auth/verify", map[string]any{"token": v.token}, 200)
	v.call("GET", "/v1/auth/account", nil, 200)
	v.call("POST", "/v1/auth/session", nil, 403)
	v.headers = http.Header{"Origin": {v.url}, "Cookie": {"dlsms=" + v.token}}
	v.call("POST", "/v1/auth/session", nil, 200)
	v.call("POST", "/v1/auth/session:resume", nil, 200)
	v.call("POST", "/v1/auth/session:end", nil, 204)
	v.headers = nil
	first := v.token
	v.headers = http.Header{"Idempotency-Key": {"key-1"}}
	booking := v.call("POST", "/v1/reservations", map[string]any{"seatId": seat, "endTime": end}, 201)
	v.headers = nil
	reservation := "/v1/reservations/" + id(booking, "reservation")
	v.call("GET", reservation, nil, 200)
	v.call("GET", "/v1/reservations?view=RESERVATION_VIEW_ALL", nil, 200)
	v.call("GET", "/v1/seats/"+seat, nil, 200)
	v.call("POST", reservation+":checkIn", nil, 200)
	v.call("POST", reservation+":cancel", nil, 409)

	student(2)
	second := v.token
	v.call("POST", "/v1/reservations", map[string]any{"seatId": seat, "endTime": end}, 409)
	v.call("POST", "/v1/reservations", map[string]any{"seatId": "0"}, 400)
	start := booking["reservation"].(map[string]any)["startTime"]
	joined := v.call("POST", "/v1/waitlist", map[string]any{"seatId": seat, "startTime": start, "endTime": end}, 201)
	v.call("GET", "/v1/waitlist", nil, 200)

	v.token = first
	later := time.Now().Add(3 * time.Hour).UTC().Format(time.RFC3339)
	v.call("POST", reservation+":extend", map[string]any{"endTime": later}, 200)
	v.call("POST", reservation+":checkOut", nil, 200)

	v.token = second
	entry := "/v1/waitlist/" + id(joined, "entry")
	v.events("/v1/notifications:subscribe", "SEAT_OFFERED")
	v.call("GET", "/v1/notifications?afterId=0", nil, 200)
	claimed := v.call("POST", entry+":claim", nil, 200)
	v.call("POST", entry+":leave", nil, 409)
	v.call("POST", "/v1/waitlist/999999:leave", nil, 404)
	v.call("GET", "/v1/standing", nil, 200)
	v.call("GET", "/v1/reservations:check?seatId="+seat+"&endTime="+end, nil, 200)
	v.call("POST", "/v1/reservations", map[string]any{"seatId": "2", "endTime": end, "validateOnly": true}, 409)
	staffAnswers(v)
	student(3)
	v.call("POST", "/v1/reservations", map[string]any{"seatId": "2", "endTime": end, "validateOnly": true}, 200)
	waiting := v.call("POST", "/v1/waitlist", map[string]any{"seatId": seat, "startTime": start, "endTime": end}, 201)
	v.call("POST", "/v1/waitlist/"+id(waiting, "entry")+":leave", nil, 200)
	v.token = second
	v.call("POST", "/v1/reservations/"+id(claimed, "reservation")+":cancel", nil, 200)
	v.events("/v1/seats:watch", "snapshot")
	v.call("POST", "/v1/auth/password", map[string]any{
		"currentPassword": "password123", "newPassword": "password124",
	}, 200)
	v.call("POST", "/v1/auth/logout", nil, 401)
	v.token = first
	v.call("POST", "/v1/auth/logout", nil, 200)
	student(3)
	v.call("GET", "/v1/auth/export", nil, 200)
	v.call("POST", "/v1/auth/close", map[string]any{"password": "password124"}, 401)
	v.call("POST", "/v1/auth/close", map[string]any{"password": "password123"}, 200)
	v.call("GET", "/healthz", nil, 200)
	v.call("GET", "/v1/openapi.json", nil, 200)

	for path, item := range v.doc.Paths.Map() {
		for method := range item.Operations() {
			if !v.succeeded[method+" "+path] {
				t.Errorf("%s %s was not answered with success", method, path)
			}
		}
	}
}

// validator sends requests to a system at url, and validates the requests and the answers against
// the document.
type validator struct {
	t         *testing.T
	doc       *openapi3.T
	router    routers.Router
	url       string
	token     string
	headers   http.Header     // of the next calls
	etag      string          // of the last answer
	succeeded map[string]bool // by method and path of the document
}

func newValidator(t *testing.T) *validator {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../../rest/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	openapi3filter.RegisterBodyDecoder("application/problem+json", openapi3filter.JSONBodyDecoder)
	openapi3filter.RegisterBodyDecoder("text/html", openapi3filter.FileBodyDecoder)
	binary := filepath.Join(t.TempDir(), "dlsms")
	build := exec.CommandContext(t.Context(), "stack/build.sh", "-o", binary, ".")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s, err := stack.Start(t.Context(), stack.Config{
		Binary: binary, Seed: true, Unsafe: true, Replicas: 1, Env: map[string]string{"BCRYPT_COST": "4"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return &validator{t: t, doc: doc, router: router, url: "http://" + s.HTTPAddr(), succeeded: map[string]bool{}}
}

// do sends a request and validates it and its answer. It returns the answer and the body.
func (v *validator) do(method, path string, body any) (*http.Response, []byte) {
	v.t.Helper()
	text, kind := []byte(nil), "application/json"
	if file, ok := body.(string); ok {
		text, kind = []byte(file), "text/csv"
	} else if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			v.t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.url+path, bytes.NewReader(text))
	if err != nil {
		v.t.Fatal(err)
	}
	for name, values := range v.headers {
		req.Header[name] = values
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	if v.token != "" {
		req.Header.Set("Authorization", "Bearer "+v.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	route, params, err := v.router.FindRoute(req)
	if err != nil {
		v.t.Fatalf("%s %s is not in the document: %v", method, path, err)
	}
	options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, MultiError: true}
	input := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route, Options: options}
	req.Body = io.NopCloser(bytes.NewReader(text))
	if resp.StatusCode < 400 {
		if err := openapi3filter.ValidateRequest(req.Context(), input); err != nil {
			v.t.Errorf("%s %s: the document refuses the request: %v", method, path, err)
		}
		v.succeeded[method+" "+route.Path] = true
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	output := (&openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: resp.StatusCode, Header: resp.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	}).SetBodyBytes(answer)
	if err := openapi3filter.ValidateResponse(req.Context(), output); err != nil {
		v.t.Errorf("%s %s: the answer is not that of the document: %v", method, path, err)
	}
	return resp, answer
}

// call sends a request and returns the answer. The answer must have the status.
func (v *validator) call(method, path string, body any, status int) (answer map[string]any) {
	v.t.Helper()
	resp, text := v.do(method, path, body)
	if resp.StatusCode != status {
		v.t.Fatalf("%s %s: %s, want %d: %s", method, path, resp.Status, status, text)
	}
	v.etag = resp.Header.Get("ETag")
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(text, &answer); err != nil {
			v.t.Fatalf("%s %s: %v: %s", method, path, err, text)
		}
	}
	return answer
}

// events reads the stream at path and validates each event, until the data of an event contains
// text. It returns these data.
func (v *validator) events(path, text string) (found string) {
	v.t.Helper()
	resp, _ := v.do("GET", path, nil)
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		v.t.Fatalf("%s: %s", path, resp.Status)
	}
	route, _, _ := strings.Cut(path, "?")
	operation := v.doc.Paths.Value(route).Get
	schema := operation.Responses.Status(http.StatusOK).Value.Content.Get("text/event-stream").Schema.Value
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var message any
		if err := json.Unmarshal([]byte(data), &message); err != nil {
			v.t.Fatalf("%s: %v: %s", path, err, data)
		}
		if err := schema.VisitJSON(message); err != nil {
			v.t.Errorf("%s: the event is not that of the document: %v: %s", path, err, data)
		}
		if strings.Contains(lines.Text(), text) {
			return data
		}
	}
	v.t.Errorf("%s ended without %s", path, text)
	return ""
}
