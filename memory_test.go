package main

import (
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
)

func TestMemoryLimitReadsControlGroups(t *testing.T) {
	t.Parallel()
	const none = -1
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"version 2, in a container": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "268435456\n", "sys/fs/cgroup/memory.high": "max\n",
		}, 268435456},
		"version 2, an ancestor has a lower limit": {map[string]string{
			"proc/self/cgroup": "0::/a.slice/b.scope\n", "sys/fs/cgroup/a.slice/memory.max": "1000000\n",
			"sys/fs/cgroup/a.slice/b.scope/memory.max": "2000000\n",
		}, 1000000},
		"version 2, high below max": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2000000\n", "sys/fs/cgroup/memory.high": "1000000\n",
		}, 1000000},
		"version 2, no limit": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, none},
		"version 1": {map[string]string{
			"proc/self/cgroup": "12:cpu,cpuacct:/x\n5:memory:/docker/abc\n0::/system.slice\n",
			"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "300000000\n",
		}, 300000000},
		"version 1, in a container, with the path of the host": {map[string]string{
			"proc/self/cgroup": "5:memory:/docker/abc\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "300000000\n",
		}, 300000000},
		"version 1, no limit": {map[string]string{
			"proc/self/cgroup": "5:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, none},
		"no control groups": {map[string]string{"etc/hostname": "mac\n"}, none},
		"nonsense": {map[string]string{
			"proc/self/cgroup": "nonsense\n0::/\n", "sys/fs/cgroup/memory.max": "lots\n",
		}, none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for file, text := range c.files {
				file = filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, limited := memoryLimit(os.DirFS(root))
			if !limited {
				got = none
			}
			if got != c.want {
				t.Errorf("memoryLimit is %d, want %d", got, c.want)
			}
		})
	}
}

// TestTuneCollectorObeysEnvironment checks that GOMEMLIMIT and GOGC have priority over the values
// of tuneCollector.
func TestTuneCollectorObeysEnvironment(t *testing.T) { //nolint:paralleltest // it changes the process's own limits
	root := t.TempDir()
	for file, text := range map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "10000000000\n"} {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	limit, percent := debug.SetMemoryLimit(-1), debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetMemoryLimit(limit); debug.SetGCPercent(percent) })
	log := slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		goMemLimit, gogc string
		root             string
		limit            int64
		percent          int
	}{
		{"", "", root, 9_000_000_000, garbagePercent},
		{"5GiB", "50", root, math.MaxInt64, 100},
		{"", "50", root, 9_000_000_000, 100},
		{"", "", t.TempDir(), math.MaxInt64, garbagePercent},
	} {
		debug.SetMemoryLimit(math.MaxInt64)
		debug.SetGCPercent(100)
		t.Setenv("GOMEMLIMIT", c.goMemLimit)
		t.Setenv("GOGC", c.gogc)
		tuneCollector(os.DirFS(c.root), log)
		gotPercent := debug.SetGCPercent(100)
		if got := debug.SetMemoryLimit(-1); got != c.limit || gotPercent != c.percent {
			t.Errorf("GOMEMLIMIT=%q GOGC=%q: limit %d, percent %d", c.goMemLimit, c.gogc, got, gotPercent)
		}
	}
}
