package stack_test

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/stack"
)

// dockerScript replaces docker for deploy/database.sh, because a test has no Docker engine. It runs
// the programs of the containers on this machine, with a real Postgres. It writes the names of
// stopped and started services to the file calls, and fails if its arguments contain $FAIL. If $FAIL
// is "second", another restore begins when the services are stopped.
const dockerScript = `#!/bin/sh
if [ -n "$FAIL" ]; then
  case "$*" in *"$FAIL"*) echo "$FAIL fails" >&2; exit 1 ;; esac
fi
if [ "$1" = inspect ]; then echo healthy; exit; fi
shift
case $1 in
  config) printf '%s\n' postgres app1 redis nginx app2 ;;
  ps) echo id ;;
  exec)
    if [ "$3" = nginx ]; then echo reload >>"$CALLS"; exit; fi
    shift 3
    exec "$@" ;;
  run) DATABASE_URL="$SERVER/dlsms_restoring?sslmode=disable" exec "$DLSMS" migrate ;;
  stop | start)
    echo "$*" >>"$CALLS"
    if [ "$1:$FAIL" = stop:second ]; then
      psql -U dlsms -d postgres -qc 'DROP DATABASE dlsms_restoring' -c 'CREATE DATABASE dlsms_restoring'
    fi ;;
esac
`

// containers is a directory with dockerScript, and a Postgres that it uses.
type containers struct {
	pg  *stack.Postgres
	dir string
	env []string
}

func startContainers(t *testing.T) *containers {
	t.Helper()
	pg := startPostgres(t, stack.PostgresConfig{Dir: seededDir(t), Unsafe: true})
	t.Cleanup(func() { stop(t, pg) })
	u, err := url.Parse(pg.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	c := &containers{pg: pg, dir: t.TempDir()}
	bin := query[string](t, pg.AdminURL(), "SELECT setting FROM pg_config WHERE name = 'BINDIR'")
	c.env = append(os.Environ(), "PGHOST="+u.Hostname(), "PGPORT="+u.Port(), "PGPASSWORD="+password,
		"SERVER="+strings.TrimSuffix(strings.Split(pg.DatabaseURL(), "?")[0], "/dlsms"),
		"DLSMS="+filepath.Join(programs(t), "dlsms"), "CALLS="+filepath.Join(c.dir, "calls"),
		"PATH="+c.dir+":"+bin+":"+os.Getenv("PATH"))
	if err := os.WriteFile(filepath.Join(c.dir, "docker"), []byte(dockerScript), 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs deploy/database.sh in the directory c.dir. It returns the output of the script, and the
// stops, starts and reloads.
func (c *containers) run(t *testing.T, fail string, args ...string) (out, calls string, err error) {
	t.Helper()
	script, err := filepath.Abs("../deploy/database.sh")
	if err != nil {
		t.Fatal(err)
	}
	write(t, "", c.dir, "calls")
	cmd := exec.Command(script, args...)
	cmd.Dir = c.dir
	cmd.Env = append(c.env, "FAIL="+fail)
	output, err := cmd.CombinedOutput()
	content, readErr := os.ReadFile(filepath.Join(c.dir, "calls"))
	if readErr != nil {
		t.Fatal(readErr)
	}
	return string(output), string(content), err
}

// want checks the number of branches, and that there is no other database.
func (c *containers) want(t *testing.T, when string, branches int64) {
	t.Helper()
	if got := query[int64](t, c.pg.DatabaseURL(), "SELECT count(*) FROM branches"); got != branches {
		t.Errorf("%s: %d branches, want %d", when, got, branches)
	}
	names := query[string](t, c.pg.AdminURL(),
		"SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate")
	if names != "dlsms postgres" {
		t.Errorf("%s: the databases are %s", when, names)
	}
}

const restartedApps = "stop app1 app2\nstart app1 app2\nreload\n"

// deploy/database.sh writes a complete file or none. A restore that fails leaves the data, and
// starts the replicas again if it has stopped them.
func TestDatabaseScript(t *testing.T) {
	t.Parallel()
	c := startContainers(t)
	branches := query[int64](t, c.pg.DatabaseURL(), "SELECT count(*) FROM branches")
	for _, fail := range []string{"pg_dump", "pg_restore"} {
		if out, _, err := c.run(t, fail, "backup", "a.dump"); err == nil || !strings.Contains(out, "no file was written") {
			t.Errorf("a backup without %s: %v\n%s", fail, err, out)
		}
		wantFiles(t, c.dir, "calls", "docker")
	}
	out, calls, err := c.run(t, "", "backup", "a.dump")
	if err != nil || calls != "" {
		t.Fatalf("backup: %v, calls %q\n%s", err, calls, out)
	}
	info, err := os.Stat(filepath.Join(c.dir, "a.dump"))
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("the backup has the mode %v, %v", info.Mode(), err)
	}
	wantFiles(t, c.dir, "a.dump", "calls", "docker")
	if out, _, err := c.run(t, "", "backup", "a.dump"); err == nil || !strings.Contains(out, "exists") {
		t.Errorf("a second backup to the same file: %v\n%s", err, out)
	}

	execute(t, c.pg.DatabaseURL(), addBranch)
	whole, err := os.ReadFile(filepath.Join(c.dir, "a.dump"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, string(whole[:len(whole)-100]), c.dir, "short.dump")
	write(t, "SELECT 1;\n", c.dir, "text.dump")
	for _, bad := range []struct{ name, file, fail, want, calls string }{
		{"no argument", "", "", "usage", ""},
		{"no file", "none.dump", "", "can't read", ""},
		{"text", "text.dump", "", "not a readable dump", ""},
		{"truncated", "short.dump", "", "the database is unchanged", ""},
		{"without Postgres", "a.dump", "exec -T postgres true", "up -d postgres", ""},
		{"migration", "a.dump", "migrate", "the database is unchanged", ""},
		{"stop", "a.dump", "compose stop", "the database is unchanged", "start app1 app2\nreload\n"},
		{"rename", "a.dump", "RENAME", "the database is unchanged", restartedApps},
		{"two restores", "a.dump", "second", "another restore has begun", restartedApps},
	} {
		out, calls, err := c.run(t, bad.fail, "restore", bad.file)
		if err == nil || !strings.Contains(out, bad.want) || calls != bad.calls {
			t.Errorf("%s: %v, calls %q\n%s", bad.name, err, calls, out)
		}
		c.want(t, bad.name, branches+1)
	}

	out, calls, err = c.run(t, "", "restore", "a.dump")
	if err != nil || calls != restartedApps {
		t.Errorf("restore: %v, calls %q\n%s", err, calls, out)
	}
	wantOrder(t, out, "new ids begin far above", "stopping the replicas", "starting the replicas", "done")
	c.want(t, "restored", branches)
}
