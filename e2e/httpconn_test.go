package e2e

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// answer is an answer of a server of a test.
type answer struct {
	status  int
	headers string // "Name: value", separated by line breaks
	body    string
}

// serveAnswer returns a client of a server that gives one answer, and the last request.
func serveAnswer(t *testing.T, a answer, options ...HTTPOption) (*Client, *HTTPConn, func() (*http.Request, string)) {
	t.Helper()
	var mu sync.Mutex
	var last *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		last = r
		body, _ = io.ReadAll(r.Body)
		w.Header()["Content-Type"] = nil // unless the answer has it
		for line := range strings.Lines(a.headers) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(server.Close)
	conn := DialHTTP(strings.TrimPrefix(server.URL, "http://"), options...)
	t.Cleanup(func() { _ = conn.Close() })
	return Anonymous(conn), conn, func() (*http.Request, string) {
		mu.Lock()
		defer mu.Unlock()
		return last, string(body)
	}
}

func TestHTTPConnFollowsTheRules(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	c, conn, last := serveAnswer(t, answer{200, "Content-Type: application/json", "{}"})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "id-1")
	check := func(err error, verb, uri, body string) {
		t.Helper()
		r, got := last()
		if err != nil || r.Method != verb || r.RequestURI != uri || strings.ReplaceAll(got, " ", "") != body {
			t.Errorf("%v: %s %s %s, want %s %s %s", err, r.Method, r.RequestURI, got, verb, uri, body)
		}
		if r.Header.Get("X-Request-Id") != "id-1" || r.Header.Get("Authorization") != "Bearer token" {
			t.Errorf("the headers are %v", r.Header)
		}
	}
	c = c.WithToken("token")
	_, err := c.Seats.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{
		Branch: "a b", Amenities: []dlsmsv1.Amenity{2, 99}, StartTime: timestamppb.New(at), AvailableOnly: true, PageSize: -1,
	})
	check(err, "GET", "/v1/seats?amenities=AMENITY_MONITOR&amenities=99&availableOnly=true&branch=a+b&pageSize=-1"+
		"&startTime=2026-01-02T03%3A04%3A05.000006Z", "")
	_, err = c.Seats.GetSeat(ctx, &dlsmsv1.GetSeatRequest{SeatId: -7, EndTime: timestamppb.New(at)})
	check(err, "GET", "/v1/seats/-7?endTime=2026-01-02T03%3A04%3A05.000006Z", "")
	_, err = c.Reservations.ExtendReservation(ctx, &dlsmsv1.ExtendReservationRequest{
		ReservationId: 8, EndTime: timestamppb.New(at),
	})
	check(err, "POST", "/v1/reservations/8:extend", `{"endTime":"2026-01-02T03:04:05.000006Z"}`)
	_, err = c.Auth.Logout(ctx, &dlsmsv1.LogoutRequest{})
	check(err, "POST", "/v1/auth/logout", "{}")
	if err := conn.Err(); err != nil {
		t.Error(err)
	}
}

const (
	problemHeaders = "Content-Type: application/problem+json\nCache-Control: no-store\nX-Request-Id: 1"
	problemStart   = `{"title":"T","detail":"the detail","instance":"urn:request:1",`
)

func TestHTTPConnReadsProblems(t *testing.T) {
	t.Parallel()
	c, conn, _ := serveAnswer(t, answer{400, problemHeaders, problemStart + `"type":"urn:dlsms:error:INVALID_FIELDS",
		"status":400,"reason":"INVALID_FIELDS","metadata":{"a":"b"},"errors":[
		{"pointer":"#/startTime","detail":"one"},{"pointer":"#/amenities/2","detail":"two"},{"pointer":"#","detail":"3"}]}`})
	_, err := c.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{})
	want := Refusal{
		Code: codes.InvalidArgument, Reason: "INVALID_FIELDS", Domain: "dlsms", Metadata: map[string]string{"a": "b"},
		Fields: []string{"start_time", "amenities[2]", "request"}, Message: "the detail",
	}
	if diff := cmp.Diff(want, RefusalOf(err), protocmp.Transform()); diff != "" || conn.Err() != nil {
		t.Errorf("%s (%v)", diff, conn.Err())
	}
	c, conn, _ = serveAnswer(t, answer{503, problemHeaders + "\nRetry-After: 3", problemStart +
		`"type":"urn:dlsms:error:OVERLOADED","status":503,"reason":"OVERLOADED"}`})
	stream, err := c.Watch(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-stream.Ended()
	err = stream.Err()
	if r := RefusalOf(err); CheckRefusal(err, "OVERLOADED") != nil || r.RetryAfter != 3*time.Second || conn.Err() != nil {
		t.Errorf("%v (%v)", err, conn.Err())
	}
}

