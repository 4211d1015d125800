package rest

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// rule is a rule of proto/rest.yaml.
type rule struct {
	Selector string
	Get      string
	Post     string
	Body     string
}

func readRules(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile("../proto/rest.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		HTTP struct{ Rules []rule }
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return file.HTTP.Rules
}

// rpcs returns the full names of all RPCs of the API.
func rpcs() (names []string) {
	protoregistry.GlobalFiles.RangeFilesByPackage(dlsmsv1.File_dlsms_v1_seat_proto.Package(),
		func(file protoreflect.FileDescriptor) bool {
			for i := range file.Services().Len() {
				methods := file.Services().Get(i).Methods()
				for j := range methods.Len() {
					names = append(names, string(methods.Get(j).FullName()))
				}
			}
			return true
		})
	return names
}

func TestEveryRPCHasOneRule(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	for _, r := range readRules(t) {
		counts[r.Selector]++
		if (r.Get == "") == (r.Post == "") {
			t.Errorf("%s must have either get or post", r.Selector)
		}
		if (r.Post != "") != (r.Body == "*") {
			t.Errorf("%s: a POST has its fields in the body, and a GET has none", r.Selector)
		}
	}
	for _, rpc := range rpcs() {
		if counts[rpc] != 1 {
			t.Errorf("%s has %d rules in proto/rest.yaml, want 1", rpc, counts[rpc])
		}
		delete(counts, rpc)
	}
	for selector := range counts {
		t.Errorf("the rule for %s is for no RPC", selector)
	}
}

var pathField = regexp.MustCompile(`\{\w+\}`)

// TestOpenAPIHasTheRules fails if the document was not generated from the present rules.
func TestOpenAPIHasTheRules(t *testing.T) {
	t.Parallel()
	for _, r := range readRules(t) {
		method, path := "GET", r.Get
		if r.Post != "" {
			method, path = "POST", r.Post
		}
		path = pathField.ReplaceAllString(path, "7")
		if got := allowedMethods(path); !slices.Contains(got, method) {
			t.Errorf("%s %s is not in the OpenAPI document, which allows %v: run `make generate`", method, path, got)
		}
	}
	if got := allowedMethods("/v1/nothing"); got != nil {
		t.Errorf("an unknown path allows %v", got)
	}
}

// TestHTTPPageListsTheRules compares the table in docs/reference/http.md with the rules.
func TestHTTPPageListsTheRules(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/reference/http.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	row := regexp.MustCompile(`(?m)^\| ((?:GET|POST) /v1\S+) \| (\w+) \|`)
	for _, row := range row.FindAllStringSubmatch(string(text), -1) {
		listed[row[1]+" "+row[2]] = true
	}
	rules := map[string]bool{}
	for _, r := range readRules(t) {
		method := "GET"
		if r.Post != "" {
			method = "POST"
		}
		rules[method+" "+r.Get+r.Post+" "+r.Selector[strings.LastIndexByte(r.Selector, '.')+1:]] = true
	}
	if diff := cmp.Diff(rules, listed); diff != "" {
		t.Error(diff)
	}
}

// TestSessionsAreDocumented checks the paths that are no RPCs.
func TestSessionsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/reference/http.md")
	if err != nil {
		t.Fatal(err)
	}
	for path := range (&Handler{}).sessionHandlers() {
		if got := allowedMethods(path); !slices.Equal(got, []string{"POST"}) {
			t.Errorf("in the OpenAPI document, %s has the methods %v, want POST", path, got)
		}
		if !strings.Contains(string(text), "\n| POST "+path+" | | ") {
			t.Errorf("POST %s is not in docs/reference/http.md", path)
		}
	}
}
