package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

const (
	selectUserID = `SELECT id FROM users WHERE library_id = $1 AND NOT pseudonym AND ` + sameStudentID

	selectRole = `SELECT student_id, role, branches FROM users WHERE library_id = $1 AND id = $2`

	// keepBranches prevents that a branch is deleted before the role that names it is committed.
	keepBranches = `SELECT id, code FROM branches WHERE library_id = $1 AND code = ANY($2) ORDER BY id FOR KEY SHARE`

	selectCodes = `SELECT code FROM branches WHERE library_id = $1 AND id = ANY($2) ORDER BY code COLLATE "C"`

	// updateRole ends the tokens of the user, which have the old role. See updatePassword for the
	// step of the generation.
	updateRole = `
		WITH changed AS (
			UPDATE users SET role = $3, branches = $4,
				token_generation = token_generation + 1 + floor(random() * 4294967296)::bigint
			WHERE library_id = $1 AND id = $2
			RETURNING library_id, id, token_generation
		)
		INSERT INTO revocations (library_id, user_id, generation, expires_at)
		SELECT library_id, id, token_generation, dlsms_now() + $5::interval FROM changed`
)

// roleState is the role of a user in the audit log.
type roleState struct {
	Role     library.Role `json:"role"`
	Branches []string     `json:"branches"` // null: all
}

// SetRole sets the role of the user with the student id of g, and the branches for which it holds.
// It revokes the tokens of the user if it changes something. It returns the grant with the id and
// the student id of the user's row. It fails with ErrPersonNotFound, ErrBranchNotFound or
// ErrOwnRole.
func (s *Store) SetRole(ctx context.Context, order library.Order, g library.Grant) (library.Grant, error) {
	err := s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		var err error
		if g.UserID, err = t.lockPerson(ctx, selectUserID, g.StudentID); err != nil {
			return err
		}
		var role library.Role
		var had []int64
		if err := t.QueryRow(ctx, selectRole, s.lib, g.UserID).Scan(&g.StudentID, &role, &had); err != nil {
			return err
		}
		gets, err := t.branchIDs(ctx, g.Branches)
		if err != nil || role == g.Role && (had == nil) == (gets == nil) && slices.Equal(sorted(had), gets) {
			return err
		}
		before, err := t.codes(ctx, had)
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, updateRole, s.lib, g.UserID, g.Role, gets, tokenRetention); err != nil {
			return err
		}
		after, err := t.codes(ctx, gets)
		if err != nil {
			return err
		}
		return t.audit(ctx, 0, userObject(g.UserID), roleState{role, before}, roleState{g.Role, after})
	})
	return g, err
}

// tokenRetention is how long the revocation of all tokens of a user is kept. It must be longer than
// the lifetime of a token (JWT_TTL), which the store does not know.
const tokenRetention = 366 * 24 * time.Hour

// lockPerson locks the user whose id the query finds, and the user of the actor, in id order. find
// gets the id of the library as $1, and arg as $2. After the locks, lockPerson checks the actor
// again: of two admins who take the role of each other at the same time, the second must fail, so
// that one admin is left. It fails with ErrPersonNotFound, with ErrOwnRole if the user is the
// actor, and with the errors of asStaff.
func (t *staffTx) lockPerson(ctx context.Context, find string, arg any) (userID int64, err error) {
	err = t.QueryRow(ctx, find, t.s.lib, arg).Scan(&userID)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, library.ErrPersonNotFound
	}
	if err != nil {
		return 0, err
	}
	users := []int64{userID}
	if actor := t.order.Actor.Token; actor != nil {
		if actor.ID == userID {
			return 0, library.ErrOwnRole
		}
		users = append(users, actor.ID)
	}
	if _, err := t.Exec(ctx, lockUsers, t.s.lib, users); err != nil {
		return 0, err
	}
	t.scope, err = t.scopeOf(ctx, t.order.Actor)
	return userID, err
}

// branchIDs returns the ids of branches in ascending order. It returns nil, which means all
// branches, only for no codes. It fails with ErrBranchNotFound.
func (t *staffTx) branchIDs(ctx context.Context, codes []string) ([]int64, error) {
	if len(codes) == 0 {
		return nil, nil
	}
	rows, err := t.Query(ctx, keepBranches, t.s.lib, codes)
	if err != nil {
		return nil, err
	}
	missing := slices.Clone(codes)
	ids := []int64{}
	var id int64
	var code string
	_, err = pgx.ForEachRow(rows, []any{&id, &code}, func() error {
		ids = append(ids, id)
		missing = slices.DeleteFunc(missing, func(c string) bool { return c == code })
		return nil
	})
	if err == nil && len(missing) > 0 {
		err = library.BranchNotFound(missing[0])
	}
	return ids, err
}

// codes returns the codes of branches; nil for nil.
func (t *staffTx) codes(ctx context.Context, ids []int64) ([]string, error) {
	if ids == nil {
		return nil, nil
	}
	return rowsOf(ctx, t, pgx.RowTo[string], selectCodes, t.s.lib, ids)
}
