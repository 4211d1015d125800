package stack

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeProgram creates a directory with programs that print version, and returns the directory.
func fakeProgram(t *testing.T, version string, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range programs {
		if err := os.WriteFile(filepath.Join(dir, p), []byte("#!/bin/sh\necho '"+version+"'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestToolsFindsPostgres(t *testing.T) {
	t.Parallel()
	pg14 := fakeProgram(t, "postgres (PostgreSQL) 14.9", "postgres", "initdb")
	pg16 := fakeProgram(t, "postgres (PostgreSQL) 16.2 (Debian 16.2-1)", "postgres", "initdb")
	pg17 := fakeProgram(t, "postgres (PostgreSQL) 17beta1", "postgres", "initdb")
	// This directory has a program named postgres, but it belongs to a client: it lacks initdb,
	// which every server has.
	client := fakeProgram(t, "psql (PostgreSQL) 18.0", "psql", "postgres")
	for _, c := range []struct {
		name      string
		tools     tools
		major     int
		dir, fail string
	}{
		{name: "the newest", tools: tools{pg: []string{pg16, pg17, pg14, client}}, dir: pg17},
		{name: "in PATH", tools: tools{path: []string{"/nowhere", pg16}}, dir: pg16},
		{name: "the requested release", tools: tools{pg: []string{pg14, pg16, pg17}}, major: 16, dir: pg16},
		{name: "not the requested release", tools: tools{pg: []string{pg17}}, major: 16, fail: "PostgreSQL 16 is missing"},
		{name: "too old", tools: tools{pg: []string{pg14}}, fail: "PostgreSQL 15 or newer is needed"},
		{
			name: "none", tools: tools{path: []string{client}},
			fail: "PostgreSQL is missing: install it with `make install`",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, _, err := c.tools.postgres(t.Context(), c.major)
			if dir != c.dir || !failsWith(err, c.fail) {
				t.Errorf("got %q and %v, want %q and %q", dir, err, c.dir, c.fail)
			}
		})
	}
}

func TestToolsFindsNginx(t *testing.T) {
	t.Parallel()
	for version, fail := range map[string]string{
		"nginx version: nginx/1.18.0 (Ubuntu)": "nginx 1.22 or newer is needed",
		"nginx version: nginx/1.22.1":          "",
		"nginx version: nginx/1.30.0":          "",
		"nginx version: nginx/2.0.0":           "",
		"hello":                                "reports no version",
	} {
		_, err := tools{path: []string{fakeProgram(t, version, "nginx")}}.nginx(t.Context())
		if !failsWith(err, fail) {
			t.Errorf("%s: got %v, want %q", version, err, fail)
		}
	}
	_, err := tools{path: []string{"/nowhere"}}.nginx(t.Context())
	if !failsWith(err, "nginx is missing: install it with `make install`") {
		t.Errorf("without nginx: %v", err)
	}
}

// If a program is missing, the stack must report it before it starts any process.
func TestMissingProgramIsReportedFirst(t *testing.T) {
	t.Parallel()
	state, err := openState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = state.close() }()
	nowhere := tools{path: []string{"/nowhere"}}
	held := &ports{}
	defer held.close()
	_, err = startRedis(t.Context(), RedisConfig{}, state, held, newConsole(t.Output()), nowhere)
	if !failsWith(err, "Redis is missing: install it with `make install`") {
		t.Errorf("without Redis: %v", err)
	}
	s := &Stack{state: state, ports: held, log: newConsole(t.Output())}
	err = s.start(t.Context(), Config{Replicas: 3}, nowhere)
	if !failsWith(err, "nginx is missing") || len(s.Processes()) != 0 {
		t.Errorf("without nginx: %v, and %d processes", err, len(s.Processes()))
	}
}

func failsWith(err error, text string) bool {
	if err == nil || text == "" {
		return err == nil && text == ""
	}
	return strings.Contains(err.Error(), text) && !strings.Contains(err.Error(), "\n")
}

func TestPreviousServerHoldsDirectory(t *testing.T) {
	t.Parallel()
	pg, err := StartPostgres(t.Context(), PostgresConfig{Unsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	data := filepath.Join(pg.base, "data")
	if got, err := previousServerPID(data); err != nil || got != pg.PID() {
		t.Errorf("%d holds the directory (%v), want %d", got, err, pg.PID())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := waitForPreviousServer(ctx, data, newConsole(t.Output())); !failsWith(err, "kill -INT") {
		t.Errorf("with a live Postgres: %v", err)
	}

	// After a reboot or in a container, the process id in the pid file may belong to another
	// program. Here it is 1, the first process of the system.
	stale := t.TempDir()
	file := filepath.Join(stale, "postmaster.pid")
	if err := os.WriteFile(file, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := waitForPreviousServer(ctx, stale, newConsole(t.Output())); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the stale file is still there: %v", err)
	}
}

func TestPortIsReservedUntilClose(t *testing.T) {
	t.Parallel()
	var a, b ports
	defer b.close()
	port, err := a.pick(0)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.pick(port); err != nil || again == port {
		t.Errorf("another run got the reserved port %d (%v)", again, err)
	}
	a.close()
	if !b.take(port) {
		t.Errorf("%d is not free after close", port)
	}
}

func TestRemoveStaleDirsKeepsUsedAndNewDirs(t *testing.T) {
	t.Parallel()
	held, err := openState("")
	if err != nil {
		t.Fatal(err)
	}
	left, err := openState("")
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := openState("")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []*stateDir{left, fresh} { // the state after a killed run
		if err := d.lock.Close(); err != nil {
			t.Fatal(err)
		}
		d.lock = nil
	}
	past := time.Now().Add(-2 * time.Hour)
	for _, d := range []*stateDir{held, left} {
		if err := os.Chtimes(d.path, past, past); err != nil {
			t.Fatal(err)
		}
	}
	removeStaleDirs()
	for d, want := range map[*stateDir]bool{held: true, left: false, fresh: true} {
		if _, err := os.Stat(d.path); (err == nil) != want {
			t.Errorf("%s exists: %v (%v), want %v", d.path, err == nil, err, want)
		}
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}
}
