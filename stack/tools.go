package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// tools finds the programs that a stack runs.
type tools struct {
	path []string // directories, as in PATH
	pg   []string // patterns of the directories where packages install Postgres, often not in PATH
}

// The oldest releases with which the schema and nginx.conf are tested.
const oldestPostgres, oldestNginx = 15, "1.22"

func systemTools() tools {
	return tools{
		path: append(filepath.SplitList(os.Getenv("PATH")),
			// On Debian, the PATH of ordinary users has no sbin.
			"/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"),
		pg: []string{
			"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin",
			"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
		},
	}
}

// find returns the path of the first program with one of these names in t.path. The error names the
// product, what, such as Redis.
func (t tools) find(what string, names ...string) (string, error) {
	for _, name := range names {
		for _, dir := range t.path {
			if file := filepath.Join(dir, name); executable(file) {
				return file, nil
			}
		}
	}
	return "", missing(what)
}

// postgres returns the directory with the programs of Postgres of the major release, and the number
// of the release. If major is 0, it takes the newest release.
func (t tools) postgres(ctx context.Context, major int) (dir string, found int, err error) {
	var dirs []string
	for _, pattern := range t.pg {
		matches, _ := filepath.Glob(pattern)
		dirs = append(dirs, matches...)
	}
	// If two directories have the same release, the first one is used. So the directories in which
	// packages install all programs of a release come before those in PATH, such as /usr/bin, which
	// may have only links to a few of the programs.
	for _, d := range append(dirs, t.path...) {
		if !executable(filepath.Join(d, "postgres")) || !executable(filepath.Join(d, "initdb")) {
			continue
		}
		release, err := firstNumber(ctx, filepath.Join(d, "postgres"), "--version")
		if err != nil {
			return "", 0, err
		}
		if release == major {
			return d, release, nil
		}
		if release > found {
			dir, found = d, release
		}
	}
	switch {
	case found == 0:
		return "", 0, missing("PostgreSQL")
	case major != 0:
		return "", 0, fmt.Errorf("PostgreSQL %d is missing (the newest one here is %d)", major, found)
	case found < oldestPostgres:
		return "", 0, fmt.Errorf("PostgreSQL %d or newer is needed, and the newest one here is %d: install a newer one",
			oldestPostgres, found)
	}
	return dir, found, nil
}

// nginx returns the path of nginx, or an error if it is too old for nginx.conf.
func (t tools) nginx(ctx context.Context) (string, error) {
	program, err := t.find("nginx", "nginx")
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, program, "-v").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s -v: %w", program, err)
	}
	version := regexp.MustCompile(`(\d+)\.(\d+)`).FindStringSubmatch(string(out))
	if version == nil {
		return "", fmt.Errorf("%s -v reports no version: %s", program, firstLine(out))
	}
	if minor, _ := strconv.Atoi(version[2]); version[1] == "1" && minor < 22 {
		return "", fmt.Errorf("nginx %s or newer is needed, and %s is %s: install a newer one",
			oldestNginx, program, version[0])
	}
	return program, nil
}

func missing(what string) error {
	return fmt.Errorf("%s is missing: install it with `make install`", what)
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

func firstNumber(ctx context.Context, program string, args ...string) (int, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, firstLine(out))
	}
	n, err := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(string(out)))
	if err != nil {
		return 0, fmt.Errorf("%s %s reports no version: %s", program, strings.Join(args, " "), firstLine(out))
	}
	return n, nil
}

// runTool runs a program until it exits. The error contains the last line of its output, or the
// last line with "error:".
func runTool(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i := len(lines) - 1; i > 0; i-- {
		if strings.Contains(lines[i], "error:") {
			return errors.New(lines[i])
		}
	}
	return fmt.Errorf("%w: %s", err, lines[len(lines)-1])
}

func firstLine(out []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
