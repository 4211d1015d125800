package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// Erased describes the rows that EraseUser ended and blanked.
type Erased struct {
	UserID       int64
	StudentID    string // the new student id, which identifies no person
	Reservations int    // cancelled, declined or checked out
	Entries      int    // that left the waitlist
}

const (
	lockUserByStudentID = selectUserID + ` FOR NO KEY UPDATE`

	lockUnerasedUser = `
		SELECT id FROM users WHERE library_id = $1 AND id = $2 AND blanked_at IS NULL FOR NO KEY UPDATE`

	// selectSeatsOfUser finds all seats at which the user has a reservation or may get an offer.
	// The user is locked, so the set does not grow: a user who joins another waitlist needs that
	// lock, and offers are made only at seats for which the user waits.
	selectSeatsOfUser = `
		SELECT seat_id FROM reservations WHERE library_id = $1 AND user_id = $2 AND occupies
		UNION SELECT seat_id FROM waitlist_entries WHERE library_id = $1 AND user_id = $2 AND ended_at IS NULL`

	leaveAll = `
		UPDATE waitlist_entries SET status = 'LEFT', ended_at = $3, offer_expires_at = NULL
		WHERE library_id = $1 AND user_id = $2 AND ended_at IS NULL`
)

// EraseUser removes a person from the data in one transaction:
//   - it revokes all tokens of the user
//   - it ends all waitlist entries of the user
//   - it ends all reservations of the user as CancelFor does, and offers the seats to the waitlists
//   - it blanks the personal data of the user in all tables: see blankPeople
//
// Reservations that have ended stay, without a link to a known person. EraseUser fails with
// ErrUserNotFound. A second call for the same student id fails in this way, too.
func (s *Store) EraseUser(ctx context.Context, studentID string) (Erased, error) {
	return s.erase(ctx, lockUserByStudentID, studentID)
}

// EraseAgain is EraseUser for a user id, for a user whom a restore has brought back. It changes
// nothing if the user is erased already.
func (s *Store) EraseAgain(ctx context.Context, userID int64) (Erased, error) {
	return s.erase(ctx, lockUnerasedUser, userID)
}

func (s *Store) erase(ctx context.Context, lock string, arg any) (Erased, error) {
	var erased Erased
	order := library.Order{Actor: library.Host, Action: "erase"}
	err := s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		var err error
		erased.UserID, err = rowOf(ctx, t, library.ErrUserNotFound, pgx.RowTo[int64], lock, s.lib, arg)
		if err != nil {
			return err
		}
		h, err := t.endHoldings(ctx, erased.UserID, cause{reason: "erased"})
		if err != nil {
			return err
		}
		erased.Reservations, erased.Entries = h.reservations, h.entries
		blanked, err := t.blankPeople(ctx, erased.UserID)
		if err != nil {
			return err
		}
		erased.StudentID = blanked[0].StudentID
		if err := t.offerEach(ctx, h); err != nil {
			return err
		}
		return t.audit(ctx, 0, userObject(erased.UserID), nil, closedAudit{h.now, h.reservations, h.entries})
	})
	return erased, err
}

// closedAudit is a closed account in the audit log.
type closedAudit struct {
	ClosedAt     time.Time `json:"closed_at"`
	Reservations int       `json:"reservations"`
	Entries      int       `json:"entries"`
}

// holdings are the reservations and waitlist entries of a user that a transaction has ended.
type holdings struct {
	now          time.Time // when they ended
	seats        []int64   // locked
	reservations int
	entries      int
}

// endHoldings ends the reservations and waitlist entries of a locked user. It locks their seats. The
// caller then calls offerEach.
func (t *tx) endHoldings(ctx context.Context, userID int64, why cause) (h holdings, err error) {
	if h.seats, err = rowsOf(ctx, t, pgx.RowTo[int64], selectSeatsOfUser, t.s.lib, userID); err != nil {
		return h, err
	}
	if h.seats, h.now, err = t.lockSeatsAfter(ctx, &pgx.Batch{}, h.seats, ""); err != nil {
		return h, err
	}
	ended, err := t.endOccupying(ctx, h.now, why, selectOccupyingOfUser, userID)
	if err != nil {
		return h, err
	}
	left, err := t.Exec(ctx, leaveAll, t.s.lib, userID, h.now)
	if err != nil {
		return h, err
	}
	h.reservations, h.entries = len(ended), int(left.RowsAffected())
	for _, r := range ended {
		if r.Status == library.Held { // endOccupying has ended the entry of this hold
			h.entries++
		}
	}
	return h, nil
}

// offerEach offers the seats of holdings to their waitlists. It calls tryOffer and not offer: the
// transaction must commit even if a waitlist fails.
func (t *tx) offerEach(ctx context.Context, h holdings) error {
	for _, seat := range h.seats {
		if err := t.tryOffer(ctx, h.now, seat); err != nil {
			return err
		}
	}
	return nil
}
