package rest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/server/edge/edgetest"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store"
)

const (
	secureHost   = "library.example"
	secureOrigin = "https://" + secureHost
)

// post sends a POST without a body to a host, as a page of an origin does. headers are names and
// values in turn.
func (r *testReplica) post(t testing.TB, path, host, origin string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	return send(t, req, headers...)
}

// oneCookie returns the only cookie of an answer, and its header.
func (a answer) oneCookie(t testing.TB) (cookie *http.Cookie, header string) {
	t.Helper()
	headers := a.Header["Set-Cookie"]
	if len(headers) != 1 {
		t.Fatalf("%s with the cookies %q: %s", a.Status, headers, a.body)
	}
	return a.Cookies()[0], headers[0]
}

// noCookie checks that an answer neither sets nor deletes a cookie.
func (a answer) noCookie(t testing.TB) {
	t.Helper()
	if got := a.Header["Set-Cookie"]; len(got) > 0 {
		t.Errorf("%s has the cookies %q", a.Status, got)
	}
}

// session checks that an answer is the session of a token.
func (a answer) session(t testing.TB) map[string]any {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal(a.body, &got); err != nil || a.StatusCode != http.StatusOK ||
		a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s %v: %s", a.Status, a.Header, a.body)
	}
	return got
}

func tokenOf(authorization []string) string { return strings.TrimPrefix(authorization[1], "Bearer ") }

func TestSessionSurvivesThePage(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	authorization := r.login(t, "STUDENT-1")
	token := tokenOf(authorization)
	for _, c := range []struct{ host, origin, name, attributes string }{
		{secureHost, secureOrigin, "__Host-dlsms", "; HttpOnly; Secure; SameSite=Strict"},
		{secureHost + ":8443", secureOrigin + ":8443", "__Host-dlsms", "; HttpOnly; Secure; SameSite=Strict"},
		{secureHost + ":443", secureOrigin, "__Host-dlsms", "; HttpOnly; Secure; SameSite=Strict"},
		{"localhost:8443", "https://localhost:8443", "__Host-dlsms", "; HttpOnly; Secure; SameSite=Strict"},
		{"localhost", "http://localhost", "dlsms", "; HttpOnly; SameSite=Strict"},
		{"LOCALHOST:8080", "http://localhost:8080", "dlsms", "; HttpOnly; SameSite=Strict"},
		{"127.0.0.1:8080", "http://127.0.0.1:8080", "dlsms", "; HttpOnly; SameSite=Strict"},
		{"[::1]:8080", "http://[::1]:8080", "dlsms", "; HttpOnly; SameSite=Strict"},
		{"[::1]", "http://[::1]", "dlsms", "; HttpOnly; SameSite=Strict"},
	} {
		a := r.post(t, sessionPath, c.host, c.origin, authorization...)
		want := a.session(t)
		cookie, header := a.oneCookie(t)
		if cookie.MaxAge < 3590 || cookie.MaxAge > 3600 { // the token is valid for an hour
			t.Errorf("%s: the cookie is valid for %d s", c.origin, cookie.MaxAge)
		}
		all := c.name + "=" + token + "; Path=/; Max-Age=" + strconv.Itoa(cookie.MaxAge) + c.attributes
		if header != all {
			t.Errorf("%s: the cookie is\n%s, want\n%s", c.origin, header, all)
		}
		resumed := r.post(t, resumePath, c.host, c.origin, "Cookie", "other=1; "+c.name+"="+token)
		resumed.noCookie(t)
		if diff := cmp.Diff(want, resumed.session(t)); diff != "" {
			t.Errorf("%s: the resumed session differs (-want +got):\n%s", c.origin, diff)
		}
		end := r.post(t, endPath, c.host, c.origin, "Cookie", c.name+"="+token)
		deleted := c.name + "=; Path=/; Max-Age=0" + c.attributes
		if _, header := end.oneCookie(t); header != deleted || end.StatusCode != http.StatusNoContent ||
			end.Header.Get("Cache-Control") != "no-store" || len(end.body) > 0 {
			t.Errorf("%s: end is %s with %s, want %s", c.origin, end.Status, header, deleted)
		}
		// The other cookie of the same page is not read.
		for _, other := range []string{"__Host-dlsms", "dlsms", strings.ToUpper(c.name)} {
			if other != c.name {
				a := r.post(t, resumePath, c.host, c.origin, "Cookie", other+"="+token)
				a.problem(t, 401, "TOKEN_MISSING")
				a.noCookie(t)
			}
		}
	}
	// The end of a session does not revoke the token.
	if a := r.do(t, "GET", "/v1/reservations", "", authorization...); a.StatusCode != http.StatusOK {
		t.Errorf("after the end: %s", a.Status)
	}
}

