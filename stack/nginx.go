package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dlsms/dlsms/deploy"
)

// NginxConfig is the configuration of an nginx in front of servers that already run.
type NginxConfig struct {
	// Dir is the directory of the nginx configuration. If it is empty, StartNginx creates a
	// temporary directory, and Stop removes it.
	Dir string
	// Listen and HTTPListen are the host:port for gRPC and for HTTP. If one is empty or its port is
	// 0, nginx uses a free port on 127.0.0.1.
	Listen, HTTPListen string
	// TLS is a directory with a certificate for clients: see CheckCertificate. If it has one, nginx
	// also serves TLS, on the ports of Listen plus 353 and HTTPListen plus 363, or on free ports if
	// these have none. If TLS is empty or has no certificate, there is no TLS.
	TLS string
	// TLSPoll is how often nginx looks for a new certificate. 0 means 10 s.
	TLSPoll time.Duration
	// Backends and HTTPBackends have the host:port of each replica for gRPC and for HTTP. At least
	// one of the two lists must not be empty. If the other is empty, nginx answers its calls with
	// UNAVAILABLE.
	Backends, HTTPBackends []string
	// Upstreams has the host:port of the servers of each upstream of Conf. It replaces Backends and
	// HTTPBackends, which only fit the upstreams of deploy/nginx.conf.
	Upstreams map[string][]string
	// Conf is a configuration with the same lines for addresses and paths as deploy/nginx.conf. If
	// it is empty, StartNginx uses deploy/nginx.conf.
	Conf string
	// Log receives the lines of the server and one line for each step. It may be nil.
	Log io.Writer
}

// Nginx is the proxy in front of the replicas.
type Nginx struct {
	*Process
	addrs listenAddrs
	state *stateDir // Stop releases it; nil if a Stack owns it
	ports *ports
}

// StartNginx starts nginx. It returns when nginx answers a health check, either with the response
// of a backend or with an error of nginx.
func StartNginx(ctx context.Context, cfg NginxConfig) (*Nginx, error) {
	state, err := openState(cfg.Dir)
	if err != nil {
		return nil, err
	}
	held := &ports{}
	addrs, err := pickListenAddrs(cfg, held)
	var n *Nginx
	if err == nil {
		n, err = startNginx(ctx, cfg, addrs, state, newConsole(cfg.Log), systemTools())
	}
	if err != nil {
		held.close()
		return nil, errors.Join(err, state.close())
	}
	n.state, n.ports = state, held
	return n, nil
}

// Addr returns the host:port for clients over gRPC.
func (n *Nginx) Addr() string { return n.addrs.grpc }

// HTTPAddr returns the host:port for clients over HTTP.
func (n *Nginx) HTTPAddr() string { return n.addrs.http }

// TLSAddr returns the host:port for clients over gRPC with TLS. Without a certificate it is empty.
func (n *Nginx) TLSAddr() string { return n.addrs.tls }

// HTTPSAddr returns the host:port for clients over HTTP with TLS. Without a certificate it is empty.
func (n *Nginx) HTTPSAddr() string { return n.addrs.https }

// Stop requests a graceful stop, in which nginx finishes its calls. If nginx has not ended after 10
// s, Stop kills it. If StartNginx started nginx, Stop also releases the directory and the port, and
// nginx can't be started again.
func (n *Nginx) Stop(ctx context.Context) error {
	err := n.Process.Stop(ctx)
	if n.state == nil {
		return err
	}
	n.ports.close()
	return errors.Join(err, n.state.close())
}

