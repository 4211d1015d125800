package stack_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dlsms/dlsms/stack"
)

// dlsms runs a command of dlsms with the database.
func dlsms(t *testing.T, databaseURL, name string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(programs(t), "dlsms"), name)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+databaseURL, "BCRYPT_COST=4")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dlsms %s: %v\n%s", name, err, out)
	}
}

// seededDir returns a directory with the demo data.
func seededDir(t *testing.T) string {
	t.Helper()
	dir := usedDir(t)
	pg := startPostgres(t, stack.PostgresConfig{Dir: dir, Unsafe: true})
	defer stop(t, pg)
	dlsms(t, pg.DatabaseURL(), "migrate")
	dlsms(t, pg.DatabaseURL(), "seed")
	return dir
}

func backup(t *testing.T, dir, file string) {
	t.Helper()
	got, err := stack.Backup(t.Context(), stack.BackupConfig{Dir: dir, File: file, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if got != file {
		t.Errorf("the backup is in %s, want %s", got, file)
	}
}

func restoreConfig(t *testing.T, dir, file string) stack.RestoreConfig {
	t.Helper()
	return stack.RestoreConfig{Dir: dir, File: file, Binary: filepath.Join(programs(t), "dlsms"), Log: t.Output()}
}

// change executes statements in the database of a directory.
func change(t *testing.T, dir string, statements ...string) {
	t.Helper()
	pg := startPostgres(t, stack.PostgresConfig{Dir: dir, Unsafe: true})
	defer stop(t, pg)
	for _, sql := range statements {
		execute(t, pg.DatabaseURL(), sql)
	}
}

// wantDatabase checks the number of branches, and that a restore has left no other database.
func wantDatabase(t *testing.T, when, dir string, branches int64) {
	t.Helper()
	pg := startPostgres(t, stack.PostgresConfig{Dir: dir, Unsafe: true})
	defer stop(t, pg)
	if got := query[int64](t, pg.DatabaseURL(), "SELECT count(*) FROM branches"); got != branches {
		t.Errorf("%s: %d branches, want %d", when, got, branches)
	}
	names := query[string](t, pg.AdminURL(),
		"SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate")
	if names != "dlsms postgres" {
		t.Errorf("%s: the databases are %s", when, names)
	}
}

// wantFiles checks the names of the files in a directory.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("the files are %q, want %q", names, want)
	}
}

const addBranch = `INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'new', 'New', 'UTC')`

// A backup of a running stack and one of a stopped stack each restore the data of their time. A
// restore removes the databases that a killed restore has left.
func TestRestoreReplacesData(t *testing.T) {
	t.Parallel()
	dir, files := usedDir(t), t.TempDir()
	running, stopped := filepath.Join(files, "running.dump"), filepath.Join(files, "stopped.dump")
	s := startStack(t, stack.Config{Dir: dir, Seed: true, Unsafe: true, Replicas: 1, NoRedis: true})
	branches := query[int64](t, s.Postgres.DatabaseURL(), "SELECT count(*) FROM branches")
	backup(t, dir, running)
	info, err := os.Stat(running)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the backup has the mode %v", info.Mode())
	}
	execute(t, s.Postgres.DatabaseURL(), addBranch)
	wantLine(t, stack.Restore(t.Context(), restoreConfig(t, dir, running)), "another run uses", "Ctrl-C")
	stop(t, s)
	backup(t, dir, stopped)
	wantFiles(t, files, "running.dump", "stopped.dump")

	change(t, dir, "CREATE DATABASE dlsms_restoring", "CREATE DATABASE dlsms_replaced")
	for file, want := range map[string]int64{running: branches, stopped: branches + 1} {
		if err := stack.Restore(t.Context(), restoreConfig(t, dir, file)); err != nil {
			t.Fatal(err)
		}
		wantDatabase(t, file, dir, want)
	}
}

