//go:build unix && !linux

package stack_test

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// childrenOf returns the processes that have one of these parents.
func childrenOf(t *testing.T, parents []int) []int {
	t.Helper()
	var children []int
	for _, parent := range parents {
		out, _ := exec.Command("pgrep", "-P", strconv.Itoa(parent)).Output() // fails where there are none
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
