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
// checked out. The user gets a notification with the reason of the order. If the reservation has
// already ended, CancelFor changes nothing and returns false. It fails with ErrReservationNotFound
// or ErrBranchRequired.
func (s *Store) CancelFor(
	ctx context.Context, order library.Order, id int64,
) (r library.Reservation, changed bool, err error) {
	var freed []int64
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		var branch int64
		var now time.Time
		var err error
		if r, branch, now, err = t.lockReservation(ctx, id); err != nil {
			return err
		}
		ended, err := t.endOccupying(ctx, now, t.cause(), selectOccupyingByID, id)
		if err != nil || len(ended) == 0 {
			return err
		}
		before := r.Status
		if r, err = t.reservation(ctx, r.UserID, id); err != nil {
			return err
		}
		r.EndedByLibrary = true // its event is not written yet
		changed, freed = true, []int64{r.UserID}
		if err := t.tryOffer(ctx, now, r.SeatID); err != nil {
			return err
		}
		return t.auditStatus(ctx, branch, before, r)
	})
	s.offerToFreedUsers(ctx, s.pool, err, freed)
	return r, changed && err == nil, err
}

// endOccupying ends each reservation that the query sql returns, and returns them with the statuses
// that they had before. The query gets the id of the library as $1, and arg as $2. Each reservation
// ends at the time now. The caller has locked the seats.
func (t *tx) endOccupying(
	ctx context.Context, now time.Time, why cause, sql string, arg int64,
) ([]occupying, error) {
	all, err := rowsOf(ctx, t, pgx.RowToStructByName[occupying], sql, t.s.lib, arg)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		c := statusChange{
			cause: why, id: r.ID, from: r.Status, to: library.Cancelled, kind: library.EventCancelled, endedAt: &now,
		}
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
	}
	return all, nil
}
