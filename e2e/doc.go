// Package e2e checks DL-SMS against its contract from the outside. The tests start the whole system
// (package stack: a private Postgres, Redis, three replicas, nginx with deploy/nginx.conf), call it
// through nginx with generated clients, and break parts of it.
//
// The files without tests hold the parts of a test client. Benchmarks and fault runs use them too:
//
//	client.go           a user, and the four services as that user
//	refusal.go          the code, reason and details of an error, and their check
//	token.go            tokens for more users than could log in
//	stream_recorder.go  a server stream, recorded as its messages arrive
//	log_recorder.go     the log of all processes, and the lines that must never be in it
//
// Most tests share one system. Each has a branch and users of its own, so that the tests can run at
// once. A test that stops or slows a part of the system starts a system of its own.
//
// Invariants: no test waits for time to pass, only for an event, with a deadline; and each check
// has been seen to fail.
package e2e
