package edge

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge/edgetest"
)

// contract has the status code that the API promises for each reason.
var contract = map[string]codes.Code{
	"INVALID_FIELDS": codes.InvalidArgument, "REQUEST_ID_REUSED": codes.InvalidArgument,
	"TOKEN_MISSING": codes.Unauthenticated, "TOKEN_INVALID": codes.Unauthenticated,
	"TOKEN_EXPIRED": codes.Unauthenticated,
	"TOKEN_REVOKED": codes.Unauthenticated, "BAD_CREDENTIALS": codes.Unauthenticated,
	"ROLE_REQUIRED":  codes.PermissionDenied,
	"SEAT_NOT_FOUND": codes.NotFound, "RESERVATION_NOT_FOUND": codes.NotFound,
	"ENTRY_NOT_FOUND": codes.NotFound, "BRANCH_NOT_FOUND": codes.NotFound,
	"SEAT_TAKEN": codes.AlreadyExists, "USER_BUSY": codes.AlreadyExists,
	"STUDENT_ID_TAKEN": codes.AlreadyExists, "ALREADY_WAITING": codes.AlreadyExists,
	"CHECK_IN_TOO_EARLY": codes.FailedPrecondition, "CHECK_IN_TOO_LATE": codes.FailedPrecondition,
	"NOT_CONFIRMED": codes.FailedPrecondition, "NOT_CHECKED_IN": codes.FailedPrecondition,
	"SEAT_AVAILABLE": codes.FailedPrecondition, "SEAT_OUT_OF_SERVICE": codes.FailedPrecondition,
	"OFFER_EXPIRED": codes.FailedPrecondition, "NOT_OFFERED": codes.FailedPrecondition,
	"RATE_LIMITED": codes.ResourceExhausted, "TOO_MANY_RESERVATIONS": codes.ResourceExhausted,
	"OVERLOADED":    codes.ResourceExhausted,
	"UNAVAILABLE":   codes.Unavailable,
	"BRANCH_CLOSED": codes.InvalidArgument, "WINDOW_NOT_ALLOWED": codes.InvalidArgument,
	"WAITLIST_FULL": codes.ResourceExhausted,

	"BRANCH_REQUIRED":     codes.PermissionDenied,
	"AREA_NOT_FOUND":      codes.NotFound,
	"CLOSURE_NOT_FOUND":   codes.NotFound,
	"PERSON_NOT_FOUND":    codes.NotFound,
	"KEY_NOT_FOUND":       codes.NotFound,
	"STRIKE_NOT_FOUND":    codes.NotFound,
	"SCREEN_NOT_FOUND":    codes.NotFound,
	"CARD_TAKEN":          codes.AlreadyExists,
	"KEY_EXISTS":          codes.AlreadyExists,
	"SEAT_CLOSED":         codes.FailedPrecondition,
	"SUSPENDED":           codes.FailedPrecondition,
	"BOOKING_NOT_ALLOWED": codes.FailedPrecondition,
	"CANCEL_TOO_LATE":     codes.FailedPrecondition,
	"CHANGED_SINCE_CHECK": codes.FailedPrecondition,
	"CLOSURE_ENDED":       codes.FailedPrecondition,
	"OWN_ROLE":            codes.FailedPrecondition,
	"PRESENCE_REQUIRED":   codes.FailedPrecondition,
	"PRESENCE_INVALID":    codes.FailedPrecondition,
	"PRESENCE_EXPIRED":    codes.FailedPrecondition,
	"PRESENCE_ELSEWHERE":  codes.FailedPrecondition,
	"PRESENCE_OFF":        codes.FailedPrecondition,
	"QUOTA_EXHAUSTED":     codes.ResourceExhausted,
}

// sentinels returns the errors that package library declares, by their name in the source. It
// parses the source, because reflection cannot list the variables of a package.
func sentinels(t *testing.T) map[string]*library.Error {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../library/reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*library.Error{}
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(v.Names[0].Name, "Err") {
			return true
		}
		e := &library.Error{}
		for _, element := range v.Values[0].(*ast.UnaryExpr).X.(*ast.CompositeLit).Elts {
			kv := element.(*ast.KeyValueExpr)
			switch kv.Key.(*ast.Ident).Name {
			case "Kind":
				e.Kind = kinds[kv.Value.(*ast.Ident).Name]
			case "Reason":
				e.Reason = strings.Trim(kv.Value.(*ast.BasicLit).Value, `"`)
			}
		}
		out[v.Names[0].Name] = e
		return true
	})
	return out
}

