package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dlsms/dlsms/library"
)

// constraintErrors maps a violated constraint to the error for the client. The locks make each
// violation rare or impossible.
var constraintErrors = map[string]*library.Error{
	"reservations_no_overlap":    library.ErrSeatTaken,
	"users_student_id_key":       library.ErrStudentIDTaken,
	"users_student_id_ascii_key": library.ErrStudentIDTaken,
	"users_card_key":             library.ErrCardTaken,
	"service_keys_name_check": library.Invalid(library.FieldViolation{
		Field: "name", Message: "must not begin or end with a blank, or contain invisible characters",
	}),
	"screens_name_check": library.Invalid(library.FieldViolation{
		Field: "name", Message: "must not begin or end with a blank, or contain invisible characters",
	}),
	"screens_name_key": library.Invalid(library.FieldViolation{
		Field: "new_name", Message: "is the name of another screen of the branch",
	}),
	// Another replica is handling the same request. A retry gets the answer of that request.
	"reservations_request_key": library.ErrUnavailable,
	"waitlist_request_key":     library.ErrUnavailable,
	"reservations_user_fkey":   library.ErrTokenInvalid,
	"waitlist_user_fkey":       library.ErrTokenInvalid,
	"revocations_user_fkey":    library.ErrTokenInvalid,
}

// translate converts an error of Postgres or of the connection to an Error of package library. It
// returns an unknown error unchanged. No other function reads the errors of the database.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*library.Error](err); ok {
		return err
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return translatePg(pg, err)
	}
	err = ExplainCertificate(err)
	var netErr net.Error
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.As(err, &netErr), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, driver.ErrBadConn),
		pgconn.SafeToRetry(err):
		return library.ErrUnavailable.WithCause(err)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return library.ErrUnavailable.WithCause(err)
	}
	return err
}

// Unavailable reports whether err, from this package or its migrations, has one of these causes:
// Postgres was unreachable, not ready or full, or it ended the connection. A retry may succeed.
func Unavailable(err error) bool { return errors.Is(translate(err), library.ErrUnavailable) }

// lockNotAvailable is the SQLSTATE of a statement that waited for a lock longer than lock_timeout.
const lockNotAvailable = "55P03"

func translatePg(pg *pgconn.PgError, err error) error {
	if e, ok := constraintErrors[pg.ConstraintName]; ok {
		return e.WithCause(err)
	}
	if known := sqlStateError(pg.Code); known != nil {
		return known.WithCause(err)
	}
	return err
}

// sqlStateError returns the error for an SQLSTATE, or nil if a retry does not help.
func sqlStateError(code string) *library.Error {
	switch code {
	case lockNotAvailable, "57014": // statement timeout
		return library.ErrOverloaded
	case "40003": // statement completion unknown
		return library.ErrUnavailable
	case "25006", // read only: a standby, after a failover
		"25P03", "25P04", // idle or long transaction: Postgres ended the session, for example after a frozen replica
		"55006": // object in use: an operator works on the database
		return library.ErrUnavailable
	}
	if len(code) != 5 {
		return nil
	}
	switch code[:2] {
	case "40": // deadlock, serialization failure
		return library.ErrOverloaded
	case "08", // connection exceptions
		"53", // too many connections, out of memory or disk
		"57", // operator intervention: Postgres is stopping, starting or crashed, or ended the session
		"58": // Postgres cannot read or write its files
		return library.ErrUnavailable
	}
	return nil
}
