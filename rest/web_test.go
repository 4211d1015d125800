package rest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/server/edge/edgetest"
	"github.com/dlsms/dlsms/web"
)

// webFiles are the files of a web client. The content of a file names its coding.
func webFiles() fstest.MapFS {
	files := fstest.MapFS{}
	for _, name := range []string{
		"index.html", "sw.js", "manifest.webmanifest", "icon.svg", "assets/main-ABCDEFGH.js", "assets/main-ABCDEFGH.css",
	} {
		for _, suffix := range []string{"", ".br", ".gz"} {
			files[name+suffix] = &fstest.MapFile{Data: []byte(name + " in the coding " + suffix)}
		}
	}
	files["icon-192.png"] = &fstest.MapFile{Data: []byte("icon-192.png in the coding ")}
	return files
}

// startSite starts a replica that serves webFiles.
func startSite(t *testing.T) *testReplica {
	t.Helper()
	return start(t, func(_ *server.Config, c *Config) { c.Web = webFiles() })
}

// browser is the header Accept of a browser that opens a page.
const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

// getFile sends a GET without decoding the answer.
func (r *testReplica) getFile(t *testing.T, path string, headers ...string) answer {
	t.Helper()
	if !slices.Contains(headers, "Accept-Encoding") { // http.Transport sends one and decodes the answer
		headers = append(headers, "Accept-Encoding", "identity")
	}
	return r.do(t, http.MethodGet, path, "", headers...)
}

func TestPaths(t *testing.T) {
	t.Parallel()
	r := startSite(t)
	const index = "index.html"
	for path, file := range map[string]string{
		"/": index, "/me": index, "/scan": index, "/login": index, "/register": index, "/settings": index,
		"/screen": index, "/desk": index, "/desk/users/7": index, "/admin": index, "/admin/": index,
		"/admin/closures": index, "/c/V7Q2": index, "/C/V7Q2": index, "/s/R-11": index, "/S/R-11": index,
		"/c/a%20b": index, "/?branch=main": index, "/index.html": index,
		"/sw.js": "sw.js", "/manifest.webmanifest": "manifest.webmanifest", "/icon.svg": "icon.svg",
		"/icon-192.png": "icon-192.png", "/assets/main-ABCDEFGH.js": "assets/main-ABCDEFGH.js",
	} {
		a := r.getFile(t, path)
		if want := file + " in the coding "; a.StatusCode != http.StatusOK || string(a.body) != want {
			t.Errorf("%s: %s %q, want %q", path, a.Status, a.body, want)
		}
	}
	for _, path := range []string{
		"/nothing", "/c", "/c/", "/s", "/s/a/b", "/c/a%2Fb", "/me/", "/ME", "/desktop", "/assets", "/assets/",
		"/assets/main.js", "/sw.js.br", "/index.html.gz", "/assets/../index.html", "/..%2fweb.go", "/favicon.ico",
	} {
		a := r.getFile(t, path)
		a.problem(t, 404, "")
		a = r.getFile(t, path, "Accept", browser)
		if a.StatusCode != http.StatusNotFound || a.Header.Get("Content-Type") != "text/html; charset=utf-8" ||
			!strings.HasPrefix(string(a.body), index) || a.Header.Get("Content-Security-Policy") != contentPolicy {
			t.Errorf("%s in a browser: %s %v\n%s", path, a.Status, a.Header, a.body)
		}
		if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("ETag") != "" {
			t.Errorf("a browser may keep the answer to %s: %v", path, a.Header)
		}
	}
	for _, path := range []string{"/v1", "/v1/", "/v1/nothing", "/v1/seats/0/x"} {
		r.getFile(t, path, "Accept", browser).problem(t, 404, "")
	}
	docs := r.getFile(t, "/docs", "Accept", browser)
	if docs.StatusCode != http.StatusOK || !bytes.Contains(docs.body, []byte("swagger")) {
		t.Errorf("/docs is %s", docs.Status)
	}
}

// TestTraversal sends paths that an HTTP client would clean.
func TestTraversal(t *testing.T) {
	t.Parallel()
	r := startSite(t)
	for _, path := range []string{
		"/../web.go", "/assets/../../web.go", "/assets/..%2f..%2fweb.go", `/assets/..\web.go`, "/%2e%2e/web.go", "/./sw.js",
		"//sw.js", "/assets//main-ABCDEFGH.js",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path)
		text, err := io.ReadAll(conn)
		_ = conn.Close()
		if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 404 ") {
			t.Errorf("%s: %v %s", path, err, text)
		}
	}
}

