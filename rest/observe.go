package rest

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dlsms/dlsms/telemetry"
)

// noRoute is the route of a request whose path is not one of the API.
const noRoute = "none"

// observe answers a request with serve, makes its span and measures how long it takes.
func (h *Handler) observe(w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter, *http.Request)) {
	began := time.Now()
	method := methodLabel(r.Method) // serve changes that of a HEAD
	ctx, span := h.traces.StartRequest(r)
	req := newRequest(r)
	answer := &statusWriter{ResponseWriter: w, code: http.StatusOK}
	defer func() { // also if serve ends an incomplete answer with http.ErrAbortHandler
		telemetry.SetRequestID(ctx, req.id)
		telemetry.EndRequest(span, method, req.route, answer.code)
	}()
	serve(answer, r.WithContext(req.context(ctx, r)))
	if h.durations == nil || req.streamed {
		return
	}
	observer := h.durations.WithLabelValues(method, req.route, strconv.Itoa(answer.code))
	if exemplar := telemetry.Exemplar(ctx); exemplar != nil {
		observer.(prometheus.ExemplarObserver).ObserveWithExemplar(time.Since(began).Seconds(), exemplar)
		return
	}
	observer.Observe(time.Since(began).Seconds())
}

// methodLabel returns one of a few values: a client may send any method.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions:
		return method
	}
	return "other"
}

// setRoute is a middleware of the gateway that sets the route of requests and the fields in its path.
func setRoute(next runtime.HandlerFunc) runtime.HandlerFunc {
	// The gateway calls setRoute once for each pattern.
	var once sync.Once
	var route string
	var inPath *utilities.DoubleArray
	return func(w http.ResponseWriter, r *http.Request, parameters map[string]string) {
		pattern, _ := runtime.HTTPPattern(r.Context())
		once.Do(func() {
			route = strings.ReplaceAll(pattern.String(), "=*}", "}") // /v1/seats/{seat_id}
			inPath = pathFields(route)
		})
		req := requestOf(r.Context())
		req.route, req.inPath = route, inPath
		next(w, r, parameters)
	}
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter

	code int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
