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

// NginxConfig is the configuration of an nginx in front of servers that already run.
type NginxConfig struct {
	// Dir is the directory of the nginx configuration. If it is empty, StartNginx creates a
	// temporary directory, and Stop removes it.
	Dir string
	// Listen is host:port. If it is empty or the port is 0, nginx uses a free port on 127.0.0.1.
	Listen string
	// Backends has the host:port of each replica, at least one.
	Backends []string
	// Conf is a configuration with the structure of deploy/nginx.conf, which is the default.
	Conf string
	// Log receives the lines of the server and one line for each step. It may be nil.
	Log io.Writer
}

// Nginx is the proxy in front of the replicas.
type Nginx struct {
	*Process
	addr  string
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
	n, err := startNginx(ctx, cfg, state, held, newConsole(cfg.Log), systemTools())
	if err != nil {
		held.close()
		return nil, errors.Join(err, state.close())
	}
	n.state, n.ports = state, held
	return n, nil
}

// Addr returns the host:port for clients.
func (n *Nginx) Addr() string { return n.addr }

// Stop waits for calls in flight for at most 10 s and stops nginx. After StartNginx, it also
// releases the directory and the port, and nginx can't be started again.
func (n *Nginx) Stop(ctx context.Context) error {
	err := n.Process.Stop(ctx)
	if n.state == nil {
		return err
	}
	n.ports.close()
	return errors.Join(err, n.state.close())
}

func startNginx(
	ctx context.Context, cfg NginxConfig, state *stateDir, held *ports, log *console, t tools,
) (*Nginx, error) {
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
		ready:             func(ctx context.Context) error { return checkProxy(ctx, n.addr) },
		startTimeout:      time.Minute,
		stopSignal:        syscall.SIGQUIT, // graceful
		stopTimeout:       10 * time.Second,
		parentDeathSignal: syscall.SIGTERM, // stops the workers too; SIGKILL would not
		explain:           emergReason,
	}}
	log.printf("nginx", "starting on %s", n.addr)
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

// listenAddr returns the address for nginx. If the requested address is not available, it returns
// an error instead of another address, because clients know the requested address.
func listenAddr(listen string, held *ports) (string, error) {
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
			"or choose another address with `make run LISTEN=127.0.0.1:9190`", listen)
	default:
		return "", fmt.Errorf("can't listen on %s (%w): choose another address with `make run LISTEN=127.0.0.1:9190`",
			listen, err)
	}
}

var (
	confListen = regexp.MustCompile(`(?m)^(\s*listen )9090 `)
	confIPv6   = regexp.MustCompile(`(?m)^\s*listen \[::\]:9090 .*;\n`)
	confServer = regexp.MustCompile(`(?m)^(\s*server )app\d+:9090( .*)?;\n`)
	confPath   = regexp.MustCompile(`(?m)^(\s*\w+ )/tmp/(\w[\w.]*;)$`)
	confFiles  = regexp.MustCompile(`(?m)^(worker_rlimit_nofile )(\d+);`)
)

// nginxConf replaces the addresses in deploy/nginx.conf, lowers worker_rlimit_nofile to files, and
// makes the paths relative to the prefix directory of nginx. It changes nothing else.
func nginxConf(conf, listen string, backends []string, files uint64) (string, error) {
	if len(backends) == 0 {
		return "", errors.New("nginx needs at least one replica")
	}
	servers := confServer.FindAllStringSubmatchIndex(conf, -1)
	if len(servers) == 0 || len(confListen.FindAllString(conf, -1)) != 1 || len(confPath.FindAllString(conf, -1)) == 0 {
		return "", errors.New("nginx.conf must have the lines `listen 9090 …;`, `server app1:9090 …;` " +
			"and paths under /tmp")
	}
	var lines strings.Builder
	for i, addr := range backends {
		lines.Write(confServer.ExpandString(nil, "${1}"+addr+"${2};\n", conf, servers[min(i, len(servers)-1)]))
	}
	first, last := servers[0][0], servers[len(servers)-1][1]
	conf = conf[:first] + lines.String() + conf[last:]
	conf = confListen.ReplaceAllString(conf, "${1}"+listen+" ")
	conf = confIPv6.ReplaceAllString(conf, "") // `make run` listens on one address, IPv4 or IPv6
	conf = confPath.ReplaceAllString(conf, "${1}${2}")
	if m := confFiles.FindStringSubmatch(conf); m != nil {
		if want, err := strconv.ParseUint(m[2], 10, 64); err == nil && files < want {
			conf = confFiles.ReplaceAllString(conf, "${1}"+strconv.FormatUint(files, 10)+";")
		}
	}
	return conf, nil
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

// raiseFileLimit raises the limit of open files to the maximum for this user, and returns it. Child
// processes inherit the limit. Many systems have a default of 1,024, which is too low for load
// tests.
func raiseFileLimit() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	before := limit.Cur
	limit.Cur = limit.Max
	// This call is needed even without a change: the Go runtime raises its own limit, and gives
	// child processes the original limit unless the program sets it.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return before
	}
	return limit.Cur
}
