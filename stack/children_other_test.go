//go:build unix && !linux

package stack_test

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// childrenOf returns the ids of the processes whose parent is one of these processes.
func childrenOf(t *testing.T, parents []int) []int {
	t.Helper()
	var children []int
	for _, parent := range parents {
		// pgrep fails if there are no children.
		out, _ := exec.Command("pgrep", "-P", strconv.Itoa(parent)).Output()
		for _, field := range strings.Fields(string(out)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			children = append(children, pid)
		}
	}
	return children
}
