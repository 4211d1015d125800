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

// garbagePercent suits a replica with a small live heap: at Go's default of 100 it collects garbage
// several times a second under load.
const garbagePercent = 400

// tuneCollector sets the percentage of the garbage collector, unless GOGC is set, and a memory limit
// below that of the container, unless GOMEMLIMIT is set. root is the root of the file system.
func tuneCollector(root fs.FS, log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	limit, limited := memoryLimit(root)
	if os.Getenv("GOMEMLIMIT") != "" || !limited {
		return
	}
	// The rest is for memory outside of Go: thread stacks, and the kernel's memory for sockets and
	// files.
	limit = limit / 10 * 9
	debug.SetMemoryLimit(limit)
	log.Info("the memory limit is that of the container", "bytes", limit)
}

// memoryLimit returns the memory limit of this process's control group: the smallest limit of the
// group and its ancestors, and false if there is none. It reads both versions of control groups.
func memoryLimit(root fs.FS) (bytesMax int64, limited bool) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	bytesMax = math.MaxInt64
	lines := bufio.NewScanner(bytes.NewReader(groups))
	for lines.Scan() { // hierarchy:controllers:/path; version 2 is hierarchy 0 without controllers
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
	const unlimited = 1 << 60 // version 1 has a number near 2^63 for no limit
	return bytesMax, bytesMax < unlimited
}

// smallest returns the smallest number in the files of these names, in the group and its ancestors.
// In a container, the path may be the one on the host, which does not exist below mount. The root of
// the mount is then the group of the container.
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
