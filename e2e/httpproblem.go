package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// Problem is an error of the HTTP API, as in RFC 9457.
type Problem struct {
	Type     string            `json:"type"`
	Title    string            `json:"title"`
	Status   int               `json:"status"`
	Detail   string            `json:"detail"`
	Instance string            `json:"instance"`
	Reason   string            `json:"reason"`
	Metadata map[string]string `json:"metadata"`
	Errors   []struct {
		Pointer string `json:"pointer"`
		Detail  string `json:"detail"`
	} `json:"errors"`
}

// CheckProblem reads the problem in an answer to req. It fails if the problem or the headers of the
// answer break the contract.
func CheckProblem(req *http.Request, resp *http.Response, body []byte) (Problem, error) {
	p, err := readProblem(body)
	if err == nil {
		err = checkHeaders(p, req, resp)
	}
	if err == nil {
		_, err = retryAfter(resp)
	}
	return p, err
}

// readProblem reads a problem. Unknown fields and missing ones are errors.
func readProblem(body []byte) (p Problem, err error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		return p, fmt.Errorf("the problem is not valid: %w", err)
	}
	wantType := "about:blank"
	if p.Reason != "" {
		wantType = "urn:dlsms:error:" + p.Reason
	}
	if p.Type != wantType || p.Title == "" || p.Status == 0 || len(p.Instance) <= len(instancePrefix) ||
		!strings.HasPrefix(p.Instance, instancePrefix) {
		return p, fmt.Errorf("the problem lacks a field: %+v", p)
	}
	return p, nil
}

const instancePrefix = "urn:request:"

// statusOfReason has the reasons whose HTTP status is not that of their code.
var statusOfReason = map[dlsmsv1.ErrorReason]int{
	dlsmsv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED:     http.StatusUnprocessableEntity,
	dlsmsv1.ErrorReason_ERROR_REASON_TOO_MANY_RESERVATIONS: http.StatusConflict,
	dlsmsv1.ErrorReason_ERROR_REASON_WAITLIST_FULL:         http.StatusConflict,
	dlsmsv1.ErrorReason_ERROR_REASON_QUOTA_EXHAUSTED:       http.StatusConflict,
	dlsmsv1.ErrorReason_ERROR_REASON_OVERLOADED:            http.StatusServiceUnavailable,
}

// HTTPStatusOf returns the HTTP status that the contract assigns to a reason.
func HTTPStatusOf(reason dlsmsv1.ErrorReason) int {
	if httpStatus, ok := statusOfReason[reason]; ok {
		return httpStatus
	}
	switch CodeOf(reason) {
	case codes.InvalidArgument:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.FailedPrecondition:
		return http.StatusConflict
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// codeOfStatus returns the code of a problem without a reason, as gRPC would return it.
func codeOfStatus(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return codes.Unimplemented
	case http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge, http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusRequestTimeout, http.StatusBadGateway, http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	case http.StatusInternalServerError:
		return codes.Internal
	}
	return codes.Unknown
}

// refusal returns the status of an answer that is a problem.
func (c *HTTPConn) refusal(req *http.Request, resp *http.Response, body []byte, in proto.Message) error {
	p, err := CheckProblem(req, resp, body)
	var st *status.Status
	if err == nil {
		wait, _ := retryAfter(resp) // CheckProblem has read it
		st, err = p.status(in, wait)
	}
	if err != nil {
		return c.breach(req, resp, body, err)
	}
	return st.Err()
}

// checkHeaders returns nil if the status and headers of an answer fit its problem.
func checkHeaders(p Problem, req *http.Request, resp *http.Response) error {
	faults := []error{wantContent(resp, "application/problem+json")}
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(p.Status == resp.StatusCode, "the problem has the status %d", p.Status)
	header := resp.Header
	id := strings.TrimPrefix(p.Instance, instancePrefix)
	check(header.Get("X-Request-Id") == id, "the instance has another request id than X-Request-Id")
	sent := req.Header.Get("X-Request-Id")
	check(sent == "" || sent == id, "the request id is %s, want %s", id, sent)
	check(header.Get("Cache-Control") == "no-store", "a problem may be stored")
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		check(strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer"), "WWW-Authenticate is missing")
	case http.StatusMethodNotAllowed:
		check(header.Get("Allow") != "", "Allow is missing")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		check(header.Get("Retry-After") != "", "Retry-After is missing")
	default:
		check(header.Get("Retry-After") == "", "Retry-After is %s", header.Get("Retry-After"))
	}
	return errors.Join(faults...)
}

// retryAfter returns the time of the header Retry-After, 0 without it.
func retryAfter(resp *http.Response) (time.Duration, error) {
	text := resp.Header.Get("Retry-After")
	if text == "" {
		return 0, nil
	}
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds < 1 {
		return 0, fmt.Errorf("the Retry-After is %q", text)
	}
	return time.Duration(seconds) * time.Second, nil
}

// status returns the status that gRPC would return for the problem of a call with the request in.
func (p Problem) status(in proto.Message, wait time.Duration) (*status.Status, error) {
	code := codeOfStatus(p.Status)
	var details []protoadapt.MessageV1
	if p.Reason != "" {
		number, ok := dlsmsv1.ErrorReason_value["ERROR_REASON_"+p.Reason]
		if !ok {
			return nil, fmt.Errorf("%q is not in the enum ErrorReason", p.Reason)
		}
		reason := dlsmsv1.ErrorReason(number)
		if want := HTTPStatusOf(reason); p.Status != want {
			return nil, fmt.Errorf("%s has the status %d, want %d", p.Reason, p.Status, want)
		}
		code = CodeOf(reason)
		details = append(details, &errdetails.ErrorInfo{Reason: p.Reason, Domain: "dlsms", Metadata: p.Metadata})
	}
	if len(p.Errors) > 0 {
		bad := &errdetails.BadRequest{}
		for _, e := range p.Errors {
			field, err := fieldAt(e.Pointer, in.ProtoReflect().Descriptor())
			if err != nil {
				return nil, err
			}
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: field, Description: e.Detail,
			})
		}
		details = append(details, bad)
	}
	if wait > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	}
	return status.New(code, p.Detail).WithDetails(details...)
}

// fieldAt returns the name of the field at a JSON pointer, as gRPC has it: "#/hours/2/opensAt" is
// "hours[2].opens_at". The pointer "#" is the request as a whole.
func fieldAt(pointer string, in protoreflect.MessageDescriptor) (string, error) {
	if pointer == "#" {
		return "request", nil
	}
	path, ok := strings.CutPrefix(pointer, "#/")
	if !ok {
		return "", fmt.Errorf("%q is not a JSON pointer", pointer)
	}
	name := ""
	for segment := range strings.SplitSeq(path, "/") {
		if _, err := strconv.Atoi(segment); err == nil && name != "" {
			name += "[" + segment + "]"
			continue
		}
		if in == nil {
			return "", fmt.Errorf("%q points into a field without fields", pointer)
		}
		f := in.Fields().ByJSONName(segment)
		if f == nil {
			return "", fmt.Errorf("%q is no field of %s", pointer, in.FullName())
		}
		if name != "" {
			name += "."
		}
		name, in = name+string(f.Name()), f.Message()
	}
	return name, nil
}