var kinds = map[string]library.ErrorKind{
	"KindInvalid":          library.KindInvalid,
	"KindUnauthenticated":  library.KindUnauthenticated,
	"KindPermissionDenied": library.KindPermissionDenied,
	"KindNotFound":         library.KindNotFound,
	"KindExists":           library.KindExists,
	"KindPrecondition":     library.KindPrecondition,
	"KindExhausted":        library.KindExhausted,
	"KindUnavailable":      library.KindUnavailable,
}

func TestEveryLibraryErrorHasReasonAndCode(t *testing.T) {
	t.Parallel()
	declared := map[string]bool{"INVALID_FIELDS": true} // made by library.Invalid
	for name, e := range sentinels(t) {
		declared[e.Reason] = true
		if _, ok := dlsmsv1.ErrorReason_value["ERROR_REASON_"+e.Reason]; !ok {
			t.Errorf("%s has reason %q, which is not in the enum", name, e.Reason)
		}
		if got, want := codeOf(e.Kind), contract[e.Reason]; got != want {
			t.Errorf("%s gives %v, the contract says %v", name, got, want)
		}
		reason := strings.ReplaceAll(strings.ToLower(e.Reason), "_", "")
		// The name ErrUserNotFound belongs to an error that no client sees.
		if strings.ToLower(strings.TrimPrefix(name, "Err")) != reason && name != "ErrPersonNotFound" {
			t.Errorf("%s has a reason that is not its name: %s", name, e.Reason)
		}
	}
	for value := range dlsmsv1.ErrorReason_value {
		reason := strings.TrimPrefix(value, "ERROR_REASON_")
		if reason == "UNSPECIFIED" {
			continue
		}
		if !declared[reason] {
			t.Errorf("no error has the reason %s", reason)
		}
		if _, ok := contract[reason]; !ok {
			t.Errorf("the contract has no code for %s", reason)
		}
	}
}

func TestConclude(t *testing.T) {
	t.Parallel()
	background := context.Background()
	hungUp, cancel := context.WithCancel(background)
	cancel()
	late, cancel := context.WithDeadline(background, time.Unix(0, 0))
	t.Cleanup(cancel)
	revoked, end := context.WithCancelCause(background)
	end(library.ErrTokenRevoked)
	secret := errors.New("password=hunter2")
	notFound := status.Error(codes.NotFound, "hunter2")
	storeTimeout := library.ErrUnavailable.WithCause(context.DeadlineExceeded)

	for name, test := range map[string]struct {
		ctx     context.Context
		err     error
		foreign bool
		code    codes.Code
		reason  string
		cause   error
	}{
		"nil": {background, nil, false, codes.OK, "", nil},
		"an error of package library": {
			background, library.ErrSeatTaken, false, codes.AlreadyExists, "SEAT_TAKEN", nil},
		"an error of package library, wrapped": {
			background, fmt.Errorf("reserve: %w", library.ErrSeatTaken), false, codes.AlreadyExists, "SEAT_TAKEN", nil},
		"an error of package library, with a cause": {
			background, library.ErrUnavailable.WithCause(secret), false, codes.Unavailable, "UNAVAILABLE", secret},
		"an unknown error": {
			background, secret, false, codes.Internal, "", secret},
		"no such user": {
			background, library.ErrUserNotFound, false, codes.Internal, "", library.ErrUserNotFound},
		"an internal error": {
			background, &library.Error{Message: "x"}, false, codes.Internal, "", &library.Error{Message: "x"}},
		"a status from a handler": {
			background, notFound, false, codes.Internal, "", notFound},
		"a status from a service of grpc": {
			background, status.Error(codes.NotFound, "unknown service"), true, codes.NotFound, "", nil},
		"the client hung up": {
			hungUp, context.Canceled, false, codes.Canceled, "", nil},
		"the client hung up during a query": {
			hungUp, library.ErrUnavailable.WithCause(context.Canceled), false, codes.Canceled, "", nil},
		"the client hung up during a stream": {
			hungUp, status.Error(codes.Unavailable, "transport is closing"), false, codes.Canceled, "", nil},
		"the client's deadline": {
			late, storeTimeout, false, codes.DeadlineExceeded, "", nil},
		"a deadline within the store": {
			background, storeTimeout, false, codes.Unavailable, "UNAVAILABLE", context.DeadlineExceeded},
		"a deadline of an unknown context": {
			background, context.DeadlineExceeded, false, codes.Internal, "", context.DeadlineExceeded},
		"the handler returned after the client hung up": {
			hungUp, library.ErrSeatTaken, false, codes.AlreadyExists, "SEAT_TAKEN", nil},
		"the token ended": {
			revoked, context.Canceled, false, codes.Unauthenticated, "TOKEN_REVOKED", nil},
		"the token ended, with another status": {
			revoked, status.Error(codes.Canceled, "x"), true, codes.Unauthenticated, "TOKEN_REVOKED", nil},
		"a panic": {
			background, &panicError{value: "hunter2"}, false, codes.Internal, "", &panicError{value: "hunter2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := conclude(test.ctx, test.err, test.foreign)
			edgetest.Want(t, o.status.Err(), test.code, test.reason)
			if o.reason != test.reason {
				t.Errorf("the log gets the reason %q", o.reason)
			}
			if fmt.Sprint(o.cause) != fmt.Sprint(test.cause) {
				t.Errorf("the log gets %v, not %v", o.cause, test.cause)
			}
			if strings.Contains(fmt.Sprint(o.status.Proto()), "hunter2") {
				t.Errorf("the client gets %v", o.status)
			}
			if test.code == codes.Internal && (o.status.Message() != "internal error" || len(o.status.Details()) > 0) {
				t.Errorf("the client gets %v", o.status)
			}
		})
	}
}

