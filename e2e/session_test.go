package e2e_test

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dlsms/dlsms/e2e"
	"github.com/dlsms/dlsms/stack"
)

// webPage is a page of a system in a browser, which keeps cookies.
type webPage struct {
	t      *testing.T
	client *http.Client
	origin string
}

func openPage(t *testing.T, origin string, config *tls.Config, http2 bool) *webPage {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: http2}
	t.Cleanup(transport.CloseIdleConnections)
	return &webPage{t, &http.Client{Transport: transport, Jar: jar}, origin}
}

// post sends a request as a script of a page of an origin does.
func (p *webPage) post(uri, origin, body string, headers ...string) httpAnswer {
	p.t.Helper()
	ctx := within(p.t, waitTimeout)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.origin+uri, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Origin", origin)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return httpAnswer{resp, p.t, text}
}

// session returns the session in an answer.
func (a httpAnswer) session() (s struct{ AccessToken, ExpiresAt, UserID, StudentID, Role string }) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, &s); err != nil || a.StatusCode != http.StatusOK || s.AccessToken == "" {
		a.t.Fatalf("%s %s: %s %s", a.Request.Method, a.Request.URL, a.Status, a.body)
	}
	return s
}

// cookies returns the names of the cookies that the browser would send to the page.
func (p *webPage) cookies() (names []string) {
	u, err := url.Parse(p.origin + "/v1/auth/session:resume")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, c := range p.client.Jar.Cookies(u) {
		names = append(names, c.Name)
	}
	return names
}

// TestStaysSignedIn signs in, stores the session, opens the page again and signs out: over HTTP on
// loopback, and over HTTPS with HTTP/1.1 and HTTP/2, in both topologies. No log has a token.
func TestStaysSignedIn(t *testing.T) {
	t.Parallel()
	for name, topology := range map[string]stack.Topology{
		"monolith": stack.Monolith, "microservices": stack.Microservices,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := certificate(t, time.Now().Add(36*time.Hour))
			env := e2e.NoRateLimits()
			env["LOG_LEVEL"] = "debug"
			s := start(t, stack.Config{Topology: topology, TLS: dir, Replicas: 2, Seed: true, Env: env})
			client := trusting(t, dir)
			var secrets []string
			for _, c := range []struct {
				origin, cookie string
				http2          bool
			}{
				{"http://" + s.HTTPAddr(), "dlsms", false},
				{"https://" + s.HTTPSAddr(), "__Host-dlsms", false},
				{"https://" + s.HTTPSAddr(), "__Host-dlsms", true},
			} {
				secrets = append(secrets, staysSignedIn(t, s, openPage(t, c.origin, client, c.http2), c.cookie)...)
			}
			page := openPage(t, "https://"+s.HTTPSAddr(), client, true)
			secrets = append(secrets, screenStaysSignedIn(t, page))
			logged(t, s, "AuthService/VerifyToken")
			for _, secret := range secrets {
				if line := s.log.Find(secret); line != "" {
					t.Errorf("the log has a token: %s", line)
				}
			}
		})
	}
}

// logged waits for a line in the log of a system. A replica writes the line of a call after its
// answer, in the background.
func logged(t *testing.T, s *system, text string) {
	t.Helper()
	if !happens(func() bool { return s.log.Has(text) }) {
		t.Errorf("the log does not have %q", text)
	}
}

// staysSignedIn returns the parts of the token that identify it.
func staysSignedIn(t *testing.T, s *system, page *webPage, cookie string) (secrets []string) {
	t.Helper()
	login := page.post("/v1/auth/login", page.origin, `{"studentId": "S2021001", "password": "password123"}`).session()
	bearer := "Bearer " + login.AccessToken
	page.post("/v1/auth/session", "https://other.example", "", "Authorization", bearer).problem(403, "")
	if got := page.cookies(); len(got) > 0 {
		t.Errorf("%s: a page of another origin stored %v", page.origin, got)
	}
	first := page.post("/v1/auth/session", page.origin, "", "Authorization", bearer).session()
	if got := page.cookies(); !cmp.Equal(got, []string{cookie}) {
		t.Errorf("%s: the cookies are %v, want %s", page.origin, got, cookie)
	}
	page.post("/v1/auth/session:resume", "https://other.example", "").problem(403, "")
	again := page.post("/v1/auth/session:resume", page.origin, "").session()
	if diff := cmp.Diff(first, again); diff != "" || again.AccessToken != login.AccessToken ||
		again.StudentID != "S2021001" || again.Role != "ROLE_STUDENT" {
		t.Errorf("%s: the session is %+v\n%s", page.origin, again, diff)
	}
	// The cookie alone makes no call.
	page.post("/v1/reservations/1:cancel", page.origin, "").problem(401, "TOKEN_MISSING")
	page.post("/v1/auth/logout", page.origin, "").problem(401, "TOKEN_MISSING")

	page.post("/v1/auth/logout", page.origin, "", "Authorization", bearer)
	if !happens(func() bool { // the other replicas learn of it by a hint
		return page.post("/v1/auth/session:resume", page.origin, "").StatusCode == http.StatusUnauthorized
	}) {
		t.Errorf("%s: a revoked token still opens the page", page.origin)
	}
	if got := page.cookies(); len(got) > 0 {
		t.Errorf("%s: after the end of the token, the cookies are %v", page.origin, got)
	}
	if a := page.post("/v1/auth/session:end", page.origin, ""); a.StatusCode != http.StatusNoContent {
		t.Errorf("%s: end without a cookie: %s", page.origin, a.Status)
	}
	return strings.Split(login.AccessToken, ".")[1:]
}

// screenStaysSignedIn stores the key of the demo screen, and ends its session. It returns the secret
// of the key.
func screenStaysSignedIn(t *testing.T, page *webPage) string {
	t.Helper()
	const secret = "demo-screen-key-everybody-can-read-this-key"
	const key = "dlsms-key-9007199254740991-" + secret
	page.post("/v1/auth/session", page.origin, "", "Authorization", "Bearer "+key)
	if a := page.post("/v1/auth/session:resume", page.origin, ""); a.session().AccessToken != key {
		t.Errorf("the screen gets %s", a.body)
	}
	page.post("/v1/auth/session:end", page.origin, "")
	page.post("/v1/auth/session:resume", page.origin, "").problem(401, "TOKEN_MISSING")
	return secret
}

// TestServesTheWebClient opens the page through nginx, in both topologies, as a browser does.
func TestServesTheWebClient(t *testing.T) {
	t.Parallel()
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	want, err := os.ReadFile("../web/dist/index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*system{shared(t), sharedMicroservices(t)} {
		for uri, status := range map[string]int{
			"/": 200, "/me": 200, "/c/V7Q2": 200, "/S/R-11": 200, "/admin/closures": 200, "/nothing": 404, "/assets/x.js": 404,
		} {
			a := s.send(t, "GET", uri, "", "Accept", browser, "Accept-Encoding", "identity")
			if a.StatusCode != status || string(a.body) != string(want) ||
				!strings.Contains(a.Header.Get("Content-Security-Policy"), "default-src 'none'") ||
				a.Header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Errorf("%s: %s %v\n%s", uri, a.Status, a.Header, a.body)
			}
		}
		tag := s.send(t, "GET", "/", "", "Accept-Encoding", "br").Header.Get("ETag")
		again := s.send(t, "GET", "/me", "", "Accept-Encoding", "br", "If-None-Match", tag)
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("with the tag %s: %s", tag, again.Status)
		}
		s.send(t, "GET", "/nothing", "").problem(404, "")
		s.send(t, "POST", "/", "").problem(405, "")
	}
}
