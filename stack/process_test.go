package stack_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/dlsms/dlsms/stack"
)

func startPostgres(t *testing.T, cfg stack.PostgresConfig) *stack.Postgres {
	t.Helper()
	cfg.Log = t.Output()
	pg, err := stack.StartPostgres(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return pg
}

func startRedis(t *testing.T) *stack.Redis {
	t.Helper()
	r, err := stack.StartRedis(t.Context(), stack.RedisConfig{Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// query runs a statement and returns its only value.
func query[T any](t *testing.T, url, sql string) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	var value T
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestPostgresIsSafeByDefault(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t, stack.PostgresConfig{Settings: map[string]string{"work_mem": "5MB"}})
	defer stop(t, pg)
	for setting, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
		"max_connections": "400", "listen_addresses": "127.0.0.1",
		"server_encoding": "UTF8", "TimeZone": "UTC", "work_mem": "5MB",
	} {
		if got := query[string](t, pg.DatabaseURL(), "SHOW "+setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
	if query[bool](t, pg.DatabaseURL(), "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") {
		t.Error("dlsms is a superuser, which a hosted database would not allow")
	}
	if !query[bool](t, pg.AdminURL(), "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") {
		t.Error("the admin is not a superuser")
	}
	owner := query[string](t, pg.DatabaseURL(),
		"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
	if owner != "dlsms" {
		t.Errorf("the database belongs to %s, want dlsms", owner)
	}
	wrongPassword := strings.Replace(pg.DatabaseURL(), "dlsms:", "dlsms:x", 1)
	if conn, err := pgx.Connect(t.Context(), wrongPassword); err == nil {
		_ = conn.Close(t.Context())
		t.Error("Postgres accepted a wrong password")
	}
}

func TestPostgresUnsafeTurnsOffFsync(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t, stack.PostgresConfig{Unsafe: true})
	defer stop(t, pg)
	if got := query[string](t, pg.DatabaseURL(), "SHOW fsync"); got != "off" {
		t.Errorf("fsync is %s", got)
	}
}

func TestPostgresKeepsDataAfterKillAndRestart(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t, stack.PostgresConfig{})
	defer stop(t, pg)
	url := pg.DatabaseURL()
	execute(t, url, "CREATE TABLE acknowledged (id int)")
	for round := range 3 {
		execute(t, url, fmt.Sprintf("INSERT INTO acknowledged VALUES (%d)", round))
		before := pg.PID()
		if round < 2 {
			if err := pg.Kill(); err != nil {
				t.Fatal(err)
			}
			if pg.PID() != 0 {
				t.Errorf("a killed Postgres has the pid %d", pg.PID())
			}
			if err := pg.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Errorf("Postgres ended with %v, want killed", err)
			}
			if err := pg.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else if err := pg.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if pg.PID() == before {
			t.Error("the process id did not change")
		}
		if got := query[int](t, url, "SELECT count(*) FROM acknowledged"); got != round+1 {
			t.Fatalf("%d rows after round %d", got, round)
		}
	}
	if err := pg.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("a second start gave %v", err)
	}
}

func TestSecondRunKeepsData(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	pg := startPostgres(t, stack.PostgresConfig{Dir: dir})
	execute(t, pg.DatabaseURL(), "CREATE TABLE kept AS SELECT 42 AS answer")
	stop(t, pg)
	pg = startPostgres(t, stack.PostgresConfig{Dir: dir})
	defer stop(t, pg)
	if got := query[int](t, pg.DatabaseURL(), "SELECT answer FROM kept"); got != 42 {
		t.Errorf("the answer is %d", got)
	}
}

func TestStopRemovesTemporaryDirectory(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t, stack.PostgresConfig{Unsafe: true})
	data := query[string](t, pg.AdminURL(), "SHOW data_directory")
	stop(t, pg)
	if _, err := os.Stat(filepath.Dir(filepath.Dir(data))); !os.IsNotExist(err) {
		t.Errorf("the directory of %s is still there: %v", data, err)
	}
}

func TestRedisIsEmptyAfterRestart(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	defer stop(t, r)
	options, err := redis.ParseURL(r.RedisURL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	if err := client.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := client.DBSize(t.Context()).Result(); err != nil || n != 0 {
		t.Errorf("%d keys after a restart (%v), want none", n, err)
	}
	options.Password = ""
	noPassword := redis.NewClient(options)
	defer func() { _ = noPassword.Close() }()
	if err := noPassword.Ping(t.Context()).Err(); err == nil {
		t.Error("Redis answers without its password")
	}
}

// If another process kills only the master process of nginx, the workers of nginx keep running and
// keep the address in use. So the stack must end the workers.
func TestNginxWorkersEndWithMaster(t *testing.T) {
	t.Parallel()
	nginx, err := stack.StartNginx(t.Context(), stack.NginxConfig{Backends: []string{"127.0.0.1:1"}, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, nginx)
	workers := childrenOf(t, []int{nginx.PID()})
	if len(workers) == 0 {
		t.Error("nginx has no workers")
	}
	if err := nginx.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-nginx.Done()
	waitUntilGone(t, workers)
	if err := nginx.Start(t.Context()); err != nil {
		t.Error(err)
	}
}

// Stop kills a process that does not react, and returns an error.
func TestStopKillsHungProcess(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	pid := r.PID()
	if err := r.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	wantLine(t, r.Stop(ctx), "redis", "killed")
	waitUntilGone(t, []int{pid})
}

// The stack must work without root. If root runs the tests, this test runs the stack as an ordinary
// user. Otherwise no test runs as root.
func TestRunsAsOrdinaryUser(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	uid := uint32(0)
	if os.Geteuid() == 0 {
		uid = 65534
		// Only root can enter the directory of the test binary, so the ordinary user runs a copy of
		// it.
		copied := filepath.Join(stateDir(t), "stack.test")
		content, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied, content, 0o755); err != nil {
			t.Fatal(err)
		}
		program = copied
	}
	f := startParent(t, program, uid)
	if err := f.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
	waitUntilGone(t, f.children)
}

func TestSecondRunInSameDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	first, err := stack.StartRedis(t.Context(), stack.RedisConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, first)
	_, err = stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: dir})
	wantLine(t, err, "another run uses "+dir, fmt.Sprintf("kill %d", os.Getpid()))
}

