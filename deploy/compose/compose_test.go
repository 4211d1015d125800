// Package compose_test checks docker-compose.yml and docker-compose.microservices.yml with the Go
// packages of Compose itself. It is a module of its own, so that the module of the server does not
// need these packages.
package compose_test

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/dlsms/dlsms/stack"
)

const (
	envExample = "../../.env.example"
	settings   = "../../docs/reference/settings.md"
)

// topology is one of the compose files.
type topology struct {
	file  string
	apps  []string // the services that run the binary
	proxy string   // the service that runs nginx
	conf  string   // its configuration
}

var (
	monolith = topology{
		file: "../../docker-compose.yml", apps: []string{"app1", "app2", "app3"}, proxy: "nginx", conf: "../nginx.conf",
	}
	microservices = topology{
		file: "../../docker-compose.microservices.yml", apps: []string{"auth", "seat", "reservation", "notify", "worker"},
		proxy: "gateway", conf: "../nginx-microservices.conf",
	}
)

// each runs a test for both files.
func each(t *testing.T, test func(*testing.T, topology)) {
	t.Helper()
	for _, top := range []topology{monolith, microservices} {
		t.Run(filepath.Base(top.file), func(t *testing.T) {
			t.Parallel()
			test(t, top)
		})
	}
}

// clients returns the apps that clients reach through nginx.
func (top topology) clients() []string {
	return slices.DeleteFunc(slices.Clone(top.apps), func(name string) bool { return name == "worker" })
}

// load reads the file as Compose does, with the variables in env. It ignores the environment of
// this process.
func (top topology) load(t *testing.T, env ...string) *types.Project {
	t.Helper()
	return top.loadWith(t, cli.WithEnv(env))
}

// loadWith reads the file with these options.
func (top topology) loadWith(t *testing.T, more ...cli.ProjectOptionsFn) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{top.file}, append(more, cli.WithName("dlsms"))...)
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestServicesStartWhenDependenciesAreHealthy(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, top topology) {
		project := top.load(t)
		want := append([]string{top.proxy, "postgres", "redis"}, top.apps...)
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(project.Services)); !slices.Equal(got, want) {
			t.Fatalf("services %v, want %v", got, want)
		}
		dependencies := map[string][]string{top.proxy: slices.Sorted(slices.Values(top.clients()))}
		for _, app := range top.apps {
			dependencies[app] = []string{"postgres", "redis"}
		}
		for name, service := range project.Services {
			if got := slices.Sorted(maps.Keys(service.DependsOn)); !slices.Equal(got, dependencies[name]) {
				t.Errorf("%s depends on %v, want %v", name, got, dependencies[name])
			}
			for other, d := range service.DependsOn {
				if d.Condition != types.ServiceConditionHealthy {
					t.Errorf("%s waits for the condition %s of %s, want healthy", name, d.Condition, other)
				}
			}
			if service.HealthCheck == nil || len(service.HealthCheck.Test) < 2 {
				t.Errorf("%s has no health check", name)
			}
		}
		for _, app := range top.apps {
			if got := project.Services[app].HealthCheck.Test; !slices.Equal(got, []string{"CMD", "/dlsms", "healthcheck"}) {
				t.Errorf("the health check of %s is %q", app, got)
			}
		}
	})
}

func TestServicesAreConfined(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, top topology) {
		project := top.load(t)
		release := regexp.MustCompile(`^(postgres:17|redis:7\.\d+|nginx:1\.30)([.-].*)?$`)
		for name, service := range project.Services {
			if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) ||
				!slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
				t.Errorf("%s can write to its image, or has capabilities", name)
			}
			if service.Build == nil && !release.MatchString(service.Image) {
				t.Errorf("%s has the image %q, which is not pinned to a supported release", name, service.Image)
			}
			if service.Build == nil && (service.User == "" || service.User == "root" || service.User == "0") {
				t.Errorf("%s runs as root", name)
			}
			if name != top.proxy && len(service.Ports) > 0 {
				t.Errorf("%s publishes a port", name)
			}
		}
		published := func(env ...string) string {
			var all []string
			for _, p := range top.load(t, env...).Services[top.proxy].Ports {
				all = append(all, fmt.Sprintf("%s:%s to %d", p.HostIP, p.Published, p.Target))
			}
			return strings.Join(all, ", ")
		}
		got := published()
		want := "127.0.0.1:9090 to 9090, 127.0.0.1:8080 to 8080, 127.0.0.1:9443 to 9443, 127.0.0.1:8443 to 8443"
		if got != want {
			t.Errorf("nginx is published as %s, want %s", got, want)
		}
		got = published("DLSMS_LISTEN=0.0.0.0:90", "DLSMS_HTTP_LISTEN=0.0.0.0:80",
			"DLSMS_TLS_LISTEN=0.0.0.0:94", "DLSMS_HTTPS_LISTEN=0.0.0.0:84")
		want = "0.0.0.0:90 to 9090, 0.0.0.0:80 to 8080, 0.0.0.0:94 to 9443, 0.0.0.0:84 to 8443"
		if got != want {
			t.Errorf("the settings DLSMS_*_LISTEN published nginx as %s, want %s", got, want)
		}
	})
}

