// Package proto has the HTTP rules of the API, for clients that follow them.
package proto

import _ "embed" // the rules

// Rules is rest.yaml: the HTTP rule of every RPC, as a google.api.Service in YAML.
//
//go:embed rest.yaml
var Rules []byte
