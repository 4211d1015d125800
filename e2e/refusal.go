package e2e

import (
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// Refusal is an error as a client reads it: its code and details.
type Refusal struct {
	Code     codes.Code
	Reason   string // of the ErrorInfo; empty if there is none
	Domain   string
	Metadata map[string]string
	Fields   []string // of the BadRequest
	// RetryAfter is the delay in the RetryInfo. It is 0 if there is none.
	RetryAfter time.Duration
	Message    string
}

// RefusalOf returns the code and details of a call's error.
func RefusalOf(err error) Refusal {
	st := status.Convert(err)
	r := Refusal{Code: st.Code(), Message: st.Message()}
	// If the server resets the stream while grpc-go sends the request of a unary call, grpc-go
	// retries the call. After the last attempt, grpc-go 1.85 returns io.EOF without a status
	// (function shouldRetry). The service config retries only UNAVAILABLE, so the last attempt
	// ended with UNAVAILABLE.
	if _, isStatus := status.FromError(err); !isStatus && errors.Is(err, io.EOF) {
		r.Code = codes.Unavailable
	}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			r.Reason, r.Domain, r.Metadata = d.GetReason(), d.GetDomain(), d.GetMetadata()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				r.Fields = append(r.Fields, v.GetField())
			}
		case *errdetails.RetryInfo:
			r.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return r
}

// Reason returns the reason of an error, or "" if it has none.
func Reason(err error) string { return RefusalOf(err).Reason }

// CodeOf returns the code that the contract assigns to a reason.
func CodeOf(reason dlsmsv1.ErrorReason) codes.Code {
	switch reason {
	case dlsmsv1.ErrorReason_ERROR_REASON_INVALID_FIELDS, dlsmsv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED,
		dlsmsv1.ErrorReason_ERROR_REASON_BRANCH_CLOSED, dlsmsv1.ErrorReason_ERROR_REASON_WINDOW_NOT_ALLOWED:
		return codes.InvalidArgument
	case dlsmsv1.ErrorReason_ERROR_REASON_TOKEN_MISSING, dlsmsv1.ErrorReason_ERROR_REASON_TOKEN_INVALID,
		dlsmsv1.ErrorReason_ERROR_REASON_TOKEN_EXPIRED, dlsmsv1.ErrorReason_ERROR_REASON_TOKEN_REVOKED,
		dlsmsv1.ErrorReason_ERROR_REASON_BAD_CREDENTIALS:
		return codes.Unauthenticated
	case dlsmsv1.ErrorReason_ERROR_REASON_ROLE_REQUIRED, dlsmsv1.ErrorReason_ERROR_REASON_BRANCH_REQUIRED:
		return codes.PermissionDenied
	case dlsmsv1.ErrorReason_ERROR_REASON_SEAT_NOT_FOUND, dlsmsv1.ErrorReason_ERROR_REASON_RESERVATION_NOT_FOUND,
		dlsmsv1.ErrorReason_ERROR_REASON_ENTRY_NOT_FOUND, dlsmsv1.ErrorReason_ERROR_REASON_BRANCH_NOT_FOUND,
		dlsmsv1.ErrorReason_ERROR_REASON_AREA_NOT_FOUND, dlsmsv1.ErrorReason_ERROR_REASON_CLOSURE_NOT_FOUND,
		dlsmsv1.ErrorReason_ERROR_REASON_PERSON_NOT_FOUND, dlsmsv1.ErrorReason_ERROR_REASON_KEY_NOT_FOUND,
		dlsmsv1.ErrorReason_ERROR_REASON_STRIKE_NOT_FOUND, dlsmsv1.ErrorReason_ERROR_REASON_SCREEN_NOT_FOUND:
		return codes.NotFound
	case dlsmsv1.ErrorReason_ERROR_REASON_SEAT_TAKEN, dlsmsv1.ErrorReason_ERROR_REASON_USER_BUSY,
		dlsmsv1.ErrorReason_ERROR_REASON_STUDENT_ID_TAKEN, dlsmsv1.ErrorReason_ERROR_REASON_ALREADY_WAITING,
		dlsmsv1.ErrorReason_ERROR_REASON_CARD_TAKEN, dlsmsv1.ErrorReason_ERROR_REASON_KEY_EXISTS:
		return codes.AlreadyExists
	case dlsmsv1.ErrorReason_ERROR_REASON_CHECK_IN_TOO_EARLY, dlsmsv1.ErrorReason_ERROR_REASON_CHECK_IN_TOO_LATE,
		dlsmsv1.ErrorReason_ERROR_REASON_NOT_CONFIRMED, dlsmsv1.ErrorReason_ERROR_REASON_NOT_CHECKED_IN,
		dlsmsv1.ErrorReason_ERROR_REASON_SEAT_AVAILABLE, dlsmsv1.ErrorReason_ERROR_REASON_SEAT_OUT_OF_SERVICE,
		dlsmsv1.ErrorReason_ERROR_REASON_OFFER_EXPIRED, dlsmsv1.ErrorReason_ERROR_REASON_NOT_OFFERED,
		dlsmsv1.ErrorReason_ERROR_REASON_SEAT_CLOSED, dlsmsv1.ErrorReason_ERROR_REASON_SUSPENDED,
		dlsmsv1.ErrorReason_ERROR_REASON_BOOKING_NOT_ALLOWED, dlsmsv1.ErrorReason_ERROR_REASON_CANCEL_TOO_LATE,
		dlsmsv1.ErrorReason_ERROR_REASON_CHANGED_SINCE_CHECK, dlsmsv1.ErrorReason_ERROR_REASON_CLOSURE_ENDED,
		dlsmsv1.ErrorReason_ERROR_REASON_OWN_ROLE,
		dlsmsv1.ErrorReason_ERROR_REASON_PRESENCE_REQUIRED, dlsmsv1.ErrorReason_ERROR_REASON_PRESENCE_INVALID,
		dlsmsv1.ErrorReason_ERROR_REASON_PRESENCE_EXPIRED, dlsmsv1.ErrorReason_ERROR_REASON_PRESENCE_ELSEWHERE,
		dlsmsv1.ErrorReason_ERROR_REASON_PRESENCE_OFF:
		return codes.FailedPrecondition
	case dlsmsv1.ErrorReason_ERROR_REASON_RATE_LIMITED, dlsmsv1.ErrorReason_ERROR_REASON_TOO_MANY_RESERVATIONS,
		dlsmsv1.ErrorReason_ERROR_REASON_OVERLOADED, dlsmsv1.ErrorReason_ERROR_REASON_WAITLIST_FULL,
		dlsmsv1.ErrorReason_ERROR_REASON_QUOTA_EXHAUSTED:
		return codes.ResourceExhausted
	case dlsmsv1.ErrorReason_ERROR_REASON_UNAVAILABLE:
		return codes.Unavailable
	case dlsmsv1.ErrorReason_ERROR_REASON_UNSPECIFIED:
	}
	return codes.Unknown
}

