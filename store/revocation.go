package store

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
)

// Revocation ends tokens before they expire: the token with JTI, or all tokens of the user with a
// generation below Generation.
type Revocation struct {
	UserID     int64
	JTI        string // empty if Generation applies
	Generation int64
	// ExpiresAt is the time at which the tokens expire. Then the revocation is no longer needed.
	ExpiresAt time.Time
}

// RevocationPage is one page of the revocations that were added since a snapshot.
type RevocationPage struct {
	// Snapshot is the argument for the next call.
	Snapshot    Snapshot
	Revocations []Revocation
	// More reports that this is not the last page. Then Snapshot contains the place of the next
	// page.
	More bool
}

const insertRevocation = `
	INSERT INTO revocations (library_id, user_id, jti, expires_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`

// RevokeToken ends one token, which would expire at expiresAt. It does nothing if the token is
// already revoked.
func (s *Store) RevokeToken(ctx context.Context, userID int64, jti string, expiresAt time.Time) error {
	_, err := query(ctx, s.pool, pgx.RowTo[int64], insertRevocation, s.lib, userID, jti, expiresAt)
	return err
}

// revocationPageSize is the number of revocations that one statement reads. To read a page takes
// about 20 ms, far below logConnTimeout.
const revocationPageSize = 5000

// revocationCursor is a place in the revocations since a snapshot, in the order of (xid, id).
type revocationCursor struct {
	since   Snapshot
	xid, id uint64 // of the last row read
}

// selectRevocations has the form of selectChanges, but reads one page: at most $7 rows after the
// position ($4, $5), written by transactions before $6. Expired revocations count as rows of the
// page, so the time to read a page does not depend on how many have expired.
const selectRevocations = `
	SELECT s.snapshot, r.xid, r.id, r.user_id, COALESCE(r.jti, ''), COALESCE(r.generation, 0), r.expires_at,
		r.expires_at > s.now
	FROM (SELECT pg_current_snapshot()::text AS snapshot, dlsms_now() AS now OFFSET 0) s
	LEFT JOIN (
		SELECT * FROM (
			SELECT * FROM (
				SELECT * FROM revocations
				WHERE library_id = $1 AND xid >= $2 AND xid < $6 AND (xid, id) > ($4::xid8, $5::bigint)
				ORDER BY xid, id LIMIT $7) later
			UNION ALL
			SELECT r.* FROM unnest($3::xid8[]) x, LATERAL (
				SELECT * FROM revocations
				WHERE library_id = $1 AND xid BETWEEN x AND x AND (xid, id) > ($4::xid8, $5::bigint) ORDER BY xid, id LIMIT $7) r
		) both_parts
		ORDER BY xid, id LIMIT $7
	) r ON true`

// Revocations returns a page of the revocations since a snapshot. With the zero Snapshot, the pages
// have all revocations that have not expired. Call it until More is false: the pages together have
// every revocation that the first page's snapshot sees. If the returned snapshot is not After
// since, revocations may be missing: begin again with the zero Snapshot.
func (s *Store) Revocations(ctx context.Context, since Snapshot) (page RevocationPage, err error) {
	err = s.revocations.do(ctx, func(conn *pgx.Conn) error { //nolint:contextcheck // do sets the deadline
		if s.revocations.reconnectedSince(since) {
			page.Snapshot, _, err = s.revocations.snapshot(conn)
			return err
		}
		page, err = s.revocationsAfter(conn, since)
		return err
	})
	return page, err
}

func (s *Store) revocationsAfter(conn *pgx.Conn, since Snapshot) (page RevocationPage, err error) {
	cursor, end := revocationCursor{since: since}, uint64(math.MaxUint64)
	if since.revocations != nil {
		cursor, end = *since.revocations, since.Xmax
	}
	rows, err := conn.Query(context.Background(), selectRevocations,
		s.lib, cursor.since.Xmax, cursor.since.InProgress, cursor.xid, cursor.id, end, revocationPageSize)
	if err != nil {
		return page, err
	}
	var snapshot string
	var xid, id *uint64
	var userID *int64
	var r Revocation
	var expires *time.Time
	var inForce *bool
	read := 0
	columns := []any{&snapshot, &xid, &id, &userID, &r.JTI, &r.Generation, &expires, &inForce}
	_, err = pgx.ForEachRow(rows, columns, func() error {
		if id == nil {
			return nil
		}
		cursor.xid, cursor.id = *xid, *id
		if read++; *inForce {
			r.UserID, r.ExpiresAt = *userID, *expires
			page.Revocations = append(page.Revocations, r)
		}
		return nil
	})
	if err != nil {
		return page, err
	}
	if page.Snapshot = since; since.revocations == nil {
		if page.Snapshot, err = parseSnapshot(snapshot, s.revocations.connID); err != nil {
			return page, err
		}
	}
	page.Snapshot.revocations = nil
	if page.More = read == revocationPageSize; page.More {
		page.Snapshot.revocations = &cursor
	}
	return page, nil
}

// ForgetRevocations deletes at most limit revocations of tokens that have expired. It returns the
// number deleted, and whether there may be more.
func (s *Store) ForgetRevocations(ctx context.Context, limit int) (n int, more bool, err error) {
	// MATERIALIZED makes Postgres select the rows once. With id IN (SELECT … LIMIT $2), Postgres
	// may repeat the SELECT for each row. Each repetition locks other rows, so more than $2 rows
	// are deleted.
	const forget = `
		WITH due AS MATERIALIZED (
			SELECT id FROM revocations WHERE library_id = $1 AND expires_at < (SELECT dlsms_now()) - interval '1 minute'
			ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
		DELETE FROM revocations r USING due WHERE r.library_id = $1 AND r.id = due.id
		RETURNING r.id`
	ids, err := query(ctx, s.background, pgx.RowTo[int64], forget, s.lib, limit)
	return len(ids), len(ids) == limit, err
}
