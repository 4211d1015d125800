// Package stack runs DL-SMS on this machine, without containers. It starts a private Postgres
// cluster, Redis, the replicas and nginx on loopback, as child processes. It starts each process
// when the processes before it are healthy, and stops them in reverse order.
// `make run` uses this package. The tests in e2e/chaos use it to kill and restart single processes.
//
// The main invariant: the package signals only processes that it started, and leaves none of them
// running, even if this process is killed:
//   - Each child has its own process group. So Ctrl-C in a terminal reaches only this process,
//     which then stops the children in order.
//   - On Linux, the kernel ends each child when this process dies.
package stack
