//go:build !linux

package server

// givingWay runs f. Only Linux has priorities of threads.
func givingWay(f func()) { f() }