// Retryable reports whether an error with this reason must have a RetryInfo.
func Retryable(reason dlsmsv1.ErrorReason) bool {
	return reason == dlsmsv1.ErrorReason_ERROR_REASON_RATE_LIMITED ||
		reason == dlsmsv1.ErrorReason_ERROR_REASON_OVERLOADED ||
		reason == dlsmsv1.ErrorReason_ERROR_REASON_UNAVAILABLE
}

// CheckRefusal returns nil if err matches the contract for this reason: it has the code of the
// reason, a message, and an ErrorInfo with the reason and the domain "dlsms". It has a BadRequest
// if and only if the code is INVALID_ARGUMENT, and a RetryInfo if and only if Retryable reports
// true.
func CheckRefusal(err error, reason string) error {
	number, ok := dlsmsv1.ErrorReason_value["ERROR_REASON_"+reason]
	if !ok {
		return fmt.Errorf("%q is not in the enum ErrorReason", reason)
	}
	want := dlsmsv1.ErrorReason(number)
	if err == nil {
		return fmt.Errorf("the call succeeded, want %s", reason)
	}
	got := RefusalOf(err)
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(got.Reason == reason, "the reason is %q, want %q", got.Reason, reason)
	check(got.Code == CodeOf(want), "the code is %s, want %s", got.Code, CodeOf(want))
	check(got.Domain == "dlsms", "the domain is %q", got.Domain)
	check((len(got.Fields) > 0) == (CodeOf(want) == codes.InvalidArgument), "the bad fields are %q", got.Fields)
	check((got.RetryAfter > 0) == Retryable(want), "the delay to retry after is %s", got.RetryAfter)
	check(got.Message != "", "there is no message")
	if len(faults) > 0 {
		return fmt.Errorf("%w (the error was: %w)", errors.Join(faults...), err)
	}
	return nil
}
