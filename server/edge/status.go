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

// errorDomain is the domain of each ErrorInfo.
const errorDomain = "dlsms"

// errMalformed is the error for bytes that are not a message of the method.
var errMalformed = library.Invalid(library.FieldViolation{
	Field: "request", Message: "is not a valid message of this method",
})

// codeOf returns the status code of a kind of error. No other table maps errors to codes.
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

// outcome is the result of a call, for the client and for the log.
type outcome struct {
	status *status.Status
	reason string // of the ErrorInfo; empty: none
	cause  error  // only for the log; nil: none
}

var (
	succeeded = outcome{status: status.New(codes.OK, "")}
	internal  = status.New(codes.Internal, "internal error")
	timedOut  = status.New(codes.DeadlineExceeded, "the deadline passed before there was an answer")
	cancelled = status.New(codes.Canceled, "the call was cancelled")

	// headersTooLarge has no RetryInfo, because a retry would fail, too. It has the same code as
	// the status of grpc for a message that is too large.
	headersTooLarge = status.New(codes.ResourceExhausted, "the headers of the call have more than 16 KiB")
)

// conclude returns the outcome of a call that ran on ctx and returned err.
//
// foreign is true for the services of gRPC itself (health, reflection): conclude passes their
// statuses on. Other handlers must not return a status. If they do, only the log shows the status.
func conclude(ctx context.Context, err error, foreign bool) outcome {
	if err == nil {
		return succeeded
	}
	// The edge ended the call, and the cause of ctx is the reason. err is a consequence.
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

// undelivered is the error of a message that could not be received or sent. status is the status of
// its call.
type undelivered struct{ status *status.Status }

func (u *undelivered) Error() string { return u.status.Err().Error() }

// notReceived returns the error of a message that did not arrive. The error is for the log: gRPC
// has already sent its own status to the client.
func notReceived(err error) error {
	switch st := status.Convert(err); st.Code() {
	case codes.Canceled, codes.DeadlineExceeded: // the client has cancelled
		return err
	case codes.ResourceExhausted, codes.Unimplemented: // too large, or an unknown compression
		return &undelivered{st}
	}
	return errMalformed // malformed or missing: gRPC reports both as INTERNAL
}

// notSent returns the error of sending a message or the header.
func notSent(err error) error {
	// The client has closed the connection. ctx ends for the same reason, but perhaps later.
	if status.Code(err) == codes.Unavailable {
		return &undelivered{cancelled}
	}
	return err
}

// describe returns the status of an error that a client may act on.
func describe(e *library.Error) *status.Status {
	msg := e.Message
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: e.Reason, Domain: errorDomain, Metadata: e.Metadata}}
	if fields := violations(e); len(fields) > 0 {
		bad := &errdetails.BadRequest{}
		texts := make([]string, len(fields))
		for i, f := range fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: f.Field, Description: f.Message,
			})
			texts[i] = f.Field + " " + f.Message
		}
		details = append(details, bad)
		msg += ": " + strings.Join(texts, "; ")
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	st, err := status.New(codeOf(e.Kind), msg).WithDetails(details...)
	if err != nil { // never: every detail above can be marshalled
		return internal
	}
	return st
}

// violations returns the field violations of an error. Each INVALID_ARGUMENT must have at least one
// violation.
func violations(e *library.Error) []library.FieldViolation {
	if len(e.Fields) == 0 && e.Reason == library.ErrRequestIDReused.Reason {
		return []library.FieldViolation{{Field: "request_id", Message: "was used before with other content"}}
	}
	return e.Fields
}

// endStream ends a call from outside its handler. It works even while the edge reads the request.
// No context can end such a read.
//
// endStream calls WriteStatus. grpc's streams have this method, but the interface
// grpc.ServerTransportStream does not. If a later version of grpc removes the method,
// TestIncompleteRequestsHaveDeadline fails.
func endStream(stream grpc.ServerTransportStream, why *library.Error) {
	if s, ok := stream.(interface{ WriteStatus(st *status.Status) error }); ok {
		_ = s.WriteStatus(describe(why)) // it fails if the client has disconnected
	}
}

// Answer is the status of a call that reached the edge. The edge has logged and counted the call.
type Answer struct{ status *status.Status }

func (a *Answer) Error() string { return a.status.Err().Error() }

// GRPCStatus returns the status. Package status uses it.
func (a *Answer) GRPCStatus() *status.Status { return a.status }

// answerOf returns the Answer of a call that failed with the error of a status.
func answerOf(err error) *Answer { return &Answer{status.Convert(err)} }

// unknownMethod returns the Answer of a call of a method that this process does not serve.
func unknownMethod(method string) *Answer {
	return &Answer{status.New(codes.Unimplemented, "unknown method "+method)}
}

// Disconnected returns the error of a send to a client that has disconnected, as gRPC returns it.
func Disconnected(err error) error { return status.Error(codes.Unavailable, err.Error()) }
