package library

import (
	"errors"
	"time"
)

// ErrorKind is the class of an error. It decides the status code that a client gets.
type ErrorKind int

// The kinds of errors.
const (
	KindInternal ErrorKind = iota
	KindInvalid
	KindUnauthenticated
	KindPermissionDenied
	KindNotFound
	KindExists
	KindPrecondition
	KindExhausted
	KindUnavailable
)

// Error is a failure that a client may act on. Any other error reaches the client as "internal
// error", without its text.
type Error struct {
	Kind ErrorKind
	// Reason is a name of the enum dlsms.v1.ErrorReason, without its prefix. Clients branch on it.
	Reason string
	// Message is one sentence for people.
	Message string
	// Metadata has facts for programs.
	Metadata map[string]string
	// Fields are all violations of the request. They are set only if Kind is KindInvalid.
	Fields []FieldViolation
	// RetryAfter is the time after which another try may succeed. If it is 0, no retry helps.
	RetryAfter time.Duration

	cause error
}

// FieldViolation says why one field of a request is refused.
type FieldViolation struct {
	Field   string
	Message string
}

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Reason + ": " + e.Message + ": " + e.cause.Error()
	}
	return e.Reason + ": " + e.Message
}

// Unwrap returns the cause, which only the log shows.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target has the same reason. So errors.Is(err, ErrSeatTaken) is also true for a
// copy of ErrSeatTaken with metadata.
func (e *Error) Is(target error) bool {
	t, ok := errors.AsType[*Error](target)
	return ok && t.Reason == e.Reason
}

// WithMessage returns a copy of the error with another message, which names what the error is about.
func (e *Error) WithMessage(message string) *Error {
	c := *e
	c.Message = message
	return &c
}

// With returns a copy of the error with one more key in its metadata.
func (e *Error) With(key, value string) *Error {
	c := *e
	c.Metadata = map[string]string{key: value}
	for k, v := range e.Metadata {
		c.Metadata[k] = v
	}
	return &c
}

// WithTime returns a copy of the error with one more time in its metadata, in RFC 3339. If t is nil,
// it returns the error itself.
func (e *Error) WithTime(key string, t *time.Time) *Error {
	if t == nil {
		return e
	}
	return e.With(key, t.UTC().Format(time.RFC3339))
}

// WithFields returns a copy of the error with these field violations.
func (e *Error) WithFields(violations ...FieldViolation) *Error {
	c := *e
	c.Fields = violations
	return &c
}

// WithCause returns a copy of the error with a cause for the log.
func (e *Error) WithCause(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// WithRetryAfter returns a copy of the error that tells the client when to try again.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}
