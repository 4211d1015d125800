//go:build !linux

package server

// givingWay runs f. Only on Linux can a thread ask for short turns.
func givingWay(f func()) { f() }
