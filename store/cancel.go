package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// MaxReason is the maximum length of an operator's reason, in characters.
const MaxReason = 500

// occupying is a reservation that takes its seat.
type occupying struct {
	ID      int64
	Status  library.ReservationStatus
	EntryID *int64
}

const (
	selectOccupying = `SELECT id, status, entry_id FROM reservations WHERE library_id = $1 AND occupies AND `

	selectOccupyingByID   = selectOccupying + `id = $2`
	selectOccupyingOfUser = selectOccupying + `user_id = $2 ORDER BY id`
)

// CancelFor ends a reservation on behalf of its user and offers its seat to the waitlist. A
// CONFIRMED reservation becomes CANCELLED, an offer is declined, and a CHECKED_IN reservation is
// checked out. The event keeps the reason, which has at most MaxReason characters. If the
// reservation has already ended, CancelFor changes nothing and returns false. It fails with
// ErrReservationNotFound.
func (s *Store) CancelFor(
	ctx context.Context, id int64, reason string,
) (r library.Reservation, changed bool, err error) {
	const ownerOf = `SELECT user_id FROM reservations WHERE library_id = $1 AND id = $2`
	userID, err := queryOne(ctx, s.pool, library.ErrReservationNotFound, pgx.RowTo[int64], ownerOf, s.lib, id)
	if err != nil {
		return r, false, err
	}
	var freed []int64
	err = s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		seat, now, err := t.lockOwnReservation(ctx, userID, id)
		if err != nil {
			return err
		}
		ended, err := t.endOccupying(ctx, now, reason, selectOccupyingByID, id)
		if err != nil || len(ended) == 0 {
			return err
		}
		changed, freed = true, []int64{userID}
		return t.tryOffer(ctx, now, seat.SeatID)
	})
	s.offerToFreedUsers(ctx, s.pool, err, freed)
	if err != nil {
		return r, false, err
	}
	r, err = s.Reservation(ctx, userID, id)
	return r, changed, err
}

// endOccupying ends each reservation that the query sql returns, and returns them with the statuses
// that they had before. The query gets the id of the library as $1, and arg as $2. Each reservation
// ends at the time now, and its event has the text reason. The caller has locked the seats.
func (t *tx) endOccupying(ctx context.Context, now time.Time, reason, sql string, arg int64) ([]occupying, error) {
	rows, err := t.Query(ctx, sql, t.s.lib, arg)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[occupying])
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		c := statusChange{id: r.ID, from: r.Status, to: library.Cancelled, kind: library.EventCancelled, endedAt: &now}
		switch r.Status {
		case library.Held:
			c.kind = library.EventDeclined
			_, err = t.Exec(ctx, endEntry, t.s.lib, r.EntryID, library.EntryLeft, now)
		case library.CheckedIn:
			c.to, c.kind = library.Completed, library.EventCheckedOut
		case library.Confirmed, library.Completed, library.Cancelled, library.NoShow:
		}
		if err == nil {
			err = t.apply(ctx, c)
		}
		if err != nil {
			return nil, err
		}
		t.events[len(t.events)-1].reason = reason
	}
	return all, nil
}
