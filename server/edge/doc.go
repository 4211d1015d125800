// Package edge runs before and after each handler of the API. It decides whether a call reaches its
// handler, and turns the result into a status.
//
// Its invariant: the policy allows every call that reaches a handler, and status.go makes every
// status that reaches a client.
//
// Every RPC, unary or stream, runs through Edge.run (interceptors.go). Its steps, outermost first:
//
//  1. log the call
//  2. map errors to statuses
//  3. recover from panics
//  4. gate: refuse calls while the server starts or stops
//  5. set the deadline
//  6. authenticate the caller
//  7. check the rate limit
//  8. admit the call: wait for a slot (admission.go), or count the stream (streams.go)
//  9. call the handler
//
// One table (policy.go) lists the allowed callers and the limits of each method.
//
// The package does not know the handlers. A handler reads its caller with Caller.
package edge
