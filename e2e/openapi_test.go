package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// openAPIDocument is the OpenAPI document of the API.
type openAPIDocument struct{ *openapi3.T }

// openAPI returns the document in the repository. TestServesTheOpenAPIDocument checks that the
// replicas serve it.
var openAPI = sync.OnceValues(func() (openAPIDocument, error) {
	text, err := os.ReadFile("../rest/openapi.json")
	if err != nil {
		return openAPIDocument{}, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	return openAPIDocument{doc}, err
})

var snakeCase = regexp.MustCompile(`_[a-z]`)

// inCamelCase replaces the names of fields in a path by those of JSON, which the document has.
func inCamelCase(path string) string {
	return pathField.ReplaceAllStringFunc(path, func(field string) string {
		return snakeCase.ReplaceAllStringFunc(field, func(s string) string { return strings.ToUpper(s[1:]) })
	})
}

var pathField = regexp.MustCompile(`\{\w+\}`)

// check is an e2e.AnswerCheck. It compares the status, the media type, the headers and the data of
// an answer with the document.
func (d openAPIDocument) check(method, path string, resp *http.Response, data []byte) error {
	item := d.Paths.Value(inCamelCase(path))
	if item == nil || item.GetOperation(method) == nil {
		return fmt.Errorf("the OpenAPI document has no %s %s", method, path)
	}
	responses := item.GetOperation(method).Responses
	want := responses.Status(resp.StatusCode)
	if want == nil && resp.StatusCode >= http.StatusBadRequest {
		want = responses.Default()
	}
	if want == nil {
		return fmt.Errorf("the OpenAPI document has no status %d of %s %s", resp.StatusCode, method, path)
	}
	for name := range want.Value.Headers {
		if resp.Header.Get(name) == "" {
			return fmt.Errorf("the header %s of the OpenAPI document is missing", name)
		}
	}
	if resp.StatusCode == http.StatusNotModified {
		return nil
	}
	media := want.Value.Content[resp.Header.Get("Content-Type")]
	if media == nil || media.Schema == nil {
		return fmt.Errorf("the OpenAPI document has no %s in a %d", resp.Header.Get("Content-Type"), resp.StatusCode)
	}
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return err
	}
	if err := media.Schema.Value.VisitJSON(value); err != nil {
		return fmt.Errorf("not as in the OpenAPI document: %w", err)
	}
	return nil
}

func TestServesTheOpenAPIDocument(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("../rest/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*system{shared(t), sharedMicroservices(t)} {
		a := s.send(t, "GET", "/v1/openapi.json", "")
		if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/json" ||
			string(a.body) != string(want) {
			t.Errorf("%s, %d bytes of %s, want rest/openapi.json", a.Status, len(a.body), a.Header.Get("Content-Type"))
		}
	}
}

// TestOpenAPICheckFindsFaults checks that answers that are not as in the document are faults.
func TestOpenAPICheckFindsFaults(t *testing.T) {
	t.Parallel()
	doc, err := openAPI()
	if err != nil {
		t.Fatal(err)
	}
	const branch = `{"code":"main","name":"Main","timezone":"UTC","areas":[],"hours":[],"specialDays":[],"closures":[],"open":true,` +
		`"seatCount":1,"availableCount":1}`
	for name, test := range map[string]struct {
		method, path, media string
		status              int
		data, fault         string // no fault: empty
	}{
		"an answer":          {"GET", "/v1/branches", "application/json", 200, `{"branches":[` + branch + `]}`, ""},
		"a text as a number": {"GET", "/v1/branches", "application/json", 200, `{"branches":[{"seatCount":"1"}]}`, "type"},
		"a number as a text": {"GET", "/v1/branches", "application/json", 200, `{"branches":[{"code":1}]}`, "type"},
		"no enum": {
			"GET", "/v1/seats/{seat_id}", "application/json", 200, `{"seat":{"amenities":["SOFA"]}}`, "enum",
		},
		"another media type": {"GET", "/v1/branches", "text/plain", 200, `{}`, "text/plain"},
		"another status":     {"GET", "/v1/branches", "application/json", 202, `{}`, "202"},
		"another method":     {"PUT", "/v1/branches", "application/json", 200, `{}`, "PUT"},
		"no JSON":            {"GET", "/v1/branches", "application/json", 200, `{`, "JSON"},
		"a problem without a type": {
			"GET", "/v1/branches", "application/problem+json", 503, `{"status":503,"title":"T","instance":"i"}`, "type",
		},
		"seats without an ETag": {"GET", "/v1/seats", "application/json", 200, `{}`, "ETag"},
	} {
		resp := &http.Response{StatusCode: test.status, Header: http.Header{"Content-Type": {test.media}}}
		err := doc.check(test.method, test.path, resp, []byte(test.data))
		if (err == nil) != (test.fault == "") || err != nil && !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%s: %v, want %q", name, err, test.fault)
		}
	}
}
