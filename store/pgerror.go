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

// constraintErrors says what a client is told when a constraint stops a write. The locks make each of them rare or impossible.
var constraintErrors = map[string]*library.Error{
	"reservations_no_overlap":    library.ErrSeatTaken,
	"users_student_id_key":       library.ErrStudentIDTaken,
	"users_student_id_ascii_key": library.ErrStudentIDTaken,
	"reservations_request_key":   library.ErrUnavailable, // the same request runs elsewhere: the next try finds its answer
	"waitlist_request_key":       library.ErrUnavailable,
	"reservations_user_fkey":     library.ErrTokenInvalid,
	"waitlist_user_fkey":         library.ErrTokenInvalid,
	"revocations_user_fkey":      library.ErrTokenInvalid,
}

// translate is the one reader of the database's errors: it returns err as a client may see it, and anything it does not know as it is.
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
	var netErr net.Error
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.As(err, &netErr), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, driver.ErrBadConn), pgconn.SafeToRetry(err):
		return library.ErrUnavailable.WithCause(err)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return library.ErrUnavailable.WithCause(err)
	}
	return err
}

// Unavailable reports whether err, of this package or of its migrations, says that Postgres could not be reached, was not ready or full, or went
// away meanwhile, so that another try may succeed.
func Unavailable(err error) bool { return errors.Is(translate(err), library.ErrUnavailable) }

// lockNotAvailable is what Postgres says when lock_timeout has passed.
const lockNotAvailable = "55P03"

func translatePg(pg *pgconn.PgError, err error) error {
	if e, ok := constraintErrors[pg.ConstraintName]; ok {
		return e.WithCause(err)
	}
	if known := ofState(pg.Code); known != nil {
		return known.WithCause(err)
	}
	return err
}

// ofState returns what a client is told of an SQLSTATE, nil for one that no second try helps against.
func ofState(code string) *library.Error {
	switch code {
	case lockNotAvailable, "57014": // statement timeout
		return library.ErrOverloaded
	case "40003": // statement completion unknown
		return library.ErrUnavailable
	case "25006", // read only: a standby, after a failover
		"25P03", "25P04", // the session was ended: its transaction was idle, or took too long, as when a replica was frozen
		"55006": // the database is in use by what an operator does
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
		"57", // Postgres or an operator ended the session or does not let it begin: stopping, crashed, starting, dropped, idle
		"58": // Postgres can't read or write its files
		return library.ErrUnavailable
	}
	return nil
}
