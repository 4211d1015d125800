package store

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// selectClosing finds the closure that the function dlsms_closed has found. It runs only after a
// refusal, so that bookings do not pay for it.
const selectClosing = `
	SELECT c.id, lower(c.during), upper(c.during)
	FROM seats s JOIN closures c ON c.library_id = s.library_id AND c.branch_id = s.branch_id
	WHERE s.library_id = $1 AND s.id = $2 AND c.lifted_at IS NULL
		AND COALESCE(upper(c.during), 'infinity') > $3 AND c.during && tstzrange($3, $4)
		AND (c.area IS NULL OR c.area = s.area) AND (c.seat_ids IS NULL OR s.id = ANY (c.seat_ids))
	ORDER BY lower(c.during) LIMIT 1`

// seatClosed returns ErrSeatClosed with the closure of a seat in a window. If the closure was lifted
// a moment ago, the error has no closure.
func (t *tx) seatClosed(ctx context.Context, seatID int64, from, until time.Time) error {
	var id int64
	var start, end *time.Time
	err := t.QueryRow(ctx, selectClosing, t.s.lib, seatID, from, until).Scan(&id, &start, &end)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return library.ErrSeatClosed
	case err != nil:
		return err
	}
	return closedBy(id, start, end)
}

// closedBy returns ErrSeatClosed with a closure. end is nil if the closure has no end.
func closedBy(id int64, start, end *time.Time) error {
	return library.ErrSeatClosed.With("closure_id", strconv.FormatInt(id, 10)).
		WithTime("closed_from", start).WithTime("closed_until", end)
}
