package deploy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dlsms/dlsms/deploy"
	"github.com/dlsms/dlsms/stack"
)

// proxies starts nginx with the configurations of both topologies, with the same backends, and
// returns them by topology.
func proxies(t *testing.T, tls string, backends ...*httpBackend) map[string]*stack.Nginx {
	t.Helper()
	var addrs []string
	for _, b := range backends {
		addrs = append(addrs, b.addr())
	}
	upstreams := map[string][]string{}
	for _, name := range []string{"seat", "auth", "reservation", "notify", "any"} {
		upstreams[name], upstreams[name+"_http"] = addrs, addrs
	}
	return map[string]*stack.Nginx{
		"monolith": startProxy(t, stack.NginxConfig{HTTPBackends: addrs, TLS: tls}),
		"microservices": startProxy(t, stack.NginxConfig{
			Upstreams: upstreams, TLS: tls, Conf: deploy.NginxMicroservicesConf,
		}),
	}
}

// A replica gets the host that the client sent, with its port. It compares it with the header
// Origin.
func TestReplicaGetsHostWithPort(t *testing.T) {
	t.Parallel()
	b := newHTTPBackend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host+" "+r.Header.Get("Origin"))
	})
	dir := certificate(t)
	for topology, n := range proxies(t, dir, b) {
		_, port, _ := net.SplitHostPort(n.HTTPSAddr())
		for url, c := range map[string]*http.Client{
			"http://" + n.HTTPAddr():    http.DefaultClient,
			"https://localhost:" + port: httpsClient(t, trusting(t, dir), true),
			"https://127.0.0.1:" + port: httpsClient(t, trusting(t, dir), false),
		} {
			for _, path := range []string{"/v1/auth/session:resume", "/v1/seats"} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Origin", url)
				resp, body := send(t, c, req)
				_, host, _ := strings.Cut(url, "://")
				if want := host + " " + url; body != want {
					t.Errorf("%s, %s over %s: the replica got %q, want %q", topology, path, resp.Proto, body, want)
				}
			}
		}
		// A name without a port, and in another case than that of the certificate.
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.HTTPAddr()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "Library.example"
		if _, body := do(t, req); body != "Library.example " {
			t.Errorf("%s: the replica got %q", topology, body)
		}
	}
}

// nginx passes on the answers of the page as they are: codings, types, 404 and 304.
func TestAnswersOfThePageAreUnchanged(t *testing.T) {
	t.Parallel()
	b := newHTTPBackend(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Etag", `"tag"`)
		h.Set("Vary", "Accept-Encoding")
		h.Set("X-Target", r.RequestURI)
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Encoding", r.Header.Get("Accept-Encoding"))
		h.Add("Set-Cookie", "__Host-dlsms=x; Path=/; HttpOnly; Secure; SameSite=Strict")
		if strings.HasPrefix(r.URL.Path, "/nothing") {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, "coded")
	})
	for topology, n := range proxies(t, "", b) {
		for path, status := range map[string]int{
			"/": 200, "/C/V7Q2": 200, "/c/a%20b%2Fc?x=%20": 200, "/s/R-11": 200, "/assets/main-ABCDEFGH.js": 200,
			"/nothing": 404, "/nothing.html": 404, "/nothing/icon.png": 404,
		} {
			ask := func(name, value string) (*http.Response, string) {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.HTTPAddr()+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Accept-Encoding", "br")
				req.Header.Set(name, value)
				return do(t, req)
			}
			resp, body := ask("Accept-Encoding", "br")
			if resp.StatusCode != status || body != "coded" || resp.Header.Get("Content-Encoding") != "br" ||
				resp.Header.Get("Content-Type") != "text/html; charset=utf-8" || resp.Header.Get("Etag") != `"tag"` ||
				resp.Header.Get("Vary") != "Accept-Encoding" || resp.Header.Get("X-Target") != path ||
				!strings.HasPrefix(resp.Header.Get("Set-Cookie"), "__Host-dlsms=x; Path=/; HttpOnly; Secure;") {
				t.Errorf("%s, %s: %s %v %q", topology, path, resp.Status, resp.Header, body)
			}
			resp, body = ask("If-None-Match", `"tag"`)
			if resp.StatusCode != http.StatusNotModified || body != "" || resp.Header.Get("Etag") != `"tag"` {
				t.Errorf("%s, %s: %s %v %q", topology, path, resp.Status, resp.Header, body)
			}
		}
	}
}

// During a rolling update, a file exists on the replicas of one release. Every request gets it.
func TestFilesOfTwoReleases(t *testing.T) {
	t.Parallel()
	var missing atomic.Int64
	old := newHTTPBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		missing.Add(1)
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "from the replica")
	})
	updated := newHTTPBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".js") {
			_, _ = io.WriteString(w, "the file")
			return
		}
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "from the replica")
	})
	for topology, n := range proxies(t, "", old, updated) {
		missing.Store(0)
		for i := range 10 {
			if resp, body := get(t, "http://"+n.HTTPAddr()+fmt.Sprintf("/assets/%d.js", i)); body != "the file" {
				t.Errorf("%s: %s %q", topology, resp.Status, body)
			}
			resp, body := get(t, "http://"+n.HTTPAddr()+"/assets/nothing")
			if resp.StatusCode != http.StatusNotFound || body != "from the replica" {
				t.Errorf("%s: a file that no replica has: %s %q", topology, resp.Status, body)
			}
		}
		if missing.Load() == 0 {
			t.Errorf("%s: the old replica got no request", topology)
		}
	}
}
