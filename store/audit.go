package store

import (
	"context"
	"math"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// userObject returns the name of a user in the audit log.
func userObject(id int64) string { return "user/" + strconv.FormatInt(id, 10) }

// reservationObject returns the name of a reservation in the audit log.
func reservationObject(id int64) string { return "reservation/" + strconv.FormatInt(id, 10) }

// readAsStaff runs fn in a transaction that only reads, after it has checked the actor like asStaff.
func (s *Store) readAsStaff(
	ctx context.Context, actor library.Actor, fn func(ctx context.Context, t *staffTx) error,
) error {
	return s.asStaff(ctx, library.Order{Actor: actor}, fn)
}

// branches returns the distinct ids of the branches in the scope of the actor, and nil for all
// branches.
func (t *staffTx) branches() []int64 {
	if t.scope.All {
		return nil
	}
	return idsOrEmpty(sorted(t.scope.Branches))
}

// branchesOf returns the id of the branch with a code, or branches if the code is empty. It fails with
// ErrBranchNotFound or ErrBranchRequired.
func (t *staffTx) branchesOf(ctx context.Context, code string) ([]int64, error) {
	if code == "" {
		return t.branches(), nil
	}
	id, err := t.branchID(ctx, code)
	return []int64{id}, err
}

const selectBranchID = `SELECT id FROM branches WHERE library_id = $1 AND code = $2`

// branchID returns the id of a branch. It fails with ErrBranchNotFound or ErrBranchRequired.
func (t *staffTx) branchID(ctx context.Context, code string) (int64, error) {
	id, err := rowOf(ctx, t, library.BranchNotFound(code), pgx.RowTo[int64], selectBranchID, t.s.lib, code)
	if err == nil {
		err = t.includesCode(id, code)
	}
	return id, err
}

// The queries of the audit log read at most @most rows, the newest first, with ids below @before.
// There is one for each index, because one query with optional conditions would read the whole log.
// Those of an object and of branches compare pairs, in place of the equal column alone: so no other
// index has their order, and the planner never reads the whole log backwards.
const (
	auditColumns = `
		SELECT a.id, a.at, COALESCE(a.user_id, 0) AS user_id, COALESCE((
				SELECT u.student_id FROM users u WHERE u.library_id = a.library_id AND u.id = a.user_id), '') AS student_id,
			a.role, a.action, COALESCE((
				SELECT b.code FROM branches b WHERE b.library_id = a.library_id AND b.id = a.branch_id), '') AS branch,
			a.object, COALESCE(a.before::text, '') AS before, COALESCE(a.after::text, '') AS after, a.reason, a.request_id`
	auditSelected = `
		WHERE a.library_id = @library AND (@action = '' OR a.action = @action)`
	auditNewest = ` ORDER BY a.id DESC LIMIT @most`

	selectAudit = auditColumns + ` FROM audit_log a` + auditSelected + ` AND a.id < @before` + auditNewest

	selectAuditOfObject = auditColumns + ` FROM audit_log a` + auditSelected + `
		AND a.object >= @object AND (a.object, a.id) < (@object, @before)
		AND (@branches::bigint[] IS NULL OR a.branch_id = ANY (@branches))
		ORDER BY a.object DESC, a.id DESC LIMIT @most`

	// selectAuditOfBranches reads the newest rows of each branch, and returns the newest of them.
	selectAuditOfBranches = auditColumns + `
		FROM unnest(@branches::bigint[]) AS wanted (branch_id) CROSS JOIN LATERAL (
			SELECT * FROM audit_log a` + auditSelected + `
				AND a.branch_id >= wanted.branch_id AND (a.branch_id, a.id) < (wanted.branch_id, @before)
			ORDER BY a.branch_id DESC, a.id DESC LIMIT @most
		) a` + auditNewest
)

// Audit returns at most limit rows of the audit log with ids below before, the newest first. A
// before of 0 begins with the newest row. If the scope of the actor is limited to branches, it
// returns only rows of these branches. It fails with ErrBranchNotFound or ErrBranchRequired.
func (s *Store) Audit(
	ctx context.Context, actor library.Actor, q library.AuditQuery, before int64, limit int,
) (entries []library.AuditEntry, err error) {
	if before == 0 {
		before = math.MaxInt64
	}
	err = s.readAsStaff(ctx, actor, func(ctx context.Context, t *staffTx) error {
		branches, err := t.branchesOf(ctx, q.Branch)
		if err != nil {
			return err
		}
		args := pgx.NamedArgs{
			"library": s.lib, "before": before, "action": q.Action, "object": q.Object, "branches": branches,
			"most": limit,
		}
		sql := selectAudit
		switch {
		case q.Object != "":
			sql = selectAuditOfObject
		case branches != nil:
			sql = selectAuditOfBranches
		}
		entries, err = rowsOf(ctx, t, pgx.RowToStructByName[library.AuditEntry], sql, args)
		return err
	})
	return entries, err
}
