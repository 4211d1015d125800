package stack

import (
	"syscall"
	"testing"
)

// TestCloseUnlocksWhileAProcessStarts keeps the lock file open as a process does that is being started
// while the directory is closed.
func TestCloseUnlocksWhileAProcessStarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	starting, err := syscall.Dup(int(first.lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(starting) })
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	second, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.close(); err != nil {
		t.Error(err)
	}
}
