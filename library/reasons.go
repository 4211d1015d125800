package library

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Invalid returns the error for a request with invalid fields.
func Invalid(violations ...FieldViolation) *Error {
	return &Error{Kind: KindInvalid, Reason: "INVALID_FIELDS",
		Message: "the request has faulty fields", Fields: violations}
}

// The catalogue of errors that clients branch on. Each error has one reason of error.proto.
var (
	// ErrBranchClosed and ErrWindowNotAllowed name the invalid fields. ErrWindowNotAllowed has the
	// limits in its metadata.
	ErrBranchClosed = &Error{Kind: KindInvalid, Reason: "BRANCH_CLOSED",
		Message: "the branch is closed for a part of the window"}
	ErrWindowNotAllowed = &Error{Kind: KindInvalid, Reason: "WINDOW_NOT_ALLOWED",
		Message: "the library's rules do not allow this window"}

	ErrRequestIDReused = &Error{Kind: KindInvalid, Reason: "REQUEST_ID_REUSED",
		Message: "this request_id was used before with other content"}

	ErrTokenMissing = &Error{Kind: KindUnauthenticated, Reason: "TOKEN_MISSING",
		Message: "send metadata authorization: Bearer <token>, with a token from Login"}
	ErrTokenInvalid = &Error{Kind: KindUnauthenticated, Reason: "TOKEN_INVALID",
		Message: "the token is not valid; log in again"}
	ErrTokenExpired = &Error{Kind: KindUnauthenticated, Reason: "TOKEN_EXPIRED",
		Message: "the token has expired; log in again"}
	ErrTokenRevoked = &Error{Kind: KindUnauthenticated, Reason: "TOKEN_REVOKED",
		Message: "the token was ended; log in again"}
	ErrBadCredentials = &Error{Kind: KindUnauthenticated, Reason: "BAD_CREDENTIALS",
		Message: "wrong student id or password"}

	ErrRoleRequired = &Error{Kind: KindPermissionDenied, Reason: "ROLE_REQUIRED",
		Message: "your role does not allow this"}
	ErrBranchRequired = &Error{Kind: KindPermissionDenied, Reason: "BRANCH_REQUIRED",
		Message: "your role does not hold for this branch"}

	ErrSeatNotFound = &Error{Kind: KindNotFound, Reason: "SEAT_NOT_FOUND",
		Message: "there is no such seat"}
	ErrReservationNotFound = &Error{Kind: KindNotFound, Reason: "RESERVATION_NOT_FOUND",
		Message: "you have no such reservation"}
	ErrEntryNotFound = &Error{Kind: KindNotFound, Reason: "ENTRY_NOT_FOUND",
		Message: "you have no such waitlist entry"}
	ErrBranchNotFound = &Error{Kind: KindNotFound, Reason: "BRANCH_NOT_FOUND",
		Message: "there is no such branch"}

	ErrAreaNotFound = &Error{Kind: KindNotFound, Reason: "AREA_NOT_FOUND",
		Message: "no seat of the branch is in this area"}
	ErrClosureNotFound = &Error{Kind: KindNotFound, Reason: "CLOSURE_NOT_FOUND",
		Message: "there is no such closure"}
	ErrPersonNotFound = &Error{Kind: KindNotFound, Reason: "PERSON_NOT_FOUND",
		Message: "there is no such user"}
	ErrKeyNotFound = &Error{Kind: KindNotFound, Reason: "KEY_NOT_FOUND",
		Message: "there is no such service key"}
	ErrScreenNotFound = &Error{Kind: KindNotFound, Reason: "SCREEN_NOT_FOUND",
		Message: "the branch has no such screen"}
	ErrStrikeNotFound = &Error{Kind: KindNotFound, Reason: "STRIKE_NOT_FOUND",
		Message: "there is no such strike"}

	ErrSeatTaken = &Error{Kind: KindExists, Reason: "SEAT_TAKEN",
		Message: "the seat is taken in that window"}
	ErrUserBusy = &Error{Kind: KindExists, Reason: "USER_BUSY",
		Message: "you have another reservation in that window"}
	ErrStudentIDTaken = &Error{Kind: KindExists, Reason: "STUDENT_ID_TAKEN",
		Message: "this student id is registered"}
	ErrAlreadyWaiting = &Error{Kind: KindExists, Reason: "ALREADY_WAITING",
		Message: "you wait for this seat in that window already"}

	ErrCardTaken = &Error{Kind: KindExists, Reason: "CARD_TAKEN",
		Message: "another user has this library card"}

	ErrKeyExists = &Error{Kind: KindExists, Reason: "KEY_EXISTS",
		Message: "the branch has a service key with this name"}

	// ErrSeatClosed has the span of the closure in its metadata, ErrSuspended the end of the
	// suspension, ErrCancelTooLate the latest time.
	ErrSeatClosed = &Error{Kind: KindPrecondition, Reason: "SEAT_CLOSED",
		Message: "the library has closed the seat in a part of the window"}
	ErrSuspended = &Error{Kind: KindPrecondition, Reason: "SUSPENDED",
		Message: "you cannot reserve seats or join waitlists until your suspension ends"}
	ErrBookingNotAllowed = &Error{Kind: KindPrecondition, Reason: "BOOKING_NOT_ALLOWED",
		Message: "the library does not allow you to reserve this seat"}
	ErrCancelTooLate = &Error{Kind: KindPrecondition, Reason: "CANCEL_TOO_LATE",
		Message: "it is too late to cancel this reservation"}

	// ErrChangedSinceCheck has the present number of reservations in its metadata: see
	// UnexpectedImpact.
	ErrChangedSinceCheck = &Error{Kind: KindPrecondition, Reason: "CHANGED_SINCE_CHECK",
		Message: "the change has another effect than the call expects: see the metadata, and check the change again"}
	ErrClosureEnded = &Error{Kind: KindPrecondition, Reason: "CLOSURE_ENDED",
		Message: "the closure was lifted"}
	ErrOwnRole = &Error{Kind: KindPrecondition, Reason: "OWN_ROLE",
		Message: "you cannot change your own role or close your own account: ask another admin"}

	ErrCheckInTooEarly = &Error{Kind: KindPrecondition, Reason: "CHECK_IN_TOO_EARLY",
		Message: "check-in has not opened yet"}
	ErrCheckInTooLate = &Error{Kind: KindPrecondition, Reason: "CHECK_IN_TOO_LATE",
		Message: "check-in is over"}
	ErrNotConfirmed = &Error{Kind: KindPrecondition, Reason: "NOT_CONFIRMED",
		Message: "the reservation's state does not allow this"}
	ErrNotCheckedIn = &Error{Kind: KindPrecondition, Reason: "NOT_CHECKED_IN",
		Message: "the reservation is not checked in"}
	ErrSeatAvailable = &Error{Kind: KindPrecondition, Reason: "SEAT_AVAILABLE",
		Message: "the seat is free in that window: reserve it"}
	ErrSeatOutOfService = &Error{Kind: KindPrecondition, Reason: "SEAT_OUT_OF_SERVICE",
		Message: "the seat is out of service"}
	// ErrPresenceRequired has the rule in its metadata: see PresenceRequired.
	ErrPresenceRequired = &Error{Kind: KindPrecondition, Reason: "PRESENCE_REQUIRED",
		Message: "the library asks for a proof that you are here"}
	ErrPresenceInvalid = &Error{Kind: KindPrecondition, Reason: "PRESENCE_INVALID",
		Message: "the code is wrong: scan it again, or ask at the desk"}
	ErrPresenceExpired = &Error{Kind: KindPrecondition, Reason: "PRESENCE_EXPIRED",
		Message: "the code has expired: scan the code that the screen shows now"}
	ErrPresenceElsewhere = &Error{Kind: KindPrecondition, Reason: "PRESENCE_ELSEWHERE",
		Message: "this is the screen of another branch: scan a screen in the branch of your seat"}
	ErrPresenceOff = &Error{Kind: KindPrecondition, Reason: "PRESENCE_OFF",
		Message: "the server has no PRESENCE_SECRET, so it cannot make codes: ask the operator to set it"}
	ErrOfferExpired = &Error{Kind: KindPrecondition, Reason: "OFFER_EXPIRED",
		Message: "the offer has run out"}
	ErrNotOffered = &Error{Kind: KindPrecondition, Reason: "NOT_OFFERED",
		Message: "the entry has no open offer"}

	ErrRateLimited = &Error{Kind: KindExhausted, Reason: "RATE_LIMITED",
		Message: "too many calls"}
	ErrTooManyReservations = &Error{Kind: KindExhausted, Reason: "TOO_MANY_RESERVATIONS",
		Message: "you have as many upcoming reservations, or wait for as many seats, as the library allows"}
	// ErrQuotaExhausted has the rule, its limit and the use in its metadata.
	ErrQuotaExhausted = &Error{Kind: KindExhausted, Reason: "QUOTA_EXHAUSTED",
		Message: "you have reserved as much as the library allows on that day or in that week"}
	ErrWaitlistFull = &Error{Kind: KindExhausted, Reason: "WAITLIST_FULL",
		Message: "as many users wait for this seat as the library allows"}
	ErrOverloaded = &Error{Kind: KindExhausted, Reason: "OVERLOADED",
		Message: "the server is busy", RetryAfter: time.Second}

	ErrUnavailable = &Error{Kind: KindUnavailable, Reason: "UNAVAILABLE",
		Message: "the service is not available at the moment", RetryAfter: time.Second}
)

