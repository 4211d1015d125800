// Package e2e holds DL-SMS to its contract from the outside: the tests start the whole system for real (package stack: a private Postgres,
// Redis, three replicas, nginx with deploy/nginx.conf), call it with generated clients through nginx, and break its parts.
//
// What a client of the tests is made of is in the files without tests, for load runs and fault runs to use as well:
//
//	client.go    a user, and the four services as that user
//	refusal.go   what an error says to a program, and whether that is what the contract says
//	token.go     tokens for more users than could log in
//	tap.go       a server stream, read as it comes
//	journal.go   the log of all processes, and what must never be in it
//
// Most tests share one system, each with a branch and users of its own, so that they can run at once. Those that stop or starve a part of
// it have a system to themselves.
//
// The invariant: no test waits for time to pass, only for something to happen, with a deadline; and each check has been seen to fail.
package e2e
