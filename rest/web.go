package rest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// site serves the web client: its page and its files. All answers are made at the start, so that a
// request costs a look-up and a write.
type site struct {
	page  *siteFile            // index.html; nil: the process serves no web client
	files map[string]*siteFile // by path, such as /assets/main-ABCDEFGH.js
}

// siteFile is a file in all its codings.
type siteFile struct {
	header  map[string][]string // of every answer, by canonical name
	codings [codings]siteCoding
}

// siteCoding is the content of a file in a coding. body is nil if the file does not have this coding.
type siteCoding struct {
	body         []byte
	etag, length []string
}

// The codings, in the order in which the server prefers them.
const (
	codedBrotli = iota
	codedGzip
	notCoded
	codings // their number
)

// codingNames has the names of the codings in the headers of HTTP, and codingSuffixes those of the
// files.
var (
	codingNames    = [codings]string{"br", "gzip", "identity"}
	codingSuffixes = [codings]string{".br", ".gz", ""}
)

const (
	indexFile = "index.html"
	// pageRoute is the route of the page and all its files in metrics and traces.
	pageRoute = "/"
)

// contentTypes has the types of files by their extension. package mime would read tables of the
// machine.
var contentTypes = map[string]string{
	".css":         "text/css; charset=utf-8",
	".html":        "text/html; charset=utf-8",
	".ico":         "image/x-icon",
	".js":          "text/javascript; charset=utf-8",
	".json":        "application/json",
	".png":         "image/png",
	".svg":         "image/svg+xml",
	".txt":         "text/plain; charset=utf-8",
	".wasm":        "application/wasm",
	".webmanifest": "application/manifest+json",
	".webp":        "image/webp",
	".woff2":       "font/woff2",
}

// contentPolicy lets the page load what it needs from this server, and nothing else. It allows
// neither scripts nor styles in the page itself, and no text becomes HTML except by the policy dlsms
// of the page.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dlsms"

// permissions switches off what the page does not use. The camera scans codes.
const permissions = "accelerometer=(), camera=(self), display-capture=(), geolocation=(), gyroscope=(), hid=(), " +
	"magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()"

// hashedName matches the name of a file whose content never changes.
var hashedName = regexp.MustCompile(`^assets/.*-[A-Z0-9]{8}\.[a-z0-9]+$`)

// newSite returns the site of the files. Without files, it serves nothing.
func newSite(files fs.FS) (*site, error) {
	s := &site{files: map[string]*siteFile{}}
	if files == nil {
		return s, nil
	}
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || isCoding(name) {
			return err
		}
		file, err := newSiteFile(files, name)
		s.files["/"+name] = file
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the web client: %w", err)
	}
	if s.page = s.files["/"+indexFile]; s.page == nil {
		return nil, errors.New("read the web client: it has no " + indexFile)
	}
	return s, nil
}

// isCoding reports whether a file has the content of another file in a coding.
func isCoding(name string) bool {
	return strings.HasSuffix(name, codingSuffixes[codedBrotli]) || strings.HasSuffix(name, codingSuffixes[codedGzip])
}

func newSiteFile(files fs.FS, name string) (*siteFile, error) {
	contentType, ok := contentTypes[filepath.Ext(name)]
	if !ok {
		return nil, fmt.Errorf("the type of %s is unknown", name)
	}
	f := &siteFile{header: map[string][]string{
		"Content-Type":                 {contentType},
		"Content-Security-Policy":      {contentPolicy}, // also for a script, which may be a worker
		"Cross-Origin-Resource-Policy": {"same-origin"},
		"X-Content-Type-Options":       {"nosniff"},
		"Cache-Control":                noCache,
	}}
	if hashedName.MatchString(name) {
		f.header["Cache-Control"] = []string{"public, max-age=31536000, immutable"}
	}
	if filepath.Ext(name) == ".html" {
		f.header["Cross-Origin-Opener-Policy"] = []string{"same-origin"}
		f.header["Permissions-Policy"] = []string{permissions}
		f.header["Referrer-Policy"] = []string{"no-referrer"} // the path may have a code
		f.header["X-Frame-Options"] = []string{"DENY"}
	}
	for c, suffix := range codingSuffixes {
		body, err := fs.ReadFile(files, name+suffix)
		if errors.Is(err, fs.ErrNotExist) && c != notCoded {
			continue
		}
		if err != nil {
			return nil, err
		}
		hash := sha256.Sum256(body)
		f.codings[c] = siteCoding{
			body: body, length: []string{strconv.Itoa(len(body))}, etag: []string{`"` + hex.EncodeToString(hash[:16]) + `"`},
		}
		if c != notCoded {
			f.header["Vary"] = []string{"Accept-Encoding"}
		}
	}
	return f, nil
}