func TestHTMLIsForBrowsers(t *testing.T) {
	t.Parallel()
	r := startSite(t)
	for accept, want := range map[string]bool{
		browser:                             true,
		"text/html":                         true,
		"text/*":                            true,
		"TEXT/HTML;q=0.9, */*;q=0.8":        true,
		"application/json;q=0.5, text/html": true,
		"":                                  false,
		"*/*":                               false,
		"application/json":                  false,
		"application/json, text/html":       false,
		"text/html;q=0.5, application/json": false,
		"text/html;q=0, */*":                false,
		"image/png, */*;q=0.5":              false,
		"application/problem+json, text/html;q=0.9": false,
	} {
		a := r.getFile(t, "/nothing", "Accept", accept)
		got := a.Header.Get("Content-Type") == "text/html; charset=utf-8"
		if got != want || a.StatusCode != http.StatusNotFound {
			t.Errorf("%q: %s, %s", accept, a.Status, a.Header.Get("Content-Type"))
		}
	}
	r.do(t, "POST", "/nothing", "{}", "Accept", browser).problem(t, 404, "")
	a := r.do(t, "HEAD", "/nothing", "", "Accept", browser)
	if a.StatusCode != http.StatusNotFound || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") ||
		len(a.body) != 0 {
		t.Errorf("HEAD: %s %v %s", a.Status, a.Header, a.body)
	}
}

func TestCodings(t *testing.T) {
	t.Parallel()
	r := startSite(t)
	for accept, want := range map[string]string{
		"gzip, deflate, br, zstd":       "br",
		"br":                            "br",
		"gzip":                          "gzip",
		"gzip, deflate":                 "gzip",
		"GZIP":                          "gzip",
		"br;q=0.5, gzip":                "gzip",
		"br; q=0, gzip; q=0.1":          "gzip",
		"br;q=0, gzip;q=0":              "",
		"br;q=x, gzip;q=2":              "",
		"identity":                      "",
		"identity, br;q=0.9":            "",
		"identity;q=0, gzip":            "gzip",
		"*":                             "br",
		"br;q=0, *":                     "gzip",
		"*;q=0":                         "",
		"zstd":                          "",
		"gzip;q=0.001":                  "gzip",
		"brotli":                        "",
		"gzip;q=0.8, br;q=0.8, *;q=0.1": "br",
	} {
		a := r.getFile(t, "/", "Accept-Encoding", accept)
		suffix := map[string]string{"br": ".br", "gzip": ".gz", "": ""}[want]
		body := "index.html in the coding " + suffix
		if got := a.Header.Get("Content-Encoding"); got != want || string(a.body) != body ||
			a.ContentLength != int64(len(body)) || a.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%q: %q, want %q: %v\n%s", accept, got, want, a.Header, a.body)
		}
	}
	png := r.getFile(t, "/icon-192.png", "Accept-Encoding", "br, gzip, identity;q=0")
	if png.Header.Get("Content-Encoding") != "" || png.Header.Get("Vary") != "" ||
		!strings.HasPrefix(string(png.body), "icon-192.png") {
		t.Errorf("a file in one coding: %v %s", png.Header, png.body)
	}
}

