package rest

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/grpc/metadata"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server/edge"
)

// serveReservations answers ExportReservations with the file itself, as a stream.
func (h *Handler) serveReservations(w http.ResponseWriter, r *http.Request) {
	const method = dlsmsv1.ReportService_ExportReservations_FullMethodName
	req := &dlsmsv1.ExportReservationsRequest{}
	if err := parseQuery(r, req); err != nil {
		h.refuse(w, r, method, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	file := &fileStream{ctx: ctx, w: w, control: http.NewResponseController(w)}
	if requestOf(ctx).head {
		file.onOpen = cancel // the headers are the whole answer
	}
	err := h.caller.Stream(method, req, file) //nolint:contextcheck // file has the context
	switch {
	case err == nil:
	case !file.open:
		writeProblem(w, r, problemOf(err))
	case file.onOpen == nil:
		// The status was sent. A connection that ends within the body tells the client that the file
		// is not complete.
		panic(http.ErrAbortHandler)
	}
}

// fileStream sends the parts of a file.
type fileStream struct {
	ctx     context.Context // grpc.ServerStream has one, too
	w       http.ResponseWriter
	control *http.ResponseController
	open    bool
	onOpen  func() // nil: nothing
}

// Context implements edge.Sender.
func (s *fileStream) Context() context.Context { return s.ctx }

// SendHeader sends the headers.
func (s *fileStream) SendHeader(metadata.MD) error {
	if s.open {
		return nil
	}
	s.open = true
	requestOf(s.ctx).streamed = true
	header := s.w.Header()
	header.Set("Content-Type", "text/csv; charset=utf-8")
	header.Set("Content-Disposition", `attachment; filename="reservations.csv"`)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // for nginx
	header.Set("X-Request-Id", requestOf(s.ctx).id)
	s.w.WriteHeader(http.StatusOK)
	if s.onOpen != nil {
		s.onOpen()
	}
	return nil
}

// SendMsg sends a part of the file.
func (s *fileStream) SendMsg(m any) error {
	if err := s.SendHeader(nil); err != nil {
		return err
	}
	part := m.(*dlsmsv1.ExportReservationsResponse).GetContent()
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // every connection of net/http has one
	if _, err := s.w.Write(part); err != nil {
		return edge.Disconnected(err)
	}
	if err := s.control.Flush(); err != nil {
		return edge.Disconnected(err)
	}
	return nil
}
