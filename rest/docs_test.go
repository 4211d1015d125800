package rest

import (
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