// TestHTTPConnIsStrict checks that each answer that breaks the contract fails the call and is
// recorded.
func TestHTTPConnIsStrict(t *testing.T) {
	t.Parallel()
	const isJSON = "Content-Type: application/json"
	reason := func(name string, status string) string {
		return problemStart + `"type":"urn:dlsms:error:` + name + `","status":` + status + `,"reason":"` + name + `"}`
	}
	plain := func(status string) string { return problemStart + `"type":"about:blank","status":` + status + `}` }
	booking := `{"reservation":{"id":"5"}}`
	for name, a := range map[string]answer{
		"an unknown field":              {201, isJSON + "\nLocation: /v1/reservations/5", `{"reservation":{"id":"5","x":1}}`},
		"no Content-Type":               {201, "Location: /v1/reservations/5", booking},
		"another Content-Type":          {201, "Content-Type: text/plain\nLocation: /v1/reservations/5", booking},
		"200 for a create":              {200, isJSON + "\nLocation: /v1/reservations/5", booking},
		"no Location":                   {201, isJSON, booking},
		"another Location":              {201, isJSON + "\nLocation: /v1/reservations/6", booking},
		"a redirect":                    {307, isJSON + "\nLocation: /elsewhere", booking},
		"an empty answer":               {201, isJSON, ""},
		"text after the message":        {201, isJSON + "\nLocation: /v1/reservations/5", booking + "{}"},
		"an error in JSON":              {404, isJSON, plain("404")},
		"an error in HTML":              {502, "Content-Type: text/html", "<html>"},
		"429 without Retry-After":       {429, problemHeaders, reason("RATE_LIMITED", "429")},
		"Retry-After 0":                 {429, problemHeaders + "\nRetry-After: 0", reason("RATE_LIMITED", "429")},
		"503 without Retry-After":       {503, problemHeaders, plain("503")},
		"409 with Retry-After":          {409, problemHeaders + "\nRetry-After: 1", reason("SEAT_TAKEN", "409")},
		"401 without WWW-Authenticate":  {401, problemHeaders, reason("TOKEN_MISSING", "401")},
		"405 without Allow":             {405, problemHeaders, plain("405")},
		"the wrong status for a reason": {400, problemHeaders, reason("SEAT_TAKEN", "400")},
		"another status in the problem": {404, problemHeaders, plain("400")},
		"an unknown reason":             {409, problemHeaders, reason("NO_REASON", "409")},
		"a problem with another field":  {404, problemHeaders, strings.Replace(plain("404"), "{", `{"x":1,`, 1)},
		"no type":                       {404, problemHeaders, problemStart + `"status":404}`},
		"another request id":            {404, strings.Replace(problemHeaders, "Id: 1", "Id: 2", 1), plain("404")},
		"a problem that may be stored":  {404, strings.Replace(problemHeaders, "no-store", "no-cache", 1), plain("404")},
		"a pointer to no field": {400, problemHeaders, problemStart + `"type":"urn:dlsms:error:INVALID_FIELDS",` +
			`"status":400,"reason":"INVALID_FIELDS","errors":[{"pointer":"#/start_time","detail":"d"}]}`},
	} {
		c, conn, _ := serveAnswer(t, a)
		_, err := c.Reservations.CreateReservation(t.Context(), &dlsmsv1.CreateReservationRequest{})
		if status.Code(err) != codes.Unknown || conn.Err() == nil {
			t.Errorf("%s: %v, breaches %v", name, err, conn.Err())
		}
	}
}

