package rest

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
)

// caller makes the calls of the gateway. It adds the parts of a request that the gateway does not
// read.
type caller struct{ *edge.InProcess }

// Invoke implements grpc.ClientConnInterface.
func (c *caller) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	req, message := requestOf(ctx), args.(proto.Message).ProtoReflect()
	if violations := req.complete(message); len(violations) > 0 {
		return c.Refuse(ctx, method, violations...)
	}
	return c.InProcess.Invoke(ctx, method, args, reply, opts...)
}

// requestIDField is the field of a message that makes a call safe to repeat.
const requestIDField protoreflect.Name = "request_id"

// complete sets the request id of a message from Idempotency-Key. It returns what is wrong with the
// request.
func (req *request) complete(message protoreflect.Message) (violations []library.FieldViolation) {
	if req.query != "" {
		violations = req.misplaced(message.Descriptor())
	}
	field := message.Descriptor().Fields().ByName(requestIDField)
	if field == nil || len(req.key) == 0 {
		return violations
	}
	if len(req.key) > 1 {
		return append(violations, library.FieldViolation{
			Field: string(requestIDField), Message: "has several headers Idempotency-Key",
		})
	}
	key := unquote(req.key[0])
	if inBody := message.Get(field).String(); inBody != "" && inBody != key {
		return append(violations, library.FieldViolation{
			Field: string(requestIDField), Message: "differs from the header Idempotency-Key",
		})
	}
	message.Set(field, protoreflect.ValueOfString(key))
	return violations
}

// misplaced returns the parameters of the URL that the gateway ignores: all those of a POST, and those
// of a GET whose fields are all in the path.
func (req *request) misplaced(d protoreflect.MessageDescriptor) (violations []library.FieldViolation) {
	values, _ := url.ParseQuery(req.query)
	for name := range values {
		switch {
		case req.post:
			violations = append(violations, library.FieldViolation{Field: name, Message: "must be in the body"})
		case parameterOf(d, name, req.inPath) == nil:
			violations = append(violations, library.FieldViolation{Field: name, Message: unknownField(d, req.inPath)})
		}
	}
	return violations
}

// unquote returns the key of an Idempotency-Key header, which is a string in quotes by its draft
// standard, and often sent without.
func unquote(key string) string {
	key = strings.TrimSpace(key)
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		return key[1 : len(key)-1]
	}
	return key
}

// answer returns the error of a call: the answer of the edge, or, if the gateway refused the
// request, the answer of the edge to such a call.
func (c *caller) answer(ctx context.Context, r *http.Request, method string, err error) error {
	if _, ok := errors.AsType[*edge.Answer](err); ok {
		return err
	}
	_, refusal := c.Call(ctx, method, nil, func(context.Context, any) (any, error) {
		return nil, library.Invalid(formFaults(r, method, status.Convert(err).Message())...)
	})
	return refusal
}

// refuse answers a request whose parameters can't be read.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, method string, err error) {
	faults := []library.FieldViolation{{Field: "request", Message: "is not valid: " + err.Error()}}
	if form, ok := errors.AsType[*formError](err); ok {
		faults = form.faults
	}
	writeProblem(w, r, problemOf(h.caller.Refuse(r.Context(), method, faults...)))
}
