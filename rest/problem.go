package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dlsms/dlsms/library"
)

// problem is the answer to a request that failed, as in RFC 9457.
type problem struct {
	// Type is urn:dlsms:error:REASON, or about:blank for an error without a reason.
	Type string `json:"type"`
	// Title is the reason or the status in words. It is the same for all problems of a type.
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Instance is urn:request:<request id>. The log has the same id.
	Instance string `json:"instance"`
	// Reason is a name of the enum dlsms.v1.ErrorReason without its prefix.
	Reason   string            `json:"reason,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Errors   []invalidField    `json:"errors,omitempty"`

	retryAfter time.Duration
}

// invalidField says what is wrong with a field of a request.
type invalidField struct {
	// Pointer is a JSON pointer to the field, such as #/startTime. For a parameter of the path or the
	// query it names the parameter. For a file it is the place, such as "line 17, column x_cm".
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// tooLarge returns the problem of a body with more than limit bytes.
func tooLarge(limit int64) problem {
	size := fmt.Sprintf("%d KiB", limit>>10)
	if limit >= 1<<20 {
		size = fmt.Sprintf("%d MiB", limit>>20)
	}
	return problem{Status: http.StatusRequestEntityTooLarge, Detail: "the body has more than " + size}
}

// statusOf returns the HTTP status of an error: by its reason, and otherwise by its code.
func statusOf(reason string, code codes.Code) int {
	switch reason {
	case library.ErrRequestIDReused.Reason:
		return http.StatusUnprocessableEntity
	case library.ErrTooManyReservations.Reason, library.ErrWaitlistFull.Reason, library.ErrQuotaExhausted.Reason:
		return http.StatusConflict
	case library.ErrOverloaded.Reason:
		return http.StatusServiceUnavailable
	}
	switch code {
	case codes.OK:
		return http.StatusOK
	case codes.InvalidArgument, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted:
		return http.StatusConflict
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.Unimplemented:
		return http.StatusNotFound // this process does not run the service
	case codes.Canceled:
		return 499 // the client closed the request; nginx's status, and only its log shows it
	case codes.Internal, codes.Unknown, codes.DataLoss:
	}
	return http.StatusInternalServerError
}

// problemOf returns the problem that a status describes.
func problemOf(err error) problem {
	st := status.Convert(err)
	p := problem{Detail: inJSON(st.Message())}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			p.Reason, p.Metadata = d.GetReason(), d.GetMetadata()
		case *errdetails.RetryInfo:
			p.retryAfter = d.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			for _, f := range d.GetFieldViolations() {
				p.Errors = append(p.Errors, spelled(f.GetField(), f.GetDescription()))
			}
		}
	}
	p.Status = statusOf(p.Reason, st.Code())
	if len(p.Errors) > 0 {
		p.Detail = detailOf(p)
	}
	return p
}

// detailOf returns the detail with the names of fields that JSON has.
func detailOf(p problem) string {
	message, _, _ := strings.Cut(p.Detail, ": ")
	texts := make([]string, len(p.Errors))
	for i, e := range p.Errors {
		name := strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(e.Pointer, "#"), "/"), "/", ".")
		texts[i] = strings.TrimSpace(name + " " + e.Detail)
	}
	return message + ": " + strings.Join(texts, "; ")
}

// bodyProblem returns the problem of a body that could not be read.
func bodyProblem(err error) problem {
	if e, ok := errors.AsType[*typeError](err); ok {
		return problem{Status: http.StatusUnsupportedMediaType, Detail: e.Error()}
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(e.Limit)
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return problem{Status: http.StatusRequestTimeout, Detail: "the body did not arrive in time"}
	}
	return problem{Status: http.StatusBadRequest, Detail: "the body could not be read"}
}

// complete sets the fields of a problem that follow from the others and from the request.
func (p *problem) complete(req *request) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	if p.Reason != "" {
		p.Type = "urn:dlsms:error:" + p.Reason
		words := strings.ToLower(strings.ReplaceAll(p.Reason, "_", " "))
		p.Title = strings.ToUpper(words[:1]) + words[1:]
	}
	p.Instance = "urn:request:" + req.id
}

// writeProblem answers a request with a problem.
func writeProblem(w http.ResponseWriter, r *http.Request, p problem) {
	req := requestOf(r.Context())
	p.complete(req)
	header := w.Header()
	switch p.Status {
	case http.StatusUnauthorized:
		challenge := "Bearer"
		if strings.HasPrefix(p.Reason, "TOKEN_") && p.Reason != library.ErrTokenMissing.Reason {
			challenge = `Bearer error="invalid_token"` // RFC 6750, 3.1
		}
		header.Set("WWW-Authenticate", challenge)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		seconds := max(1, int(math.Ceil(p.retryAfter.Seconds())))
		header.Set("Retry-After", strconv.Itoa(seconds))
	}
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Request-Id", req.id)
	header.Del("ETag")
	w.WriteHeader(p.Status)
	_, _ = w.Write(p.json()) // a client that disconnected needs no answer
}

func (p *problem) json() []byte {
	text, err := json.Marshal(p)
	if err != nil { // impossible: the fields are texts and numbers
		panic(err)
	}
	return text
}
