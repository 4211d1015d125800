package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cpuTimes is the processor time, user and system, of the processes of one subject.
type cpuTimes struct {
	replicas, nginx, postgres time.Duration
}

func (c cpuTimes) minus(o cpuTimes) cpuTimes {
	return cpuTimes{c.replicas - o.replicas, c.nginx - o.nginx, c.postgres - o.postgres}
}

func (c cpuTimes) total() time.Duration { return c.replicas + c.nginx + c.postgres }

// clockTick is the unit of times in /proc/<pid>/stat: USER_HZ, which is 100 on Linux.
const clockTick = time.Second / 100

// process is one line of /proc/<pid>/stat.
type process struct {
	pid, parent int
	used        time.Duration // processor time of the process and of its ended children
}

// cpuOf returns the processor time of the subject's processes since they started.
func cpuOf(s *subject) (cpuTimes, error) {
	all, err := processes()
	if err != nil {
		return cpuTimes{}, err
	}
	var c cpuTimes
	for _, r := range s.Replicas {
		c.replicas += treeTime(all, r.PID())
	}
	c.nginx = treeTime(all, s.Nginx.PID())
	c.postgres = treeTime(all, s.Postgres.PID())
	return c, nil
}

// treeTime returns the processor time of a process and all its descendants.
func treeTime(all []process, root int) time.Duration {
	members := []int{root}
	var used time.Duration
	for i := 0; i < len(members); i++ {
		for _, p := range all {
			if p.pid == members[i] {
				used += p.used
			}
			if p.parent == members[i] && !slices.Contains(members, p.pid) {
				members = append(members, p.pid)
			}
		}
	}
	return used
}

func processes() ([]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, errors.New("no /proc: the benchmark needs Linux")
	}
	var all []process
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // the process has ended
		}
		p, err := parseStat(string(content))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, p)
	}
	return all, nil
}

// parseStat parses a line such as "17 (nginx: worker) S 1 …": see proc(5). The name in brackets may
// contain any character, also spaces and brackets.
func parseStat(line string) (process, error) {
	pid, _, _ := strings.Cut(line, " ")
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	const state, parent, utime, cstime = 0, 1, 11, 14
	if len(fields) <= cstime || len(fields[state]) != 1 {
		return process{}, fmt.Errorf("%q is not a line of /proc/<pid>/stat", line)
	}
	var p process
	var err error
	if p.pid, err = strconv.Atoi(pid); err != nil {
		return process{}, err
	}
	if p.parent, err = strconv.Atoi(fields[parent]); err != nil {
		return process{}, err
	}
	for _, f := range fields[utime : cstime+1] {
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return process{}, err
		}
		p.used += time.Duration(ticks) * clockTick
	}
	return p, nil
}

// stopwatch measures the processor time of an interval.
type stopwatch[T interface{ minus(before T) T }] struct {
	read     func() (T, error)
	done     chan struct{}
	from, to time.Time
	cpu      T
	err      error
}

// startStopwatch measures the increase of what read returns.
func startStopwatch[T interface{ minus(before T) T }](
	ctx context.Context, read func() (T, error), from time.Time, measure time.Duration,
) *stopwatch[T] {
	w := &stopwatch[T]{read: read, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.err = w.run(ctx, from, measure)
	}()
	return w
}

func (w *stopwatch[T]) run(ctx context.Context, from time.Time, measure time.Duration) error {
	if err := until(ctx, from); err != nil {
		return err
	}
	before, err := w.read()
	if err != nil {
		return err
	}
	// On a busy machine, the interval begins late. It never ends late: the load may have ended.
	w.from = time.Now()
	if err := until(ctx, from.Add(measure)); err != nil {
		return err
	}
	w.to = time.Now()
	after, err := w.read()
	w.cpu = after.minus(before)
	return err
}

func (w *stopwatch[T]) result() (from, to time.Time, cpu T, err error) {
	<-w.done
	return w.from, w.to, w.cpu, w.err
}

// until waits until the time at, or until ctx ends.
func until(ctx context.Context, at time.Time) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// memoryOf returns a field of /proc/<pid>/status in bytes. The field VmRSS is the current memory of
// the process, VmHWM its peak.
func memoryOf(pid int, field string) (int64, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, field)
}
