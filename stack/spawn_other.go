//go:build unix && !linux

package stack

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// startChild starts cmd. Only Linux has a parent death signal. On other systems, a child keeps
// running when this process is killed with SIGKILL; the next run then reports the process id that
// holds the database.
func startChild(cmd *exec.Cmd, _ syscall.Signal) error { return cmd.Start() }

// programName returns the name of the program with this process id, such as "postgres".
// It returns "" if there is no such process.
func programName(pid int) string {
	out, err := exec.Command("ps", "-o", "comm=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return filepath.Base(strings.TrimSpace(string(out)))
}

// hasWorkingDir always returns true, because these systems do not show the working directory of a
// process.
func hasWorkingDir(_ int, _ string) bool { return true }
