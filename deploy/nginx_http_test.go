package deploy_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/dlsms/dlsms/deploy"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// httpBackend is an HTTP server behind the proxy. It counts the requests that arrive.
type httpBackend struct {
	*httptest.Server
	requests atomic.Int64
}

// newHTTPBackend starts a backend. handle may be nil.
func newHTTPBackend(t *testing.T, handle http.HandlerFunc) *httpBackend {
	t.Helper()
	b := &httpBackend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.requests.Add(1)
		if handle != nil {
			handle(w, r)
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *httpBackend) addr() string { return b.Listener.Addr().String() }

// hang answers a request when its client has closed the connection.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // the server notices the end of a connection after the body
	<-r.Context().Done()
}

// httpProxy starts nginx with deploy/nginx.conf and returns its address for HTTP.
// edits has pairs of old and new text.
func httpProxy(t *testing.T, edits []string, backends ...*httpBackend) string {
	t.Helper()
	var addrs []string
	for _, b := range backends {
		addrs = append(addrs, b.addr())
	}
	return startProxy(t, stack.NginxConfig{HTTPBackends: addrs, Conf: edit(t, deploy.NginxConf, edits)}).HTTPAddr()
}

// get makes a GET request and reads its answer.
func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, req)
}

func post(t *testing.T, url, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return do(t, req)
}

// do makes a request that http.Transport does not repeat.
func do(t *testing.T, req *http.Request) (*http.Response, string) {
	t.Helper()
	req.GetBody = nil
	return send(t, http.DefaultClient, req)
}

// send makes a request with a client and reads the answer.
func send(t *testing.T, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestHTTPProxyUsesRoundRobin(t *testing.T) {
	t.Parallel()
	backends := []*httpBackend{newHTTPBackend(t, nil), newHTTPBackend(t, nil), newHTTPBackend(t, nil)}
	addr := httpProxy(t, nil, backends...)
	const requests = 300
	for range requests {
		if resp, body := get(t, "http://"+addr+"/v1/seats"); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status, body)
		}
	}
	for i, b := range backends {
		if n := b.requests.Load(); n < requests/3-1 || n > requests/3+1 {
			t.Errorf("backend %d got %d of %d requests, want a third", i, n, requests)
		}
	}
}

// No request fails because a replica refuses connections, not even a POST.
func TestHTTPProxySkipsDeadReplica(t *testing.T) {
	t.Parallel()
	alive, dead := newHTTPBackend(t, nil), newHTTPBackend(t, nil)
	dead.Close()
	addr := httpProxy(t, nil, dead, alive)
	for range 100 {
		if resp, body := post(t, "http://"+addr+"/v1/reservations", "{}"); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status, body)
		}
	}
	if got := alive.requests.Load(); got != 100 {
		t.Errorf("the live replica got %d of 100 requests", got)
	}
}

