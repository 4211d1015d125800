package store

import (
	"errors"
	"time"
)

// Kind is the class of an error, which decides the status code that a client gets.
type Kind int

// The kinds of errors.
const (
	KindInternal Kind = iota
	KindInvalid
	KindUnauthenticated
	KindPermissionDenied
	KindNotFound
	KindExists
	KindPrecondition
	KindExhausted
	KindUnavailable
)

// Error is an outcome that a client may act on. Everything else that fails is an ordinary error, and the client learns nothing of it.
type Error struct {
	Kind Kind
	// Reason is a name of the enum dlsms.v1.ErrorReason, without its prefix.
	Reason string
	// Msg is one sentence for people.
	Msg string
	// Meta are facts for programs.
	Meta map[string]string
	// Fields are the faults of the request, all of them, when Kind is KindInvalid.
	Fields []Fault
	// RetryAfter is when another try makes sense; 0: never, as things stand.
	RetryAfter time.Duration

	cause error
}

// Fault is what is wrong with one field of a request.
type Fault struct {
	Field string
	Msg   string
}

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Reason + ": " + e.Msg + ": " + e.cause.Error()
	}
	return e.Reason + ": " + e.Msg
}

// Unwrap returns what lies behind the error, for the log.
func (e *Error) Unwrap() error { return e.cause }

// Is tells errors by their reason, so that a sentinel matches whatever its metadata.
func (e *Error) Is(target error) bool {
	t, ok := errors.AsType[*Error](target)
	return ok && t.Reason == e.Reason
}

// With returns a copy of the error with one more fact in its metadata.
func (e *Error) With(key, value string) *Error {
	c := *e
	c.Meta = map[string]string{key: value}
	for k, v := range e.Meta {
		c.Meta[k] = v
	}
	return &c
}

// In returns a copy of the error that names the faulty fields.
func (e *Error) In(fields ...Fault) *Error {
	c := *e
	c.Fields = fields
	return &c
}

// Because returns a copy of the error with the cause that the log will show.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// After returns a copy of the error that says when to try again.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Invalid is the error for a request with faulty fields.
func Invalid(faults ...Fault) *Error {
	return &Error{Kind: KindInvalid, Reason: "INVALID_FIELDS", Msg: "the request has faulty fields", Fields: faults}
}

// The errors that clients branch on.
var (
	// ErrBranchClosed and ErrWindowNotAllowed carry the faulty fields and, as metadata, the rule.
	ErrBranchClosed     = &Error{Kind: KindInvalid, Reason: "BRANCH_CLOSED", Msg: "the branch is closed for a part of the window"}
	ErrWindowNotAllowed = &Error{Kind: KindInvalid, Reason: "WINDOW_NOT_ALLOWED", Msg: "the library's rules do not allow this window"}

	ErrRequestIDReused = &Error{Kind: KindInvalid, Reason: "REQUEST_ID_REUSED", Msg: "this request_id was used before with other content"}

	ErrTokenMissing   = &Error{Kind: KindUnauthenticated, Reason: "TOKEN_MISSING", Msg: "send metadata authorization: Bearer <token>, with a token from Login"}
	ErrTokenInvalid   = &Error{Kind: KindUnauthenticated, Reason: "TOKEN_INVALID", Msg: "the token is not valid; log in again"}
	ErrTokenExpired   = &Error{Kind: KindUnauthenticated, Reason: "TOKEN_EXPIRED", Msg: "the token has expired; log in again"}
	ErrTokenRevoked   = &Error{Kind: KindUnauthenticated, Reason: "TOKEN_REVOKED", Msg: "the token was ended; log in again"}
	ErrBadCredentials = &Error{Kind: KindUnauthenticated, Reason: "BAD_CREDENTIALS", Msg: "wrong student id or password"}

	ErrRoleRequired = &Error{Kind: KindPermissionDenied, Reason: "ROLE_REQUIRED", Msg: "your role does not allow this"}

	ErrSeatNotFound        = &Error{Kind: KindNotFound, Reason: "SEAT_NOT_FOUND", Msg: "there is no such seat"}
	ErrReservationNotFound = &Error{Kind: KindNotFound, Reason: "RESERVATION_NOT_FOUND", Msg: "you have no such reservation"}
	ErrEntryNotFound       = &Error{Kind: KindNotFound, Reason: "ENTRY_NOT_FOUND", Msg: "you have no such waitlist entry"}
	ErrBranchNotFound      = &Error{Kind: KindNotFound, Reason: "BRANCH_NOT_FOUND", Msg: "there is no such branch"}

	ErrSeatTaken      = &Error{Kind: KindExists, Reason: "SEAT_TAKEN", Msg: "the seat is taken in that window"}
	ErrUserBusy       = &Error{Kind: KindExists, Reason: "USER_BUSY", Msg: "you have another reservation in that window"}
	ErrStudentIDTaken = &Error{Kind: KindExists, Reason: "STUDENT_ID_TAKEN", Msg: "this student id is registered"}
	ErrAlreadyWaiting = &Error{Kind: KindExists, Reason: "ALREADY_WAITING", Msg: "you wait for this seat in that window already"}

	ErrCheckInTooEarly  = &Error{Kind: KindPrecondition, Reason: "CHECK_IN_TOO_EARLY", Msg: "check-in has not opened yet"}
	ErrCheckInTooLate   = &Error{Kind: KindPrecondition, Reason: "CHECK_IN_TOO_LATE", Msg: "check-in is over"}
	ErrNotConfirmed     = &Error{Kind: KindPrecondition, Reason: "NOT_CONFIRMED", Msg: "the reservation's state does not allow this"}
	ErrNotCheckedIn     = &Error{Kind: KindPrecondition, Reason: "NOT_CHECKED_IN", Msg: "the reservation is not checked in"}
	ErrSeatAvailable    = &Error{Kind: KindPrecondition, Reason: "SEAT_AVAILABLE", Msg: "the seat is free in that window: reserve it"}
	ErrSeatOutOfService = &Error{Kind: KindPrecondition, Reason: "SEAT_OUT_OF_SERVICE", Msg: "the seat is out of service"}
	ErrOfferExpired     = &Error{Kind: KindPrecondition, Reason: "OFFER_EXPIRED", Msg: "the offer has run out"}
	ErrNotOffered       = &Error{Kind: KindPrecondition, Reason: "NOT_OFFERED", Msg: "the entry has no open offer"}

	ErrRateLimited         = &Error{Kind: KindExhausted, Reason: "RATE_LIMITED", Msg: "too many calls"}
	ErrTooManyReservations = &Error{Kind: KindExhausted, Reason: "TOO_MANY_RESERVATIONS", Msg: "you have as many upcoming reservations, or wait for as many seats, as the library allows"}
	ErrWaitlistFull        = &Error{Kind: KindExhausted, Reason: "WAITLIST_FULL", Msg: "as many users wait for this seat as the library allows"}
	ErrOverloaded          = &Error{Kind: KindExhausted, Reason: "OVERLOADED", Msg: "the server is busy", RetryAfter: time.Second}

	ErrUnavailable = &Error{Kind: KindUnavailable, Reason: "UNAVAILABLE", Msg: "the service is not available at the moment", RetryAfter: time.Second}
)