func TestSessionHasTheUser(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	authorization := r.login(t, "STUDENT-1")
	got := r.post(t, sessionPath, secureHost, secureOrigin, authorization...).session(t)
	verified := r.do(t, "POST", "/v1/auth/verify", `{"token": "`+tokenOf(authorization)+`"}`)
	var want map[string]any
	if err := json.Unmarshal(verified.body, &want); err != nil {
		t.Fatal(err)
	}
	delete(want, "issuedAt")
	want["accessToken"] = tokenOf(authorization)
	if diff := cmp.Diff(want, got); diff != "" || got["studentId"] != "STUDENT-1" || got["role"] != "ROLE_STUDENT" {
		t.Errorf("(-VerifyToken +session):\n%s", diff)
	}
}

// TestSessionIsForOwnPages checks Origin on all paths. A refused request changes no cookie.
func TestSessionIsForOwnPages(t *testing.T) {
	t.Parallel()
	r := start(t, func(_ *server.Config, c *Config) { c.Origins = []string{"*"} })
	authorization := r.login(t, "STUDENT-1")
	token := tokenOf(authorization)
	for name, c := range map[string]struct {
		host, origin string
		status       int
	}{
		"no origin":              {secureHost, "", 403},
		"another origin":         {secureHost, "https://other.example", 403},
		"null":                   {secureHost, "null", 403},
		"another port":           {secureHost + ":8443", secureOrigin + ":9443", 403},
		"a port of the page":     {secureHost, secureOrigin + ":8443", 403},
		"port of another scheme": {secureHost + ":80", secureOrigin, 403},
		"a suffix":               {secureHost, "https://x" + secureHost, 403},
		"a prefix":               {secureHost, secureOrigin + ".other.example", 403},
		"a path":                 {secureHost, secureOrigin + "/", 403},
		"a user":                 {secureHost, "https://u@" + secureHost, 403},
		"no scheme":              {secureHost, secureHost, 403},
		"another scheme":         {secureHost, "ftp://" + secureHost, 403},
		"an extension":           {secureHost, "chrome-extension://" + secureHost, 403},
		"no host":                {secureHost, "https://", 403},
		"HTTP":                   {secureHost, "http://" + secureHost, 400},
		"HTTP by address":        {"192.0.2.7:8080", "http://192.0.2.7:8080", 400},
		"HTTP, almost local":     {"localhost.example", "http://localhost.example", 400},
		"HTTP, another loopback": {"127.0.0.2:8080", "http://127.0.0.2:8080", 400},
		"HTTP, local origin":     {secureHost, "http://localhost", 403},
	} {
		for _, path := range []string{sessionPath, resumePath, endPath} {
			a := r.post(t, path, c.host, c.origin,
				append(authorization, "Cookie", "__Host-dlsms="+token+"; dlsms="+token)...)
			p := a.problem(t, c.status, "")
			a.noCookie(t)
			if c.status == 400 && !strings.Contains(p.Detail, "requires HTTPS") {
				t.Errorf("%s, %s: %s", name, path, p.Detail)
			}
			if got := a.Header.Get("Access-Control-Allow-Origin"); got != "" {
				t.Errorf("%s, %s: %s may read the answer", name, path, got)
			}
		}
	}
	a := r.do(t, http.MethodOptions, sessionPath, "", "Origin", "https://other.example",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization")
	if a.problem(t, 405, ""); a.Header.Get("Access-Control-Allow-Methods") != "" || a.Header.Get("Allow") != "POST" {
		t.Errorf("a preflight is answered with %v", a.Header)
	}
	for _, path := range []string{sessionPath, resumePath, endPath} {
		a := r.do(t, http.MethodGet, path, "", "Origin", secureOrigin)
		if a.problem(t, 405, ""); a.Header.Get("Allow") != "POST" {
			t.Errorf("%s allows %q", path, a.Header.Get("Allow"))
		}
	}
}

// TestOneOriginOnly sends two headers Origin, the first of which is right.
func TestOneOriginOnly(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+endPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = secureHost
	req.Header["Origin"] = []string{secureOrigin, "https://other.example"}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Error(resp.Status)
	}
}

