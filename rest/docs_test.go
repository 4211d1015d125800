package rest

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestDocsPageNeedsNoNetwork follows the links of the page: all files must come from the replica.
func TestDocsPageNeedsNoNetwork(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	page := r.do(t, http.MethodGet, "/docs", "")
	if page.StatusCode != http.StatusOK || !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("%s of type %s", page.Status, page.Header.Get("Content-Type"))
	}
	links := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllSubmatch(page.body, -1)
	for _, link := range links {
		path := string(link[1])
		if strings.Contains(path, "//") {
			t.Errorf("the page loads %s from another host", path)
			continue
		}
		if a := r.do(t, http.MethodGet, path, ""); a.StatusCode != http.StatusOK || len(a.body) == 0 {
			t.Errorf("%s is %s with %d bytes", path, a.Status, len(a.body))
		}
	}
	if len(links) < 3 {
		t.Errorf("the page has %d links: %s", len(links), page.body)
	}
	if !strings.Contains(string(page.body), "/v1/openapi.json") {
		t.Errorf("the page does not show the document: %s", page.body)
	}
}

// TestDocsPageHasPolicy: the page has the origin of the web client. So it runs no script but its own,
// and no other page may have it in a frame.
func TestDocsPageHasPolicy(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for _, path := range []string{"/docs", "/docs/", "/docs/swagger-ui-bundle.js"} {
		page := r.do(t, http.MethodGet, path, "")
		policy := page.Header.Get("Content-Security-Policy")
		scripts, _, _ := strings.Cut(policy[strings.Index(policy, "script-src")+1:], ";")
		if strings.Contains(scripts, "unsafe") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s has the policy %q", path, policy)
		}
		for _, script := range regexp.MustCompile(`(?s)<script>(.*?)</script>`).FindAllSubmatch(page.body, -1) {
			hash := sha256.Sum256(script[1])
			if !strings.Contains(scripts, "'sha256-"+base64.StdEncoding.EncodeToString(hash[:])+"'") {
				t.Errorf("the policy refuses a script of %s: %q", path, policy)
			}
		}
		if got := page.Header.Get("X-Frame-Options"); got != "DENY" {
			t.Errorf("%s has X-Frame-Options %q", path, got)
		}
	}
}

// TestNoDeviceKeepsAnswers: an answer about a person does not stay on the disk of a computer that
// others use, and is no script.
func TestNoDeviceKeepsAnswers(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for _, path := range []string{"/v1/branches", "/v1/reservations", "/healthz", "/nothing"} {
		header := r.do(t, http.MethodGet, path, "").Header
		if got := header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s has Cache-Control %q", path, got)
		}
		if got := header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s has X-Content-Type-Options %q", path, got)
		}
	}
}
