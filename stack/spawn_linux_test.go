package stack_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What runs must not outlive the process that started it, however that ends.
func TestChildrenEndWithTheirParent(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := startFamily(t, program, 0)
	for _, pid := range f.children {
		if !alive(pid) {
			t.Errorf("the child %d does not run", pid)
		}
	}
	grandchildren := childrenOf(t, f.children)
	if len(grandchildren) < 4 {
		t.Errorf("Postgres and nginx have only the processes %v", grandchildren)
	}
	if err := f.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	waitUntilGone(t, append(f.children, grandchildren...))
}

func childrenOf(t *testing.T, parents []int) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var children []int
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it ended meanwhile
		}
		line := string(stat) // such as: 17 (nginx) S 1 …
		var pid, parent int
		var state string
		if _, err := fmt.Sscan(line, &pid); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(line[strings.LastIndex(line, ")")+1:], &state, &parent); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(parents, parent) {
			children = append(children, pid)
		}
	}
	return children
}