// A POST that a replica may have received is not repeated. A GET is: it changes nothing.
func TestHTTPProxyDoesNotRepeatPost(t *testing.T) {
	t.Parallel()
	var broken []*httpBackend
	for range 3 {
		broken = append(broken, newHTTPBackend(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	}
	all := func() (n int64) {
		for _, b := range broken {
			n += b.requests.Load()
		}
		return n
	}
	addr := httpProxy(t, nil, broken...)
	for i := range int64(6) {
		resp, body := post(t, "http://"+addr+"/v1/reservations", "{}")
		wantProblem(t, resp, body, http.StatusServiceUnavailable, "UNAVAILABLE")
		if got := all(); got != i+1 {
			t.Fatalf("the replicas got %d requests for %d POSTs", got, i+1)
		}
	}
	before := all()
	resp, body := get(t, "http://"+addr+"/v1/reservations")
	wantProblem(t, resp, body, http.StatusServiceUnavailable, "UNAVAILABLE")
	if got := all() - before; got != 3 {
		t.Errorf("the replicas got %d requests for a GET, want one each", got)
	}
}

// If a replica accepts a request and does not answer, the client is told soon after the replica's
// own deadline. The proxy does not repeat the request, so that the answer takes no longer.
func TestHTTPProxyTimesOutOnHungReplica(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"proxy_read_timeout 6s;", "proxy_next_upstream_timeout 5s;"} {
		if !strings.Contains(deploy.NginxConf, line) {
			t.Errorf("nginx.conf has no %s: a replica ends each call after 5 s", line)
		}
	}
	hung := []*httpBackend{newHTTPBackend(t, hang), newHTTPBackend(t, hang)}
	addr := httpProxy(t, []string{
		"proxy_read_timeout 6s;", "proxy_read_timeout 1s;",
		"proxy_next_upstream_timeout 5s;", "proxy_next_upstream_timeout 900ms;",
	}, hung...)
	for i, ask := range []func() (*http.Response, string){
		func() (*http.Response, string) { return get(t, "http://"+addr+"/v1/seats") },
		func() (*http.Response, string) { return post(t, "http://"+addr+"/v1/reservations", "{}") },
	} {
		resp, body := ask()
		p := wantProblem(t, resp, body, http.StatusServiceUnavailable, "UNAVAILABLE")
		if !strings.Contains(p.Detail, "in time") {
			t.Errorf("the detail is %q", p.Detail)
		}
		if got := hung[0].requests.Load() + hung[1].requests.Load(); got != int64(i+1) {
			t.Errorf("the replicas got %d requests, want %d", got, i+1)
		}
	}
}

func TestHTTPProxySetsHeaders(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	addr := httpProxy(t, nil, newHTTPBackend(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r }))
	for sent, want := range map[string]string{
		"": `^[0-9a-f]{32}$`, "client-Id_1.2": `^client-Id_1\.2$`, `"},"x`: `^[0-9a-f]{32}$`,
		strings.Repeat("x", 64): `^x{64}$`, strings.Repeat("x", 65): `^[0-9a-f]{32}$`,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/v1/seats?branch=a%2Fb", nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"X-Real-IP": "203.0.113.7", "Authorization": "Bearer a.b.c", "If-None-Match": `W/"1"`, "Idempotency-Key": `"k"`,
		} {
			req.Header.Set(name, value)
		}
		if sent != "" {
			req.Header.Set("X-Request-Id", sent)
		}
		do(t, req)
		got := <-seen
		for name, want := range map[string]string{
			"X-Real-IP": `^127\.0\.0\.1$`, "X-Request-Id": want, "Authorization": `^Bearer a\.b\.c$`,
			"If-None-Match": `^W/"1"$`, "Idempotency-Key": `^"k"$`,
		} {
			values := got.Header.Values(name)
			if len(values) != 1 || !regexp.MustCompile(want).MatchString(values[0]) {
				t.Errorf("%s is %q, want one that matches %s", name, values, want)
			}
		}
		if got.Proto != "HTTP/1.1" || got.Close || got.RequestURI != "/v1/seats?branch=a%2Fb" {
			t.Errorf("the replica got %s %s, close %v", got.Proto, got.RequestURI, got.Close)
		}
	}
}

// Answers of a replica, such as its 413, pass unchanged.
func TestHTTPProxyForwardsAnswers(t *testing.T) {
	t.Parallel()
	for _, status := range []int{201, 304, 400, 401, 404, 405, 409, 413, 415, 422, 429, 431, 500, 503, 504} {
		received := make(chan int, 1)
		b := newHTTPBackend(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			received <- len(body)
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("ETag", `W/"1"`)
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			if status != http.StatusNotModified {
				_, _ = io.WriteString(w, "the replica's own")
			}
		})
		addr := httpProxy(t, nil, b)
		resp, body := post(t, "http://"+addr+"/v1/reservations", strings.Repeat(" ", 127<<10))
		contentType, text := "application/problem+json", "the replica's own"
		if status == http.StatusNotModified {
			contentType, text = "", ""
		}
		if resp.StatusCode != status || resp.Header.Get("Retry-After") != "7" || resp.Header.Get("ETag") != `W/"1"` ||
			resp.Header.Get("Content-Type") != contentType || body != text {
			t.Errorf("%d became %s %v %q", status, resp.Status, resp.Header, body)
		}
		if n := <-received; n != 127<<10 {
			t.Errorf("the replica got a body of %d bytes", n)
		}
	}
}

