package rest

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server/edge"
)

// serveReservations answers ExportReservations with the file itself.
func (h *Handler) serveReservations(w http.ResponseWriter, r *http.Request) {
	method := dlsmsv1.ReportService_ExportReservations_FullMethodName
	req := requestOf(r.Context())
	h.serveDownload(w, r, method, &dlsmsv1.ExportReservationsRequest{}, func(header http.Header) {
		req.streamed = true
		header.Set("Content-Type", "text/csv; charset=utf-8")
		header.Set("Content-Disposition", `attachment; filename="reservations.csv"`)
		header.Set("X-Accel-Buffering", "no") // for nginx
		header.Set("X-Request-Id", req.id)
	})
}

// serveMyData answers ExportMyData with the document itself.
func (h *Handler) serveMyData(w http.ResponseWriter, r *http.Request) {
	method := dlsmsv1.AuthService_ExportMyData_FullMethodName
	h.serveDownload(w, r, method, &dlsmsv1.ExportMyDataRequest{}, func(header http.Header) {
		header["Content-Type"] = contentJSON
		header.Set("Content-Disposition", `attachment; filename="my-data.json"`)
	})
}

// serveDownload answers a stream whose messages are the parts of a file with the file itself.
// setHeaders sets the headers, right before the first part. After that, an error can only break the
// connection: so no client takes a part of the file for the whole.
func (h *Handler) serveDownload(
	w http.ResponseWriter, r *http.Request, method string, req proto.Message, setHeaders func(http.Header),
) {
	if err := parseQuery(r, req); err != nil {
		h.refuse(w, r, method, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := &download{ctx: ctx, cancel: cancel, w: w, control: http.NewResponseController(w), setHeaders: setHeaders}
	err := h.caller.Stream(method, req, out) //nolint:contextcheck // out has the context
	switch {
	case err != nil && !out.open:
		writeProblem(w, r, problemOf(err))
	case err != nil && !requestOf(ctx).head:
		panic(http.ErrAbortHandler) // net/http closes the connection and logs nothing
	}
}

// download sends the parts of a file as the body of an answer.
type download struct {
	ctx        context.Context // grpc.ServerStream has one, too
	cancel     context.CancelFunc
	w          http.ResponseWriter
	control    *http.ResponseController
	setHeaders func(http.Header)
	open       bool
}

// Context implements edge.Sender.
func (d *download) Context() context.Context { return d.ctx }

// SendHeader implements edge.Sender. The headers go out with the first part: until then, an error
// becomes a problem.
func (d *download) SendHeader(metadata.MD) error { return nil }

// SendMsg sends a part of the file. The handler may still wait for Postgres when the request is over:
// then w must not be used any more.
func (d *download) SendMsg(m any) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if !d.open {
		d.open = true
		d.setHeaders(d.w.Header())
		d.w.Header().Set("Cache-Control", "no-store")
		if requestOf(d.ctx).head {
			d.w.WriteHeader(http.StatusOK)
			d.cancel() // the headers are the whole answer
			return d.ctx.Err()
		}
	}
	_ = d.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // every connection of net/http has one
	if _, err := d.w.Write(m.(interface{ GetContent() []byte }).GetContent()); err != nil {
		return edge.Disconnected(err)
	}
	if err := d.control.Flush(); err != nil {
		return edge.Disconnected(err)
	}
	return nil
}
