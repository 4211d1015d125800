package store

import (
	"context"
	"math"
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

// RevocationLog is one page of what was revoked since a snapshot, and the snapshot to ask with next.
type RevocationLog struct {
	Snapshot    Snapshot
	Revocations []Revocation
	// More says that this page is not the last one: Snapshot has the place of the next one in it.
	More bool
}

const insertRevocation = `
	INSERT INTO revocations (library_id, user_id, jti, expires_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`

// RevokeToken ends one token, which expires at expiresAt anyway. Ending it twice is no error.
func (s *Store) RevokeToken(ctx context.Context, userID int64, jti string, expiresAt time.Time) error {
	_, err := query(ctx, s.pool, pgx.RowTo[int64], insertRevocation, s.lib, userID, jti, expiresAt)
	return err
}

// revocationPage is how many revocations one statement reads: some 20 ms of work, far below lineTimeout.
const revocationPage = 5000

// pageOfRevocations is a place in the revocations since a snapshot, in the order of transactions and ids.
type pageOfRevocations struct {
	since   Snapshot
	xid, id uint64 // of the last one read
}

// selectRevocations is made as selectChanges is, but reads a page: at most $7 rows after ($4, $5), written by transactions before $6.
// Expired ones count, so that a page takes the same time whatever is in it.
const selectRevocations = `
	SELECT s.snapshot, r.xid, r.id, r.user_id, COALESCE(r.jti, ''), COALESCE(r.generation, 0), r.expires_at, r.expires_at > s.now
	FROM (SELECT pg_current_snapshot()::text AS snapshot, dlsms_now() AS now OFFSET 0) s
	LEFT JOIN (
		SELECT * FROM (
			SELECT * FROM (
				SELECT * FROM revocations
				WHERE library_id = $1 AND xid >= $2 AND xid < $6 AND (xid, id) > ($4::xid8, $5::bigint) ORDER BY xid, id LIMIT $7) later
			UNION ALL
			SELECT r.* FROM unnest($3::xid8[]) x, LATERAL (
				SELECT * FROM revocations
				WHERE library_id = $1 AND xid BETWEEN x AND x AND (xid, id) > ($4::xid8, $5::bigint) ORDER BY xid, id LIMIT $7) r
		) both_parts
		ORDER BY xid, id LIMIT $7
	) r ON true`

// Revocations returns a page of what was revoked since a snapshot; since the zero Snapshot: of everything that has not expired. Pages are read
// until there are no More; together they hold all that the first one's snapshot sees.
// When the snapshot returned is not After the one given, there may be more: begin anew.
func (s *Store) Revocations(ctx context.Context, since Snapshot) (log RevocationLog, err error) {
	err = s.revocations.do(ctx, func(conn *pgx.Conn) error { //nolint:contextcheck // the line has its own time
		if s.revocations.interrupted(since) {
			log.Snapshot, _, err = s.revocations.snapshot(conn)
			return err
		}
		log, err = s.revocationsAfter(conn, since)
		return err
	})
	return log, err
}

func (s *Store) revocationsAfter(conn *pgx.Conn, since Snapshot) (log RevocationLog, err error) {
	page, end := pageOfRevocations{since: since}, uint64(math.MaxUint64)
	if since.page != nil {
		page, end = *since.page, since.Xmax
	}
	rows, err := conn.Query(context.Background(), selectRevocations,
		s.lib, page.since.Xmax, page.since.InProgress, page.xid, page.id, end, revocationPage)
	if err != nil {
		return log, err
	}
	var snapshot string
	var xid, id *uint64
	var userID *int64
	var r Revocation
	var expires *time.Time
	var inForce *bool
	read := 0
	_, err = pgx.ForEachRow(rows, []any{&snapshot, &xid, &id, &userID, &r.JTI, &r.Generation, &expires, &inForce}, func() error {
		if id == nil {
			return nil
		}
		page.xid, page.id = *xid, *id
		if read++; *inForce {
			r.UserID, r.ExpiresAt = *userID, *expires
			log.Revocations = append(log.Revocations, r)
		}
		return nil
	})
	if err != nil {
		return log, err
	}
	if log.Snapshot = since; since.page == nil {
		if log.Snapshot, err = parseSnapshot(snapshot, s.revocations.epoch); err != nil {
			return log, err
		}
	}
	log.Snapshot.page = nil
	if log.More = read == revocationPage; log.More {
		log.Snapshot.page = &page
	}
	return log, nil
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