// The three replicas have the same configuration.
func TestReplicasAreIdentical(t *testing.T) {
	t.Parallel()
	project := monolith.load(t)
	first := project.Services["app1"]
	for _, app := range monolith.apps[1:] {
		other := project.Services[app]
		other.Name = first.Name
		if diff := cmp.Diff(first, other); diff != "" {
			t.Errorf("app1 and %s differ: %s", app, diff)
		}
	}
}

// The processes of the microservice topology differ from a replica of the monolith only in what
// they run, and in what follows from that.
func TestServicesHaveConfigurationOfReplica(t *testing.T) {
	t.Parallel()
	project, replica := microservices.load(t), monolith.load(t).Services["app1"]
	ports := map[string][2]string{
		"auth": {":9091", ":8081"}, "seat": {":9092", ":8082"},
		"reservation": {":9093", ":8083"}, "notify": {":9094", ":8084"},
	}
	for _, app := range microservices.apps {
		service := project.Services[app]
		runs := app
		switch app {
		case "reservation":
			runs += ",admin,desk,report" // staff change what reservations depend on
		case "seat":
			runs += ",screen" // a screen shows the free seats
		}
		if got := value(t, service, "SERVICES"); got != runs {
			t.Errorf("%s runs %s, want %s", app, got, runs)
		}
		if want, serves := ports[app]; serves &&
			(value(t, service, "GRPC_ADDR") != want[0] || value(t, service, "HTTP_ADDR") != want[1]) {
			t.Errorf("%s does not listen on %v", app, want)
		}
		if app == "auth" && service.CPUShares >= 1024 {
			t.Error("a login rush slows the other services: auth has the CPU weight of the others")
		}
		service.Name, service.CPUShares = replica.Name, 0
		for _, name := range []string{"SERVICES", "GRPC_ADDR", "HTTP_ADDR", "DB_MAX_CONNS", "TLS_PROBE"} {
			delete(service.Environment, name)
			delete(replica.Environment, name)
		}
		if diff := cmp.Diff(replica, service); diff != "" {
			t.Errorf("app1 and %s differ: %s", app, diff)
		}
	}
	for _, name := range []string{"postgres", "redis"} {
		if diff := cmp.Diff(monolith.load(t).Services[name], project.Services[name]); diff != "" {
			t.Errorf("%s differs: %s", name, diff)
		}
	}
	nginx, gateway := monolith.load(t).Services["nginx"], project.Services["gateway"]
	gateway.Name, gateway.DependsOn, gateway.Volumes = nginx.Name, nginx.DependsOn, nginx.Volumes
	if diff := cmp.Diff(nginx, gateway); diff != "" {
		t.Errorf("nginx and gateway differ: %s", diff)
	}
}

// The replicas use the image of this repository, drain before they are killed, and get the settings.
func TestReplicasGetSettings(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, top topology) {
		first, last := top.apps[0], top.apps[len(top.apps)-1]
		app := top.load(t).Services[first]
		if _, err := os.Stat(filepath.Join(app.Build.Context, app.Build.Dockerfile)); err != nil {
			t.Errorf("the Dockerfile: %v", err)
		}
		drain, err := time.ParseDuration(value(t, app, "DRAIN_TIMEOUT"))
		if err != nil {
			t.Fatal(err)
		}
		if app.StopGracePeriod == nil || time.Duration(*app.StopGracePeriod) < drain+5*time.Second {
			t.Errorf("a replica is killed after %v, and drains for %v", app.StopGracePeriod, drain)
		}
		if secret := value(t, app, "JWT_SECRET"); len(secret) < 64 {
			t.Errorf("the demo secret has %d characters, want 64", len(secret))
		}
		if secret := value(t, top.load(t, "JWT_SECRET=").Services[first], "JWT_SECRET"); secret != "" {
			t.Errorf("an empty JWT_SECRET, as in .env.example, became %q, and the server would start with it", secret)
		}
		set := top.load(t, "JWT_SECRET=mine", "SEED_DEMO=false", "POSTGRES_PASSWORD=open").Services[last]
		if value(t, set, "JWT_SECRET") != "mine" || value(t, set, "SEED_DEMO") != "false" {
			t.Error("the settings don't reach the replicas")
		}
	})
}

