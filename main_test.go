package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/stack/certtest"
)

// settingNames returns the environment variables of all settings, in their order.
func settingNames() []string {
	var names []string
	for _, d := range newSettings().table {
		names = append(names, d.name)
	}
	return names
}

// parseSettings returns settings with the values of these flags.
func parseSettings(t *testing.T, args ...string) *settings {
	t.Helper()
	s := newSettings()
	flags := s.flags()
	parser, err := kong.New(flags)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	s.read(flags)
	return s
}

// runCommand runs dlsms with these arguments.
func runCommand(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	err = run(t.Context(), args, &out, &errOut)
	return out.String() + errOut.String(), err
}

func TestHelpDocumentsEverySetting(t *testing.T) {
	t.Parallel()
	help, err := runCommand(t, "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range settingNames() {
		if name == "" || !strings.Contains(help, "$"+name) {
			t.Errorf("--help has no %q", name)
		}
	}
}

func TestEachBookingRuleHasItsSetting(t *testing.T) {
	t.Parallel()
	s := parseSettings(t,
		"--min-reservation=1m", "--max-reservation=2m", "--max-ahead=3m", "--past-tolerance=4m",
		"--max-upcoming=5", "--max-waiting=6",
		"--max-waiting-per-seat=11", "--max-waitlist=12",
		"--check-in-lead=7m", "--grace-minutes=8", "--claim-minutes=9", "--reminder-lead=10m")
	want := library.Policy{
		MinDuration: time.Minute, MaxDuration: 2 * time.Minute, MaxAhead: 3 * time.Minute, PastTolerance: 4 * time.Minute,
		MaxUpcoming: 5, MaxWaiting: 6,
		MaxWaitingPerSeat: 11, MaxWaitlist: 12,
		CheckInLead: 7 * time.Minute, Grace: 8 * time.Minute, ClaimTime: 9 * time.Minute, ReminderLead: 10 * time.Minute,
	}
	if diff := cmp.Diff(want, s.rules()); diff != "" {
		t.Errorf("(-set +rules):\n%s", diff)
	}
}

func TestBadSettingsAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := runCommand(t, "serve", "--jwt-secret=short", "--redis-url=nonsense", "--grpc-addr=nowhere",
		"--db-min-conns=20", "--db-max-conns=10", "--grace-minutes=0", "--jwt-ttl=soon", "--bcrypt-cost=99",
		"--min-reservation=2h", "--max-reservation=1h", "--worker-interval=-1s", "--log-level=loud",
		"--trusted-proxies=everyone", "--otel-exporter-otlp-endpoint=nowhere",
		"--otel-traces-sampler=sometimes", "--otel-traces-sampler-arg=1.5",
		"--database-url=postgres://user:pass word@host:notaport/db")
	if err == nil {
		t.Fatal("serve accepts wrong settings")
	}
	for _, name := range []string{
		"DATABASE_URL", "JWT_SECRET", "REDIS_URL", "GRPC_ADDR", "DB_MIN_CONNS", "GRACE_MINUTES", "JWT_TTL", "BCRYPT_COST",
		"MIN_RESERVATION", "WORKER_INTERVAL", "LOG_LEVEL", "TRUSTED_PROXIES", "OTEL_EXPORTER_OTLP_ENDPOINT",
		"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG",
	} {
		if !strings.Contains(err.Error(), "\n"+name) {
			t.Errorf("%s is not reported:\n%v", name, err)
		}
	}
	if strings.Contains(err.Error(), "pass word") {
		t.Errorf("the password is shown:\n%v", err)
	}
}

// TestTokensEndBeforeTheirRevocation checks that no token lives longer than a revocation is kept.
func TestTokensEndBeforeTheirRevocation(t *testing.T) {
	t.Parallel()
	_, err := runCommand(t, "serve", "--jwt-ttl=8761h")
	if err == nil || !strings.Contains(err.Error(), "JWT_TTL: must be 1m0s to 8760h0m0s") {
		t.Errorf("a token may live longer than a year: %v", err)
	}
}

func TestWrongServicesAndOrigins(t *testing.T) {
	t.Parallel()
	_, err := runCommand(t, "serve", "--services=seat,gateway", "--cors-origins=library.example", "--http-addr=nowhere")
	for _, want := range []string{
		`SERVICES: "gateway" is not a service`,
		`CORS_ORIGINS: "library.example" is not an origin`,
		`HTTP_ADDR: "nowhere" is not`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not have %q: %v", want, err)
		}
	}
	if _, err := runCommand(t, "serve", "--services="); err == nil || !strings.Contains(err.Error(), "SERVICES") {
		t.Errorf("without a service: %v", err)
	}
}

