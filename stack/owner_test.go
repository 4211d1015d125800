package stack_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dlsms/dlsms/stack"
)

// nobodyUID is the id of the user nobody. Tests that run as root use it as an ordinary user.
const nobodyUID = 65534

func isRoot() bool { return os.Geteuid() == 0 }

// checkout creates a directory with copies of the scripts in stack/ that the Makefile runs.
func checkout(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Join(dir, "stack"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stack/clean.sh", "stack/preflight.sh", "go.mod"} {
		content, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// script runs a script of a checkout. If uid is not 0, it runs as that user.
func script(t *testing.T, uid uint32, path ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(path...))
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "HOME=/nonexistent")
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func has(path ...string) bool {
	_, err := os.Lstat(filepath.Join(path...))
	return err == nil
}

// A copy of a checkout must not use or remove the database of the original, which is running. The
// error in the copy must not advise the user to kill the Postgres of the original.
func TestCopiedCheckoutKeepsOriginalDatabase(t *testing.T) {
	t.Parallel()
	for name, linked := range map[string]bool{"with its database": false, "with a link to it": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := stateDir(t)
			a, b := checkout(t, parent, "a"), filepath.Join(parent, "b")
			switch {
			case linked && isRoot(): // the user postgres can't enter, so the stack uses /var/lib/dlsms
				if err := os.Chmod(parent, 0o700); err != nil {
					t.Fatal(err)
				}
			case linked:
				elsewhere := stateDir(t)
				if err := os.Mkdir(filepath.Join(a, ".local"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(elsewhere, filepath.Join(a, ".local", "postgres")); err != nil {
					t.Fatal(err)
				}
			}
			pg := startPostgres(t, stack.PostgresConfig{Dir: filepath.Join(a, ".local"), Unsafe: true})
			running := true
			defer func() {
				if running {
					stop(t, pg)
				}
			}()
			database, err := filepath.EvalSymlinks(filepath.Join(a, ".local", "postgres"))
			if err != nil {
				t.Fatal(err)
			}
			command(t, "cp", "-r", a, b)

			_, err = stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: filepath.Join(b, ".local"), Unsafe: true})
			wantLine(t, err, "belongs to "+a+":", "make clean")
			if strings.Contains(fmt.Sprint(err), "kill") {
				t.Errorf("the error advises to kill: %v", err)
			}
			if out, err := script(t, 0, b, "stack", "clean.sh"); err != nil || has(b, ".local") {
				t.Errorf("clean in the copy: %v %s", err, out)
			}
			if got := query[int](t, pg.DatabaseURL(), "SELECT 1"); got != 1 || !has(database, "data", "PG_VERSION") {
				t.Error("the database of the original was deleted")
			}
			out, err := script(t, 0, a, "stack", "clean.sh")
			if err == nil || !strings.Contains(out, fmt.Sprintf("kill %d", os.Getpid())) || !has(database, "data") {
				t.Errorf("clean in the running original: %v %s", err, out)
			}

			// clean.sh has removed the link or the copy of the database, so the copy of the
			// checkout starts with an empty database.
			second := startPostgres(t, stack.PostgresConfig{Dir: filepath.Join(b, ".local"), Unsafe: true})
			stop(t, second)
			stop(t, pg)
			running = false
			for _, dir := range []string{a, b} {
				if out, err := script(t, 0, dir, "stack", "clean.sh"); err != nil || has(dir, ".local") {
					t.Errorf("clean in %s: %v %s", dir, err, out)
				}
			}
			if has(database, "data") && (!linked || isRoot()) {
				t.Errorf("%s still exists", database)
			}
		})
	}
}

// A checkout that was moved keeps its database, even if there is a new checkout at the old path.
func TestMovedCheckoutKeepsDatabase(t *testing.T) {
	t.Parallel()
	parent := stateDir(t)
	dir := func(name string) string { return filepath.Join(parent, name, ".local") }
	run := func(name, sql string, log *logBuffer) int {
		t.Helper()
		pg, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: dir(name), Unsafe: true, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		defer stop(t, pg)
		return query[int](t, pg.DatabaseURL(), sql)
	}
	pg := startPostgres(t, stack.PostgresConfig{Dir: dir("a"), Unsafe: true})
	execute(t, pg.DatabaseURL(), "CREATE TABLE kept AS SELECT 42 AS answer")
	stop(t, pg)
	for _, again := range []bool{false, true} {
		from, to := "a", "b"
		if again {
			from, to = "b", "c"
		}
		if err := os.Rename(filepath.Join(parent, from), filepath.Join(parent, to)); err != nil {
			t.Fatal(err)
		}
		if again {
			run(from, "SELECT 1", &logBuffer{}) // a new checkout at the old path
		}
		var log logBuffer
		if got := run(to, "SELECT answer FROM kept", &log); got != 42 {
			t.Errorf("the answer in %s is %d", to, got)
		}
		wantOrder(t, log.String(), filepath.Join(parent, from)+", which had the database",
			"no longer uses it", filepath.Join(parent, to)+" now")
	}
	var log logBuffer
	run("c", "SELECT 1", &log)
	if strings.Contains(log.String(), "no longer uses it") {
		t.Errorf("the owner changed twice:\n%s", log.String())
	}
}

