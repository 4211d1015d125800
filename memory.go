package main

import (
	"bufio"
	"bytes"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// garbagePercent is the value of GOGC for a replica. The live heap of a replica is small. With Go's
// default of 100, the collector runs several times a second under load.
const garbagePercent = 400

// tuneCollector sets the percentage of the garbage collector to garbagePercent, unless GOGC is set.
// It sets the memory limit of the Go runtime to nine tenths of the container's limit, unless
// GOMEMLIMIT is set. root is the root of the file system.
func tuneCollector(root fs.FS, log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	limit, limited := memoryLimit(root)
	if os.Getenv("GOMEMLIMIT") != "" || !limited {
		return
	}
	// The last tenth is for memory outside of Go: thread stacks, and the kernel's memory for
	// sockets and files.
	limit = limit / 10 * 9
	debug.SetMemoryLimit(limit)
	log.Info("the memory limit is that of the container", "bytes", limit)
}

// memoryLimit returns the memory limit of this process in bytes: the smallest limit of its control
// group and of the ancestors of the group. limited is false if there is no limit. memoryLimit reads
// versions 1 and 2 of control groups.
func memoryLimit(root fs.FS) (bytesMax int64, limited bool) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	bytesMax = math.MaxInt64
	lines := bufio.NewScanner(bytes.NewReader(groups))
	// A line is hierarchy:controllers:/path. In version 2, hierarchy is 0 and controllers is empty.
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			bytesMax = min(bytesMax, smallest(root, "sys/fs/cgroup", parts[2], "memory.max", "memory.high"))
		case strings.Contains(","+parts[1]+",", ",memory,"):
			bytesMax = min(bytesMax, smallest(root, "sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes"))
		}
	}
	const unlimited = 1 << 60 // without a limit, version 1 has a number near 2^63
	return bytesMax, bytesMax < unlimited
}

// smallest returns the smallest number in the files of a control group and of its ancestors. names
// has the names of the files in each directory. It ignores directories that do not exist: in a
// container, group may be the path on the host. The files of the container's group are then in
// mount itself, which the loop reads last.
func smallest(root fs.FS, mount, group string, names ...string) int64 {
	least := int64(math.MaxInt64)
	for dir := path.Join("/", group); ; dir = path.Dir(dir) {
		for _, name := range names {
			text, err := fs.ReadFile(root, path.Join(mount, dir, name))
			if err != nil {
				continue
			}
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
				least = min(least, n)
			}
		}
		if dir == "/" {
			return least
		}
	}
}
