package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the directory of the system's source, relative to this package.
const root = "../.."

// TestCanariesApply applies each canary to the source, and compiles the changed packages. It
// reports every canary that does not apply, not only the first.
func TestCanariesApply(t *testing.T) {
	t.Parallel()
	const least = 12
	all := canaries()
	if len(all) < least {
		t.Errorf("there are %d canaries", len(all))
	}
	// Canaries that do not conflict are compiled together: 3 builds instead of 20, of 2 s each.
	var groups []overlay
	for _, c := range append(all, noBreaker) {
		if err := c.apply(root, overlay{}); err != nil {
			t.Error(err)
			continue
		}
		if !slices.ContainsFunc(groups, func(o overlay) bool {
			both := maps.Clone(o)
			if c.apply(root, both) != nil {
				return false
			}
			maps.Copy(o, both)
			return true
		}) {
			groups = append(groups, overlay{})
			if err := c.apply(root, groups[len(groups)-1]); err != nil {
				t.Error(err)
			}
		}
	}
	for _, o := range groups {
		file, err := o.write(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", file,
			"./feed", "./presence", "./rest", "./server/...", "./store", "./worker")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("build of the changed source: %v\n%s", err, output)
		}
	}
}

// TestEachMarkerHasACanary fails if the source has a comment "// canary: name" that no canary uses.
func TestEachMarkerHasACanary(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	marker := regexp.MustCompile(`// canary: [a-z-]+`)
	for _, c := range append(canaries(), noBreaker) {
		for _, ch := range c.changes {
			used[marker.FindString(ch.part.String())] = true
		}
	}
	for _, pattern := range []string{"*.go", "*/*.go", "server/*/*.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range marker.FindAllString(string(source), -1) {
				if !used[found] {
					t.Errorf("%s: no canary uses %q", file, found)
				}
			}
		}
	}
}

// TestChangeMustMatchOnce checks that a change fails unless the source has its part exactly once.
func TestChangeMustMatchOnce(t *testing.T) {
	t.Parallel()
	for want, ch := range map[string]change{
		"no such file": text("store/no-such-dir", "x", "y"),
		"0 times":      text("server", "no such text", "y"),
		"not once":     code("server", `return \w+, nil`, "y"),
	} {
		if err := (overlay{}).apply(root, ch); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s %s: %v, want %q", ch.dir, ch.part, err, want)
		}
	}
}

func TestTextChangeMatchesAcrossLines(t *testing.T) {
	t.Parallel()
	ch := text("", "WHERE id = $1 AND live", "WHERE id = $1")
	if got := ch.part.ReplaceAllString("x WHERE id = $1\n\t\tAND live y", ch.with); got != "x WHERE id = $1 y" {
		t.Errorf("got %q", got)
	}
}
