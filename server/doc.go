// Package server is what a client talks to: the four gRPC services of dlsms.v1, and the edge around them.
//
// Its one invariant: no call reaches a handler that the policy does not allow, and no error reaches a client but through errors.go.
//
// # The edge
//
// Every RPC, unary or stream, goes through edge.run (interceptors.go): log, map errors, recover, gate (starting or draining), deadline,
// authenticate, limit, admit; then the handler. Who may call what, against which limits, is one table (policy.go).
//
// # Writing a handler
//
// A handler is three paragraphs: understand the request, do one thing, answer.
//
//	func (s *reservationService) CancelReservation(ctx context.Context, req *dlsmsv1.CancelReservationRequest) (*dlsmsv1.CancelReservationResponse, error) {
//		var c check
//		id := c.id("reservation_id", req.GetReservationId())
//		if err := c.err(); err != nil {
//			return nil, err
//		}
//
//		r, err := s.store.Cancel(ctx, caller(ctx).UserID, id)
//		if err != nil {
//			return nil, err
//		}
//		s.hints.Send(HintReservations)
//
//		return &dlsmsv1.CancelReservationResponse{Reservation: reservationProto(r)}, nil
//	}
//
// check (check.go) gathers every fault of the request's shape. caller(ctx) (call.go) is who calls; on public methods it is zero. Errors
// are returned as they are: a *store.Error becomes its code and details, a context error the client's cancellation or deadline, anything
// else INTERNAL with the cause in the log. A handler makes no status and writes no log.
//
// A list takes its page with check.page(req, byDefault, most), which returns the size and the cursor to go on after, and gives out
// nextPageToken(req, cursor of the last row) while there is more (page.go). The token is bound to all the other fields of the request.
//
// A stream runs on stream.Context(), which ends when the client is gone, the caller's token is revoked or expires, the server stops, or the
// client has not read for a while. A handler only has to return when that context is done, with any error: the edge knows why. Send may
// block on a slow client; the edge ends the stream then, too (streams.go).
package server
