package stack_test

import (
	"os"
	"testing"
)

// If the parent is killed with SIGKILL, its children and their children must end.
func TestChildrenEndWhenParentIsKilled(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := startParent(t, program, 0)
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
