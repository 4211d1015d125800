package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// about describes a run: the commit, the machine, the versions, the settings and the time.
type about struct {
	commit, machine, versions, settings string
	at                                  time.Time
}

func (a about) String() string {
	return fmt.Sprintf("- commit: %s\n- machine: %s\n- versions: %s\n- settings: %s\n- at: %s\n",
		a.commit, a.machine, a.versions, a.settings, a.at.UTC().Format("2006-01-02 15:04 UTC"))
}

// describe returns the description of this run.
func (b *bench) describe(ctx context.Context) (about, error) {
	a := about{at: b.began}
	a.commit = output(ctx, "git", "rev-parse", "--short=12", "HEAD")
	if output(ctx, "git", "status", "--porcelain", "--untracked-files=no") != "" {
		a.commit += ", with uncommitted changes"
	}
	kernel, _, _ := strings.Cut(output(ctx, "uname", "-sr"), "-")
	a.machine = fmt.Sprintf(
		"%d cores (%s), %s of memory, %s",
		runtime.NumCPU(),
		fileField("/proc/cpuinfo", `model name\s*: (.*)`),
		memory(),
		kernel,
	)
	var postgres string
	if err := b.ours.db.QueryRow(ctx, `SHOW server_version`).Scan(&postgres); err != nil {
		return a, err
	}
	nginx := output(ctx, "sh", "-c", "PATH=$PATH:/usr/sbin nginx -v 2>&1")
	a.versions = fmt.Sprintf("%s, PostgreSQL %s, %s, ghz v0.120.0", runtime.Version(), postgres, nginx)
	a.settings = fmt.Sprintf("the defaults, without rate limits; %d replicas; "+
		"%d rounds of %s after a warm-up of %s; %d clients a connection",
		len(b.ours.Replicas), b.rounds, b.measure, b.warm, clientsPerConnection)
	return a, nil
}

// output returns the output of a command, empty if the command fails.
func output(ctx context.Context, name string, args ...string) string {
	out, _ := exec.CommandContext(ctx, name, args...).Output()
	return strings.TrimSpace(string(out))
}

func fileField(file, pattern string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	if m := regexp.MustCompile(pattern).FindSubmatch(content); m != nil {
		return strings.TrimSpace(string(m[1]))
	}
	return "unknown"
}

func memory() string {
	var kib int64
	if _, err := fmt.Sscan(fileField("/proc/meminfo", `MemTotal:\s*(\d+)`), &kib); err != nil {
		return "an unknown amount"
	}
	return fmt.Sprintf("%d GiB", kib>>20)
}
