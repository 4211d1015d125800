package rest

import (
	_ "embed" // the document
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// openAPI is the OpenAPI 3 document of the API. `make generate` writes it.
//
//go:embed openapi.json
var openAPI []byte

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // a client that disconnected needs no answer
}

// path is a path of the API with its methods.
type path struct {
	pattern *regexp.Regexp
	methods []string // sorted
}

// paths has the paths of the document.
var paths = parsePaths(openAPI)

func parsePaths(document []byte) (out []path) {
	var parsed struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(document, &parsed); err != nil {
		panic(err) // the document is a part of the program
	}
	parameter := regexp.MustCompile(`\\\{\w+\\\}`)
	for name, operations := range parsed.Paths {
		p := path{pattern: regexp.MustCompile("^" + parameter.ReplaceAllString(regexp.QuoteMeta(name), "[^/:]+") + "$")}
		for method := range operations {
			p.methods = append(p.methods, strings.ToUpper(method))
		}
		slices.Sort(p.methods)
		out = append(out, p)
	}
	return out
}

// allowedMethods returns the methods of a path, for the header Allow.
func allowedMethods(of string) (methods []string) {
	for _, p := range paths {
		if p.pattern.MatchString(of) {
			methods = append(methods, p.methods...)
		}
	}
	slices.Sort(methods)
	return slices.Compact(methods)
}