// TestOnlySessionsReadTheCookie checks that the cookie is no token anywhere else.
func TestOnlySessionsReadTheCookie(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	token := tokenOf(r.login(t, "STUDENT-1"))
	with := []string{"Cookie", "__Host-dlsms=" + token + "; dlsms=" + token, "Origin", r.url}
	for _, path := range []string{"/v1/reservations", "/v1/waitlist", "/v1/notifications:subscribe", "/v1/auth/export"} {
		r.do(t, http.MethodGet, path, "", with...).problem(t, 401, "TOKEN_MISSING")
	}
	r.do(t, http.MethodPost, "/v1/auth/logout", "", with...).problem(t, 401, "TOKEN_MISSING")
	r.do(t, http.MethodPost, sessionPath, "", with...).problem(t, 401, "TOKEN_MISSING")
	// Nor do sessions read the header, where they read the cookie.
	a := r.post(t, resumePath, secureHost, secureOrigin, "Authorization", "Bearer "+token)
	a.problem(t, 401, "TOKEN_MISSING")
	a.noCookie(t)
}

func TestInvalidCookieIsDeleted(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64 // seconds by which the clock is ahead
	r := start(t, func(c *server.Config, _ *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load()) * time.Second) }
	})
	resume := func(cookie string) answer { return r.post(t, resumePath, secureHost, secureOrigin, "Cookie", cookie) }
	deleted := func(a answer, reason string) {
		t.Helper()
		a.problem(t, 401, reason)
		_, header := a.oneCookie(t)
		if want := "__Host-dlsms=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict"; header != want {
			t.Errorf("%s: %s, want %s", reason, header, want)
		}
		if a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("a cache may keep %s", a.Status)
		}
	}
	first, second := r.login(t, "STUDENT-1"), r.login(t, "STUDENT-2")
	deleted(resume("__Host-dlsms=nonsense"), "TOKEN_INVALID")
	deleted(resume("__Host-dlsms="), "TOKEN_INVALID")
	deleted(resume("__Host-dlsms="+tokenOf(first)+"x"), "TOKEN_INVALID")
	deleted(resume("__Host-dlsms="+tokenOf(first)+"; __Host-dlsms="+tokenOf(second)), "TOKEN_INVALID")
	deleted(resume("__Host-dlsms=dlsms-key-7-"+strings.Repeat("x", 43)), "TOKEN_INVALID")
	if a := r.do(t, "POST", "/v1/auth/logout", "", first...); a.StatusCode != http.StatusOK {
		t.Fatal(a.Status)
	}
	deleted(resume("__Host-dlsms="+tokenOf(first)), "TOKEN_REVOKED")
	resume("__Host-dlsms=" + tokenOf(second)).session(t)
	ahead.Store(3600)
	deleted(resume("__Host-dlsms="+tokenOf(second)), "TOKEN_EXPIRED")

	// A token that is not valid does not get into a cookie.
	for reason, headers := range map[string][]string{
		"TOKEN_MISSING": nil, "TOKEN_INVALID": {"Authorization", "Bearer nonsense"}, "TOKEN_EXPIRED": second,
	} {
		a := r.post(t, sessionPath, secureHost, secureOrigin, headers...)
		a.problem(t, 401, reason)
		a.noCookie(t)
	}
}

// TestCookieLivesAsLongAsTheToken stores a token after half of its life.
func TestCookieLivesAsLongAsTheToken(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	r := start(t, func(c *server.Config, _ *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load()) * time.Second) }
	})
	authorization := r.login(t, "STUDENT-1")
	ahead.Store(1800)
	cookie, _ := r.post(t, sessionPath, secureHost, secureOrigin, authorization...).oneCookie(t)
	if cookie.MaxAge < 1790 || cookie.MaxAge > 1800 {
		t.Errorf("the cookie is valid for %d s, the token for half an hour", cookie.MaxAge)
	}
}

// TestCookieStaysInAnOutage checks that the answer 503 deletes no cookie.
func TestCookieStaysInAnOutage(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	r := start(t, nil)
	verify := r.services.VerifySession
	r.handler.session = func(ctx context.Context, token string) (server.Session, error) {
		if down.Load() {
			return server.Session{}, library.ErrUnavailable
		}
		return verify(ctx, token)
	}
	token := tokenOf(r.login(t, "STUDENT-1"))
	down.Store(true)
	a := r.post(t, resumePath, secureHost, secureOrigin, "Cookie", "__Host-dlsms="+token)
	a.problem(t, 503, "UNAVAILABLE")
	a.noCookie(t)
	down.Store(false)
	r.post(t, resumePath, secureHost, secureOrigin, "Cookie", "__Host-dlsms="+token).session(t)
}

