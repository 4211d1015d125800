package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	restv1 "github.com/dlsms/dlsms/gen/rest/dlsms/v1"
	"github.com/dlsms/dlsms/server"
)

// setQueryParser sets the parser of all gateways of the process: the gateway has it in a global
// variable.
var setQueryParser = sync.OnceFunc(func() { runtime.SetQueryParameterParser(queryParser{})(nil) })

func (h *Handler) newGateway() (*runtime.ServeMux, error) {
	setQueryParser()
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler{&runtime.JSONPb{MarshalOptions: server.JSONOptions}}),
		// The context of a request has its headers already.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMiddlewares(setRoute),
		runtime.WithForwardResponseOption(setCreated),
		runtime.WithForwardResponseOption(spellBroken),
		runtime.WithErrorHandler(h.handleError),
		runtime.WithRoutingErrorHandler(h.handleRoutingError),
		// A POST of a form is not a GET with parameters.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	ctx := context.Background() // only the registrations that dial use it
	calls := h.caller
	for method, register := range map[string]func() error{
		dlsmsv1.AuthService_Login_FullMethodName: func() error {
			return restv1.RegisterAuthServiceHandlerClient(ctx, mux, dlsmsv1.NewAuthServiceClient(calls))
		},
		dlsmsv1.SeatService_GetSeats_FullMethodName: func() error {
			return errors.Join(
				restv1.RegisterSeatServiceHandlerClient(ctx, mux, dlsmsv1.NewSeatServiceClient(calls)),
				mux.HandlePath(http.MethodGet, "/v1/branches/{branch}/plan", h.servePlan)) // replaces that of the gateway
		},
		dlsmsv1.ReservationService_CreateReservation_FullMethodName: func() error {
			return restv1.RegisterReservationServiceHandlerClient(ctx, mux, dlsmsv1.NewReservationServiceClient(calls))
		},
		dlsmsv1.NotifyService_JoinWaitlist_FullMethodName: func() error {
			return restv1.RegisterNotifyServiceHandlerClient(ctx, mux, dlsmsv1.NewNotifyServiceClient(calls))
		},
		dlsmsv1.AdminService_ListBranches_FullMethodName: func() error {
			return restv1.RegisterAdminServiceHandlerClient(ctx, mux, dlsmsv1.NewAdminServiceClient(calls))
		},
		dlsmsv1.ScreenService_WatchScreen_FullMethodName: func() error {
			return restv1.RegisterScreenServiceHandlerClient(ctx, mux, dlsmsv1.NewScreenServiceClient(calls))
		},
		dlsmsv1.DeskService_FindUsers_FullMethodName: func() error {
			return restv1.RegisterDeskServiceHandlerClient(ctx, mux, dlsmsv1.NewDeskServiceClient(calls))
		},
		dlsmsv1.ReportService_GetUsage_FullMethodName: func() error {
			return restv1.RegisterReportServiceHandlerClient(ctx, mux, dlsmsv1.NewReportServiceClient(calls))
		},
	} {
		if !calls.Serves(method) {
			continue
		}
		if err := register(); err != nil {
			return nil, fmt.Errorf("register the HTTP routes: %w", err)
		}
	}
	return mux, nil
}

// marshaler writes and reads the JSON of messages.
type marshaler struct{ *runtime.JSONPb }

// NewDecoder returns a decoder that reads one message and accepts nothing after it.
func (marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		message, ok := v.(proto.Message)
		if !ok {
			return fmt.Errorf("%T is not a message", v)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(data)) == 0 {
			return io.EOF // the message without fields
		}
		err = protojson.Unmarshal(data, message)
		if b, ok := r.(*body); ok && err != nil {
			b.malformed = data
		}
		return err
	})
}

// queryParser sets the fields of a request from the query of a URL. Unlike the parser of the
// gateway it refuses unknown names.
type queryParser struct{}

