package store

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// World is all that the read model begins with, as of one snapshot.
type World struct {
	Snapshot Snapshot
	Now      time.Time
	library.Catalog
	// Taken are the reservations that take their seat and end after Now.
	Taken []library.TakenWindow
}

// The order is that of bytes, whatever the locale of the database says about hyphens.
const selectBranches = `SELECT id, code, name, timezone FROM branches WHERE library_id = $1 ORDER BY code COLLATE "C"`

// selectHours reads the hours of some branches; of all, without ids.
const selectHours = `
	SELECT branch_id, weekday % 7 AS weekday, extract(epoch FROM opens)::bigint AS opens, extract(epoch FROM closes)::bigint AS closes
	FROM branch_hours WHERE library_id = $1 AND ($2::bigint[] IS NULL OR branch_id = ANY($2)) ORDER BY branch_id, weekday, opens`

const selectSeats = `SELECT id, branch_id, area, label, amenities, out_of_service FROM seats WHERE library_id = $1 ORDER BY id`

const selectTaken = `
	SELECT id AS reservation_id, version, seat_id, lower(during) AS start_time, upper(during) AS end_time
	FROM reservations WHERE library_id = $1 AND occupies AND upper(during) > $2`

// LoadWorld reads the whole catalog and everything that is taken, in one snapshot. It may take as long as ctx allows.
func (s *Store) LoadWorld(ctx context.Context) (World, error) {
	var w World
	epoch, err := s.changes.current(ctx) // from before the snapshot: what happens after it, the line tells
	if err != nil {
		return w, err
	}
	conn, err := s.background.Acquire(ctx)
	if err != nil {
		return w, translate(err)
	}
	defer conn.Release()
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		// Half a million rows may take longer than a request may.
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		var snapshot string
		if err := tx.QueryRow(ctx, `SELECT pg_current_snapshot()::text, dlsms_began()`).Scan(&snapshot, &w.Now); err != nil {
			return err
		}
		if w.Snapshot, err = parseSnapshot(snapshot, epoch); err != nil {
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

// branches reads branches. One that is faulty is reported, mended as far as that goes, and kept: without it, its seats could not be shown.
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

// addHours adds their opening hours to branches.
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