func TestCaching(t *testing.T) {
	t.Parallel()
	r := startSite(t)
	tags := map[string]string{}
	for _, coding := range []string{"br", "gzip", "identity"} {
		for path, control := range map[string]string{
			"/": "no-cache", "/me": "no-cache", "/sw.js": "no-cache", "/manifest.webmanifest": "no-cache",
			"/icon.svg": "no-cache", "/assets/main-ABCDEFGH.js": "public, max-age=31536000, immutable",
		} {
			a := r.getFile(t, path, "Accept-Encoding", coding)
			tag := a.Header.Get("ETag")
			if got := a.Header.Get("Cache-Control"); got != control || !strings.HasPrefix(tag, `"`) {
				t.Errorf("%s: %q, want %q; the tag is %s", path, got, control, tag)
			}
			if other, ok := tags[tag]; ok && other != string(a.body) {
				t.Errorf("%s of %s is also the tag of %q", tag, path, other)
			}
			tags[tag] = string(a.body)
			for _, none := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
				b := r.getFile(t, path, "Accept-Encoding", coding, "If-None-Match", none)
				if b.StatusCode != http.StatusNotModified || len(b.body) != 0 || b.Header.Get("ETag") != tag ||
					b.Header.Get("Cache-Control") != control || b.Header.Get("Vary") != "Accept-Encoding" ||
					b.Header.Get("Content-Type") != "" || b.Header.Get("Content-Encoding") != "" {
					t.Errorf("%s with %s: %s %v", path, none, b.Status, b.Header)
				}
			}
			if b := r.getFile(t, path, "Accept-Encoding", coding, "If-None-Match", `"x"`); b.StatusCode != http.StatusOK {
				t.Errorf("%s with another tag: %s", path, b.Status)
			}
		}
	}
	if len(tags) != 5*3 {
		t.Errorf("%d tags, want one for each file and coding", len(tags))
	}
	files := webFiles()
	files["index.html"].Data = append(files["index.html"].Data, '!')
	changed := start(t, func(_ *server.Config, c *Config) { c.Web = files })
	if tag := changed.getFile(t, "/").Header.Get("ETag"); tags[tag] != "" {
		t.Errorf("a changed page has the tag %s as before", tag)
	}
}