// TestEverySettingIsChecked sets all settings to nonsense. The error must name each setting once.
func TestEverySettingIsChecked(t *testing.T) {
	t.Parallel()
	args := []string{"serve"}
	for _, d := range newSettings().table {
		args = append(args, "--"+d.flag()+"=nonsense")
	}
	_, err := runCommand(t, args...)
	if err == nil {
		t.Fatal("serve accepts wrong settings")
	}
	for _, name := range settingNames() {
		if n := strings.Count("\n"+err.Error(), "\n"+name+" ") + strings.Count("\n"+err.Error(), "\n"+name+": "); n != 1 {
			t.Errorf("%s is reported %d times", name, n)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}

func TestToggleFlagsAcceptAllForms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args       []string
		reflection bool
	}{
		{nil, true},
		{[]string{"--reflection"}, true},
		{[]string{"--no-reflection"}, false},
		{[]string{"--reflection=false"}, false},
		{[]string{"--reflection=0"}, false},
		{[]string{"--reflection=YES"}, true},
	} {
		s := parseSettings(t, c.args...)
		if err := s.check(&s.Reflection); err != nil || s.Reflection != c.reflection || s.SeedDemo {
			t.Errorf("%v: %t, %v", c.args, s.Reflection, err)
		}
	}
}

// TestRateLimitsAreBounded checks that a rate limit above maxPerMinute is refused.
func TestRateLimitsAreBounded(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"rate-limit-per-minute", "auth-rate-limit-per-minute", "login-failure-limit"} {
		name := strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
		for value, refused := range map[string]bool{
			"0": false, "1": false, "1000000": false, "1000001": true, "2147483647": true,
		} {
			_, err := runCommand(t, "serve", "--jwt-secret=short", "--"+flag+"="+value)
			if err == nil || strings.Contains(err.Error(), "\n"+name+": ") != refused {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
	}
}

// TestDefaultsAreValid runs serve with the defaults of all settings that have one, except
// GRPC_ADDR. The check of settings accepts the invalid port of GRPC_ADDR, and serve fails later,
// when it listens. So this error means that all defaults are valid.
func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	_, err := runCommand(t, "serve", "--jwt-secret=vT4qk9Zr2mWc7XpLh8sYb3NdJf6GaEuQ",
		"--database-url=postgres://user@127.0.0.1:1/none", "--grpc-addr=127.0.0.1:-1")
	if err == nil || !strings.HasPrefix(err.Error(), "GRPC_ADDR: listen") {
		t.Errorf("%v, want an error from listening on GRPC_ADDR", err)
	}
}

// TestDatabaseURLIsCheckedAtStart runs commands with different URLs. If the store refuses a URL,
// the error must contain the reason. No error may contain the password.
func TestDatabaseURLIsCheckedAtStart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		parameter string
		want      string // a part of the error; empty: the URL is valid
	}{
		{"default_query_exec_mode=simple_protocol", "default_query_exec_mode"},
		{"sslmode=verify-full&sslrootcert=/no/such.crt", "/no/such.crt"},
		{"pool_max_conns=10", ""},
	} {
		for _, command := range []string{"serve", "migrate", "seed"} {
			_, err := runCommand(t, command, "--jwt-secret=short", "--bcrypt-cost=99",
				"--database-url=postgres://user:s3cret@127.0.0.1:1/none?"+c.parameter)
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Fatalf("%s with %s: %v", command, c.parameter, err)
			}
			reported := strings.Contains(err.Error(), "DATABASE_URL: ") && command != "migrate" ||
				strings.HasPrefix(err.Error(), "DATABASE_URL: ")
			if reported != (c.want != "") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s with %s: %v", command, c.parameter, err)
			}
		}
	}
}

// TestRedisCAFileIsCheckedAtStart runs serve with different values of REDIS_CA_FILE. The error must
// name the fault in one line.
func TestRedisCAFileIsCheckedAtStart(t *testing.T) {
	t.Parallel()
	file := func(content string) string {
		name := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	valid := certtest.NewCA(t).File(t)
	for _, c := range []struct {
		file, url string
		want      string // empty: the setting is valid
	}{
		{valid, "rediss://:s3cret@cache:6379/0", ""},
		{"", "rediss://:s3cret@cache:6379/0", ""},
		{"/no/such.pem", "rediss://:s3cret@cache:6379/0", `the file "/no/such.pem" can't be read: no such file`},
		{file(""), "rediss://:s3cret@cache:6379/0", "has no certificate in PEM"},
		{file("nonsense"), "rediss://:s3cret@cache:6379/0", "has no certificate in PEM"},
		{valid, "redis://:s3cret@cache:6379/0", "needs a REDIS_URL that begins with rediss://"},
		{valid, "unix:///run/redis.sock", "needs a REDIS_URL that begins with rediss://"},
		{valid, "", "needs a REDIS_URL that begins with rediss://"},
		{valid, "nonsense:s3cret", ""}, // REDIS_URL is reported
	} {
		_, err := runCommand(t, "serve", "--jwt-secret=short", "--redis-url="+c.url, "--redis-ca-file="+c.file)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Fatalf("%q with %q: %v", c.file, c.url, err)
		}
		var got string
		for line := range strings.Lines(err.Error()) {
			if strings.HasPrefix(line, "REDIS_CA_FILE: ") {
				got += line
			}
		}
		if (got != "") != (c.want != "") || !strings.Contains(got, c.want) || strings.Count(got, "\n") > 1 {
			t.Errorf("%q with %q: %q, want %q", c.file, c.url, got, c.want)
		}
	}
}