// Parse implements runtime.QueryParameterParser. filter has the fields that the path sets.
func (queryParser) Parse(m proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	for name := range values {
		f := parameterOf(m.ProtoReflect().Descriptor(), name, filter)
		if f == nil {
			return queryError(m, values, filter)
		}
		if setEnum(m.ProtoReflect(), f, values[name]) {
			delete(values, name)
		}
	}
	if new(runtime.DefaultQueryParser).Parse(m, values, filter) != nil {
		return queryError(m, values, filter)
	}
	return nil
}

// queryError returns the error of parameters that can't be read.
func queryError(m proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	c := formCheck{}
	if c.query(m.ProtoReflect().Type(), values, filter); len(c.faults) == 0 {
		c.fault("request", "has parameters that can't be read")
	}
	return &formError{c.faults}
}

// setEnum sets a field with values of an enum, by name or by number, and reports whether it did. It
// accepts unknown numbers, as JSON does: the handler then reports them together with all other faults
// of the request. The parser of the gateway refuses the first one.
func setEnum(m protoreflect.Message, f protoreflect.FieldDescriptor, texts []string) bool {
	if f.Enum() == nil || !f.IsList() && len(texts) != 1 {
		return false
	}
	values := make([]protoreflect.Value, len(texts))
	for i, text := range texts {
		if known := f.Enum().Values().ByName(protoreflect.Name(text)); known != nil {
			values[i] = protoreflect.ValueOfEnum(known.Number())
			continue
		}
		number, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return false
		}
		values[i] = protoreflect.ValueOfEnum(protoreflect.EnumNumber(number))
	}
	if !f.IsList() {
		m.Set(f, values[0])
		return true
	}
	list := m.Mutable(f).List()
	for _, v := range values {
		list.Append(v)
	}
	return true
}

// setCreated sets 201 and Location on the answers to requests that created something.
func setCreated(_ context.Context, w http.ResponseWriter, m proto.Message) error {
	switch m := m.ProtoReflect().Interface().(type) { // m may be a wrapper
	case *dlsmsv1.CreateReservationResponse:
		if m.GetReservation().GetId() == 0 { // only validated
			return nil
		}
		w.Header().Set("Location", fmt.Sprintf("/v1/reservations/%d", m.GetReservation().GetId()))
	case *dlsmsv1.JoinWaitlistResponse:
		if m.GetEntry().GetId() == 0 { // only validated
			return nil
		}
	case *dlsmsv1.RegisterResponse:
	case *dlsmsv1.LoginResponse, *dlsmsv1.CreateKeyResponse: // they have a secret
		w.Header().Set("Cache-Control", "no-store")
		return nil
	default:
		return nil
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// handleError answers a request that failed. If the gateway refused it, the edge has not seen the
// call yet.
func (h *Handler) handleError(
	ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error,
) {
	body := requestOf(ctx).body
	unreadable := body != nil && body.err != nil && !errors.Is(body.err, io.EOF)
	if unreadable {
		// net/http cancels the context when a read fails. If the body is late, the client still waits.
		ctx = context.WithoutCancel(ctx)
	}
	if method, ok := runtime.RPCMethod(ctx); ok {
		err = h.caller.answer(ctx, r, method, err)
	}
	p := problemOf(err)
	if unreadable && p.Status == http.StatusBadRequest {
		p = bodyProblem(body.err)
	}
	writeProblem(w, r, p)
}

const notFound = "there is nothing at this path: see /docs"

// handleRoutingError answers a request that is no RPC.
func (h *Handler) handleRoutingError(
	_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int,
) {
	if h.own[r.URL.Path] != nil { // the gateway does not know all of these paths
		code = http.StatusMethodNotAllowed
	}
	p := problem{Status: code}
	switch code {
	case http.StatusNotFound:
		p.Detail = notFound
	case http.StatusMethodNotAllowed:
		allowed := allowedMethods(r.URL.Path)
		if len(allowed) == 0 { // the gateway answers so for /v1/reservations/1:undo
			p.Status, p.Detail = http.StatusNotFound, notFound
			break
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		p.Detail = "this path accepts " + strings.Join(allowed, ", ")
	}
	if p.Status == http.StatusNotFound && h.site.serveNotFound(w, r) {
		return
	}
	writeProblem(w, r, p)
}