// Postgres and the replicas must get the same password, even if it has characters that are special
// in a URL or in YAML. The URL in DATABASE_URL has no password, so pgx takes it from PGPASSWORD.
func TestPasswordReachesPostgresAndReplicas(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, top topology) {
		for _, password := range []string{"open", `p/w#a@t%25:x?y&z=[ \`, ""} {
			services := top.load(t, "POSTGRES_PASSWORD="+password).Services
			if got := value(t, services["postgres"], "POSTGRES_PASSWORD"); got != password {
				t.Errorf("Postgres gets the password %q, want %q", got, password)
			}
			app := services[top.apps[len(top.apps)-1]]
			if got := value(t, app, "PGPASSWORD"); got != password {
				t.Errorf("a replica gets the password %q, want %q", got, password)
			}
			address, err := url.Parse(value(t, app, "DATABASE_URL"))
			if err != nil {
				t.Fatal(err)
			}
			if _, set := address.User.Password(); set {
				t.Errorf("%s has a password, which overrides PGPASSWORD", address.Redacted())
			}
		}
	})
}

// No service may have ulimits. A container does not start if its ulimit is above the limit of the
// container engine, which a rootless engine can have.
func TestServicesSetNoUlimits(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, top topology) {
		for name, service := range top.load(t).Services {
			if len(service.Ulimits) > 0 {
				t.Errorf("%s has ulimits", name)
			}
		}
	})
}

func TestPostgresHasSettingsOfStack(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, top topology) {
		project := top.load(t)
		got := map[string]string{}
		for _, arg := range project.Services["postgres"].Command[1:] {
			name, setting, _ := strings.Cut(strings.TrimPrefix(arg, "-c"), "=")
			got[name] = setting
		}
		if diff := cmp.Diff(stack.PostgresSettings(), got); diff != "" {
			t.Errorf("make run and docker compose differ (-stack +compose):\n%s", diff)
		}
		limit, err := strconv.Atoi(got["max_connections"])
		if err != nil {
			t.Fatal(err)
		}
		pool, err := strconv.Atoi(value(t, project.Services[top.apps[0]], "DB_MAX_CONNS"))
		if err != nil {
			t.Fatal(err)
		}
		// Each replica opens 9 connections besides the DB_MAX_CONNS of its pool (store.Open). The test
		// counts 12, so that some are left for psql. Postgres reserves 3 for superusers.
		if need := len(top.apps)*(pool+12) + 3; need > limit {
			t.Errorf("the replicas may open %d connections, and Postgres accepts %d", need, limit)
		}
	})
}

func TestNginxMountsTestedConfiguration(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, top topology) {
		nginx := top.load(t).Services[top.proxy]
		file, err := filepath.Abs(top.conf)
		if err != nil {
			t.Fatal(err)
		}
		deploy := filepath.Dir(file)
		want := map[string]string{
			"/etc/nginx/nginx.conf": file, "/etc/nginx/nginx.sh": filepath.Join(deploy, "nginx.sh"),
			"/etc/nginx/tls": filepath.Join(deploy, "tls"),
		}
		for _, v := range nginx.Volumes {
			if v.Source != want[v.Target] || !v.ReadOnly {
				t.Errorf("nginx has the volume %+v, want %s read-only", v, want[v.Target])
			}
			// Docker would create a missing source as an empty directory of root.
			if _, err := os.Stat(v.Source); err != nil {
				t.Error(err)
			}
		}
		command := "sh /etc/nginx/nginx.sh /etc/nginx/nginx.conf /tmp/nginx.conf /etc/nginx/tls 60"
		if got := strings.Join(nginx.Command, " "); len(nginx.Volumes) != len(want) || got != command {
			t.Errorf("nginx has %d volumes, want %d, and the command %s", len(nginx.Volumes), len(want), got)
		}
		for _, app := range top.apps {
			if probe := value(t, top.load(t).Services[app], "TLS_PROBE"); probe != top.proxy+":9443" {
				t.Errorf("%s looks at the certificate of %s", app, probe)
			}
		}
		if !slices.Contains(nginx.Tmpfs, "/tmp") {
			t.Error("nginx has no /tmp to write to")
		}
		conf, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		timeout := regexp.MustCompile(`worker_shutdown_timeout (\w+);`).FindSubmatch(conf)
		if timeout == nil {
			t.Fatal("nginx.conf has no worker_shutdown_timeout: nginx would wait for streams without a limit")
		}
		shutdown, err := time.ParseDuration(string(timeout[1]))
		if err != nil {
			t.Fatal(err)
		}
		if nginx.StopGracePeriod == nil || time.Duration(*nginx.StopGracePeriod) < shutdown+5*time.Second {
			t.Errorf("nginx is killed after %v, and may take %v to stop", nginx.StopGracePeriod, shutdown)
		}
		for _, app := range top.clients() {
			service := top.load(t).Services[app]
			for _, setting := range []string{"GRPC_ADDR", "HTTP_ADDR"} {
				if server := "server " + app + value(t, service, setting) + " "; !strings.Contains(string(conf), server) {
					t.Errorf("%s has no %q", top.conf, server)
				}
			}
		}
	})
}

// The files must not have these keys: Compose 1.29 rejects some of them, and accepts the others only
// with a version line.
func TestFileLoadsInCompose129(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, top topology) {
		content, err := os.ReadFile(top.file)
		if err != nil {
			t.Fatal(err)
		}
		for _, newer := range []string{
			"version:", "name:", "include:", "  start_interval:", "  develop:", "  required:", "  configs:",
		} {
			if regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(newer)).Match(content) ||
				strings.Contains(string(content), "\n  "+newer) {
				t.Errorf("Compose 1.29 does not accept %s", strings.TrimSpace(newer))
			}
		}
	})
}

// If .env has a setting of docs/reference/settings.md, the replicas must get its value. If .env
// does not have it, the replicas must not get an empty value, so that they use their default.
func TestSettingsReachReplicas(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("(?m)^### ([A-Z_]+)$").FindAllStringSubmatch(string(content), -1)
	if len(names) < 20 {
		t.Fatalf("docs/reference/settings.md has %d settings", len(names))
	}
	each(t, func(t *testing.T, top topology) {
		// The file itself has the values of these settings, because they must fit the containers.
		fixed := []string{"DATABASE_URL", "REDIS_URL", "GRPC_ADDR", "HTTP_ADDR", "ADMIN_ADDR", "TLS_PROBE", "DRAIN_TIMEOUT"}
		if top.file == microservices.file {
			fixed = append(fixed, "SERVICES")
		}
		var env []string
		want := map[string]string{}
		for _, m := range names {
			if name := m[1]; !slices.Contains(fixed, name) {
				want[name] = strconv.Itoa(17 + len(env))
				env = append(env, name+"="+want[name])
			}
		}
		set, unset := top.load(t, env...).Services[top.apps[1]].Environment, top.load(t).Services[top.apps[0]].Environment
		for name, value := range want {
			if got := set[name]; got == nil || *got != value {
				t.Errorf("%s does not reach the replicas", name)
			}
			if got := unset[name]; got != nil && *got == "" {
				t.Errorf("%s is passed as an empty value when it is not set", name)
			}
		}
	})
}

// .env.example must name the variables that each file reads, and no others.
func TestEnvExampleNamesAllVariables(t *testing.T) {
	t.Parallel()
	names := func(file string, pattern *regexp.Regexp) []string {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, m := range pattern.FindAllStringSubmatch(string(content), -1) {
			all = append(all, m[1])
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	each(t, func(t *testing.T, top topology) {
		read := names(top.file, regexp.MustCompile(`\$\{(\w+)`))
		passed := names(top.file, regexp.MustCompile(`(?m)^ +([A-Z_]+):$`))
		example := slices.DeleteFunc(names(envExample, regexp.MustCompile(`(?m)^#?([A-Z_]+)=`)),
			func(name string) bool { return slices.Contains(passed, name) })
		if diff := cmp.Diff(read, example); diff != "" {
			t.Errorf("(-%s +.env.example):\n%s", top.file, diff)
		}
	})
}

func value(t *testing.T, service types.ServiceConfig, name string) string {
	t.Helper()
	v := service.Environment[name]
	if v == nil {
		t.Fatalf("%s has no %s", service.Name, name)
	}
	return *v
}
