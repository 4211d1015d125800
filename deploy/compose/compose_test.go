// Package compose_test checks docker-compose.yml with the Go packages of Compose itself. It is a
// module of its own, so that the module of the server does not need these packages.
package compose_test

import (
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
	composeFile = "../../docker-compose.yml"
	envExample  = "../../.env.example"
	settings    = "../../docs/reference/settings.md"
)

// load reads docker-compose.yml as Compose does, with the variables in env. It ignores the
// environment of this process.
func load(t *testing.T, env ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{composeFile}, cli.WithEnv(env), cli.WithName("dlsms"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

var apps = []string{"app1", "app2", "app3"}

func TestServicesStartWhenDependenciesAreHealthy(t *testing.T) {
	t.Parallel()
	project := load(t)
	got, want := slices.Sorted(maps.Keys(project.Services)), []string{"app1", "app2", "app3", "nginx", "postgres", "redis"}
	if !slices.Equal(got, want) {
		t.Fatalf("services %v, want %v", got, want)
	}
	dependencies := map[string][]string{"nginx": apps}
	for _, app := range apps {
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
}

func TestServicesAreConfined(t *testing.T) {
	t.Parallel()
	project := load(t)
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
		if name != "nginx" && len(service.Ports) > 0 {
			t.Errorf("%s publishes a port", name)
		}
	}
	ports := project.Services["nginx"].Ports
	if len(ports) != 1 || ports[0].HostIP != "127.0.0.1" || ports[0].Published != "9090" || ports[0].Target != 9090 {
		t.Errorf("nginx is published as %+v, want 127.0.0.1:9090 to 9090", ports)
	}
	ports = load(t, "DLSMS_LISTEN=0.0.0.0:80").Services["nginx"].Ports
	if len(ports) != 1 || ports[0].HostIP != "0.0.0.0" || ports[0].Published != "80" {
		t.Errorf("DLSMS_LISTEN published nginx as %+v", ports)
	}
}

// The three replicas have the same configuration and use the image of this repository.
func TestReplicasAreIdentical(t *testing.T) {
	t.Parallel()
	project := load(t)
	first := project.Services["app1"]
	for _, app := range apps[1:] {
		other := project.Services[app]
		other.Name = first.Name
		if diff := cmp.Diff(first, other); diff != "" {
			t.Errorf("app1 and %s differ: %s", app, diff)
		}
	}
	if _, err := os.Stat(filepath.Join(first.Build.Context, first.Build.Dockerfile)); err != nil {
		t.Errorf("the Dockerfile: %v", err)
	}
	drain, err := time.ParseDuration(value(t, first, "DRAIN_TIMEOUT"))
	if err != nil {
		t.Fatal(err)
	}
	if first.StopGracePeriod == nil || time.Duration(*first.StopGracePeriod) < drain+5*time.Second {
		t.Errorf("a replica is killed after %v, and drains for %v", first.StopGracePeriod, drain)
	}
	if secret := value(t, first, "JWT_SECRET"); len(secret) < 64 {
		t.Errorf("the demo secret has %d characters, want 64", len(secret))
	}
	if secret := value(t, load(t, "JWT_SECRET=").Services["app1"], "JWT_SECRET"); secret != "" {
		t.Errorf("an empty JWT_SECRET, as in .env.example, became %q, and the server would start with it", secret)
	}
	set := load(t, "JWT_SECRET=mine", "SEED_DEMO=false", "POSTGRES_PASSWORD=open").Services
	if value(t, set["app2"], "JWT_SECRET") != "mine" || value(t, set["app2"], "SEED_DEMO") != "false" {
		t.Error("the settings don't reach the replicas")
	}
}

// Postgres and the replicas must get the same password, even if it has characters that are special
// in a URL or in YAML. The URL in DATABASE_URL has no password, so pgx takes it from PGPASSWORD.
func TestPasswordReachesPostgresAndReplicas(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"open", `p/w#a@t%25:x?y&z=[ \`, ""} {
		services := load(t, "POSTGRES_PASSWORD="+password).Services
		if got := value(t, services["postgres"], "POSTGRES_PASSWORD"); got != password {
			t.Errorf("Postgres gets the password %q, want %q", got, password)
		}
		app := services["app3"]
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
}

// No service may have ulimits. A container does not start if its ulimit is above the limit of the
// container engine, which a rootless engine can have.
func TestServicesSetNoUlimits(t *testing.T) {
	t.Parallel()
	for name, service := range load(t).Services {
		if len(service.Ulimits) > 0 {
			t.Errorf("%s has ulimits", name)
		}
	}
}

func TestPostgresHasSettingsOfStack(t *testing.T) {
	t.Parallel()
	project := load(t)
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
	pool, err := strconv.Atoi(value(t, project.Services["app1"], "DB_MAX_CONNS"))
	if err != nil {
		t.Fatal(err)
	}
	// Each replica opens 6 connections besides the DB_MAX_CONNS of its pool (store.Open). The test
	// counts 10, so that some are left for psql. Postgres reserves 3 for superusers.
	if need := len(apps)*(pool+10) + 3; need > limit {
		t.Errorf("the replicas may open %d connections, and Postgres accepts %d", need, limit)
	}
}

func TestNginxMountsTestedConfiguration(t *testing.T) {
	t.Parallel()
	nginx := load(t).Services["nginx"]
	file, err := filepath.Abs("../nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	if len(nginx.Volumes) != 1 || nginx.Volumes[0].Source != file ||
		nginx.Volumes[0].Target != "/etc/nginx/nginx.conf" || !nginx.Volumes[0].ReadOnly {
		t.Errorf("nginx has the volumes %+v, want %s", nginx.Volumes, file)
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
	for _, app := range apps {
		if !strings.Contains(string(conf), "server "+app+":9090 ") {
			t.Errorf("nginx.conf does not name %s", app)
		}
	}
}

// docker-compose.yml must not have these keys: Compose 1.29 rejects some of them, and accepts the
// others only with a version line.
func TestFileLoadsInCompose129(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(composeFile)
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
	// The file itself has the values of these settings, because they must fit the containers.
	fixed := []string{"", "DATABASE_URL", "REDIS_URL", "GRPC_ADDR", "ADMIN_ADDR", "DRAIN_TIMEOUT"}
	var env []string
	want := map[string]string{}
	for _, m := range names {
		for _, name := range m[1:] {
			if !slices.Contains(fixed, name) {
				want[name] = strconv.Itoa(17 + len(env))
				env = append(env, name+"="+want[name])
			}
		}
	}
	set, unset := load(t, env...).Services["app2"].Environment, load(t).Services["app1"].Environment
	for name, value := range want {
		if got := set[name]; got == nil || *got != value {
			t.Errorf("%s does not reach the replicas", name)
		}
		if got := unset[name]; got != nil && *got == "" {
			t.Errorf("%s is passed as an empty value when it is not set", name)
		}
	}
}

// .env.example must name the variables that docker-compose.yml reads, and no others.
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
	read := names(composeFile, regexp.MustCompile(`\$\{(\w+)`))
	passed := names(composeFile, regexp.MustCompile(`(?m)^ +([A-Z_]+):$`))
	example := slices.DeleteFunc(names(envExample, regexp.MustCompile(`(?m)^#?([A-Z_]+)=`)),
		func(name string) bool { return slices.Contains(passed, name) })
	if diff := cmp.Diff(read, example); diff != "" {
		t.Errorf("(-docker-compose.yml +.env.example):\n%s", diff)
	}
}

func value(t *testing.T, service types.ServiceConfig, name string) string {
	t.Helper()
	v := service.Environment[name]
	if v == nil {
		t.Fatalf("%s has no %s", service.Name, name)
	}
	return *v
}
