package stack

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/deploy"
)

// The configurations for Docker and for `make run` differ only in addresses and paths.
func TestNginxConfChangesOnlyAddressesAndPaths(t *testing.T) {
	t.Parallel()
	backends := []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
	conf, err := nginxConf(deploy.NginxConf, "127.0.0.1:1234", backends, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	const ipv6 = "        listen [::]:9090 http2 backlog=4096 ipv6only=on;\n"
	if strings.Count(deploy.NginxConf, ipv6) != 1 {
		t.Error("nginx.conf does not listen on IPv6")
	}
	docker, here := strings.Split(strings.Replace(deploy.NginxConf, ipv6, "", 1), "\n"), strings.Split(conf, "\n")
	if len(docker) != len(here) {
		t.Fatalf("%d lines became %d", len(docker), len(here))
	}
	changed := map[string]string{}
	for i, line := range docker {
		if here[i] != line {
			changed[strings.TrimSpace(line)] = strings.TrimSpace(here[i])
		}
	}
	want := map[string]string{
		"pid /tmp/nginx.pid;":                     "pid nginx.pid;",
		"client_body_temp_path /tmp/client_body;": "client_body_temp_path client_body;",
		"proxy_temp_path /tmp/proxy;":             "proxy_temp_path proxy;",
		"fastcgi_temp_path /tmp/fastcgi;":         "fastcgi_temp_path fastcgi;",
		"uwsgi_temp_path /tmp/uwsgi;":             "uwsgi_temp_path uwsgi;",
		"scgi_temp_path /tmp/scgi;":               "scgi_temp_path scgi;",
		"server app1:9090 max_fails=0;":           "server 127.0.0.1:1 max_fails=0;",
		"server app2:9090 max_fails=0;":           "server 127.0.0.1:2 max_fails=0;",
		"server app3:9090 max_fails=0;":           "server 127.0.0.1:3 max_fails=0;",
		"listen 9090 http2 backlog=4096;":         "listen 127.0.0.1:1234 http2 backlog=4096;",
	}
	for line, got := range changed {
		if want[line] != got {
			t.Errorf("%q became %q, want %q", line, got, want[line])
		}
	}
	if len(changed) != len(want) {
		t.Errorf("%d lines changed, want %d", len(changed), len(want))
	}
}

func TestNginxConfAdaptsBackendsAndFileLimit(t *testing.T) {
	t.Parallel()
	conf, err := nginxConf(deploy.NginxConf, "127.0.0.1:1234", []string{"a:1", "b:2", "c:3", "d:4", "e:5"}, 4096)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"server a:1 max_fails=0;", "server e:5 max_fails=0;", "worker_rlimit_nofile 4096;"} {
		if !strings.Contains(conf, want) {
			t.Errorf("no %q", want)
		}
	}
	conf, err = nginxConf(deploy.NginxConf, "127.0.0.1:1234", []string{"a:1"}, 4096)
	if err != nil || strings.Count(conf, "max_fails=0;") != 1 {
		t.Errorf("one replica: %v\n%s", err, conf)
	}
	for _, broken := range []string{
		"", "events {}", strings.ReplaceAll(deploy.NginxConf, "listen 9090", "listen 9091"),
	} {
		if _, err := nginxConf(broken, "127.0.0.1:1234", []string{"a:1"}, 4096); err == nil {
			t.Errorf("a configuration without the required lines is accepted: %.40q", broken)
		}
	}
	if _, err := nginxConf(deploy.NginxConf, "127.0.0.1:1234", nil, 4096); err == nil {
		t.Error("an empty list of replicas is accepted")
	}
}

// nginx accepts the file after the names of the replicas are replaced by addresses.
func TestNginxAcceptsConfiguration(t *testing.T) {
	t.Parallel()
	program, err := systemTools().nginx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	backends := []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
	conf, err := nginxConf(deploy.NginxConf, "127.0.0.1:1234", backends, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "nginx.conf")
	if err := writeFile(file, conf, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, "-t", "-p", dir, "-c", file, "-e", "stderr").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
