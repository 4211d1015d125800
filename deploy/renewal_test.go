package deploy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/dlsms/dlsms/deploy"
	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

var renewals = flag.Int("renewals", 4, "renewals of the certificate under load")

// install replaces the certificate and the key in dir by those in from, as a renewal does.
func install(t *testing.T, from, dir string) {
	t.Helper()
	for _, name := range []string{"key.pem", "certificate.pem"} {
		replaceFile(t, filepath.Join(dir, name), readFile(t, filepath.Join(from, name)))
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func replaceFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

// serves reports whether the server at addr has the certificate in dir.
func serves(t *testing.T, addr, dir string) bool {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Log(err)
		return false
	}
	defer func() { _ = conn.Close() }()
	block, _ := pem.Decode(readFile(t, filepath.Join(dir, "certificate.pem")))
	return block != nil && bytes.Equal(conn.ConnectionState().PeerCertificates[0].Raw, block.Bytes)
}

// eventually waits until condition is true.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(time.Minute)
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// renewed is nginx with a certificate that a test renews.
type renewed struct {
	*stack.Nginx
	dir string
	log *e2e.LogRecorder
}

func startRenewed(t *testing.T, cfg stack.NginxConfig) *renewed {
	t.Helper()
	n := &renewed{dir: t.TempDir(), log: &e2e.LogRecorder{}}
	install(t, certificate(t), n.dir)
	cfg.TLS, cfg.TLSPoll, cfg.Log = n.dir, 100*time.Millisecond, n.log
	var err error
	if n.Nginx, err = stack.StartNginx(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(n.log.Tail(40))
		}
	})
	return n
}

// callers are the clients of one kind. They count their calls.
type callers struct {
	name       string
	call       []func(context.Context) error // one for each client
	mayLose    bool
	sent, lost atomic.Int64
}

// Clients make calls while the certificate is renewed. Each client has a connection that stays open,
// and does not repeat a call that failed. No call may fail, except a POST over HTTP/1.1 without an
// Idempotency-Key: before 1.27.4, nginx closes idle connections at a reload, and Go's client repeats
// other requests by itself if the server closed the connection.
func TestRenewalLosesNoCall(t *testing.T) {
	t.Parallel()
	web := newHTTPBackend(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	n := startRenewed(t, stack.NginxConfig{
		Backends: []string{new(backend).start(t).addr}, HTTPBackends: []string{web.addr()},
	})
	dirs := []string{n.dir}
	for range *renewals {
		dirs = append(dirs, certificate(t))
	}
	client := trusting(t, dirs...)
	url := "https://" + n.HTTPSAddr() + "/v1/reservations"
	kinds := []*callers{
		{name: "gRPC"}, {name: "HTTP/2 POST"}, {name: "HTTP/1.1 GET"}, {name: "HTTP/1.1 POST with a key"},
		{name: "HTTP/1.1 POST", mayLose: true},
	}
	for range 4 {
		for i, call := range []func(context.Context) error{
			grpcCaller(t, n.TLSAddr(), withTLS(client)),
			httpCaller(httpsClient(t, client, true), http.MethodPost, url, ""),
			httpCaller(httpsClient(t, client, false), http.MethodGet, url, ""),
			httpCaller(httpsClient(t, client, false), http.MethodPost, url, "a-key"),
			httpCaller(httpsClient(t, client, false), http.MethodPost, url, ""),
		} {
			kinds[i].call = append(kinds[i].call, call)
		}
	}

	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	t.Cleanup(func() { stop(); all.Wait() })
	for _, k := range kinds {
		for _, call := range k.call {
			all.Go(func() { k.run(ctx, t, call) })
		}
	}
	progress := func() {
		t.Helper()
		for _, k := range kinds {
			before := k.sent.Load()
			eventually(t, "clients make progress over "+k.name, func() bool { return k.sent.Load() >= before+100 })
		}
	}
	progress()
	for _, dir := range dirs[1:] {
		install(t, dir, n.dir)
		eventually(t, "nginx has the new certificate", func() bool {
			return serves(t, n.TLSAddr(), dir) && serves(t, n.HTTPSAddr(), dir)
		})
		progress()
	}
	stop()
	all.Wait()
	for _, k := range kinds {
		t.Logf("%d renewals, %s: %d calls, %d lost", *renewals, k.name, k.sent.Load(), k.lost.Load())
	}
}

func (k *callers) run(ctx context.Context, t *testing.T, call func(context.Context) error) {
	t.Helper()
	for {
		err := call(ctx)
		if ctx.Err() != nil {
			return
		}
		k.sent.Add(1)
		if err == nil {
			continue
		}
		k.lost.Add(1)
		if !k.mayLose {
			t.Errorf("%s: %v", k.name, err)
		}
	}
}

func grpcCaller(t *testing.T, addr string, opts ...grpc.DialOption) func(context.Context) error {
	t.Helper()
	c := dial(t, addr, opts...)
	return func(ctx context.Context) error {
		_, err := c.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{})
		return err
	}
}

