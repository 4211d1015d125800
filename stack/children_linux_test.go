package stack_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// childrenOf returns the ids of the processes whose parent is one of these processes.
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
			continue // the process has ended
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