// With its defaults, nginx closes the connections of clients and replicas after 1,000 requests.
func TestHTTPProxyReusesConnections(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	upstream := map[string]bool{}
	addr := httpProxy(t, nil, newHTTPBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		upstream[r.RemoteAddr] = true
	}))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	opened := 0
	trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		if !c.Reused {
			opened++
		}
	}}
	for range 2500 {
		ctx := httptrace.WithClientTrace(t.Context(), trace)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v1/seats", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	if opened != 1 {
		t.Errorf("the client opened %d connections, want 1", opened)
	}
	if got := len(upstream); got > 2 {
		t.Errorf("nginx opened %d connections for requests one after another, want one kept open", got)
	}
}

// nginx must close an idle connection to a replica first.
func TestHTTPProxyClosesIdleConnectionsFirst(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../rest/server.go")
	if err != nil {
		t.Fatal(err)
	}
	replica := regexp.MustCompile(`idleTimeout = (\d+) \* time\.Minute\n`).FindSubmatch(source)
	if replica == nil {
		t.Fatal("rest/server.go has no idleTimeout in minutes")
	}
	minutes, err := strconv.Atoi(string(replica[1]))
	if err != nil {
		t.Fatal(err)
	}
	for name, conf := range map[string]string{
		"nginx.conf": deploy.NginxConf, "nginx-microservices.conf": deploy.NginxMicroservicesConf,
	} {
		upstreams := regexp.MustCompile(`(?s)upstream \w+_http \{(.*?)\n    \}`).FindAllStringSubmatch(conf, -1)
		for _, u := range upstreams {
			proxy := regexp.MustCompile(`keepalive_timeout (\d+)s;`).FindStringSubmatch(u[1])
			if proxy == nil {
				t.Fatalf("%s: no keepalive_timeout in\n%s", name, u[0])
			}
			seconds, err := strconv.Atoi(proxy[1])
			if err != nil {
				t.Fatal(err)
			}
			if seconds+30 > minutes*60 {
				t.Errorf("%s: nginx closes idle connections after %d s, the replica after %d min", name, seconds, minutes)
			}
		}
		if len(upstreams) == 0 {
			t.Errorf("%s has no upstream for HTTP", name)
		}
	}
}

// A silent stream lasts longer than the timeout of a request, and each event arrives at once.
func TestHTTPProxyKeepsSilentStream(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	b := newHTTPBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, ":watch") {
			hang(w, r)
			return
		}
		for line := range next {
			_, _ = io.WriteString(w, line)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		}
	})
	addr := httpProxy(t, []string{"proxy_read_timeout 6s;", "proxy_read_timeout 1s;"}, b)
	opened := make(chan *http.Response)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/v1/seats:watch", nil)
		if err != nil {
			t.Error(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
		}
		opened <- resp
	}()
	next <- "event: snapshot\n"
	resp := <-opened
	if resp == nil {
		t.FailNow()
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewReader(resp.Body)
	read := func(want string) {
		t.Helper()
		if got, err := lines.ReadString('\n'); err != nil || got != want {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
	}
	read("event: snapshot\n")
	// This request ends at the timeout.
	hung, body := get(t, "http://"+addr+"/v1/seats")
	wantProblem(t, hung, body, http.StatusServiceUnavailable, "UNAVAILABLE")
	next <- "event: change\n"
	read("event: change\n")
	close(next)
	if _, err := lines.ReadString('\n'); err != io.EOF {
		t.Errorf("the stream ended with %v, want io.EOF", err)
	}
}

// Requests in flight over HTTP and over gRPC count together.
func TestHTTPProxyLimitsRequestsInFlightOfAddress(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1)
	b := newHTTPBackend(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		hang(w, r)
	})
	n := startProxy(t, stack.NginxConfig{
		Backends: []string{new(backend).start(t).addr}, HTTPBackends: []string{b.addr()},
		Conf: edit(t, deploy.NginxConf, []string{"limit_conn in_flight 8192;", "limit_conn in_flight 1;"}),
	})
	untilNotLimited(t, func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.HTTPAddr()+"/v1/seats:watch", nil)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if resp, err := http.DefaultClient.Do(req); err == nil { // it ends with the test
				_ = resp.Body.Close()
			}
		}()
		select {
		case <-arrived:
			return true
		case <-ended:
			return false
		}
	})
	resp, body := get(t, "http://"+n.HTTPAddr()+"/v1/seats")
	wantProblem(t, resp, body, http.StatusServiceUnavailable, "OVERLOADED")
	wantStatus(t, call(t, dial(t, n.Addr())), codes.ResourceExhausted, "OVERLOADED")
}