// httpCaller returns a function that makes a request, with an Idempotency-Key if key is not empty.
func httpCaller(c *http.Client, method, url, key string) func(context.Context) error {
	return func(ctx context.Context) error {
		var body io.Reader
		if method == http.MethodPost {
			body = strings.NewReader("{}")
		}
		req, err := http.NewRequestWithContext(ctx, method, url, body)
		if err != nil {
			return err
		}
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
}

// If the new certificate is not valid, nginx keeps the old one, and the log tells why. When the
// files are right, nginx loads them.
func TestRenewalWithInvalidCertificate(t *testing.T) {
	t.Parallel()
	n := startRenewed(t, stack.NginxConfig{Backends: []string{new(backend).start(t).addr}})
	old, fresh := t.TempDir(), certificate(t)
	install(t, n.dir, old)
	file := func(dir, name string) string { return filepath.Join(dir, name) }
	c := dial(t, n.TLSAddr(), withTLS(trusting(t, old)))
	for _, step := range []struct {
		reason string
		change func()
	}{
		{"key values mismatch", func() { replaceFile(t, file(n.dir, "key.pem"), readFile(t, file(fresh, "key.pem"))) }},
		{"no start line", func() { replaceFile(t, file(n.dir, "certificate.pem"), []byte("no certificate")) }},
		{"certificate.pem is missing", func() {
			if err := os.Remove(file(n.dir, "certificate.pem")); err != nil {
				t.Error(err)
			}
		}},
	} {
		step.change()
		eventually(t, "the log has the reason "+step.reason, func() bool {
			line := n.log.Find(step.reason)
			return strings.Contains(line, "nginx.sh: can't load a new certificate, nginx keeps the old one: ")
		})
		if err := call(t, c); err != nil || !serves(t, n.TLSAddr(), old) {
			t.Errorf("after %q: %v, or nginx does not have the old certificate", step.reason, err)
		}
	}
	install(t, fresh, n.dir)
	eventually(t, "nginx has the new certificate", func() bool { return serves(t, n.TLSAddr(), fresh) })
}

// In compose, a certificate may be added while nginx runs. This test runs nginx.sh as compose does,
// on other ports. It cannot read its configuration at first, and tries again.
func TestScriptAddsTLS(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx" // not in the PATH of ordinary users
	}
	b := new(backend).start(t)
	dir, fresh := t.TempDir(), certificate(t)
	certificates := filepath.Join(dir, "tls")
	if err := os.Mkdir(certificates, 0o755); err != nil {
		t.Fatal(err)
	}
	edits := []string{"/tmp/", dir + "/", "/etc/nginx/tls/", certificates + "/", ":8080 max_fails", ":1 max_fails"}
	for _, app := range []string{"app1", "app2", "app3"} {
		edits = append(edits, app+":9090", b.addr, app+":", "127.0.0.1:")
	}
	var plain, secure string
	for _, port := range []string{"9090", "8080", "9443", "8443"} {
		free := freePort(t)
		edits = append(edits, "listen "+port+" ", "listen "+free+" ", "listen [::]:"+port+" ", "listen [::]:"+free+" ")
		switch port {
		case "9090":
			plain = "127.0.0.1:" + free
		case "9443":
			secure = "127.0.0.1:" + free
		}
	}
	conf, copied := filepath.Join(dir, "nginx.conf"), filepath.Join(dir, "copy.conf")
	replaceFile(t, conf, []byte(edit(t, deploy.NginxConf, edits)))
	cmd := exec.Command("sh", "nginx.sh", conf, copied, certificates, "0.1", "-e", "stderr")
	cmd.Env = append(os.Environ(), "NGINX_PROGRAM="+program)
	log := &e2e.LogRecorder{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.Tail(40))
		}
	})
	c := dial(t, plain)
	eventually(t, "nginx serves without TLS", func() bool { return call(t, c) == nil })
	if _, err := net.Dial("tcp", secure); err == nil {
		t.Error("the port for TLS is open without a certificate")
	}
	if err := os.Rename(conf, conf+".away"); err != nil {
		t.Fatal(err)
	}
	install(t, fresh, certificates)
	eventually(t, "the log has the reason", func() bool { return log.Find("can't load a new certificate") != "" })
	if err := os.Rename(conf+".away", conf); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nginx serves with TLS", func() bool { return serves(t, secure, fresh) })
	if err := call(t, dial(t, secure, withTLS(trusting(t, fresh)))); err != nil {
		t.Error(err)
	}
}

// freePort returns a port that was free a moment ago, below the ports of outgoing connections.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(16000 + rand.IntN(4000))
		if l, err := net.Listen("tcp", ":"+port); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port from 16000 to 19999")
	return ""
}
