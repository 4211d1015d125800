package rest

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/grpc/metadata"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server/edge"
)

// serveMyData answers ExportMyData with the document itself. After the first part, an error can only
// break the connection: so no client takes a part of the document for the whole.
func (h *Handler) serveMyData(w http.ResponseWriter, r *http.Request) {
	method := dlsmsv1.AuthService_ExportMyData_FullMethodName
	req := &dlsmsv1.ExportMyDataRequest{}
	if err := parseQuery(r, req); err != nil {
		h.refuse(w, r, method, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := &download{ctx: ctx, cancel: cancel, w: w, control: http.NewResponseController(w)}
	err := h.caller.Stream(method, req, out) //nolint:contextcheck // out has the context
	switch {
	case err != nil && !out.open:
		writeProblem(w, r, problemOf(err))
	case err != nil && !requestOf(ctx).head:
		panic(http.ErrAbortHandler) // net/http closes the connection and logs nothing
	}
}

// download sends the parts of a document as the body of an answer.
type download struct {
	ctx     context.Context // grpc.ServerStream has one, too
	cancel  context.CancelFunc
	w       http.ResponseWriter
	control *http.ResponseController
	open    bool
}

// Context implements edge.Sender.
func (d *download) Context() context.Context { return d.ctx }

// SendHeader implements edge.Sender. The headers go out with the first part: until then, an error
// becomes a problem.
func (d *download) SendHeader(metadata.MD) error { return nil }

// SendMsg sends a part of the document. The handler may still wait for Postgres when the request is
// over: then w must not be used any more.
func (d *download) SendMsg(m any) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if !d.open {
		d.open = true
		header := d.w.Header()
		header["Content-Type"] = contentJSON
		header.Set("Content-Disposition", `attachment; filename="my-data.json"`)
		header.Set("Cache-Control", "no-store")
		if requestOf(d.ctx).head {
			d.w.WriteHeader(http.StatusOK)
			d.cancel() // the headers are the whole answer
			return d.ctx.Err()
		}
	}
	_ = d.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // every connection of net/http has one
	if _, err := d.w.Write(m.(*dlsmsv1.ExportMyDataResponse).GetContent()); err != nil {
		return edge.Disconnected(err)
	}
	return nil
}
