// Package server is the API: the four gRPC services of dlsms.v1, and their wiring.
//
// Its invariant: every call reaches its handler through package edge. Package edge decides whether
// the caller may make the call, and turns the error of the handler into a status.
//
// # Writing a handler
//
// A handler has three parts: collect all field errors, make one call, convert the result.
//
//	func (s *reservationService) GetReservation(
//		ctx context.Context, req *dlsmsv1.GetReservationRequest,
//	) (*dlsmsv1.GetReservationResponse, error) {
//		var c check
//		id := c.id("reservation_id", req.GetReservationId())
//		if err := c.err(); err != nil {
//			return nil, err
//		}
//
//		r, err := s.store.Reservation(ctx, edge.Caller(ctx).UserID, id)
//		if err != nil {
//			return nil, err
//		}
//
//		return &dlsmsv1.GetReservationResponse{Reservation: reservationProto(r)}, nil
//	}
//
// A handler that changes data sends a hint after the commit: s.hints.Send(HintReservations).
//
// check (check.go) collects the errors of all fields. edge.Caller(ctx) is the authenticated caller.
// On public methods it is zero.
//
// A handler makes no status and writes no log. It returns every error unchanged, and package edge
// makes the status:
//
//   - A *library.Error becomes a status with its code, reason and details.
//   - If the client cancelled the call, or its deadline passed, the status says so.
//   - Any other error becomes INTERNAL, and its cause is logged.
//
// A handler of a list calls check.page(req, defaultSize, maxSize) (page.go). This returns the page
// size and the cursor, which is the position after the previous page. The handler reads one row more
// than the page has, to see whether more rows follow. cut(req, rows, size, cursor of a row) returns
// the page and the token of the next one. A page token is valid only if all other fields of the
// request, except page_size, stay the same.
//
// The handler of a stream uses stream.Context(). This context ends when
//
//   - the client disconnects
//   - the caller's token expires or is revoked
//   - the server stops
//   - a Send has waited for 75 s because the client does not read (edge/streams.go)
//
// When the context is done, the handler must return. It may return any error: the edge knows the
// reason why the context ended.
package server
