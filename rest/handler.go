package rest

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/telemetry"
)

// Config holds the dependencies and settings of a Handler.
type Config struct {
	// Calls has the services. Paths of services that it does not serve are not found.
	Calls *edge.InProcess
	// GetSeats answers GetSeats with a server.SeatsJSON.
	GetSeats grpc.UnaryHandler
	// GetFloorPlan answers GetFloorPlan with a server.PlanJSON.
	GetFloorPlan grpc.UnaryHandler
	// Session returns the session of a token, inside a call of VerifyToken.
	Session func(ctx context.Context, token string) (server.Session, error)
	// Healthy reports whether the replica serves calls.
	Healthy func(context.Context) bool
	// Origins are the origins of web pages that may call the API from a browser, such as
	// https://library.example; "*" allows all. Empty: pages of the same origin only.
	Origins []string
	// Web has the files of the web client; nil: the process does not serve it.
	Web     fs.FS
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: metrics are not registered
	Traces  telemetry.Traces
}

// maxBody is the greatest size of the body of a request in bytes.
const maxBody = 64 << 10

// Handler serves the API over HTTP.
type Handler struct {
	caller  *caller
	healthy func(context.Context) bool
	session func(context.Context, string) (server.Session, error)
	origins []string
	log     *slog.Logger

	getSeats, getFloorPlan grpc.UnaryHandler

	traces    telemetry.Traces
	durations *prometheus.HistogramVec // nil: not registered

	sessions map[string]http.HandlerFunc // by path
	site     *site
	gateway  *runtime.ServeMux
	own      map[string]http.HandlerFunc // by path: GET requests that the gateway does not serve
	posts    map[string]http.HandlerFunc // by path: POST requests that the gateway does not serve
	draining atomic.Bool                 // clients are asked to close their connections
}

// NewHandler returns a Handler.
func NewHandler(c Config) (*Handler, error) {
	h := &Handler{
		caller: &caller{c.Calls}, healthy: c.Healthy, session: c.Session, origins: c.Origins, log: c.Log,
		traces: c.Traces, getSeats: c.GetSeats, getFloorPlan: c.GetFloorPlan,
	}
	if c.Metrics != nil {
		h.durations = telemetry.Histogram(c.Metrics, "http_request_duration_seconds")
	}
	h.own = map[string]http.HandlerFunc{
		"/healthz":         h.serveHealth,
		"/v1/openapi.json": serveOpenAPI,
	}
	h.posts = map[string]http.HandlerFunc{}
	if c.Calls.Serves(dlsmsv1.AdminService_ImportSeats_FullMethodName) {
		h.posts["/v1/admin/seats:import"] = h.serveImport
	}
	for path, route := range map[string]struct {
		method string
		serve  http.HandlerFunc
	}{
		"/v1/auth/export":                 {dlsmsv1.AuthService_ExportMyData_FullMethodName, h.serveMyData},
		"/v1/seats":                       {dlsmsv1.SeatService_GetSeats_FullMethodName, h.serveSeats},
		"/v1/admin/seats:export":          {dlsmsv1.AdminService_ExportSeats_FullMethodName, h.serveExport},
		"/v1/admin/labels":                {dlsmsv1.AdminService_MakeLabels_FullMethodName, h.serveLabels},
		"/v1/reports/reservations:export": {dlsmsv1.ReportService_ExportReservations_FullMethodName, h.serveReservations},
		"/v1/notifications:subscribe":     {dlsmsv1.NotifyService_Subscribe_FullMethodName, h.serveSubscribe},
	} {
		if c.Calls.Serves(route.method) {
			h.own[path] = route.serve
		}
	}
	for path, stream := range map[string]struct {
		method  string
		request proto.Message
	}{
		"/v1/seats:watch":         {dlsmsv1.SeatService_WatchSeats_FullMethodName, &dlsmsv1.WatchSeatsRequest{}},
		"/v1/screen:watch":        {dlsmsv1.ScreenService_WatchScreen_FullMethodName, &dlsmsv1.WatchScreenRequest{}},
		"/v1/desk/arrivals:watch": {dlsmsv1.DeskService_WatchArrivals_FullMethodName, &dlsmsv1.WatchArrivalsRequest{}},
	} {
		if c.Calls.Serves(stream.method) {
			h.own[path] = h.stream(stream.method, stream.request)
		}
	}
	if c.Calls.Serves(dlsmsv1.AuthService_VerifyToken_FullMethodName) {
		h.sessions = h.sessionHandlers()
	}
	var err error
	if h.site, err = newSite(c.Web); err != nil {
		return nil, err
	}
	h.gateway, err = h.newGateway()
	return h, err
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.observe(w, r, h.serve) //nolint:contextcheck // the context of a call is made from that of r
}

// serve answers a request whose context has its state.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request) {
	if h.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	req := requestOf(r.Context())
	// CORS_ORIGINS opens neither sessions nor the page to other origins.
	if serve := h.sessions[r.URL.Path]; serve != nil {
		req.route = r.URL.Path
		serve(w, r)
		return
	}
	if h.site.serve(w, r) {
		return
	}
	// No device keeps an answer, unless its handler says otherwise: most are about a person. A browser
	// takes no answer for a script or a page.
	w.Header()["Cache-Control"], w.Header()["X-Content-Type-Options"] = noStore, noSniff
	if h.allowOrigin(w, r) {
		return // a preflight, which is answered
	}
	if r.Method == http.MethodHead { // the server sends no body
		req.head, r.Method = true, http.MethodGet
	}
	if serve := h.own[r.URL.Path]; serve != nil {
		req.route = r.URL.Path
		if r.Method == http.MethodGet {
			serve(w, r)
			return
		}
	}
	if serve := h.posts[r.URL.Path]; serve != nil {
		req.route = r.URL.Path
		if r.Method == http.MethodPost {
			serve(w, r)
			return
		}
	}
	if isDocs(r.URL.Path) && r.Method == http.MethodGet {
		req.route = docsPath
		serveDocs(w, r)
		return
	}
	if r.ContentLength != 0 {
		req.body = newBody(w, r, jsonBody)
		r.Body = req.body
	}
	h.gateway.ServeHTTP(w, r)
}

