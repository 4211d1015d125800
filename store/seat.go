package store

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// World is the initial content of the read model, as of one snapshot.
type World struct {
	Snapshot Snapshot
	Now      time.Time
	library.Catalog
	// Taken are the windows of the reservations that occupy their seat and end after Now.
	Taken []library.TakenWindow
}

// selectBranches sorts by bytes, because the database's locale may ignore hyphens.
const selectBranches = `SELECT id, code, name, timezone FROM branches WHERE library_id = $1 ORDER BY code COLLATE "C"`

// selectHours reads the opening hours of the branches $2, or of all branches if $2 is NULL.
const selectHours = `
	SELECT branch_id, weekday % 7 AS weekday, extract(epoch FROM opens)::bigint AS opens,
		extract(epoch FROM closes)::bigint AS closes
	FROM branch_hours WHERE library_id = $1 AND ($2::bigint[] IS NULL OR branch_id = ANY($2))
	ORDER BY branch_id, weekday, opens`

const selectSeats = `
	SELECT id, branch_id, area, label, amenities, out_of_service FROM seats WHERE library_id = $1 ORDER BY id`

const selectTaken = `
	SELECT id AS reservation_id, version, seat_id, lower(during) AS start_time, upper(during) AS end_time
	FROM reservations WHERE library_id = $1 AND occupies AND upper(during) > $2`

// LoadWorld reads the whole catalog and all taken windows in one snapshot. Only ctx bounds its
// duration.
func (s *Store) LoadWorld(ctx context.Context) (World, error) {
	var w World
	// The connection of the change log must be open before the snapshot is taken. Later reads on it
	// then return every change after the snapshot.
	connID, err := s.changes.ensure(ctx)
	if err != nil {
		return w, err
	}
	conn, err := s.background.Acquire(ctx)
	if err != nil {
		return w, translate(err)
	}
	defer conn.Release()
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error {
		// To read half a million rows may take longer than statementTimeout.
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		var snapshot string
		if err := tx.QueryRow(ctx, `SELECT pg_current_snapshot()::text, dlsms_began()`).Scan(&snapshot, &w.Now); err != nil {
			return err
		}
		if w.Snapshot, err = parseSnapshot(snapshot, connID); err != nil {
			return err
		}
		if w.Catalog, err = s.catalog(ctx, tx); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, selectTaken, s.lib, w.Now)
		if err != nil {
			return err
		}
		w.Taken, _, err = collect[library.TakenWindow](s, rows, tableReservations, nil)
		return err
	})
	return w, translate(err)
}

func (s *Store) catalog(ctx context.Context, tx pgx.Tx) (library.Catalog, error) {
	var c library.Catalog
	rows, err := tx.Query(ctx, selectBranches, s.lib)
	if err != nil {
		return c, err
	}
	if c.Branches, err = s.branches(rows); err != nil {
		return c, err
	}
	if rows, err = tx.Query(ctx, selectHours, s.lib, nil); err != nil {
		return c, err
	}
	if err := addHours(rows, c.Branches); err != nil {
		return c, err
	}
	if rows, err = tx.Query(ctx, selectSeats, s.lib); err != nil {
		return c, err
	}
	c.Seats, _, err = collect(s, rows, tableSeats, (*library.Seat).Validate)
	return c, err
}

// branches reads branches. It reports an invalid branch, repairs its text and keeps it, because the
// seats of the branch cannot be shown without it.
func (s *Store) branches(rows pgx.Rows) ([]library.Branch, error) {
	branches, _, readErr := collect[library.Branch](s, rows, tableBranches, nil)
	for i := range branches {
		b := &branches[i]
		if err := b.Validate(); err != nil {
			s.unreadable.report(tableBranches, b.ID, err)
			b.Name, b.Timezone = strings.ToValidUTF8(b.Name, "\uFFFD"), strings.ToValidUTF8(b.Timezone, "\uFFFD")
		}
	}
	return branches, readErr
}

// addHours adds the opening hours in rows to their branches.
func addHours(rows pgx.Rows, branches []library.Branch) error {
	var branchID, weekday, opens, closes int64
	_, err := pgx.ForEachRow(rows, []any{&branchID, &weekday, &opens, &closes}, func() error {
		for i := range branches {
			if branches[i].ID == branchID {
				branches[i].Hours = append(branches[i].Hours, library.OpenHours{
					Weekday: time.Weekday(weekday),
					Opens:   time.Duration(opens) * time.Second,
					Closes:  time.Duration(closes) * time.Second,
				})
			}
		}
		return nil
	})
	return err
}
