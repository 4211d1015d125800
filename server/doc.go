// Package server is the API: the four gRPC services of dlsms.v1, and their wiring.
//
// Its invariant: every call reaches its handler through package edge, which decides whether the
// caller may make it, and turns the error of the handler into a status.
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
// check (check.go) collects all errors in the shape of the request. edge.Caller(ctx) is the
// authenticated caller; on public methods it is zero. A handler returns errors unchanged: a
// *library.Error becomes its code and details, a context error becomes the client's cancellation or
// deadline, and any other error becomes INTERNAL with its cause in the log. A handler makes no
// status and writes no log.
//
// A list reads its page with check.page(req, defaultSize, maxSize), which returns the page size and
// the cursor to start after. While there are more rows, the response carries nextPageToken(req,
// cursor of the last row) (page.go). The token is bound to all other fields of the request.
//
// A stream runs on stream.Context(). This context ends when the client disconnects, when the
// caller's token is revoked or expires, when the server stops, and when the client has not read for
// a while. A handler must return when the context is done, with any error: the edge knows the
// reason. Send may block on a slow client; the edge ends the stream in that case, too
// (edge/streams.go).
package server
