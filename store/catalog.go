package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// CatalogChanges has the changes of the catalog between two snapshots: the one that was passed to
// Changes and the one that Changes returns. It is read a moment after the second snapshot, so it
// may also have newer changes. The next call of Changes then returns these again.
type CatalogChanges struct {
	// Branches and Seats were added or changed. Each is the whole row, a branch with all its hours,
	// exceptional days and closures.
	Branches []library.Branch
	Seats    []library.Seat
	// BranchIDs are the ids of all branches that exist. If the reader knows a branch that is not in
	// BranchIDs, this branch was deleted with all its seats.
	BranchIDs []int64
	// SeatIDs are the ids of all existing seats of Branches. A seat that was in one of these
	// branches, and is neither in SeatIDs nor in Seats, was deleted. The deletion of a seat changes
	// the row of its branch, so the branch is in Branches. A retired seat counts as deleted.
	SeatIDs []int64
	// Retired are the ids of changed seats that are retired. Readers remove them.
	Retired []int64
	// Unreadable are the ids of changed seats whose rows can no longer be read.
	Unreadable []int64
}

// selectChangedBranches and selectChangedSeats read the rows that changed since a snapshot. Their
// conditions have the form that selectChanges in changes.go explains. The other two statements read
// the ids of all existing rows, from which a reader learns which rows were deleted.
const (
	selectBranchIDs = `SELECT id FROM branches WHERE library_id = $1`

	selectChangedBranches = `
		SELECT id, code, name, timezone FROM branches WHERE library_id = $1 AND xid >= $2
		UNION ALL
		SELECT b.* FROM unnest($3::xid8[]) x, LATERAL (
			SELECT id, code, name, timezone FROM branches WHERE library_id = $1 AND xid BETWEEN x AND x OFFSET 0) b`

	selectChangedSeats = `
		SELECT id, branch_id, area, label, amenities, out_of_service, x_cm, y_cm, angle, desk FROM seats
		WHERE library_id = $1 AND xid >= $2 AND retired_at IS NULL
		UNION ALL
		SELECT s.id, s.branch_id, s.area, s.label, s.amenities, s.out_of_service, s.x_cm, s.y_cm, s.angle, s.desk
		FROM unnest($3::xid8[]) x, LATERAL (
			SELECT * FROM seats WHERE library_id = $1 AND xid BETWEEN x AND x OFFSET 0) s
		WHERE s.retired_at IS NULL`

	selectChangedRetired = `
		SELECT id FROM seats WHERE library_id = $1 AND xid >= $2 AND retired_at IS NOT NULL
		UNION ALL
		SELECT s.id FROM unnest($3::xid8[]) x, LATERAL (
			SELECT * FROM seats WHERE library_id = $1 AND xid BETWEEN x AND x OFFSET 0) s
		WHERE s.retired_at IS NOT NULL`

	selectSeatIDs = `SELECT id FROM seats WHERE library_id = $1 AND branch_id = ANY($2) AND retired_at IS NULL`
)

// catalogTimeout bounds the read of the catalog changes. An UPDATE of all seats makes this read as
// large as the catalog.
const catalogTimeout = 5 * time.Second

// catalogChanges reads the changes of the catalog since a snapshot, all in one later snapshot.
func (s *Store) catalogChanges(conn *pgx.Conn, since Snapshot) (c CatalogChanges, err error) {
	if err := conn.PgConn().Conn().SetDeadline(time.Now().Add(catalogTimeout)); err != nil {
		return c, err
	}
	ctx := context.Background()
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, selectChangedSeats, s.lib, since.Xmax, since.InProgress)
		if err != nil {
			return err
		}
		if c.Seats, c.Unreadable, err = collect(s, rows, tableSeats, checkSeat); err != nil {
			return err
		}
		if rows, err = tx.Query(ctx, selectChangedRetired, s.lib, since.Xmax, since.InProgress); err != nil {
			return err
		}
		if c.Retired, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
			return err
		}
		if rows, err = tx.Query(ctx, selectBranchIDs, s.lib); err != nil {
			return err
		}
		if c.BranchIDs, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
			return err
		}
		if rows, err = tx.Query(ctx, selectChangedBranches, s.lib, since.Xmax, since.InProgress); err != nil {
			return err
		}
		if c.Branches, err = s.branches(rows); err != nil || len(c.Branches) == 0 {
			return err
		}
		changed := make([]int64, len(c.Branches))
		for i, b := range c.Branches {
			changed[i] = b.ID
		}
		if err := s.addDetails(ctx, tx, c.Branches, changed); err != nil {
			return err
		}
		if rows, err = tx.Query(ctx, selectSeatIDs, s.lib, changed); err != nil {
			return err
		}
		c.SeatIDs, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	return c, err
}
