package stack

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// listenAddrs are the addresses on which nginx listens. tls and https are empty without TLS.
type listenAddrs struct{ grpc, http, tls, https string }

// byPort returns the addresses by the ports that they replace in deploy/nginx.conf.
func (a listenAddrs) byPort() map[string]string {
	return map[string]string{"9090": a.grpc, "8080": a.http, "9443": a.tls, "8443": a.https}
}

// The differences of the default ports: 9090 and 8080 for gRPC and HTTP, 9443 and 8443 with TLS.
const httpBelow, tlsAbove, httpsAbove = 1010, 353, 363

// pickListenAddrs returns the addresses on which nginx will listen.
func pickListenAddrs(cfg NginxConfig, held *ports) (a listenAddrs, err error) {
	if a.grpc, err = listenAddr(cfg.Listen, grpcListen, held); err != nil {
		return a, err
	}
	if a.http, err = listenAddr(cfg.HTTPListen, httpListen, held); err != nil || !hasCertificate(cfg.TLS) {
		return a, err
	}
	if _, err := CheckCertificate(cfg.TLS); err != nil {
		return a, err
	}
	if a.tls, err = listenAddr(shiftPort(cfg.Listen, tlsAbove), grpcListen, held); err != nil {
		return a, err
	}
	a.https, err = listenAddr(shiftPort(cfg.HTTPListen, httpsAbove), httpListen, held)
	return a, err
}

// listenSetting is a variable of the Makefile that sets an address of nginx.
type listenSetting struct{ name, example string }

var (
	grpcListen = listenSetting{"LISTEN", "127.0.0.1:9190"}
	httpListen = listenSetting{"HTTP_LISTEN", "127.0.0.1:8180"}
)

// listenAddr returns the address on which nginx will listen. If listen is empty or its port is 0,
// listenAddr chooses a free port. If listen is not available, it returns an error that names the
// setting, and does not choose another address: clients know the address in listen.
func listenAddr(listen string, setting listenSetting, held *ports) (string, error) {
	if listen == "" {
		listen = net.JoinHostPort(loopback, "0")
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("the address to listen on must have the form host:port: %w", err)
	}
	if port == "0" {
		free, err := held.pick(0)
		if err != nil {
			return "", err
		}
		return net.JoinHostPort(host, strconv.Itoa(free)), nil
	}
	switch err := checkListen(listen); {
	case err == nil:
		return listen, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return "", fmt.Errorf("%s is in use by another program: stop it, "+
			"or choose another address with `make run %s=%s`", listen, setting.name, setting.example)
	default:
		return "", fmt.Errorf("can't listen on %s (%w): choose another address with `make run %s=%s`",
			listen, err, setting.name, setting.example)
	}
}

// httpListenOf returns the address for HTTP that belongs to listen, the address for gRPC.
func httpListenOf(listen string) string { return shiftPort(listen, -httpBelow) }

// shiftPort returns listen with another port: the sum of its port and n. If its port is 0 or the
// sum is not a valid port, the port is 0, which means any free port. If listen has no port, the
// result is empty.
func shiftPort(listen string, n int) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	old, err := strconv.Atoi(port)
	if err != nil || old == 0 || old+n < 1 || old+n > 65535 {
		n = -old
	}
	return net.JoinHostPort(host, strconv.Itoa(old+n))
}