// hasType reports whether the body of a request is text of a media type in UTF-8.
func hasType(header http.Header, want string) bool {
	mediaType, parameters, err := mime.ParseMediaType(header.Get("Content-Type"))
	charset := parameters["charset"]
	return err == nil && mediaType == want && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

func (h *Handler) serveHealth(w http.ResponseWriter, r *http.Request) {
	if !h.healthy(r.Context()) {
		writeProblem(w, r, problem{Status: http.StatusServiceUnavailable, Detail: "the replica does not serve calls"})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("serving\n")) // a client that disconnected needs no answer
}

// request is the state of one request outside of the call that it becomes.
type request struct {
	id    string
	post  bool
	query string   // of the URL; the gateway ignores it in a POST
	key   []string // Idempotency-Key
	body  *body    // nil: the request has none
	head  bool     // the method was HEAD

	route    string                 // the path in the API, such as /v1/seats/{seat_id}
	inPath   *utilities.DoubleArray // the fields that the path sets
	streamed bool                   // the answer is a stream, which was open
}

func newRequest(r *http.Request) *request {
	return &request{
		id: edge.RequestID(r.Header["X-Request-Id"]), post: r.Method == http.MethodPost,
		query: r.URL.RawQuery, key: r.Header["Idempotency-Key"], route: noRoute, inPath: noPathFields,
	}
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	r, _ := ctx.Value(requestKey{}).(*request)
	return r
}

// context returns the context of the call of a request, made from ctx. It has what a gRPC connection
// would give.
func (req *request) context(ctx context.Context, r *http.Request) context.Context {
	headers := metadata.MD{
		"x-request-id": {req.id}, "authorization": r.Header["Authorization"], "x-real-ip": r.Header["X-Real-Ip"],
	}
	ctx = context.WithValue(ctx, requestKey{}, req)
	ctx = peer.NewContext(ctx, &peer.Peer{Addr: address(r.RemoteAddr)})
	return edge.WithHTTP(metadata.NewIncomingContext(ctx, headers))
}

// address is the address of a client, as http.Request.RemoteAddr has it.
type address string

// Network implements net.Addr.
func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// body is the body of a request. It keeps the error that ended it: the gateway passes on only the
// text of an error.
type body struct {
	io.ReadCloser
	control *http.ResponseController
	refusal error // of every Read; nil: the body may be read
	err     error

	malformed []byte // the body, if it is not JSON of the message
}

// bodyRule says which bodies a path accepts.
type bodyRule struct {
	mediaType string
	most      int64 // bytes
	timeout   time.Duration
}

var (
	jsonBody = bodyRule{mediaType: "application/json", most: maxBody, timeout: bodyTimeout}
	fileBody = bodyRule{mediaType: "text/csv", most: maxFile, timeout: fileTimeout}
)

// typeError is the error of a body with another Content-Type.
type typeError struct{ want string }

func (e *typeError) Error() string { return "the body must have Content-Type: " + e.want }

// newBody returns the body of a request. If it is not acceptable, its Read fails, so that the request
// is authenticated, limited and logged like any other.
func newBody(w http.ResponseWriter, r *http.Request, rule bodyRule) *body {
	// MaxBytesReader looks for a method of the server's own writer, to close the connection.
	if answer, ok := w.(*statusWriter); ok {
		w = answer.ResponseWriter
	}
	b := &body{ReadCloser: http.MaxBytesReader(w, r.Body, rule.most), control: http.NewResponseController(w)}
	switch {
	case !hasType(r.Header, rule.mediaType):
		b.refusal = &typeError{rule.mediaType}
	case r.ContentLength > rule.most:
		b.refusal = &http.MaxBytesError{Limit: rule.most}
	}
	b.setDeadline(time.Now().Add(rule.timeout))
	return b
}

func (b *body) Read(p []byte) (int, error) {
	if b.refusal != nil {
		b.err = b.refusal
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	b.err = err
	if errors.Is(err, io.EOF) {
		b.setDeadline(time.Time{}) // it would cancel the call as well
	}
	return n, err
}

func (b *body) setDeadline(t time.Time) {
	_ = b.control.SetReadDeadline(t) // every connection of net/http has one
}

// allowOrigin lets a page of an allowed origin read the answer. It returns true if the request was
// a preflight of CORS, which it answers.
func (h *Handler) allowOrigin(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || len(h.origins) == 0 {
		return false
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	if !slices.Contains(h.origins, origin) && !slices.Contains(h.origins, "*") {
		return false
	}
	header.Set("Access-Control-Allow-Origin", origin)
	header.Set("Access-Control-Expose-Headers", "ETag, Location, Retry-After, WWW-Authenticate, X-Request-Id")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	header.Set("Access-Control-Allow-Methods", "GET, POST")
	header.Set("Access-Control-Allow-Headers",
		"Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, X-Request-Id")
	header.Set("Access-Control-Max-Age", "7200") // seconds; Chrome's greatest
	w.WriteHeader(http.StatusNoContent)
	return true
}