func TestStatusDetails(t *testing.T) {
	t.Parallel()
	err := describe(library.ErrNotConfirmed.With("status", "CANCELLED")).Err()
	info := edgetest.Detail[*errdetails.ErrorInfo](err)
	if info.GetDomain() != "dlsms" || info.GetReason() != "NOT_CONFIRMED" ||
		info.GetMetadata()["status"] != "CANCELLED" {
		t.Errorf("ErrorInfo is %v", info)
	}
	if edgetest.Detail[*errdetails.RetryInfo](err) != nil {
		t.Error("a call that will never succeed has a RetryInfo")
	}
	err = describe(library.ErrRateLimited.WithRetryAfter(600 * time.Millisecond)).Err()
	if retry := edgetest.Detail[*errdetails.RetryInfo](err); retry.GetRetryDelay().AsDuration() != 600*time.Millisecond {
		t.Errorf("RetryInfo is %v", retry)
	}
	err = describe(library.Invalid(
		library.FieldViolation{Field: "seat_id", Message: "must be above 0"},
		library.FieldViolation{Field: "end_time", Message: "is missing"},
	)).Err()
	if got := fmt.Sprint(edgetest.Fields(err)); got != "[seat_id end_time]" {
		t.Errorf("BadRequest names %s", got)
	}
	if msg := status.Convert(err).Message(); !strings.Contains(msg, "seat_id must be above 0") {
		t.Errorf("the message is %q", msg)
	}
	// The contract promises a BadRequest with every INVALID_ARGUMENT.
	if got := fmt.Sprint(edgetest.Fields(describe(library.ErrRequestIDReused).Err())); got != "[request_id]" {
		t.Errorf("BadRequest names %s", got)
	}
}

// TestOnlyStatusFileCreatesStatuses: a status from another file might not be in the contract.
func TestOnlyStatusFileCreatesStatuses(t *testing.T) {
	t.Parallel()
	var makers []string
	for _, dir := range []string{"..", ".", "../identity"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range file.Imports {
				if i.Path.Value == `"google.golang.org/grpc/status"` && !strings.HasSuffix(name, "_test.go") {
					makers = append(makers, name)
				}
			}
		}
	}
	if !slices.Equal(makers, []string{"status.go"}) {
		t.Errorf("statuses are made in %v", makers)
	}
}