func TestStartNginxReportsUnusableAddress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, c := range []struct {
		listen string
		want   []string
	}{
		{l.Addr().String(), []string{l.Addr().String() + " is in use", "make run "}},
		{"192.0.2.1:9090", []string{"192.0.2.1:9090", "make run "}},
		{"nonsense", []string{"host:port"}},
	} {
		_, err = stack.StartNginx(t.Context(), stack.NginxConfig{Listen: c.listen, Backends: []string{"127.0.0.1:1"}})
		wantLine(t, err, c.want...)
		_, err = stack.StartNginx(t.Context(), stack.NginxConfig{HTTPListen: c.listen, Backends: []string{"127.0.0.1:1"}})
		wantLine(t, err, c.want...)
	}
}

// If its preferred port is in use, a server uses another port. Only nginx needs a fixed port:
// clients know it, and the stack tells the replicas the ports of Postgres and Redis.
func TestRedisAvoidsPreferredPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	taken := l.Addr().(*net.TCPAddr).Port
	r, err := stack.StartRedis(t.Context(), stack.RedisConfig{Port: taken})
	if err != nil {
		t.Fatal(err)
	}
	stop(t, r)
	if strings.Contains(r.RedisURL(), fmt.Sprint(taken)) {
		t.Errorf("%s has the preferred port, which was in use", r.RedisURL())
	}
}

func TestDamagedStateDirectoryIsReported(t *testing.T) {
	t.Parallel()
	remove := func(t *testing.T, path ...string) {
		if err := os.RemoveAll(filepath.Join(path...)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T) string // returns the directory
		want   []string
	}{
		"a file instead of the directory": {func(t *testing.T) string {
			file := filepath.Join(stateDir(t), "state")
			write(t, "", file)
			return file
		}, []string{"is not a directory", "move it away"}},
		"a file instead of the database": {func(t *testing.T) string {
			dir := stateDir(t)
			write(t, "", dir, "postgres")
			return dir
		}, []string{"postgres is not a directory", "remove it"}},
		"a dangling link": {func(t *testing.T) string {
			dir := stateDir(t)
			if err := os.Symlink(filepath.Join(dir, "missing"), filepath.Join(dir, "postgres")); err != nil {
				t.Fatal(err)
			}
			return dir
		}, []string{"which does not exist", "remove the link"}},
		"no PG_VERSION": {func(t *testing.T) string {
			dir := usedDir(t)
			remove(t, dir, "postgres", "data", "PG_VERSION")
			return dir
		}, []string{"is not a database", "make clean"}},
		"another release": {func(t *testing.T) string {
			dir := usedDir(t)
			write(t, "9\n", dir, "postgres", "data", "PG_VERSION")
			return dir
		}, []string{"PostgreSQL 9 is missing", "make clean"}},
		"no password": {func(t *testing.T) string {
			dir := usedDir(t)
			remove(t, dir, "postgres", "password")
			return dir
		}, []string{"password is missing", "make clean"}},
		"a truncated password": {func(t *testing.T) string {
			dir := usedDir(t)
			write(t, "abc", dir, "postgres", "password")
			return dir
		}, []string{"password is damaged", "remove it"}},
		"no system catalog": {func(t *testing.T) string {
			dir := usedDir(t)
			remove(t, dir, "postgres", "data", "global")
			return dir
		}, []string{"postgres ended", "could not open", "global"}},
		"an invalid setting": {func(t *testing.T) string {
			dir := usedDir(t)
			write(t, "nonsense nonsense nonsense\n", dir, "postgres", "data", "postgresql.auto.conf")
			return dir
		}, []string{"postgres: ", "configuration file", "postgresql.auto.conf"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: c.damage(t), Unsafe: true, Log: t.Output()})
			wantLine(t, err, c.want...)
		})
	}
}

// If the first start was interrupted, the next start must create the cluster again. If the database
// dlsms is missing, the next start must create it.
func TestIncompleteClusterIsCreatedAgain(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancelled := cancelOn{word: "creating a database cluster", cancel: cancel}
	if _, err := stack.StartPostgres(ctx, stack.PostgresConfig{Dir: dir, Log: cancelled}); err == nil {
		t.Fatal("Postgres started although ctx was cancelled")
	}
	if err := os.MkdirAll(filepath.Join(dir, "postgres", "data.new", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	pg := startPostgres(t, stack.PostgresConfig{Dir: dir})
	admin := strings.Replace(pg.AdminURL(), "/dlsms?", "/postgres?", 1)
	execute(t, admin, "DROP DATABASE dlsms")
	stop(t, pg)
	pg = startPostgres(t, stack.PostgresConfig{Dir: dir})
	defer stop(t, pg)
	if got := query[string](t, pg.DatabaseURL(), "SELECT current_user::text"); got != "dlsms" {
		t.Errorf("the user is %s", got)
	}
}

// cancelOn is a log that calls cancel when a line contains word.
type cancelOn struct {
	word   string
	cancel func()
}

func (c cancelOn) Write(line []byte) (int, error) {
	if strings.Contains(string(line), c.word) {
		c.cancel()
	}
	return len(line), nil
}
