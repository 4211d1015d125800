package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Revocation ends tokens before their expiry: the one with JTI, or all of the user's of a generation below Generation.
type Revocation struct {
	UserID     int64
	JTI        string // empty: Generation counts
	Generation int64
	// ExpiresAt is when the tokens expire anyway and the revocation can be forgotten.
	ExpiresAt time.Time
}

// RevocationLog is what was revoked since a snapshot, and the snapshot to ask with next.
type RevocationLog struct {
	Snapshot    Snapshot
	Revocations []Revocation
}

const insertRevocation = `
	INSERT INTO revocations (library_id, user_id, jti, expires_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`

// RevokeToken ends one token, which expires at expiresAt anyway. Ending it twice is no error.
func (s *Store) RevokeToken(ctx context.Context, userID int64, jti string, expiresAt time.Time) error {
	_, err := query(ctx, s.pool, pgx.RowTo[int64], insertRevocation, s.lib, userID, jti, expiresAt)
	return err
}

// selectRevocations is made as selectChanges is.
const selectRevocations = `
	SELECT s.snapshot, r.user_id, COALESCE(r.jti, ''), COALESCE(r.generation, 0), r.expires_at
	FROM (SELECT pg_current_snapshot()::text AS snapshot, dlsms_now() AS now OFFSET 0) s
	LEFT JOIN (
		SELECT * FROM revocations WHERE library_id = $1 AND xid >= $2
		UNION ALL
		SELECT r.* FROM unnest($3::xid8[]) x, LATERAL (
			SELECT * FROM revocations WHERE library_id = $1 AND xid BETWEEN x AND x OFFSET 0) r
		OFFSET 0 -- or else what has not expired is looked up first, which is nearly all
	) r ON r.expires_at > s.now`

// Revocations returns what was revoked since a snapshot; since the zero Snapshot: everything that has not expired.
// When the snapshot returned is not After the one given, there may be more: begin anew.
func (s *Store) Revocations(ctx context.Context, since Snapshot) (log RevocationLog, err error) {
	err = s.revocations.do(ctx, func(conn *pgx.Conn) error { //nolint:contextcheck // the line has its own time
		if s.revocations.interrupted(since) {
			log.Snapshot, _, err = s.revocations.snapshot(conn)
			return err
		}
		rows, err := conn.Query(context.Background(), selectRevocations, s.lib, since.Xmax, since.InProgress)
		if err != nil {
			return err
		}
		var snapshot string
		var userID *int64
		var r Revocation
		var expires *time.Time
		_, err = pgx.ForEachRow(rows, []any{&snapshot, &userID, &r.JTI, &r.Generation, &expires}, func() error {
			if userID != nil {
				r.UserID, r.ExpiresAt = *userID, *expires
				log.Revocations = append(log.Revocations, r)
			}
			return nil
		})
		if err != nil {
			return err
		}
		log.Snapshot, err = parseSnapshot(snapshot, s.revocations.epoch)
		return err
	})
	return log, err
}

// ForgetRevocations deletes at most limit revocations of tokens that have expired, and returns how many and whether there may be more.
func (s *Store) ForgetRevocations(ctx context.Context, limit int) (n int, more bool, err error) {
	// MATERIALIZED, they are selected just once: IN may be planned as a loop that selects, and locks, another few for each row.
	const forget = `
		WITH due AS MATERIALIZED (
			SELECT id FROM revocations WHERE library_id = $1 AND expires_at < (SELECT dlsms_now()) - interval '1 minute'
			ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
		DELETE FROM revocations r USING due WHERE r.library_id = $1 AND r.id = due.id
		RETURNING r.id`
	ids, err := query(ctx, s.background, pgx.RowTo[int64], forget, s.lib, limit)
	return len(ids), len(ids) == limit, err
}
