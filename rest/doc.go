// Package rest serves the API over HTTP/1.1 as JSON, beside gRPC.
//
// It has no rule of its own: every request becomes a call of edge.InProcess, which runs the same
// interceptors and handlers as a call over gRPC. The path of a request is
//
//	Handler        request id, body limit, content type, CORS      handler.go
//	   ├─ gateway  generated from proto/rest.yaml: most RPCs       gateway.go
//	   ├─ GetSeats from encoded JSON, with ETag                    seats.go
//	   ├─ streams  server-sent events                              stream.go
//	   ├─ session  the cookie that keeps a page signed in          session.go
//	   └─ site     the web client, which makes no call             web.go
//	caller         Idempotency-Key, unknown parameters             caller.go
//	edge.InProcess
//
// Errors are application/problem+json, made in problem.go alone.
package rest
