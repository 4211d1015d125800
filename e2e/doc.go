// Package e2e tests the whole system against its contract, the files in proto/. The tests start the
// system with package stack: a private Postgres, Redis, the processes of dlsms, and nginx with its
// configuration in deploy/. They call it through nginx with the generated clients, and stop or slow
// down parts of it.
//
// The files without tests are a test client. Package bench and e2e/chaos use it too:
//
//	client.go           the client: it calls the four services as one user
//	httpconn.go         a connection for this client that speaks HTTP
//	httprule.go         makes the HTTP request of a call, by the rules in proto/rest.yaml
//	httpproblem.go      turns a problem into the status that gRPC would return
//	httpstream.go       reads a server stream from server-sent events
//	eventreader.go      reads server-sent events, as a browser does
//	refusal.go          reads the code, reason and details of an error, and checks them
//	token.go            signs tokens, for tests with too many users for logins
//	stream_recorder.go  records the messages of a server stream
//	log_recorder.go     records the logs, and finds lines that must never be there, such as panics
//
// # Protocols and topologies
//
// A test runs with the same assertions over gRPC, over HTTP, and over HTTP on microservices, as
// subtests: see the functions everywhere and overBoth. It runs only where the protocol or the
// topology can make a difference:
//
//   - Over gRPC, over HTTP and on microservices: the access matrix, repeated calls, fresh reads and
//     revoked tokens. On microservices they need several processes. The user journey runs over gRPC,
//     and over HTTP on microservices: it needs a system of its own.
//   - Over gRPC and over HTTP: every error reason, invalid fields and invalid tokens, which each
//     service checks alone, and restarts under load, which need the drain and the streams of each
//     protocol.
//   - Over gRPC: the start of replicas, outages of Postgres and Redis, the previous release, the
//     stampede, and messages of random bytes. They test the code behind both protocols.
//   - Over HTTP: http_test.go, httpstream_test.go and drain_test.go, which test features that gRPC
//     does not have.
//
// Over HTTP, a connection compares each answer with the contract (see HTTPConn) and with the OpenAPI
// document. A test fails at each difference, even if it expects an error.
//
// # Systems
//
// Most tests share one system. Each test has its own branch and users, so tests can run
// concurrently. A test that stops or slows down a part of the system starts a separate system.
//
// No test sleeps for a fixed time: it waits for an event, with a deadline. Each check was broken
// once on purpose, to see its test fail.
package e2e