// find returns the file at a path, or nil.
func (s *site) find(urlPath string) *siteFile {
	if isPage(urlPath) {
		return s.page
	}
	return s.files[urlPath]
}

// isPage reports whether a path is one of the page, which shows what the path names. The prefixes
// also exist in upper case: a QR code has fewer dots if it has no other letters.
func isPage(urlPath string) bool {
	switch urlPath {
	case "/", "/me", "/scan", "/login", "/register", "/settings", "/screen", "/desk", "/admin":
		return true
	}
	switch first, rest, _ := strings.Cut(urlPath[min(1, len(urlPath)):], "/"); first {
	case "c", "C", "s", "S":
		return rest != "" && !strings.Contains(rest, "/")
	case "desk", "admin":
		return true
	}
	return false
}

// serve answers a request for the page or one of its files. It returns false if the path is of
// neither.
func (s *site) serve(w http.ResponseWriter, r *http.Request) bool {
	file := s.find(r.URL.Path)
	if file == nil {
		return false
	}
	requestOf(r.Context()).route = pageRoute
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		writeProblem(w, r, problem{Status: http.StatusMethodNotAllowed, Detail: "this path accepts GET, HEAD"})
		return true
	}
	file.write(w, r, http.StatusOK)
	return true
}

// serveNotFound answers a request for an unknown path with the page, if its client asks for HTML
// before all. It returns false for all other clients, and for the paths of the API.
func (s *site) serveNotFound(w http.ResponseWriter, r *http.Request) bool {
	if s.page == nil || r.Method != http.MethodGet || isAPI(r.URL.Path) || !prefersHTML(r.Header["Accept"]) {
		return false
	}
	s.page.write(w, r, http.StatusNotFound)
	return true
}

// isAPI reports whether a path belongs to the API, even if nothing is there.
func isAPI(urlPath string) bool {
	return urlPath == "/v1" || strings.HasPrefix(urlPath, "/v1/") || isDocs(urlPath) || urlPath == "/healthz"
}

// write answers with the file, in the coding that the client prefers.
func (f *siteFile) write(w http.ResponseWriter, r *http.Request, status int) {
	coding := f.negotiate(r.Header["Accept-Encoding"])
	content := &f.codings[coding]
	header := w.Header()
	for name, value := range f.header {
		header[name] = value
	}
	if status == http.StatusOK {
		header["Etag"] = content.etag
		if noneMatch(r.Header["If-None-Match"], content.etag[0]) {
			w.WriteHeader(http.StatusNotModified) // net/http leaves out Content-Type
			return
		}
	} else {
		header["Cache-Control"] = noStore // the path may exist later
	}
	if coding != notCoded {
		header["Content-Encoding"] = contentCodings[coding]
	}
	header["Content-Length"] = content.length
	w.WriteHeader(status)
	_, _ = w.Write(content.body) // a client that disconnected needs no answer
}

var (
	noStore        = []string{"no-store"}
	noSniff        = []string{"nosniff"}
	contentCodings = [codings][]string{{codingNames[codedBrotli]}, {codingNames[codedGzip]}, nil}
)

// negotiate returns the coding that the client accepts with the highest quality. Without a choice of
// the client, it is the smallest one. If the client accepts none, the content is not coded.
func (f *siteFile) negotiate(accept []string) int {
	best, bestQuality := notCoded, 0
	for coding := range f.codings {
		if f.codings[coding].body == nil {
			continue
		}
		quality, found := qualityOf(accept, codingNames[coding], "*")
		if !found && coding == notCoded {
			quality = 1 // acceptable, and less than any coding that the client names
		}
		if quality > bestQuality {
			best, bestQuality = coding, quality
		}
	}
	return best
}

// prefersHTML reports whether a client wants HTML rather than a problem, by its header Accept. A
// browser does when it opens a page.
func prefersHTML(accept []string) bool {
	html, _ := qualityOf(accept, "text/html", "text/*", "*/*")
	json, _ := qualityOf(accept, "application/problem+json", "application/*", "*/*")
	if plain, found := qualityOf(accept, "application/json"); found {
		json = max(json, plain)
	}
	return html > json
}

// qualityOf returns the quality of the first of the names that the lists have, in thousandths.
func qualityOf(lists []string, names ...string) (quality int, found bool) {
	for _, name := range names {
		for _, list := range lists {
			for item := range strings.SplitSeq(list, ",") {
				got, parameters, _ := strings.Cut(item, ";")
				if strings.EqualFold(strings.TrimSpace(got), name) {
					return parseQuality(parameters), true
				}
			}
		}
	}
	return 0, false
}

// parseQuality returns the quality in the parameters of an item, in thousandths. It is 1000 without a
// quality, and 0 if the quality is not a number from 0 to 1.
func parseQuality(parameters string) int {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return int(q * 1000)
	}
	return 1000
}