// UnexpectedImpact returns ErrChangedSinceCheck for a change that affects another number of
// reservations than the call expects. A call without the number expects 0.
func UnexpectedImpact(reservations, expected int) *Error {
	// A call with the number has seen the impact, and a call without it may not have.
	so, affected := "", strconv.Itoa(reservations)+" reservations"
	if expected > 0 {
		so = fmt.Sprintf(", and not %d as the call expects", expected)
	}
	if reservations == 1 {
		affected = "1 reservation"
	}
	return ErrChangedSinceCheck.With("reservations", strconv.Itoa(reservations)).WithMessage(fmt.Sprintf(
		"the change affects %s%s: look at them with validate_only, and repeat the call with expected_reservations = %d",
		affected, so, reservations))
}

// roles are the roles of users. A role may do what the roles before it may do.
var roles = []Role{RoleStudent, RoleStaff, RoleLibrarian, RoleAdmin}

// RoleRequired returns ErrRoleRequired for a call that needs at least a role.
func RoleRequired(least Role) *Error {
	names := []string{}
	for _, r := range roles[slices.Index(roles, least):] {
		names = append(names, string(r))
	}
	return ErrRoleRequired.With("role", string(least)).WithMessage(
		ErrRoleRequired.Message + ": it needs the role " + strings.Join(names, " or "))
}