// A backup that fails or is interrupted writes no file, and does not change a file.
func TestFailedBackupWritesNoFile(t *testing.T) {
	t.Parallel()
	dir, files := seededDir(t), t.TempDir()
	file := filepath.Join(files, "a.dump")
	write(t, "other", file)
	cfg := stack.BackupConfig{Dir: dir, File: file}
	_, err := stack.Backup(t.Context(), cfg)
	wantLine(t, err, file, "exists", "choose another name")
	if content, err := os.ReadFile(file); err != nil || string(content) != "other" {
		t.Errorf("the file has %q, %v", content, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg.File, cfg.Log = filepath.Join(files, "b.dump"), cancelOn{"backup   | writing", cancel}
	_, err = stack.Backup(ctx, cfg)
	wantLine(t, err, "interrupted", "no file was written")

	cfg.File, cfg.Log = filepath.Join(files, "none", "b.dump"), nil
	_, err = stack.Backup(t.Context(), cfg)
	wantLine(t, err, cfg.File, "no such file or directory")
	_, err = stack.Backup(t.Context(), stack.BackupConfig{Dir: filepath.Join(files, "none")})
	wantLine(t, err, "there is no database", "make run")

	// A limit for the size of files has the effect of a full disk. It must not affect Postgres, so
	// Postgres runs already.
	s := startStack(t, stack.Config{Dir: dir, Unsafe: true, Replicas: 1, NoRedis: true})
	defer stop(t, s)
	out, err := exec.Command("/bin/sh", "-c", `ulimit -f 8; exec "$@"`, "sh",
		filepath.Join(programs(t), "dlsms-stack"), "backup", "-dir", dir, "-file", filepath.Join(files, "b.dump")).
		CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no file was written") {
		t.Errorf("a backup on a full disk: %v\n%s", err, out)
	}
	wantFiles(t, files, "a.dump")
}

// A restore that fails or is interrupted changes nothing.
func TestFailedRestoreChangesNothing(t *testing.T) {
	t.Parallel()
	dir, files := seededDir(t), t.TempDir()
	path := func(name string) string { return filepath.Join(files, name) }
	backup(t, dir, path("good"))
	whole, err := os.ReadFile(path("good"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, string(whole[:len(whole)/2]), path("half"))
	write(t, string(whole[:len(whole)-100]), path("short"))
	write(t, "SELECT 1;\n", path("text"))
	other := usedDir(t)
	change(t, other, "CREATE TABLE mine (a int)")
	backup(t, other, path("foreign"))
	newer := seededDir(t)
	change(t, newer, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)",
		"UPDATE schema_compatibility SET oldest_binary = 99999")
	backup(t, newer, path("newer"))
	change(t, dir, addBranch)
	pg := startPostgres(t, stack.PostgresConfig{Dir: dir, Unsafe: true})
	branches := query[int64](t, pg.DatabaseURL(), "SELECT count(*) FROM branches")
	stop(t, pg)

	for name, want := range map[string]string{
		"missing": "no such file",
		"":        "is not a file",
		"half":    "not a readable dump",
		"short":   "end of file",
		"text":    "not a readable dump",
		"foreign": "a dump of another database",
		"newer":   "this binary is too old for the database",
	} {
		wantLine(t, stack.Restore(t.Context(), restoreConfig(t, dir, path(name))), want)
		wantDatabase(t, name, dir, branches)
	}
	wantLine(t, stack.Restore(t.Context(), restoreConfig(t, dir, "")), "FILE=")
	for _, step := range []string{"restore  | reading", "restore  | migrating", " seats, "} {
		ctx, cancel := context.WithCancel(t.Context())
		cfg := restoreConfig(t, dir, path("good"))
		cfg.Log = cancelOn{step, cancel}
		wantLine(t, stack.Restore(ctx, cfg), "interrupted", "the database is unchanged")
		cancel()
		wantDatabase(t, step, dir, branches)
	}
}

// An ordinary user can restore a dump into a new directory, and back it up again. The programs are
// those of `make backup` and `make restore`.
func TestOrdinaryUserBacksUpAndRestores(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	for _, name := range []string{"dlsms", "dlsms-stack"} {
		if err := copyFile(filepath.Join(programs(t), name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	backup(t, seededDir(t), filepath.Join(dir, "first.dump"))
	if err := os.Mkdir(filepath.Join(dir, ".local"), 0o755); err != nil {
		t.Fatal(err)
	}
	var as *syscall.Credential
	if isRoot() {
		command(t, "chown", "-R", strconv.Itoa(nobodyUID), dir)
		as = &syscall.Credential{Uid: nobodyUID, Gid: nobodyUID}
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(filepath.Join(dir, "dlsms-stack"), args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	out := run("restore", "-binary", "./dlsms", "-file", "first.dump")
	wantOrder(t, out, "restore  | reading", "new ids begin far above", " users, 49 seats", "done", "make run")
	out = run("backup")
	names, err := filepath.Glob(filepath.Join(dir, "dlsms-*Z.dump"))
	if err != nil || len(names) != 1 {
		t.Fatalf("the new files are %q, %v", names, err)
	}
	name := filepath.Base(names[0])
	if _, err := time.Parse("dlsms-20060102T150405Z.dump", name); err != nil {
		t.Error(err)
	}
	wantOrder(t, out, "writing "+name, "done", name)
	info, err := os.Stat(names[0])
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t); info.Mode() != fs.FileMode(0o600) || as != nil && owner.Uid != as.Uid {
		t.Errorf("the file has the mode %v and the owner %d", info.Mode(), owner.Uid)
	}
}