// A seat file may have 2 MiB, and its answer may take longer than others.
func TestHTTPProxyPassesSeatFiles(t *testing.T) {
	t.Parallel()
	var size atomic.Int64
	b := newHTTPBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Error(err)
		}
		size.Store(n)
		if n > 0 && strings.HasSuffix(r.URL.Path, ":import") {
			<-time.After(1500 * time.Millisecond) // longer than the timeout of other requests
		}
	})
	addr := httpProxy(t, []string{"proxy_read_timeout 6s;", "proxy_read_timeout 1s;"}, b)
	file := strings.Repeat("x", 2<<20)
	resp, body := post(t, "http://"+addr+"/v1/admin/seats:import?dryRun=true", file)
	if resp.StatusCode != http.StatusOK || size.Load() != 2<<20 {
		t.Errorf("%s, %d bytes arrived\n%s", resp.Status, size.Load(), body)
	}
	resp, body = post(t, "http://"+addr+"/v1/admin/seats:import?dryRun=true", file+"x")
	wantProblem(t, resp, body, http.StatusRequestEntityTooLarge, "")
	resp, body = post(t, "http://"+addr+"/v1/admin/seats", file[:200<<10])
	wantProblem(t, resp, body, http.StatusRequestEntityTooLarge, "")
}

// problem is the answer to a request that failed, as in package rest.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail"`
	Instance string `json:"instance"`
	Reason   string `json:"reason"`
}

// wantProblem checks an answer of nginx itself. An empty reason means no reason.
func wantProblem(t *testing.T, resp *http.Response, body string, status int, reason string) problem {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != status || got != "application/problem+json" {
		t.Fatalf("got %s and %s, want a problem with status %d:\n%s", resp.Status, got, status, body)
	}
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.DisallowUnknownFields()
	var p problem
	if err := decoder.Decode(&p); err != nil || decoder.More() {
		t.Fatalf("the problem can't be decoded: %v\n%s", err, body)
	}
	want := problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: p.Detail,
		Instance: "urn:request:" + resp.Header.Get("X-Request-Id"), Reason: reason,
	}
	if reason != "" {
		want.Type, want.Title = "urn:dlsms:error:"+reason, reason[:1]+strings.ToLower(reason[1:])
		if _, known := dlsmsv1.ErrorReason_value["ERROR_REASON_"+reason]; !known {
			t.Errorf("the reason %s is not in error.proto", reason)
		}
	}
	if p != want || p.Detail == "" || len(resp.Header.Get("X-Request-Id")) != 32 {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	header := map[string]string{"Cache-Control": "no-store", "Retry-After": "", "Allow": ""}
	switch status {
	case http.StatusServiceUnavailable:
		header["Retry-After"] = "1"
	case http.StatusMethodNotAllowed:
		header["Allow"] = "GET, POST"
	}
	for name, want := range header {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("the header %s is %q, want %q", name, got, want)
		}
	}
	return p
}

