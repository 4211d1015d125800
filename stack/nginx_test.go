package stack

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/deploy"
)

// replicas returns upstreams for deploy/nginx.conf: replicas with these addresses for gRPC and
// HTTP.
func replicas(grpc, http []string) map[string][]string {
	return Monolith.upstreams(grpc, http)
}

// here returns conf as the stack changes it to listen on four addresses of 127.0.0.1. files is the
// limit of open files.
func here(conf string, upstreams map[string][]string, files uint64) (string, error) {
	addrs := listenAddrs{grpc: "127.0.0.1:1234", http: "127.0.0.1:1235", tls: "127.0.0.1:1236", https: "127.0.0.1:1237"}
	return nginxConf(conf, addrs, upstreams, files)
}

// The stack changes only the addresses and paths in the configurations of nginx. The map common has
// the changes of both files, want those of one file.
func TestNginxConfChangesOnlyAddresses(t *testing.T) {
	t.Parallel()
	common := map[string]string{
		"pid /tmp/nginx.pid;":                     "pid nginx.pid;",
		"client_body_temp_path /tmp/client_body;": "client_body_temp_path client_body;",
		"proxy_temp_path /tmp/proxy;":             "proxy_temp_path proxy;",
		"fastcgi_temp_path /tmp/fastcgi;":         "fastcgi_temp_path fastcgi;",
		"uwsgi_temp_path /tmp/uwsgi;":             "uwsgi_temp_path uwsgi;",
		"scgi_temp_path /tmp/scgi;":               "scgi_temp_path scgi;",
		"listen 9090 http2 backlog=4096;":         "listen 127.0.0.1:1234 http2 backlog=4096;",
		"listen 8080 backlog=4096;":               "listen 127.0.0.1:1235 backlog=4096;",
		"listen 9443 ssl http2 backlog=4096;":     "listen 127.0.0.1:1236 ssl http2 backlog=4096;",
		"listen 8443 ssl http2 backlog=4096;":     "listen 127.0.0.1:1237 ssl http2 backlog=4096;",

		"ssl_certificate /etc/nginx/tls/certificate.pem;": "ssl_certificate tls/certificate.pem;",
		"ssl_certificate_key /etc/nginx/tls/key.pem;":     "ssl_certificate_key tls/key.pem;",
	}
	for name, c := range map[string]struct {
		conf     string
		topology Topology
		want     map[string]string
	}{
		"monolith": {deploy.NginxConf, Monolith, map[string]string{
			"server app1:9090 max_fails=0;": "server a:1 max_fails=0;",
			"server app2:9090 max_fails=0;": "server b:2 max_fails=0;",
			"server app3:9090 max_fails=0;": "server c:3 max_fails=0;",
			"server app1:8080 max_fails=0;": "server a:11 max_fails=0;",
			"server app2:8080 max_fails=0;": "server b:12 max_fails=0;",
			"server app3:8080 max_fails=0;": "server c:13 max_fails=0;",
		}},
		"microservices": {deploy.NginxMicroservicesConf, Microservices, map[string]string{
			"server auth:9091 max_fails=0;":               "server a:1 max_fails=0;",
			"server auth:9091 max_fails=0 backup;":        "server a:1 max_fails=0 backup;",
			"server auth:8081 max_fails=0;":               "server a:11 max_fails=0;",
			"server auth:8081 max_fails=0 backup;":        "server a:11 max_fails=0 backup;",
			"server seat:9092 max_fails=0;":               "server b:2 max_fails=0;",
			"server seat:8082 max_fails=0;":               "server b:12 max_fails=0;",
			"server reservation:9093 max_fails=0;":        "server c:3 max_fails=0;",
			"server reservation:9093 max_fails=0 backup;": "server c:3 max_fails=0 backup;",
			"server reservation:8083 max_fails=0;":        "server c:13 max_fails=0;",
			"server reservation:8083 max_fails=0 backup;": "server c:13 max_fails=0 backup;",
			"server notify:9094 max_fails=0;":             "server d:4 max_fails=0;",
			"server notify:9094 max_fails=0 backup;":      "server d:4 max_fails=0 backup;",
			"server notify:8084 max_fails=0;":             "server d:14 max_fails=0;",
			"server notify:8084 max_fails=0 backup;":      "server d:14 max_fails=0 backup;",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 3
			if c.topology == Microservices {
				n = 4
			}
			upstreams := c.topology.upstreams(
				[]string{"a:1", "b:2", "c:3", "d:4"}[:n], []string{"a:11", "b:12", "c:13", "d:14"}[:n])
			conf, err := here(c.conf, upstreams, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			docker := c.conf
			for _, line := range []string{
				"        listen [::]:9090 http2 backlog=4096 ipv6only=on;\n",
				"        listen [::]:8080 backlog=4096 ipv6only=on;\n",
				"        listen [::]:9443 ssl http2 backlog=4096 ipv6only=on;\n",
				"        listen [::]:8443 ssl http2 backlog=4096 ipv6only=on;\n",
			} {
				if strings.Count(docker, line) != 1 {
					t.Errorf("the configuration does not have %q once", line)
				}
				docker = strings.Replace(docker, line, "", 1)
			}
			want := maps.Clone(common)
			maps.Copy(want, c.want)
			before, after := strings.Split(docker, "\n"), strings.Split(conf, "\n")
			if len(before) != len(after) {
				t.Fatalf("%d lines became %d", len(before), len(after))
			}
			changed := map[string]bool{}
			for i, line := range before {
				if after[i] == line {
					continue
				}
				from, to := strings.TrimSpace(line), strings.TrimSpace(after[i])
				if want[from] != to {
					t.Errorf("%q became %q, want %q", from, to, want[from])
				}
				changed[from] = true
			}
			if len(changed) != len(want) {
				t.Errorf("%d lines changed, want %d", len(changed), len(want))
			}
		})
	}
}

func TestNginxConfAdaptsBackendsAndFileLimit(t *testing.T) {
	t.Parallel()
	five := []string{"a:1", "b:2", "c:3", "d:4", "e:5"}
	conf, err := here(deploy.NginxConf, replicas(five, five[:2]), 4096)
	if err != nil {
		t.Fatal(err)
	}
	for want, times := range map[string]int{
		"server a:1 max_fails=0;": 2, "server b:2 max_fails=0;": 2, "server e:5 max_fails=0;": 1,
		"worker_rlimit_nofile 4096;": 1, " down;": 0,
	} {
		if strings.Count(conf, want) != times {
			t.Errorf("%q is not there %d times", want, times)
		}
	}
	conf, err = here(deploy.NginxConf, replicas(five[:1], nil), 4096)
	if err != nil || strings.Count(conf, "max_fails=0;") != 1 ||
		strings.Count(conf, "server 127.0.0.1:1 max_fails=0 down;") != 1 {
		t.Errorf("one replica without HTTP: %v\n%s", err, conf)
	}
	for _, broken := range []string{
		"", "events {}",
		strings.ReplaceAll(deploy.NginxConf, "listen 9090", "listen 9091"),
		strings.ReplaceAll(deploy.NginxConf, "listen 8080", "listen 8081"),
		strings.ReplaceAll(deploy.NginxConf, "listen 9443", "listen 9444"),
		strings.ReplaceAll(deploy.NginxConf, "listen 8443", "listen 9443"),
		strings.ReplaceAll(deploy.NginxConf, "upstream dlsms_http ", "upstream other "),
		strings.ReplaceAll(deploy.NginxConf, ":8080 max_fails", " max_fails"),
		deploy.NginxMicroservicesConf,
	} {
		if _, err := here(broken, replicas(five, five), 4096); err == nil {
			t.Errorf("a configuration without the required lines is accepted: %.40q", broken)
		}
	}
	if _, err := here(deploy.NginxConf, replicas(nil, nil), 4096); err == nil {
		t.Error("an empty list of replicas is accepted")
	}
}

// nginx must accept both configurations after the stack has changed them, with and without replicas
// for HTTP.
func TestNginxAcceptsConfiguration(t *testing.T) {
	t.Parallel()
	program, err := systemTools().nginx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addrs := []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"}
	for _, topology := range []Topology{Monolith, Microservices} {
		for _, http := range [][]string{addrs, nil} {
			conf, err := here(topology.conf(), topology.upstreams(addrs, http), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			certificates := filepath.Join(dir, certificateLink)
			if err := os.Mkdir(certificates, 0o755); err != nil {
				t.Fatal(err)
			}
			makeCertificate(t, certificates, "localhost")
			file := filepath.Join(dir, "nginx.conf")
			if err := writeFile(file, conf, 0o600); err != nil {
				t.Fatal(err)
			}
			script := filepath.Join(dir, "nginx.sh")
			if err := writeFile(script, deploy.NginxScript, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "sh", script, file, filepath.Join(dir, "running.conf"), certificates, "0",
				"-t", "-p", dir, "-e", "stderr")
			cmd.Env = append(os.Environ(), "NGINX_PROGRAM="+program)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", topology, err, out)
			}
		}
	}
}

func TestHTTPListensBelowGRPC(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"127.0.0.1:9090": "127.0.0.1:8080", "[::1]:9190": "[::1]:8180", ":9090": ":8080",
		"127.0.0.1:1011": "127.0.0.1:1", "127.0.0.1:1010": "127.0.0.1:0", "127.0.0.1:80": "127.0.0.1:0",
		"127.0.0.1:0": "127.0.0.1:0", "": "",
	} {
		if got := httpListenOf(listen); got != want {
			t.Errorf("HTTP for %q is on %q, want %q", listen, got, want)
		}
	}
}

func TestTLSListensAbove(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"127.0.0.1:9090": "127.0.0.1:9443", "[::1]:9190": "[::1]:9543", "127.0.0.1:0": "127.0.0.1:0",
		"127.0.0.1:65182": "127.0.0.1:65535", "127.0.0.1:65183": "127.0.0.1:0", "": "",
	} {
		if got := shiftPort(listen, tlsAbove); got != want {
			t.Errorf("TLS for %q is on %q, want %q", listen, got, want)
		}
	}
}