// newKey makes a service key with a scope, and returns its text and a function that revokes it.
func (r *testReplica) newKey(t *testing.T, db *store.Store, scope library.KeyScope) (key string, revoke func()) {
	t.Helper()
	order := library.Order{Actor: library.Host, Action: "test"}
	secret, hash := identity.NewKeySecret()
	k, err := db.CreateKey(t.Context(), order, library.ServiceKey{
		Name: "Key " + rand.Text(), Branch: "branch-0", Scopes: []library.KeyScope{scope},
	}, hash)
	if err != nil {
		t.Fatal(err)
	}
	return identity.KeyText(k.ID, secret), func() {
		t.Helper()
		if _, err := db.RevokeKey(t.Context(), order, k.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSessionOfAScreen checks the service key of a screen. Keys with other scopes are refused.
func TestSessionOfAScreen(t *testing.T) {
	t.Parallel()
	var db *store.Store
	r := start(t, func(c *server.Config, _ *Config) { db = c.Store })
	key, revoke := r.newKey(t, db, library.ScopeScreen)
	cookie := "__Host-dlsms=" + key
	want := map[string]any{"accessToken": key, "key": true}
	for _, a := range []answer{
		r.post(t, sessionPath, secureHost, secureOrigin, "Authorization", "Bearer "+key),
		r.post(t, resumePath, secureHost, secureOrigin, "Cookie", cookie),
	} {
		if diff := cmp.Diff(want, a.session(t)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		all := cookie + "; Path=/; Max-Age=34560000; HttpOnly; Secure; SameSite=Strict"
		if _, header := a.oneCookie(t); header != all {
			t.Errorf("the cookie is %s, want %s", header, all)
		}
	}
	for _, scope := range []library.KeyScope{library.ScopeArrivals, library.ScopeReports} {
		other, _ := r.newKey(t, db, scope)
		a := r.post(t, sessionPath, secureHost, secureOrigin, "Authorization", "Bearer "+other)
		a.problem(t, 403, "ROLE_REQUIRED")
		a.noCookie(t)
	}
	revoke()
	edgetest.Eventually(t, "a revoked key ends the session", func() bool {
		a := r.post(t, resumePath, secureHost, secureOrigin, "Cookie", cookie)
		if a.StatusCode == http.StatusOK {
			return false
		}
		a.problem(t, 401, "TOKEN_REVOKED")
		c, _ := a.oneCookie(t)
		return c.Value == "" && c.MaxAge < 0
	})
}

// TestSessionsAreCalls checks that a session is logged as a call of VerifyToken, without the token.
func TestSessionsAreCalls(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	authorization := r.login(t, "STUDENT-1")
	token := tokenOf(authorization)
	for id, a := range map[string]answer{
		"id-session": r.post(t, sessionPath, secureHost, secureOrigin,
			"Authorization", authorization[1], "X-Request-Id", "id-session"),
		"id-resume": r.post(t, resumePath, secureHost, secureOrigin, "Cookie", "__Host-dlsms="+token,
			"X-Request-Id", "id-resume"),
		"id-refused": r.post(t, resumePath, secureHost, secureOrigin, "Cookie", "__Host-dlsms="+token+"x",
			"X-Request-Id", "id-refused"),
	} {
		code := "OK"
		if a.StatusCode != http.StatusOK {
			code = "TOKEN_INVALID"
		}
		r.logged(t, id, dlsmsv1.AuthService_VerifyToken_FullMethodName, code, `"http":true`)
	}
	parts := strings.Split(token, ".")
	if slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(r.log.String(), part) }) {
		t.Errorf("the log has a part of the token:\n%s", r.log)
	}
}

// TestSessionsOfOtherProcesses checks a process without the auth service.
func TestSessionsOfOtherProcesses(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *server.Config, _ *Config) { c.Services = []server.Service{server.SeatService} })
	for _, path := range []string{sessionPath, resumePath, endPath} {
		a := r.post(t, path, secureHost, secureOrigin)
		if a.StatusCode != http.StatusNotFound {
			t.Errorf("%s is %s", path, a.Status)
		}
	}
}
