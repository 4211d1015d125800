package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

const selectOwnAccount = `
	SELECT student_id, password_hash, role, token_generation AS generation,
		CASE WHEN suspended_until > dlsms_now() THEN suspended_until END AS suspended_until
	FROM users WHERE library_id = $1 AND id = $2`

// selectAccount reads the user $2 and the token generation of the user. An ADMIN has all branches.
const selectAccount = `
	SELECT u.id, u.student_id, u.name, u.email, u.role, u.created_at, u.user_group AS "group",
		CASE WHEN u.suspended_until > dlsms_now() THEN u.suspended_until END AS suspended_until,
		u.role = 'ADMIN' OR u.role <> 'STUDENT' AND u.branches IS NULL AS all_branches,
		ARRAY(
			SELECT b.code FROM branches b
			WHERE b.library_id = u.library_id AND b.id = ANY (u.branches) AND u.role NOT IN ('ADMIN', 'STUDENT')
			ORDER BY b.code COLLATE "C") AS branches,
		u.token_generation AS generation
	FROM users u WHERE u.library_id = $1 AND u.id = $2`

// accountRow is a row of selectAccount.
type accountRow struct {
	library.Account

	Generation int64
}

// Account returns the account of the user of a token. It fails with ErrTokenRevoked or
// ErrTokenInvalid if the token is not that of the user's row.
func (s *Store) Account(ctx context.Context, token *library.Identity) (library.Account, error) {
	row, err := queryOne(ctx, s.pool, library.ErrTokenInvalid, pgx.RowToStructByName[accountRow],
		selectAccount, s.lib, token.ID)
	switch {
	case err != nil:
		return library.Account{}, err
	case row.Generation > token.TokenGeneration: // also after the account was closed
		return library.Account{}, library.ErrTokenRevoked
	case row.StudentID != token.StudentID || row.Generation < token.TokenGeneration:
		return library.Account{}, library.ErrTokenInvalid
	}
	return row.Account, nil
}

// ownAccount is the row of a user who closes the account.
type ownAccount struct {
	StudentID    string
	PasswordHash string
	Role         library.Role
	Generation   int64
	// SuspendedUntil is nil if the user is not suspended now.
	SuspendedUntil *time.Time
}

// CloseOwnAccount closes the account of the actor, who has just typed the password with this hash,
// in one transaction. It does what EraseUser does. It returns the generation below which all tokens
// of the user are revoked. It fails with one of these errors:
//   - ErrTokenInvalid, ErrTokenRevoked: the token is not that of the user's row, for example because
//     an earlier attempt has succeeded
//   - ErrBadCredentials: the password has changed meanwhile
//   - ErrOwnRole: the actor is an admin
//   - ErrSuspended: the actor is suspended, and could register again without the suspension
func (s *Store) CloseOwnAccount(
	ctx context.Context, order library.Order, passwordHash string,
) (closed library.Closed, generation int64, err error) {
	me := order.Actor.Token
	order.RequestID = "" // a client chooses it, and it may name the person
	err = s.inTx(ctx, s.pool, func(ctx context.Context, t *tx) error {
		if _, err := t.Exec(ctx, lockUser, s.lib, me.ID); err != nil {
			return err
		}
		u, err := rowOf(ctx, t, library.ErrTokenInvalid, pgx.RowToStructByName[ownAccount],
			selectOwnAccount, s.lib, me.ID)
		switch {
		case err != nil:
			return err
		case u.Generation > me.TokenGeneration: // first: closing the account changes the student id
			return library.ErrTokenRevoked
		case u.StudentID != me.StudentID || u.Generation < me.TokenGeneration:
			return library.ErrTokenInvalid
		case u.PasswordHash != passwordHash:
			return library.ErrBadCredentials
		case u.Role == library.RoleAdmin:
			return library.ErrOwnRole
		case u.SuspendedUntil != nil:
			return library.ErrSuspended.WithTime("suspended_until", u.SuspendedUntil).WithMessage(
				"you cannot close your account until your suspension ends; the library can erase it earlier")
		}
		h, err := t.endHoldings(ctx, me.ID, cause{})
		if err != nil {
			return err
		}
		closed = library.Closed{Reservations: h.reservations, Entries: h.entries}
		blanked, err := t.blankPeople(ctx, me.ID)
		if err != nil {
			return err
		}
		generation = blanked[0].Generation
		if err := t.offerEach(ctx, h); err != nil {
			return err
		}
		return (&staffTx{tx: t, order: order}).audit(ctx, 0, userObject(me.ID), nil,
			closedAudit{h.now, h.reservations, h.entries})
	})
	return closed, generation, err
}

// ClosedAccount is an account that an admin or its user has closed, or that was erased. It has no
// personal data. The id never belongs to another user, also after a restore.
type ClosedAccount struct {
	UserID   int64
	Erased   bool // the personal data was overwritten
	ClosedAt time.Time
}

const selectClosedAccounts = `
	SELECT id AS user_id, blanked_at IS NOT NULL AS erased, closed_at FROM users
	WHERE library_id = $1 AND closed_at IS NOT NULL AND NOT pseudonym AND id > $2 ORDER BY id LIMIT $3`

// ClosedAccounts returns at most limit closed accounts with ids above after, in the order of their
// ids.
func (s *Store) ClosedAccounts(ctx context.Context, after int64, limit int) ([]ClosedAccount, error) {
	return query(ctx, s.pool, pgx.RowToStructByName[ClosedAccount], selectClosedAccounts, s.lib, after, limit)
}

const selectAccountState = `
	SELECT created_at <= $3 AS known, closed_at IS NOT NULL AS closed, blanked_at IS NOT NULL AS erased
	FROM users WHERE library_id = $1 AND id = $2`

// accountState is what CloseAgain must know about a user.
type accountState struct {
	Known  bool // the user existed when the account was closed
	Closed bool
	Erased bool
}

// CloseAgain closes or erases an account that a restore has opened again. It returns false if there
// is nothing to do. It fails with ErrUserNotFound if the user does not exist, or was created after
// the account was closed: then the account is one of another database.
func (s *Store) CloseAgain(ctx context.Context, a ClosedAccount) (changed bool, err error) {
	state, err := queryOne(ctx, s.pool, library.ErrUserNotFound, pgx.RowToStructByName[accountState],
		selectAccountState, s.lib, a.UserID, a.ClosedAt)
	switch {
	case err != nil:
		return false, err
	case !state.Known:
		return false, library.ErrUserNotFound
	case state.Erased || state.Closed && !a.Erased:
		return false, nil
	case a.Erased:
		_, err = s.EraseAgain(ctx, a.UserID)
	default:
		order := library.Order{Actor: library.Host, Action: "closed apply", Reason: "closed before a restore"}
		_, err = s.CloseUser(ctx, order, a.UserID)
	}
	return err == nil, err
}
