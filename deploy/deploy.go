// Package deploy holds the files that deploy DL-SMS: the Dockerfile and the configuration of
// nginx.
//
// Docker and `make run` use the same configurations of nginx, so the tests of this package test the
// deployed configurations.
package deploy

import _ "embed"

// NginxConf is deploy/nginx.conf, which docker-compose.yml mounts.
// The package stack replaces the addresses and paths in it.
//
//go:embed nginx.conf
var NginxConf string

// NginxMicroservicesConf is deploy/nginx-microservices.conf, which docker-compose.microservices.yml
// mounts.
//
//go:embed nginx-microservices.conf
var NginxMicroservicesConf string

// NginxScript is deploy/nginx.sh, which runs nginx with one of these configurations.
//
//go:embed nginx.sh
var NginxScript string
