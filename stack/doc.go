// Package stack starts all of DL-SMS on this machine, without containers: a private Postgres cluster, Redis, the replicas and
// nginx, on loopback, as child processes, in order of health; and stops them in reverse order.
// `make run` is a thin command over it, and the fault tests use it to kill and restart one process at a time.
//
// Its one invariant: it signals only what it started, and leaves nothing of it behind, however it ends. Each child has a process
// group of its own, so that Ctrl-C in a terminal reaches only this process, which then stops the others in order; and on Linux
// the kernel ends each child should this process be killed.
package stack