// raw sends a request as it stands, which http.Client would refuse.
func raw(t *testing.T, addr, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("the answer to %.60q: %v", request, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// Each error of nginx itself is a problem, and each problem in nginx.conf is provoked here.
func TestProxyAnswersWithProblems(t *testing.T) {
	t.Parallel()
	b := newHTTPBackend(t, nil)
	dead := newHTTPBackend(t, nil)
	dead.Close()
	whole, none := httpProxy(t, nil, b), httpProxy(t, nil, dead)
	hung := httpProxy(t, []string{"proxy_read_timeout 6s;", "proxy_read_timeout 1s;"}, newHTTPBackend(t, hang))
	secure := startProxy(t, stack.NginxConfig{HTTPBackends: []string{b.addr()}, TLS: certificate(t)}).HTTPSAddr()
	limited := httpProxy(t, []string{"rate=100000r/s", "rate=1r/m", "burst=10000", "burst=1"}, b)
	long := strings.Repeat("x", 8<<10)
	header := func(lines ...string) string {
		return "GET /v1/seats HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	var details sync.Map // the details of the problems that were provoked
	for name, c := range map[string]struct {
		addr, request string // of a request as it stands
		status        int
		reason        string
	}{
		"large body": {whole, "POST /v1/reservations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n", 413, ""},
		"large chunks": {whole, "POST /v1/reservations HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"20001\r\n" + strings.Repeat("x", 0x20001) + "\r\n0\r\n\r\n", 413, ""},
		"long URI":            {whole, "GET /v1/seats?branch=" + long + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, ""},
		"large header":        {whole, header("x-large: " + long), 431, ""},
		"large headers":       {whole, header("a: "+long[:6<<10], "b: "+long[:6<<10], "c: "+long[:6<<10]), 431, ""},
		"TRACE":               {whole, "TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, ""},
		"no host":             {whole, "GET / HTTP/1.1\r\n\r\n", 400, ""},
		"no request":          {whole, "nonsense\r\n\r\n", 400, ""},
		"HTTP/2 without TLS":  {whole, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, ""},
		"unknown version":     {whole, "GET / HTTP/7.0\r\nHost: localhost\r\n\r\n", 400, ""},
		"transfer encoding":   {whole, header("Transfer-Encoding: gzip"), 400, ""},
		"path of the problem": {whole, "GET /@problem/retry/no_replica HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, ""},
		"plain HTTP":          {secure, header(), 400, ""},
		"dead":                {none, header(), 503, "UNAVAILABLE"},
		"dead, .html":         {none, "GET /docs/index.html HTTP/1.1\r\nHost: localhost\r\n\r\n", 503, "UNAVAILABLE"},
		"dead, for a stream":  {none, "GET /v1/seats:watch HTTP/1.1\r\nHost: localhost\r\n\r\n", 503, "UNAVAILABLE"},
		"hung":                {hung, header(), 503, "UNAVAILABLE"},
		"limited":             {limited, header(), 503, "OVERLOADED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "limited" {
				for range 2 { // one, and one more in the burst
					get(t, "http://"+limited+"/v1/seats")
				}
			}
			resp, body := raw(t, c.addr, c.request)
			details.Store(wantProblem(t, resp, body, c.status, c.reason).Detail, true)
		})
	}
	t.Cleanup(func() { // after the subtests
		for _, m := range regexp.MustCompile(`"detail":"([^"]+)"`).FindAllStringSubmatch(deploy.NginxConf, -1) {
			if _, ok := details.Load(m[1]); !ok {
				t.Errorf("no request provokes the problem %q", m[1])
			}
		}
	})

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+none+"/v1/seats", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Request-Id", "the-clients-own")
	resp, body := do(t, req)
	const id = "the-clients-own"
	if resp.Header.Get("X-Request-Id") != id || !strings.Contains(body, "urn:request:"+id) {
		t.Errorf("the problem does not have the client's request id: %v\n%s", resp.Header, body)
	}
}
