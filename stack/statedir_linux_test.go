package stack_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dlsms/dlsms/stack"
)

// If a write fails because the disk is full, the error must say how to fix it.
func TestFullDiskIsReported(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	if err := os.Symlink("/dev/full", filepath.Join(dir, "jwt-secret.new")); err != nil {
		t.Fatal(err)
	}
	_, err := stack.Start(t.Context(), stack.Config{
		Dir: dir, Binary: filepath.Join(programs(t), "dlsms"), Replicas: 1, NoRedis: true, Unsafe: true,
	})
	wantLine(t, err, "jwt-secret", "no space left", "free some space")
}
