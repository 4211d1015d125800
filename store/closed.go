package store

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

const (
	// closingOf joins the first closure that the function dlsms_closed finds for the seat and window
	// of a row w.
	closingOf = `LATERAL (
		SELECT c.id AS closure_id, lower(c.during) AS closed_from, upper(c.during) AS closed_until FROM closures c
		WHERE c.library_id = @library AND c.branch_id = w.branch_id AND c.lifted_at IS NULL
			AND COALESCE(upper(c.during), 'infinity') > lower(w.during) AND c.during && w.during
			AND (c.area IS NULL OR c.area = w.area) AND (c.seat_ids IS NULL OR w.seat_id = ANY (c.seat_ids))
		ORDER BY lower(c.during) LIMIT 1
		) c`

	// selectClosing runs only after a refusal, so that bookings do not pay for it.
	selectClosing = `
		SELECT c.* FROM (
			SELECT branch_id, area, id AS seat_id, tstzrange(@from::timestamptz, @until) AS during FROM seats
			WHERE library_id = @library AND id = @seat) w
		CROSS JOIN ` + closingOf
)

// closing is a closure that makes a window impossible. ClosedUntil is nil if it has no end.
type closing struct {
	ClosureID   int64
	ClosedFrom  *time.Time
	ClosedUntil *time.Time
}

// seatClosed returns ErrSeatClosed with the closure of a seat in a window. If the closure was lifted
// a moment ago, the error has no closure.
func (t *tx) seatClosed(ctx context.Context, seatID int64, from, until time.Time) error {
	c, err := rowOf(ctx, t, library.ErrSeatClosed, pgx.RowToStructByName[closing], selectClosing,
		pgx.NamedArgs{"library": t.s.lib, "seat": seatID, "from": from, "until": until})
	if err != nil {
		return err
	}
	return c.refusal()
}

// refusal returns ErrSeatClosed with the closure.
func (c closing) refusal() error {
	return library.ErrSeatClosed.With("closure_id", strconv.FormatInt(c.ClosureID, 10)).
		WithTime("closed_from", c.ClosedFrom).WithTime("closed_until", c.ClosedUntil)
}
