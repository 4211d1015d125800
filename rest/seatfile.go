package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/proto"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/seatfile"
	"github.com/dlsms/dlsms/server"
)

const (
	// maxFile is the greatest size of a seat file in bytes.
	maxFile = seatfile.MaxSize
	// fileTimeout bounds how long a seat file takes to arrive. The call holds the only slot of its
	// class during this time. nginx sends a file when it has all of it.
	fileTimeout = 2 * bodyTimeout
)

// fileContent is the field of ImportSeatsRequest that is the body. No parameter may set it.
var fileContent = utilities.NewDoubleArray([][]string{{"content"}})

// serveImport answers ImportSeats, whose body is a file. The edge authenticates and limits the call
// before the body is read.
func (h *Handler) serveImport(w http.ResponseWriter, r *http.Request) {
	method := dlsmsv1.AdminService_ImportSeats_FullMethodName
	req := &dlsmsv1.ImportSeatsRequest{}
	if err := parseImport(r, req); err != nil {
		h.refuse(w, r, method, err)
		return
	}
	body := newBody(w, r, fileBody)
	// net/http cancels the context when a read of the body fails, and then there would be no answer.
	ctx := context.WithoutCancel(r.Context())
	resp := &dlsmsv1.ImportSeatsResponse{}
	err := h.caller.Receive(ctx, method, req, resp, func(context.Context) (err error) {
		if req.Content, err = io.ReadAll(body); err != nil {
			return library.Invalid(library.FieldViolation{Field: "content", Message: "can't be read"})
		}
		return nil
	})
	switch {
	case err != nil && body.err != nil && !errors.Is(body.err, io.EOF):
		writeProblem(w, r, bodyProblem(body.err))
	case err != nil:
		writeProblem(w, r, problemOf(err))
	default:
		writeMessage(w, resp)
	}
}

// parseImport sets the fields of a request from the query of its URL. The parameter note[de] has a
// text in German.
func parseImport(r *http.Request, req *dlsmsv1.ImportSeatsRequest) error {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	for name, texts := range values {
		language, ok := strings.CutPrefix(name, "note[")
		if !ok {
			continue
		}
		if req.Note == nil {
			req.Note = map[string]string{}
		}
		req.Note[strings.TrimSuffix(language, "]")] = strings.Join(texts, " ")
		delete(values, name)
	}
	return queryParser{}.Parse(req, values, fileContent)
}

// writeMessage answers a request with a message in JSON.
func writeMessage(w http.ResponseWriter, m proto.Message) {
	text, err := server.JSONOptions.Marshal(m)
	if err != nil { // impossible: all texts are UTF-8
		panic(err)
	}
	header := w.Header()
	header["Content-Type"] = contentJSON
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // a client that disconnected needs no answer
}

// serveExport answers ExportSeats with the file itself.
func (h *Handler) serveExport(w http.ResponseWriter, r *http.Request) {
	method := dlsmsv1.AdminService_ExportSeats_FullMethodName
	req, resp := &dlsmsv1.ExportSeatsRequest{}, &dlsmsv1.ExportSeatsResponse{}
	if err := parseQuery(r, req); err != nil {
		h.refuse(w, r, method, err)
		return
	}
	if err := h.caller.Invoke(r.Context(), method, req, resp); err != nil {
		writeProblem(w, r, problemOf(err))
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/csv; charset=utf-8")
	header.Set("Content-Disposition", `attachment; filename="seats.csv"`)
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Length", strconv.Itoa(len(resp.GetContent())))
	_, _ = w.Write(resp.GetContent()) // a client that disconnected needs no answer
}