func startNginx(
	ctx context.Context, cfg NginxConfig, addrs listenAddrs, state *stateDir, log *console, t tools,
) (*Nginx, error) {
	program, err := t.nginx(ctx)
	if err != nil {
		return nil, err
	}
	dir := state.file("nginx")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("can't make %s (%w): remove what is there", dir, err)
	}
	n := &Nginx{addrs: addrs}
	if cfg.Conf == "" {
		cfg.Conf = deploy.NginxConf
	}
	if cfg.Upstreams == nil {
		cfg.Upstreams = map[string][]string{"dlsms": cfg.Backends, "dlsms_http": cfg.HTTPBackends}
	}
	conf, err := nginxConf(cfg.Conf, n.addrs, cfg.Upstreams, raiseFileLimit())
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := writeFile(file, conf, 0o644); err != nil {
		return nil, err
	}
	script := filepath.Join(dir, "nginx.sh")
	if err := writeFile(script, deploy.NginxScript, 0o644); err != nil {
		return nil, err
	}
	poll := 0.0 // nginx.sh does not look for a new certificate
	if n.addrs.tls != "" {
		poll = cmp.Or(cfg.TLSPoll, 10*time.Second).Seconds()
	}
	if err := linkCertificate(cfg.TLS, filepath.Join(dir, certificateLink)); err != nil {
		return nil, err
	}
	n.Process = &Process{spec: spec{
		name: "nginx",
		log:  log,
		command: func() (*exec.Cmd, error) {
			cmd := exec.Command("sh", script, file, filepath.Join(dir, "running.conf"), filepath.Join(dir, certificateLink),
				strconv.FormatFloat(poll, 'f', -1, 64), "-p", dir, "-e", "stderr")
			cmd.Dir = dir
			cmd.Env = append(baseEnv(), "LC_ALL=C", "NGINX_PROGRAM="+program)
			return cmd, nil
		},
		ready:             func(ctx context.Context) error { return checkProxy(ctx, n.Addr()) },
		startTimeout:      time.Minute,
		stopSignal:        syscall.SIGQUIT, // graceful
		stopTimeout:       10 * time.Second,
		parentDeathSignal: syscall.SIGTERM, // stops the workers too; SIGKILL would not
		explain:           emergReason,
	}}
	log.printf("nginx", "starting on %s, HTTP on %s", n.Addr(), n.HTTPAddr())
	if n.addrs.tls != "" {
		log.printf("nginx", "starting with TLS on %s, HTTPS on %s", n.TLSAddr(), n.HTTPSAddr())
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

var (
	confListen   = regexp.MustCompile(`(?m)^(\s*listen )(9090|8080|9443|8443) `)
	confIPv6     = regexp.MustCompile(`(?m)^\s*listen \[::\]:\d+ .*;\n`)
	confUpstream = regexp.MustCompile(`(?m)^\s*upstream (\w+) \{\n(?:.*\n)*?\s*\}\n`)
	confServer   = regexp.MustCompile(`(?m)^(\s*server )\w+:\d+( .*)?;\n`)
	confPath     = regexp.MustCompile(`(?m)^(\s*\w+ )/tmp/(\w[\w.]*;)$`)
	confFiles    = regexp.MustCompile(`(?m)^(worker_rlimit_nofile )(\d+);`)
)

// nginxConf returns conf, such as deploy/nginx.conf, with these changes:
//   - nginx listens on addrs. Without TLS, the addresses for TLS stay: nginx.sh removes their lines.
//   - Each upstream has the servers that upstreams has for it.
//   - worker_rlimit_nofile is at most files.
//   - Paths under /tmp and the directory of the certificate are relative to the directory of nginx.
func nginxConf(conf string, addrs listenAddrs, upstreams map[string][]string, files uint64) (string, error) {
	if len(slices.Concat(slices.Collect(maps.Values(upstreams))...)) == 0 {
		return "", errors.New("nginx needs at least one replica")
	}
	for port, addr := range addrs.byPort() {
		if n := strings.Count(conf, " listen "+port+" "); n > 1 || n == 0 && addr != "" {
			return "", fmt.Errorf("nginx.conf must have the line `listen %s …;` once", port)
		}
	}
	if len(confPath.FindAllString(conf, -1)) == 0 {
		return "", errors.New("nginx.conf must have paths under /tmp")
	}
	conf, err := confServers(conf, upstreams)
	if err != nil {
		return "", err
	}
	conf = confListen.ReplaceAllStringFunc(conf, func(listen string) string {
		before, port, _ := strings.Cut(strings.TrimSuffix(listen, " "), "listen ")
		return before + "listen " + cmp.Or(addrs.byPort()[port], port) + " "
	})
	conf = confIPv6.ReplaceAllString(conf, "") // `make run` listens on one address, IPv4 or IPv6
	conf = confPath.ReplaceAllString(conf, "${1}${2}")
	conf = strings.ReplaceAll(conf, " /etc/nginx/tls/", " "+certificateLink+"/")
	if m := confFiles.FindStringSubmatch(conf); m != nil {
		if want, err := strconv.ParseUint(m[2], 10, 64); err == nil && files < want {
			conf = confFiles.ReplaceAllString(conf, "${1}"+strconv.FormatUint(files, 10)+";")
		}
	}
	return conf, nil
}

// confServers replaces the servers of all upstreams in conf.
//   - The first new server keeps the parameters of the first old one, such as max_fails, and so on.
//   - If an upstream has more new servers than old ones, the others get the parameters of its last
//     old server.
//   - If an upstream has no new servers, it gets one that is marked as down. nginx then answers its
//     calls with an error at once.
func confServers(conf string, upstreams map[string][]string) (string, error) {
	blocks := confUpstream.FindAllStringSubmatchIndex(conf, -1)
	if len(blocks) != len(upstreams) {
		return "", fmt.Errorf("nginx.conf must have the upstreams %q", slices.Sorted(maps.Keys(upstreams)))
	}
	var out strings.Builder
	end := 0
	for _, at := range blocks {
		name, block := conf[at[2]:at[3]], conf[at[0]:at[1]]
		addrs, known := upstreams[name]
		servers := confServer.FindAllStringSubmatchIndex(block, -1)
		if !known || len(servers) == 0 {
			return "", fmt.Errorf("the upstream %s of nginx.conf is not one of %q, or has no line `server name:port …;`",
				name, slices.Sorted(maps.Keys(upstreams)))
		}
		down := ""
		if len(addrs) == 0 {
			addrs, down = []string{net.JoinHostPort(loopback, "1")}, " down"
		}
		out.WriteString(conf[end : at[0]+servers[0][0]])
		for i, addr := range addrs {
			out.Write(confServer.ExpandString(nil, "${1}"+addr+"${2}"+down+";\n", block, servers[min(i, len(servers)-1)]))
		}
		end = at[0] + servers[len(servers)-1][1]
	}
	out.WriteString(conf[end:])
	return out.String(), nil
}

// emergReason returns the text of the last [emerg] line, the reason why nginx exited.
func emergReason(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		if _, why, ok := strings.Cut(lines[i], "[emerg] "); ok {
			return why
		}
	}
	return ""
}

// raiseFileLimit raises the limit of open files of this process to the maximum for this user, and
// returns it. Child processes inherit the limit. The default is often 1,024, which is too low for
// load tests.
func raiseFileLimit() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	before := limit.Cur
	limit.Cur = limit.Max
	// Setrlimit is also needed if the limit does not change. The Go runtime raises the limit of its
	// own process at the start, and restores the original limit in child processes unless the
	// program has called Setrlimit.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return before
	}
	return limit.Cur
}
