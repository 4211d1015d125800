// Package deploy holds what puts DL-SMS on a machine: the image, the proxy's configuration, and what tests need of them.
//
// Its one invariant: nginx.conf is the same file for Docker and for `make run`, so that what is tested here is what runs there.
package deploy

import _ "embed"

// NginxConf is the configuration of the proxy, as Docker mounts it; package stack puts in its own addresses and paths.
//
//go:embed nginx.conf
var NginxConf string
