package store

import (
	"context"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

const (
	insertKey = `
		INSERT INTO service_keys (library_id, name, branch_id, scopes, hash) VALUES ($1, $2, $3, $4, $5)
		RETURNING id, created_at`

	selectKeys = `
		SELECT k.id, k.name, b.code AS branch, k.scopes, k.created_at, k.revoked_at
		FROM service_keys k JOIN branches b ON b.library_id = k.library_id AND b.id = k.branch_id
		WHERE k.library_id = $1 `

	selectKeyByID = selectKeys + `AND k.id = $2 FOR NO KEY UPDATE OF k`
	selectAllKeys = selectKeys + `ORDER BY k.id DESC`

	selectValidKey = `
		SELECT id FROM service_keys
		WHERE library_id = $1 AND branch_id = $2 AND name = $3 AND revoked_at IS NULL ORDER BY id LIMIT 1`

	revokeKey = `
		UPDATE service_keys SET revoked_at = dlsms_now() WHERE library_id = $1 AND id = $2 RETURNING revoked_at`
	selectKeyRecords = `
		SELECT id, scopes, hash, revoked_at IS NOT NULL AS revoked FROM service_keys WHERE library_id = $1`
)

// keyObject returns the name of a service key in the audit log.
func keyObject(id int64) string { return "key/" + strconv.FormatInt(id, 10) }

// keyState is a service key in the audit log. It has neither the secret nor its hash.
type keyState struct {
	Name    string             `json:"name"`
	Scopes  []library.KeyScope `json:"scopes"`
	Revoked bool               `json:"revoked"`
}

func stateOfKey(k library.ServiceKey) keyState { return keyState{k.Name, k.Scopes, k.RevokedAt != nil} }

// CreateKey creates a service key and returns it with its id. hash is the SHA-256 of its secret. It
// fails with ErrBranchNotFound, ErrBranchRequired, or ErrKeyExists if the branch has a valid key with
// this name: a repeated call must not leave a key whose secret no program has.
func (s *Store) CreateKey(
	ctx context.Context, order library.Order, k library.ServiceKey, hash []byte,
) (library.ServiceKey, error) {
	err := s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		branch, err := t.lockBranch(ctx, k.Branch)
		if err != nil {
			return err
		}
		switch other, err := rowOf(ctx, t, nil, pgx.RowTo[int64], selectValidKey, s.lib, branch.ID, k.Name); {
		case err != nil:
			return err
		case other != 0:
			return library.KeyExists(other)
		}
		err = t.QueryRow(ctx, insertKey, s.lib, k.Name, branch.ID, k.Scopes, hash).Scan(&k.ID, &k.CreatedAt)
		if err != nil {
			return err
		}
		return t.audit(ctx, branch.ID, keyObject(k.ID), nil, stateOfKey(k))
	})
	if order.ValidateOnly {
		k.ID = 0
	}
	return k, err
}

// RevokeKey ends a service key. It fails with ErrKeyNotFound. If the key has ended already, it
// changes nothing.
func (s *Store) RevokeKey(ctx context.Context, order library.Order, id int64) (library.ServiceKey, error) {
	var k library.ServiceKey
	err := s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		var err error
		k, err = rowOf(ctx, t, library.ErrKeyNotFound, pgx.RowToStructByName[library.ServiceKey], selectKeyByID, s.lib, id)
		if err != nil || k.RevokedAt != nil {
			return err
		}
		branch, err := t.branchID(ctx, k.Branch)
		if err != nil {
			return err
		}
		before := stateOfKey(k)
		if err := t.QueryRow(ctx, revokeKey, s.lib, id).Scan(&k.RevokedAt); err != nil {
			return err
		}
		return t.audit(ctx, branch, keyObject(id), before, stateOfKey(k))
	})
	return k, err
}

// Keys returns all service keys, the newest first.
func (s *Store) Keys(ctx context.Context, actor library.Actor) (keys []library.ServiceKey, err error) {
	err = s.readAsStaff(ctx, actor, func(ctx context.Context, t *staffTx) error {
		keys, err = rowsOf(ctx, t, pgx.RowToStructByName[library.ServiceKey], selectAllKeys, s.lib)
		return err
	})
	return keys, err
}

// KeyRecords returns the records of all service keys, also of those that were revoked. A library has
// few of them.
func (s *Store) KeyRecords(ctx context.Context) ([]library.KeyRecord, error) {
	return query(ctx, s.pool, pgx.RowToStructByName[library.KeyRecord], selectKeyRecords, s.lib)
}
