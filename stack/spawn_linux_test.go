package stack_test

import (
	"os"
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