// TestHTTPConnChecksEvents checks that each stream that breaks the contract ends and is recorded.
func TestHTTPConnChecksEvents(t *testing.T) {
	t.Parallel()
	const headers = "Content-Type: text/event-stream\nCache-Control: no-store"
	const sent = "event: notification\nid: 7\ndata: {\"notification\":{\"id\":\"7\"}}\n\n"
	problem := `event: error` + "\n" + `data: ` + problemStart +
		`"type":"urn:dlsms:error:UNAVAILABLE","status":503,"reason":"UNAVAILABLE"}` + "\n\n"
	subscribe := func(a answer) ([]*dlsmsv1.SubscribeResponse, error, error) {
		t.Helper()
		c, conn, _ := serveAnswer(t, a)
		stream, err := c.Subscribe(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		<-stream.Ended()
		return stream.Messages(), stream.Err(), conn.Err()
	}
	got, err, breach := subscribe(answer{200, headers, ": hello\nretry: 2000\n\n" + sent + ": heartbeat\n\n" + problem})
	if len(got) != 1 || got[0].GetNotification().GetId() != 7 || breach != nil {
		t.Errorf("%v, %v, breaches %v", got, err, breach)
	}
	if err := CheckRefusal(err, "UNAVAILABLE"); err != nil || RefusalOf(err).RetryAfter > 2*time.Second {
		t.Error(err)
	}
	for name, a := range map[string]answer{
		"another Content-Type":      {200, "Cache-Control: no-store\nContent-Type: text/plain", "retry: 1\n\n" + sent},
		"a stream that is stored":   {200, "Content-Type: text/event-stream", "retry: 1\n\n" + sent},
		"no reconnection time":      {200, headers, sent},
		"another type":              {200, headers, "retry: 1\n\n" + strings.Replace(sent, "notification", "change", 1)},
		"no id":                     {200, headers, "retry: 1\n\n" + strings.Replace(sent, "id: 7\n", "", 1)},
		"another id":                {200, headers, "retry: 1\n\n" + strings.Replace(sent, "id: 7\n", "id: 8\n", 1)},
		"an unknown field":          {200, headers, "retry: 1\n\n" + strings.Replace(sent, `"id"`, `"number"`, 1)},
		"an error without problem":  {200, headers, "retry: 1\n\nevent: error\ndata: {}\n\n"},
		"an event after the error":  {200, headers, "retry: 1\n\n" + problem + sent},
		"204 instead of a stream":   {204, headers, ""},
		"a problem in another type": {503, "Retry-After: 1\nCache-Control: no-store\nX-Request-Id: 1", problem},
	} {
		if _, err, breach := subscribe(a); status.Code(err) != codes.Unknown || breach == nil {
			t.Errorf("%s: %v, breaches %v", name, err, breach)
		}
	}
}

func TestHTTPConnMapsFailuresOfTheConnection(t *testing.T) {
	t.Parallel()
	conn := DialHTTP("127.0.0.1:1", RetryHTTP())
	c := Anonymous(conn)
	_, err := c.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a closed port: %v", err)
	}
	stream, err := c.Watch(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if <-stream.Ended(); status.Code(stream.Err()) != codes.Unavailable {
		t.Errorf("a stream to a closed port: %v", stream.Err())
	}
	cut, conn, _ := serveAnswer(t, answer{200, "Content-Type: application/json\nContent-Length: 9", "{}"})
	if _, err = cut.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("half of an answer: %v", err)
	}
	if err := conn.Err(); err != nil {
		t.Errorf("a broken connection is no breach: %v", err)
	}
}

// TestHTTPConnRetries checks that a call succeeds although the first three attempts fail.
func TestHTTPConnRetries(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var methods []string
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			methods = append(methods, r.Method)
			if len(methods) < 4 {
				panic(http.ErrAbortHandler) // closes the connection without an answer
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "{}")
		})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	_, err = Anonymous(DialHTTP(l.Addr().String(), RetryHTTP())).Auth.Logout(t.Context(), &dlsmsv1.LogoutRequest{})
	mu.Lock()
	defer mu.Unlock()
	if err != nil || !slices.Equal(methods, []string{"POST", "POST", "POST", "POST"}) {
		t.Errorf("%v after %v", err, methods)
	}
}

// TestHTTPConnReturnsKnownAnswerFor304 checks that a call with If-None-Match returns the answer
// before, and that its header tells the status.
func TestHTTPConnReturnsKnownAnswerFor304(t *testing.T) {
	t.Parallel()
	const etag = `W/"a"`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"totalCount":7}`)
	}))
	t.Cleanup(server.Close)
	conn := DialHTTP(strings.TrimPrefix(server.URL, "http://"), RevalidateHTTP())
	t.Cleanup(func() { _ = conn.Close() })
	for _, want := range []string{"200", "304"} {
		var header metadata.MD
		resp, err := Anonymous(conn).Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{}, grpc.Header(&header))
		if got := header.Get(StatusHeader); err != nil || resp.GetTotalCount() != 7 || !slices.Equal(got, []string{want}) {
			t.Errorf("%v, the status is %q, want %s: %v", resp, got, want, err)
		}
	}
	if err := conn.Err(); err != nil {
		t.Error(err)
	}
}
