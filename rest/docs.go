package rest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/swaggest/swgui/v5emb"
)

// docsPath is the path of the page to explore the API.
const docsPath = "/docs"

// docsFiles shows the OpenAPI document with Swagger UI. All its files are in the binary.
var docsFiles = v5emb.New("DL-SMS", "/v1/openapi.json", docsPath)

// docsPolicy lets the page load its own files, and run the scripts that are in it now. The page has
// the origin of the web client, so a script in it could act as a user who stays signed in.
var docsPolicy = []string{newDocsPolicy()}

var docsScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)

func newDocsPolicy() string {
	page := &recorder{header: http.Header{}}
	docsFiles.ServeHTTP(page, &http.Request{Method: http.MethodGet, URL: &url.URL{Path: docsPath}})
	var hashes strings.Builder
	for _, script := range docsScript.FindAllSubmatch(page.body.Bytes(), -1) {
		hash := sha256.Sum256(script[1])
		hashes.WriteString(" 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'")
	}
	return "default-src 'none'; script-src 'self'" + hashes.String() + "; style-src 'self' 'unsafe-inline'; " +
		"img-src 'self' data:; font-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
		"frame-ancestors 'none'"
}

// recorder keeps the body of an answer.
type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
func (r *recorder) WriteHeader(int)             {}

// serveDocs answers with the page or one of its files.
func serveDocs(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header["Content-Security-Policy"] = docsPolicy
	header["Cross-Origin-Resource-Policy"] = sameOrigin
	header["X-Frame-Options"] = denyFrames
	header["Cache-Control"] = noCache
	docsFiles.ServeHTTP(w, r)
}

var (
	sameOrigin = []string{"same-origin"}
	denyFrames = []string{"DENY"}
)

// isDocs reports whether a path is one of the page.
func isDocs(path string) bool { return path == docsPath || strings.HasPrefix(path, docsPath+"/") }
