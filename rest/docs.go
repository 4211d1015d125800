package rest

import (
	"strings"

	"github.com/swaggest/swgui/v5emb"
)

// docsPath is the path of the page to explore the API.
const docsPath = "/docs"

// docsPage shows the OpenAPI document with Swagger UI. All its files are in the binary.
var docsPage = v5emb.New("DL-SMS", "/v1/openapi.json", docsPath)

// isDocs reports whether a path is one of the page.
func isDocs(path string) bool { return path == docsPath || strings.HasPrefix(path, docsPath+"/") }
