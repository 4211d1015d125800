// Package e2e tests the whole system against its contract, the files in proto/. The tests start the
// system with package stack: a private Postgres, Redis, three replicas, and nginx with
// deploy/nginx.conf. They call it through nginx with the generated clients, and stop or slow down
// parts of it.
//
// The files without tests are a test client. Package bench and e2e/chaos use it too:
//
//	client.go           the client: it calls the four services as one user
//	refusal.go          reads the code, reason and details of an error, and checks them
//	token.go            signs tokens, for tests with too many users for logins
//	stream_recorder.go  records the messages of a server stream
//	log_recorder.go     records the logs, and finds lines that must never be there, such as panics
//
// Most tests share one system. Each test has its own branch and users, so tests can run
// concurrently. A test that stops or slows down a part of the system starts a separate system.
//
// No test sleeps for a fixed time: it waits for an event, with a deadline. Each check was broken
// once on purpose, to see its test fail.
package e2e
