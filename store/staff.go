package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dlsms/dlsms/library"
)

// staffTx is the transaction of one change that staff make.
type staffTx struct {
	*tx
	order library.Order
	scope library.Scope
}

// errValidated rolls back the transaction of an order with ValidateOnly.
var errValidated = errors.New("the change was only to be checked")

// asStaff runs fn in a transaction, after it has checked the actor of the order. With ValidateOnly,
// it rolls back after fn has succeeded. fn must call audit if it has changed something. It fails
// with the errors of fn, and with one of these:
//   - ErrTokenInvalid, ErrTokenRevoked: the token is not that of the user's row
//   - ErrRoleRequired: the user has no role of staff any more
func (s *Store) asStaff(
	ctx context.Context, order library.Order, fn func(ctx context.Context, t *staffTx) error,
) error {
	return s.asStaffOn(ctx, s.pool, order, fn)
}

// asStaffOn is asStaff on a connection of a pool.
func (s *Store) asStaffOn(
	ctx context.Context, pool *pgxpool.Pool, order library.Order, fn func(ctx context.Context, t *staffTx) error,
) error {
	err := s.inTx(ctx, pool, func(ctx context.Context, t *tx) error {
		staff := &staffTx{tx: t, order: order}
		var err error
		if staff.scope, err = t.scopeOf(ctx, order.Actor); err != nil {
			return err
		}
		if err := fn(ctx, staff); err != nil {
			return err
		}
		if order.ValidateOnly {
			return errValidated
		}
		return nil
	})
	if errors.Is(err, errValidated) {
		return nil
	}
	return err
}

const (
	selectActor = `
		SELECT student_id, token_generation, role, branches, closed_at IS NOT NULL FROM users
		WHERE library_id = $1 AND id = $2`
	selectKeyBranch = `
		SELECT branch_id FROM service_keys WHERE library_id = $1 AND id = $2 AND revoked_at IS NULL`
)

// scopeOf returns the branches in which an actor may act. The row of the user decides, because a
// token may be older than a change of the role.
func (t *tx) scopeOf(ctx context.Context, a library.Actor) (library.Scope, error) {
	switch {
	case a.Role == library.RoleHost:
		return library.Scope{All: true}, nil
	case a.KeyID != 0:
		var branch int64
		err := t.QueryRow(ctx, selectKeyBranch, t.s.lib, a.KeyID).Scan(&branch)
		if errors.Is(err, pgx.ErrNoRows) {
			return library.Scope{}, library.ErrTokenRevoked
		}
		return library.Scope{Branches: []int64{branch}}, err
	case a.Token == nil:
		return library.Scope{}, errors.New("an actor without a user")
	}
	var studentID string
	var generation int64
	var role library.Role
	var branches []int64
	var closed bool
	err := t.QueryRow(ctx, selectActor, t.s.lib, a.Token.ID).Scan(&studentID, &generation, &role, &branches, &closed)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return library.Scope{}, library.ErrTokenInvalid
	case err != nil:
		return library.Scope{}, err
	case closed:
		return library.Scope{}, library.ErrTokenRevoked
	case studentID != a.Token.StudentID || generation < a.Token.TokenGeneration:
		return library.Scope{}, library.ErrTokenInvalid
	case generation > a.Token.TokenGeneration || role != a.Role:
		return library.Scope{}, library.ErrTokenRevoked
	case !role.StaffRole():
		return library.Scope{}, library.RoleRequired(library.RoleStaff)
	case role == library.RoleAdmin || branches == nil:
		return library.Scope{All: true}, nil
	}
	return library.Scope{Branches: branches}, nil
}

// includes returns nil if the branch is in the scope of the actor, and ErrBranchRequired otherwise.
func (t *staffTx) includes(branchID int64) error {
	if t.scope.All || slices.Contains(t.scope.Branches, branchID) {
		return nil
	}
	return library.ErrBranchRequired
}

// includesCode is includes for a caller that knows the code of the branch. The error names it.
func (t *staffTx) includesCode(branchID int64, code string) error {
	if t.includes(branchID) != nil {
		return library.BranchRequired(code)
	}
	return nil
}

// branchRef is the row of a branch that staff change.
type branchRef struct {
	ID       int64
	Code     string
	Timezone string
}

const lockBranch = `SELECT id, code, timezone FROM branches WHERE library_id = $1 AND code = $2 FOR NO KEY UPDATE`

// lockBranch locks a branch, so that changes of one branch come one after another. Bookings do not
// wait for this lock. It fails with ErrBranchNotFound or ErrBranchRequired.
func (t *staffTx) lockBranch(ctx context.Context, code string) (branchRef, error) {
	b, err := rowOf(ctx, t, library.BranchNotFound(code), pgx.RowToStructByName[branchRef], lockBranch, t.s.lib, code)
	if err == nil {
		err = t.includesCode(b.ID, code)
	}
	return b, err
}

// cause returns the cause of the transitions that staff make.
func (t *staffTx) cause() cause { return cause{t.order.Reason, true} }

const insertAudit = `
	INSERT INTO audit_log (library_id, user_id, key_id, role, action, branch_id, object, before, after, reason, request_id)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`

// audit writes the row of the audit log for a change. object is the kind and the key of the changed
// object, such as branch/main. before and after become JSON; nil means that the object did not
// exist. branchID is 0 if the change is not limited to a branch.
func (t *staffTx) audit(ctx context.Context, branchID int64, object string, before, after any) error {
	a := t.order.Actor
	var userID *int64
	if a.Token != nil {
		userID = &a.Token.ID
	}
	texts := [2][]byte{}
	for i, v := range []any{before, after} {
		if v == nil {
			continue
		}
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		texts[i] = text
	}
	_, err := t.Exec(ctx, insertAudit, // canary: audit
		t.s.lib, userID, orNil(a.KeyID), a.Role, t.order.Action, orNil(branchID), object, texts[0], texts[1],
		t.order.Reason, t.order.RequestID)
	return err
}