// TestPageHeaders lists all headers of the page, and of its files.
func TestPageHeaders(t *testing.T) {
	t.Parallel()
	r := startSite(t)
	headersOf := func(path string) map[string]string {
		got := map[string]string{}
		for name, values := range r.getFile(t, path).Header {
			got[name] = strings.Join(values, " | ")
		}
		for _, name := range []string{"Date", "Etag", "Content-Length", "Cache-Control"} {
			if got[name] == "" {
				t.Errorf("%s has no %s", path, name)
			}
			delete(got, name)
		}
		return got
	}
	files := map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
			"connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; " +
			"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dlsms",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Vary":                         "Accept-Encoding",
		"X-Content-Type-Options":       "nosniff",
	}
	for path, contentType := range map[string]string{
		"/sw.js":                    "text/javascript; charset=utf-8",
		"/assets/main-ABCDEFGH.js":  "text/javascript; charset=utf-8",
		"/assets/main-ABCDEFGH.css": "text/css; charset=utf-8",
		"/manifest.webmanifest":     "application/manifest+json",
		"/icon.svg":                 "image/svg+xml",
	} {
		want := maps.Clone(files)
		want["Content-Type"] = contentType
		if diff := cmp.Diff(want, headersOf(path)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	want := maps.Clone(files)
	maps.Copy(want, map[string]string{
		"Content-Type":               "text/html; charset=utf-8",
		"Cross-Origin-Opener-Policy": "same-origin",
		"Permissions-Policy":         permissions,
		"Referrer-Policy":            "no-referrer",
		"X-Frame-Options":            "DENY",
	})
	for _, path := range []string{"/", "/c/V7Q2"} {
		if diff := cmp.Diff(want, headersOf(path)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	if !strings.Contains(permissions, "camera=(self)") || strings.Count(permissions, "=()") < 10 {
		t.Errorf("the page may use %s", permissions)
	}
	png := headersOf("/icon-192.png")
	if png["Content-Type"] != "image/png" || png["Vary"] != "" {
		t.Errorf("an image has %v", png)
	}
}

func TestPageMethods(t *testing.T) {
	t.Parallel()
	r := startSite(t)
	for _, path := range []string{"/", "/sw.js", "/c/V7Q2"} {
		get := r.getFile(t, path)
		head := r.do(t, http.MethodHead, path, "", "Accept-Encoding", "identity")
		if head.StatusCode != http.StatusOK || len(head.body) != 0 || head.ContentLength != int64(len(get.body)) {
			t.Errorf("HEAD %s: %s with %d bytes of %d", path, head.Status, len(head.body), head.ContentLength)
		}
		head.Header.Del("Date")
		get.Header.Del("Date")
		if diff := cmp.Diff(get.Header, head.Header); diff != "" {
			t.Errorf("%s: HEAD has other headers than GET:\n%s", path, diff)
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "BREW"} {
			a := r.do(t, method, path, "")
			a.problem(t, 405, "")
			if got := a.Header.Get("Allow"); got != "GET, HEAD" {
				t.Errorf("%s %s: Allow is %q", method, path, got)
			}
		}
	}
}

// TestPageIsForOneOrigin checks that CORS_ORIGINS does not open the page.
func TestPageIsForOneOrigin(t *testing.T) {
	t.Parallel()
	r := start(t, func(_ *server.Config, c *Config) { c.Web, c.Origins = webFiles(), []string{"*"} })
	for _, path := range []string{"/", "/assets/main-ABCDEFGH.js"} {
		a := r.getFile(t, path, "Origin", "https://other.example")
		if got := a.Header.Get("Access-Control-Allow-Origin"); got != "" || a.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %v", path, a.Header)
		}
	}
}

// TestPageIsMeasured checks that all paths of the page are one route, and that no log has a code.
func TestPageIsMeasured(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	r := start(t, func(_ *server.Config, c *Config) { c.Web, c.Metrics = webFiles(), metrics })
	const code = "V7Q2N5H8K3M6P9R4"
	for _, path := range []string{"/", "/me", "/c/" + code, "/C/" + code, "/desk/" + code, "/sw.js", "/x/" + code} {
		r.getFile(t, path, "Accept", browser)
	}
	r.do(t, http.MethodHead, "/c/"+code, "")
	r.do(t, http.MethodPost, "/c/"+code, "")
	want := map[string]uint64{"GET / 200": 6, "HEAD / 200": 1, "POST / 405": 1, "GET none 404": 1}
	edgetest.Eventually(t, "all requests are measured", func() bool {
		return maps.Equal(durations(t, metrics), want) // a request is measured after its answer
	})
	r.do(t, http.MethodPost, "/v1/auth/login", "{}") // requests without a call have no line
	r.logged(t, "AuthService/Login")
	if strings.Contains(r.log.String(), code) {
		t.Errorf("the log has the code:\n%s", r.log)
	}
}

// TestWithoutWebClient checks a replica without files.
func TestWithoutWebClient(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for _, path := range []string{"/", "/me", "/c/V7Q2", "/sw.js", "/nothing"} {
		r.getFile(t, path, "Accept", browser).problem(t, 404, "")
	}
}

func TestFilesThatCanNotBeServed(t *testing.T) {
	t.Parallel()
	for want, files := range map[string]fs.FS{
		"has no index.html":         fstest.MapFS{"sw.js": {}},
		"the type of a.xyz is unkn": fstest.MapFS{"index.html": {}, "a.xyz": {}},
	} {
		if _, err := newSite(files); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestWebClientInTheRepository checks the files that the program has.
func TestWebClientInTheRepository(t *testing.T) {
	t.Parallel()
	s, err := newSite(web.Dist())
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range s.files {
		coded := file.codings[codedGzip].body
		if len(file.codings[notCoded].body) == 0 {
			t.Errorf("%s is empty", name)
		}
		if (coded == nil) != (file.codings[codedBrotli].body == nil) {
			t.Errorf("%s has one of NAME.br and NAME.gz", name)
		}
		if coded == nil {
			continue
		}
		reader, err := gzip.NewReader(bytes.NewReader(coded))
		if err != nil {
			t.Fatalf("%s.gz: %v", name, err)
		}
		if text, err := io.ReadAll(reader); err != nil || !bytes.Equal(text, file.codings[notCoded].body) {
			t.Errorf("%s.gz has other content: %v", name, err)
		}
	}
	page := s.page.codings[notCoded].body
	if inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son\w+=|<script[^>]*>[^<]`).Find(page); inline != nil {
		t.Errorf("the page has %q, which its Content-Security-Policy forbids", inline)
	}
	links := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllSubmatch(page, -1)
	for _, link := range links {
		if s.find(string(link[1])) == nil && !isAPI(string(link[1])) {
			t.Errorf("the page refers to %s, which does not exist", link[1])
		}
	}
	if len(links) == 0 {
		t.Error("the page refers to no file")
	}
}

// BenchmarkPage measures GET / without the server of net/http.
func BenchmarkPage(b *testing.B) {
	r := start(b, func(_ *server.Config, c *Config) { c.Web = webFiles() })
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "/", nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
	b.ReportAllocs()
	for b.Loop() {
		r.handler.ServeHTTP(discard{http.Header{}}, req)
	}
}
