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
	lockUserByStudentID = `SELECT id FROM users WHERE library_id = $1 AND ` + sameStudentID + ` FOR NO KEY UPDATE`

	// selectSeatsOfUser finds all seats at which the user has a reservation or may get an offer.
	// The user is locked, so the set does not grow: a user who joins another waitlist needs that
	// lock, and offers are made only at seats for which the user waits.
	selectSeatsOfUser = `
		SELECT seat_id FROM reservations WHERE library_id = $1 AND user_id = $2 AND occupies
		UNION SELECT seat_id FROM waitlist_entries WHERE library_id = $1 AND user_id = $2 AND ended_at IS NULL`

	leaveAll = `
		UPDATE waitlist_entries SET status = 'LEFT', ended_at = $3, offer_expires_at = NULL
		WHERE library_id = $1 AND user_id = $2 AND ended_at IS NULL`

	// eraseUser sets a student id with a random part, so that no other user can already have it.
	eraseUser = `
		WITH erased AS (
			UPDATE users
			SET student_id = 'gone-' || id || '-' || substr(md5(random()::text), 1, 6), name = 'gone', email = 'gone',
				role = 'STUDENT', password_hash = '', token_generation = token_generation + 1
			WHERE library_id = $1 AND id = $2
			RETURNING library_id, id, student_id, token_generation
		), ended AS (
			INSERT INTO revocations (library_id, user_id, generation, expires_at)
			SELECT library_id, id, token_generation, $3 FROM erased
		)
		SELECT student_id FROM erased`
)

// EraseUser removes a person from the data in one transaction:
//   - it revokes all tokens of the user
//   - it ends all waitlist entries of the user
//   - it ends all reservations of the user as CancelFor does, and offers the seats to the waitlists
//   - it blanks student id, name, email and password
//
// Reservations that have ended stay, without a link to a known person. EraseUser fails with
// ErrUserNotFound. A second call for the same student id fails in this way, too.
func (s *Store) EraseUser(ctx context.Context, studentID string) (Erased, error) {
	var erased Erased
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		var err error
		erased.UserID, err = rowOf(ctx, t, library.ErrUserNotFound, pgx.RowTo[int64], lockUserByStudentID, s.lib, studentID)
		if err != nil {
			return err
		}
		h, err := t.endHoldings(ctx, erased.UserID, cause{reason: "erased"})
		if err != nil {
			return err
		}
		erased.Reservations, erased.Entries = h.reservations, h.entries
		err = t.QueryRow(ctx, eraseUser, s.lib, erased.UserID, h.now.Add(tokenRetention)).Scan(&erased.StudentID)
		if err != nil {
			return err
		}
		return t.offerEach(ctx, h)
	})
	return erased, err
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
