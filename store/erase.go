package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// Erased is what EraseUser ended and blanked.
type Erased struct {
	UserID       int64
	StudentID    string // the new one, which names nobody
	Reservations int    // cancelled, declined or checked out
	Entries      int    // left
}

const (
	lockUserByStudentID = `SELECT id FROM users WHERE library_id = $1 AND ` + sameStudentID + ` FOR NO KEY UPDATE`

	// selectSeatsOfUser finds all seats at which the user has or may be given something, with the user locked: to wait at a
	// further seat the user would have to be locked, and an offer is made only at a seat where the user waits.
	selectSeatsOfUser = `
		SELECT seat_id FROM reservations WHERE library_id = $1 AND user_id = $2 AND occupies
		UNION SELECT seat_id FROM waitlist_entries WHERE library_id = $1 AND user_id = $2 AND ended_at IS NULL`

	leaveAll = `
		UPDATE waitlist_entries SET status = 'LEFT', ended_at = $3, offer_expires_at = NULL
		WHERE library_id = $1 AND user_id = $2 AND ended_at IS NULL`

	// eraseUser makes a student id that nobody can have registered with to be in the way.
	eraseUser = `
		WITH gone AS (
			UPDATE users SET student_id = 'gone-' || id || '-' || substr(md5(random()::text), 1, 6), name = 'gone', email = 'gone',
				role = 'STUDENT', password_hash = '', token_generation = token_generation + 1
			WHERE library_id = $1 AND id = $2
			RETURNING library_id, id, student_id, token_generation
		), ended AS (
			INSERT INTO revocations (library_id, user_id, generation, expires_at)
			SELECT library_id, id, token_generation, $3 FROM gone
		)
		SELECT student_id FROM gone`
)

// tokenMemory is how long a revocation is kept where JWT_TTL is not known: longer than any.
const tokenMemory = 366 * 24 * time.Hour

// EraseUser makes the system forget a user: it ends all their tokens, takes them out of all lines, ends what they have reserved as
// CancelFor does, offers the seats to those who wait, and blanks student id, name, email and password, all in one transaction.
// What is over stays, as the reservations of no known person. It fails with ErrUserNotFound, as it does when it is repeated.
func (s *Store) EraseUser(ctx context.Context, studentID string) (Erased, error) {
	var erased Erased
	err := s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		rows, err := t.Query(ctx, lockUserByStudentID, s.lib, studentID)
		if err != nil {
			return err
		}
		users, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		switch {
		case err != nil:
			return err
		case len(users) == 0:
			return library.ErrUserNotFound
		}
		erased.UserID = users[0]
		if rows, err = t.Query(ctx, selectSeatsOfUser, s.lib, erased.UserID); err != nil {
			return err
		}
		seats, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return err
		}
		if seats, err = t.lockSeats(ctx, seats); err != nil {
			return err
		}
		now, err := t.now(ctx)
		if err != nil {
			return err
		}
		ended, err := t.endOccupying(ctx, now, "erased", selectOccupyingOfUser, erased.UserID)
		if err != nil {
			return err
		}
		left, err := t.Exec(ctx, leaveAll, s.lib, erased.UserID, now)
		if err != nil {
			return err
		}
		erased.Reservations, erased.Entries = len(ended), int(left.RowsAffected())
		for _, r := range ended {
			if r.Status == library.Held { // endOccupying took the user out of this line
				erased.Entries++
			}
		}
		err = t.QueryRow(ctx, eraseUser, s.lib, erased.UserID, now.Add(tokenMemory)).Scan(&erased.StudentID)
		if err != nil {
			return err
		}
		for _, seat := range seats { // a line that can't be served is no reason to remember a person
			if err := t.tryOffer(ctx, now, seat); err != nil {
				return err
			}
		}
		return nil
	})
	return erased, err
}
