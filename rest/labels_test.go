package rest

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/presence"
	"github.com/dlsms/dlsms/server"
)

// TestLabels gets the labels of a branch as a page and as JSON.
func TestLabels(t *testing.T) {
	t.Parallel()
	codes, err := presence.New([]string{"a secret of a test"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *server.Config, _ *Config) { c.Codes = codes })
	token := r.staff(t, "LIB-1", "LIBRARIAN")
	const path = "/v1/admin/labels?branch=branch-0&link=https://library.example/s/"

	page := r.do(t, "GET", path, "", token...)
	if page.StatusCode != http.StatusOK || page.Header.Get("Content-Type") != "text/html; charset=utf-8" ||
		page.Header.Get("Content-Security-Policy") != labelsPolicy || strings.Count(string(page.body), "<svg") != 3 {
		t.Errorf("the page is %s with %v", page.Status, page.Header)
	}
	a := r.do(t, "GET", path+"&itemsOnly=true", "", token...)
	var got dlsmsv1.MakeLabelsResponse
	if err := protojson.Unmarshal(a.body, &got); err != nil {
		t.Fatalf("%s: %v: %s", a.Status, err, a.body)
	}
	if a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the headers are %v", a.Header)
	}
	if got.GetLabels() != 3 || len(got.GetItems()) != 3 || len(got.GetContent()) != 0 {
		t.Fatalf("the answer is %v", &got)
	}
	for i, item := range got.GetItems() {
		if item.GetSeatId() != r.seats[i] || item.GetCode() != codes.Label(r.seats[i]) || item.GetQrPath() == "" {
			t.Errorf("label %d is %v", i, item)
		}
	}
	r.do(t, "GET", path+"x&itemsOnly=true", "", token...).problem(t, http.StatusBadRequest, "INVALID_FIELDS")
	r.do(t, "GET", path+"&itemsOnly=true", "").problem(t, http.StatusUnauthorized, "TOKEN_MISSING")
}
