package rest

import (
	"net/http"
	"strconv"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server"
)

// labelsPolicy lets the page of labels use its own style, and load or run nothing else.
const labelsPolicy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

// serveLabels answers MakeLabels with the page itself, or with JSON if the request has items_only.
func (h *Handler) serveLabels(w http.ResponseWriter, r *http.Request) {
	method := dlsmsv1.AdminService_MakeLabels_FullMethodName
	req, resp := &dlsmsv1.MakeLabelsRequest{}, &dlsmsv1.MakeLabelsResponse{}
	if err := parseQuery(r, req); err != nil {
		h.refuse(w, r, method, err)
		return
	}
	if err := h.caller.Invoke(r.Context(), method, req, resp); err != nil {
		writeProblem(w, r, problemOf(err))
		return
	}
	header, body := w.Header(), resp.GetContent()
	if req.GetItemsOnly() {
		var err error
		if body, err = server.JSONOptions.Marshal(resp); err != nil {
			writeProblem(w, r, problemOf(err))
			return
		}
		header["Content-Type"] = contentJSON
	} else {
		header.Set("Content-Type", "text/html; charset=utf-8")
		header.Set("Content-Security-Policy", labelsPolicy)
		header.Set("X-Content-Type-Options", "nosniff")
	}
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a client that disconnected needs no answer
}