// ScopeRequired returns ErrRoleRequired for a call that needs a service key with a scope.
func ScopeRequired(scope KeyScope) *Error {
	return ErrRoleRequired.With("scope", string(scope)).WithMessage(
		"the call needs a service key with the scope " + string(scope))
}

// BranchRequired returns ErrBranchRequired for the branch with a code.
func BranchRequired(code string) *Error {
	return ErrBranchRequired.With("branch", code).WithMessage(
		fmt.Sprintf("your role does not hold for the branch %q", code))
}

// BranchNotFound returns ErrBranchNotFound for a code.
func BranchNotFound(code string) *Error {
	return ErrBranchNotFound.With("branch", code).WithMessage(fmt.Sprintf("there is no branch %q", code))
}

// presenceHelp says what a user does for each rule of check-in.
var presenceHelp = map[CheckInRule]string{
	CheckInSeat:          "scan the label on your seat",
	CheckInScreen:        "scan the code on the screen of the branch, or enter its digits",
	CheckInSeatAndScreen: "scan the label on your seat and the code on the screen of the branch",
	CheckInDesk:          "check in at the desk or at the entrance",
}

// PresenceRequired returns ErrPresenceRequired for a rule of check-in. missing is the rule that names
// only the codes that the user has not sent.
func PresenceRequired(rule, missing CheckInRule) *Error {
	return ErrPresenceRequired.With("check_in", string(rule)).WithMessage(
		ErrPresenceRequired.Message + ": " + presenceHelp[missing])
}

// CardTaken returns ErrCardTaken for a library card that the user with a student id was to get.
func CardTaken(card, studentID string) *Error {
	return ErrCardTaken.With("card", card).With("student_id", studentID).WithMessage(
		fmt.Sprintf("another user has the library card %q that %q was to get", card, studentID))
}

// KeyExists returns ErrKeyExists for the valid service key with an id.
func KeyExists(id int64) *Error {
	text := strconv.FormatInt(id, 10)
	return ErrKeyExists.With("key_id", text).WithMessage(ErrKeyExists.Message + ", and the id " + text +
		": if its secret was lost, revoke it and create another one")
}
