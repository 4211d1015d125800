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

// spawner runs functions on one operating system thread that lives as long as this process. The kernel ties the signal that a
// child gets at its parent's death to the thread that created it, and the Go runtime ends idle threads as it sees fit.
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

// startChild starts cmd such that it gets the signal orphan should this process die in whatever way.
func startChild(cmd *exec.Cmd, orphan syscall.Signal) error {
	cmd.SysProcAttr.Pdeathsig = orphan
	result := make(chan error, 1)
	spawner() <- func() { result <- cmd.Start() }
	return <-result
}

// programOf names the program that runs under pid, such as "postgres", or "" when there is none, or only what its parent has not waited for.
func programOf(pid int) string {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat")) // such as: 17 (postgres) S 1 …
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

// worksIn tells whether dir is the working directory of the process. A container may hide that even from root: then a process
// counts that has the owner of dir.
func worksIn(pid int, dir string) bool {
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
