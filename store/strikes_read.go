package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

const selectStrikes = `
	SELECT s.id, s.user_id, s.reservation_id, b.code AS branch, s.at, s.expires_at, s.forgiven_at, s.reason,
		s.expires_at > dlsms_now() AND s.forgiven_at IS NULL AND s.suspension_id IS NULL AS counts
	FROM strikes s JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
	WHERE s.library_id = $1 AND s.user_id = $2 AND s.at > dlsms_now() - interval '1 year'
	ORDER BY s.at DESC, s.id DESC`

// Strikes returns the strikes of a user in the past year, the newest first.
func (s *Store) Strikes(ctx context.Context, userID int64) ([]library.Strike, error) {
	return query(ctx, s.pool, pgx.RowToStructByName[library.Strike], selectStrikes, s.lib, userID)
}
