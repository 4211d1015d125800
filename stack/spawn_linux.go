package stack

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// spawner returns a channel of functions. One operating system thread, which lives as long as this
// process, runs them. Children must be started there: the kernel sends the parent death signal to a
// child when the thread that started it ends. The Go runtime may end any other thread before this
// process ends.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// startChild starts cmd. The kernel sends parentDeathSignal to it when this process dies for any
// reason.
func startChild(cmd *exec.Cmd, parentDeathSignal syscall.Signal) error {
	cmd.SysProcAttr.Pdeathsig = parentDeathSignal
	result := make(chan error, 1)
	spawner() <- func() { result <- cmd.Start() }
	return <-result
}

// programName returns the name of the program with this process id, such as "postgres".
// It returns "" if there is no such process, or only a zombie.
func programName(pid int) string {
	// The file has a line such as: 17 (postgres) S 1 …
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), "(")
	end := strings.LastIndex(rest, ") ")
	if end < 0 || strings.HasPrefix(rest[end:], ") Z") {
		return ""
	}
	return rest[:end]
}

// hasWorkingDir reports whether dir is the working directory of the process.
// A container may hide the working directory even from root. Then the result is true if the process
// runs as the owner of dir.
func hasWorkingDir(pid int, dir string) bool {
	process := filepath.Join("/proc", strconv.Itoa(pid))
	if _, err := os.Stat(filepath.Join(process, "cwd")); err == nil {
		return sameFile(dir, filepath.Join(process, "cwd"))
	}
	runsAs, err := ownerOf(process)
	if err != nil {
		return true
	}
	owner, err := ownerOf(dir)
	return err != nil || owner == runsAs
}
