package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dlsms/dlsms/deploy"
)

// NginxConfig says how to start an nginx of one's own, in front of servers that run already.
type NginxConfig struct {
	// Dir holds its configuration; empty: a temporary directory, removed by Stop.
	Dir string
	// Listen is host:port; port 0, or an empty Listen: a free port on 127.0.0.1.
	Listen string
	// Backends are the host:port of each replica, one at least.
	Backends []string
	// Conf is written in the manner of deploy/nginx.conf, which is the default.
	Conf string
	// Log gets the server's lines and a line a step; nil: nowhere.
	Log io.Writer
}

// Nginx is the proxy in front of the replicas.
type Nginx struct {
	*Process
	addr  string
	state *stateDir // what Stop gives back; nil when a Stack holds it
	ports *ports
}

// StartNginx starts an nginx and returns once it answers a health check: a backend's, or that none can be reached.
func StartNginx(ctx context.Context, cfg NginxConfig) (*Nginx, error) {
	state, err := openState(cfg.Dir)
	if err != nil {
		return nil, err
	}
	held := &ports{}
	n, err := startNginx(ctx, cfg, state, held, newConsole(cfg.Log), systemTools())
	if err != nil {
		held.close()
		return nil, errors.Join(err, state.close())
	}
	n.state, n.ports = state, held
	return n, nil
}

// Addr is the host:port that clients call.
func (n *Nginx) Addr() string { return n.addr }

// Stop lets calls in flight end, for at most 10 s; one of StartNginx also gives up its directory and port, and can't be started again.
func (n *Nginx) Stop(ctx context.Context) error {
	err := n.Process.Stop(ctx)
	if n.state == nil {
		return err
	}
	n.ports.close()
	return errors.Join(err, n.state.close())
}

func startNginx(ctx context.Context, cfg NginxConfig, state *stateDir, held *ports, log *console, t tools) (*Nginx, error) {
	program, err := t.nginx(ctx)
	if err != nil {
		return nil, err
	}
	dir := state.file("nginx")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("can't make %s (%w): remove what is there", dir, err)
	}
	n := &Nginx{}
	if n.addr, err = listenAddr(cfg.Listen, held); err != nil {
		return nil, err
	}
	if cfg.Conf == "" {
		cfg.Conf = deploy.NginxConf
	}
	conf, err := nginxConf(cfg.Conf, n.addr, cfg.Backends, raiseFileLimit())
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := writeFile(file, conf, 0o644); err != nil {
		return nil, err
	}
	n.Process = &Process{spec: spec{
		name: "nginx",
		log:  log,
		command: func() (*exec.Cmd, error) {
			cmd := exec.Command(program, "-p", dir, "-c", file, "-e", "stderr", "-g", "daemon off;")
			cmd.Dir = dir
			cmd.Env = append(baseEnv(), "LC_ALL=C")
			return cmd, nil
		},
		ready:    func(ctx context.Context) error { return proxies(ctx, n.addr) },
		within:   time.Minute,
		quit:     syscall.SIGQUIT, // graceful
		patience: 10 * time.Second,
		orphan:   syscall.SIGTERM, // it then ends its workers, which SIGKILL would leave behind
		explain:  lastEmergency,
	}}
	log.printf("nginx", "starting on %s", n.addr)
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

// listenAddr returns the address for the proxy, which is the one asked for or an error: clients are told it.
func listenAddr(listen string, held *ports) (string, error) {
	if listen == "" {
		listen = net.JoinHostPort(loopback, "0")
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("the address to listen on has the form host:port: %w", err)
	}
	if port == "0" {
		free, err := held.pick(0)
		if err != nil {
			return "", err
		}
		return net.JoinHostPort(host, strconv.Itoa(free)), nil
	}
	switch err := listenable(listen); {
	case err == nil:
		return listen, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return "", fmt.Errorf("%s is in use by another program: stop that, or choose another address with `make run LISTEN=127.0.0.1:9190`", listen)
	default:
		return "", fmt.Errorf("can't listen on %s (%w): choose another address with `make run LISTEN=127.0.0.1:9190`", listen, err)
	}
}

var (
	confListen = regexp.MustCompile(`(?m)^(\s*listen )9090 `)
	confIPv6   = regexp.MustCompile(`(?m)^\s*listen \[::\]:9090 .*;\n`)
	confServer = regexp.MustCompile(`(?m)^(\s*server )app\d+:9090( .*)?;\n`)
	confPath   = regexp.MustCompile(`(?m)^(\s*\w+ )/tmp/(\w[\w.]*;)$`)
	confFiles  = regexp.MustCompile(`(?m)^(worker_rlimit_nofile )(\d+);`)
)

// nginxConf puts the addresses and the limit of open files of this machine into deploy/nginx.conf, makes the paths relative to
// the directory that nginx is started with, and changes nothing else.
func nginxConf(conf, listen string, backends []string, files uint64) (string, error) {
	if len(backends) == 0 {
		return "", errors.New("nginx needs one replica at least")
	}
	servers := confServer.FindAllStringSubmatchIndex(conf, -1)
	if len(servers) == 0 || len(confListen.FindAllString(conf, -1)) != 1 || len(confPath.FindAllString(conf, -1)) == 0 {
		return "", errors.New("nginx.conf has not the lines `listen 9090 …;`, `server app1:9090 …;` and paths under /tmp that are to be rewritten")
	}
	var lines strings.Builder
	for i, addr := range backends {
		lines.Write(confServer.ExpandString(nil, "${1}"+addr+"${2};\n", conf, servers[min(i, len(servers)-1)]))
	}
	first, last := servers[0][0], servers[len(servers)-1][1]
	conf = conf[:first] + lines.String() + conf[last:]
	conf = confListen.ReplaceAllString(conf, "${1}"+listen+" ")
	conf = confIPv6.ReplaceAllString(conf, "") // here it listens on one address, of either kind
	conf = confPath.ReplaceAllString(conf, "${1}${2}")
	if m := confFiles.FindStringSubmatch(conf); m != nil {
		if want, err := strconv.ParseUint(m[2], 10, 64); err == nil && files < want {
			conf = confFiles.ReplaceAllString(conf, "${1}"+strconv.FormatUint(files, 10)+";")
		}
	}
	return conf, nil
}

// lastEmergency picks the line by which nginx says why it gave up.
func lastEmergency(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		if _, why, ok := strings.Cut(lines[i], "[emerg] "); ok {
			return why
		}
	}
	return ""
}

// raiseFileLimit asks the system for as many open files as this user may have, and returns how many those are. The children
// inherit them: the default of many systems, 1,024, is less than one load run needs.
func raiseFileLimit() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	before := limit.Cur
	limit.Cur = limit.Max
	// Set even if it is no change: the Go runtime raises its own limit silently, and gives children the old one unless told so.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return before
	}
	return limit.Cur
}