func TestCheckoutThroughLinkKeepsOwner(t *testing.T) {
	t.Parallel()
	parent := stateDir(t)
	if err := os.Mkdir(filepath.Join(parent, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a", filepath.Join(parent, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "a", "link"} {
		var log logBuffer
		dir := filepath.Join(parent, name, ".local")
		pg, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: dir, Unsafe: true, Log: &log})
		if err != nil {
			t.Fatal(err)
		}
		stop(t, pg)
		if strings.Contains(log.String(), "no longer uses it") {
			t.Errorf("%s counts as another checkout:\n%s", name, log.String())
		}
	}
}

// A database that an earlier version of the stack created has no owner file. If such a database is
// copied while Postgres runs, its pid file still names the original directory, so the stack must
// refuse the copy.
func TestCopyOfLiveDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	a, b := usedDir(t), filepath.Join(stateDir(t), "b")
	pg := startPostgres(t, stack.PostgresConfig{Dir: a, Unsafe: true})
	defer stop(t, pg)
	command(t, "cp", "-a", a, b)
	if err := os.Remove(filepath.Join(b, "postgres", "owner")); err != nil {
		t.Fatal(err)
	}
	_, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: b, Unsafe: true})
	wantLine(t, err, "was copied from "+a, "make clean")
}

// After a reboot, another Postgres may have the process id that an old pid file contains. The stack
// must ignore such a pid file.
func TestStalePIDOfAnotherPostgresIsIgnored(t *testing.T) {
	t.Parallel()
	other := startPostgres(t, stack.PostgresConfig{Unsafe: true})
	defer stop(t, other)
	dir := usedDir(t)
	data := filepath.Join(dir, "postgres", "data")
	write(t, fmt.Sprintf("%d\n%s\n1764000000\n5432\n", other.PID(), data), data, "postmaster.pid")
	var log logBuffer
	pg, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: dir, Unsafe: true, Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	stop(t, pg)
	if strings.Contains(log.String(), "waiting for the server of an earlier run") || other.PID() == 0 {
		t.Errorf("the other Postgres (pid now %d) counted as an earlier run:\n%s", other.PID(), log.String())
	}
}

// Root must not run the stack in the checkout of an ordinary user, and an ordinary user must not
// run it in a checkout of root. Otherwise the owner of the checkout could not use the files that
// the other user created.
func TestCheckoutOfAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	if !isRoot() { // an ordinary user can't change owners, but / belongs to root
		_, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: "/"})
		wantLine(t, err, "/ belongs to the user root", "run as root")
		return
	}
	theirs := checkout(t, stateDir(t))
	give := func(path string) {
		t.Helper()
		command(t, "chown", "-R", fmt.Sprint(nobodyUID), path)
	}
	give(theirs)
	_, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: filepath.Join(theirs, ".local")})
	wantLine(t, err, "belongs to the user nobody", "run as nobody")
	out, err := script(t, 0, theirs, "stack", "preflight.sh")
	if want := "dlsms: " + theirs + " belongs to the user nobody: run as nobody"; err == nil || out != want {
		t.Errorf("got %v and %q, want %q", err, out, want)
	}
	if has(theirs, ".local") {
		t.Error("root created .local")
	}

	// preflight.sh must accept the owner of the checkout. It may still fail for another reason: Go
	// may be in a directory that only root can enter.
	out, _ = script(t, nobodyUID, theirs, "stack", "preflight.sh")
	if strings.Contains(out, "belongs to") || !has(theirs, ".local", "bin") {
		t.Errorf("preflight.sh refuses the owner: %s", out)
	}
	out, err = script(t, 0, theirs, "stack", "preflight.sh")
	if err == nil || !strings.Contains(out, ".local belongs to the user nobody: run as nobody") {
		t.Errorf("preflight.sh accepts root in .local of another user: %v %s", err, out)
	}
	_, err = stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: filepath.Join(theirs, ".local")})
	wantLine(t, err, ".local belongs to the user nobody: run as nobody")

	ours := checkout(t, stateDir(t))
	command(t, "chmod", "777", ours)
	out, err = script(t, nobodyUID, ours, "stack", "preflight.sh")
	if err == nil || !strings.HasSuffix(out, "belongs to the user root: run as root") || has(ours, ".local") {
		t.Errorf("preflight.sh accepts an ordinary user in root's checkout: %v %s", err, out)
	}
	if out, err := script(t, 0, ours, "stack", "preflight.sh"); err != nil || !has(ours, ".local", "bin") {
		t.Errorf("root in a checkout of root: %v %s", err, out)
	}
	// A user that owns .local may use a checkout of another user. This happens in a container.
	give(filepath.Join(ours, ".local"))
	if out, _ := script(t, nobodyUID, ours, "stack", "preflight.sh"); strings.Contains(out, "belongs to") {
		t.Errorf("preflight.sh refuses an ordinary user that owns .local: %s", out)
	}
	out, err = script(t, nobodyUID, ours, "stack", "clean.sh")
	if err == nil && has(ours, ".local", "bin") {
		t.Errorf("clean reports success and leaves .local: %s", out)
	}
}
