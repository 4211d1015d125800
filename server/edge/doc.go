// Package edge surrounds every call to the API: it decides whether a call reaches its handler, and
// turns the result into a status.
//
// Its invariant: the policy allows every call that reaches a handler, and status.go makes every
// status that reaches a client.
//
// Every RPC, unary or stream, runs through Edge.run (interceptors.go): log, map errors, recover,
// gate (starting or draining), deadline, authenticate, limit, admit, handler. One table (policy.go)
// lists the allowed callers and the limits of each method.
//
// The package knows no handler. A handler reads its caller with Caller.
package edge
