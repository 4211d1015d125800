package server

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// shortSlice is how long a thread that gives way may go on, in nanoseconds, before one that has woken up takes its core: the least that Linux
// accepts. The default is 1.4 to 3 ms, and a look at the seats takes six steps from process to process, with such a wait before each.
const shortSlice = 100_000

// givingWay runs f, which computes for long, on a thread of its own that others need not wait for, and returns when f does. The thread gets as
// much of the cores as others do, only in shorter pieces: with a lower priority it would get less, and Go's collector, which has to stop
// each thread for a moment, would wait for it (at a niceness of 10, the P99 of a look at the seats was 110 ms instead of 17).
// Linux before 6.12 takes the wish and does nothing about it.
func givingWay(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Runtime: shortSlice}, 0)
		f()
	}()
	<-done
}
