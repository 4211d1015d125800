//go:build unix && !linux

package stack

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// startChild starts cmd. Without Linux's parent death signal, a child outlives this process when it is killed with SIGKILL:
// the next run then says which pid holds the database.
func startChild(cmd *exec.Cmd, _ syscall.Signal) error { return cmd.Start() }

// programOf names the program that runs under pid, such as "postgres", or "" when there is none.
func programOf(pid int) string {
	out, err := exec.Command("ps", "-o", "comm=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return filepath.Base(strings.TrimSpace(string(out)))
}

// worksIn tells whether dir may be the working directory of the process.
func worksIn(_ int, _ string) bool { return true }
