package edge

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/dlsms/dlsms/library"
)

// errorDomain is the domain of every ErrorInfo.
const errorDomain = "dlsms"

// errMalformed is for bytes that are not the message that the method takes.
var errMalformed = library.Invalid(library.FieldViolation{Field: "request", Message: "is not a valid message of this method"})

// codeOf is the one table from what happened to the code that a client gets.
func codeOf(k library.ErrorKind) codes.Code {
	switch k {
	case library.KindInvalid:
		return codes.InvalidArgument
	case library.KindUnauthenticated:
		return codes.Unauthenticated
	case library.KindPermissionDenied:
		return codes.PermissionDenied
	case library.KindNotFound:
		return codes.NotFound
	case library.KindExists:
		return codes.AlreadyExists
	case library.KindPrecondition:
		return codes.FailedPrecondition
	case library.KindExhausted:
		return codes.ResourceExhausted
	case library.KindUnavailable:
		return codes.Unavailable
	case library.KindInternal:
	}
	return codes.Internal
}

// outcome is how a call ended, for the client and for the log.
type outcome struct {
	status *status.Status
	reason string // of the ErrorInfo; empty: none
	cause  error  // what the log has to show; nil: the status says it all
}

var (
	succeeded = outcome{status: status.New(codes.OK, "")}
	internal  = status.New(codes.Internal, "internal error")
	timedOut  = status.New(codes.DeadlineExceeded, "the deadline passed before there was an answer")
	cancelled = status.New(codes.Canceled, "the call was cancelled")

	// headersTooLarge is final, like grpc's answer to a message that is too large.
	headersTooLarge = status.New(codes.ResourceExhausted, "the headers of the call have more than 16 KiB")
)

// conclude says how a call ended that ran on ctx and returned err. foreign is true for methods of gRPC's own services (health, reflection),
// whose statuses are passed on; our handlers make none, and one that comes up anyway is told to nobody but the log.
func conclude(ctx context.Context, err error, foreign bool) outcome {
	if err == nil {
		return succeeded
	}
	// The server ended the call, or the token did: whatever came of that, this is why.
	if ended, ok := errors.AsType[*library.Error](context.Cause(ctx)); ok {
		return outcome{describe(ended), ended.Reason, ended.Unwrap()}
	}
	st, isStatus := status.FromError(err)
	if ctx.Err() != nil && (isStatus || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return outcome{status: timedOut}
		}
		return outcome{status: cancelled}
	}
	if e, ok := errors.AsType[*library.Error](err); ok && e.Kind != library.KindInternal {
		return outcome{describe(e), e.Reason, e.Unwrap()}
	}
	if u, ok := errors.AsType[*undelivered](err); ok {
		return outcome{status: u.status}
	}
	if isStatus && foreign {
		return outcome{status: st}
	}
	return outcome{status: internal, cause: err}
}

// undelivered is a message of a stream that did not get through, in either direction, and how the call ends for that.
type undelivered struct{ status *status.Status }

func (u *undelivered) Error() string { return u.status.Err().Error() }

// notReceived says what the log is to tell of a message that did not come: the client has gRPC's own answer by then.
func notReceived(err error) error {
	switch st := status.Convert(err); st.Code() {
	case codes.Canceled, codes.DeadlineExceeded: // the client has gone
		return err
	case codes.ResourceExhausted, codes.Unimplemented: // too large, or compressed in a way that is not known
		return &undelivered{st}
	}
	return errMalformed // or none at all, which gRPC calls INTERNAL
}

// notSent says what came of sending a message, or the header.
func notSent(err error) error {
	if status.Code(err) == codes.Unavailable { // the connection has gone, and its client: that ends the context too, but maybe later
		return &undelivered{cancelled}
	}
	return err
}

// describe makes the status of an error that a client may act on.
func describe(e *library.Error) *status.Status {
	msg := e.Message
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: e.Reason, Domain: errorDomain, Metadata: e.Metadata}}
	if fields := faults(e); len(fields) > 0 {
		bad := &errdetails.BadRequest{}
		said := make([]string, len(fields))
		for i, f := range fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f.Field, Description: f.Message})
			said[i] = f.Field + " " + f.Message
		}
		details = append(details, bad)
		msg += ": " + strings.Join(said, "; ")
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	st, err := status.New(codeOf(e.Kind), msg).WithDetails(details...)
	if err != nil { // never: the details above can all be marshalled
		return internal
	}
	return st
}

// faults are the faulty fields of an error; every INVALID_ARGUMENT names at least one.
func faults(e *library.Error) []library.FieldViolation {
	if len(e.Fields) == 0 && e.Reason == library.ErrRequestIDReused.Reason {
		return []library.FieldViolation{{Field: "request_id", Message: "was used before with other content"}}
	}
	return e.Fields
}

// endStream ends a call from outside of its handler, also while the request is read, which no context of ours ends.
// WriteStatus is a method of grpc's streams that its interface lacks; TestARequestThatDoesNotArrive fails if a later grpc has it no more.
func endStream(stream grpc.ServerTransportStream, why *library.Error) {
	if s, ok := stream.(interface{ WriteStatus(st *status.Status) error }); ok {
		_ = s.WriteStatus(describe(why)) // it fails if the client has gone
	}
}
