package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Branch is one building of the library.
type Branch struct {
	ID       int64
	Code     string
	Name     string
	Timezone string // IANA
	// Hours are when it is open; empty: at all hours.
	Hours []OpenHours `db:"-"`
}

// OpenHours are one opening of a branch, in its time zone. Closes at or before Opens means the next day.
type OpenHours struct {
	Weekday time.Weekday
	Opens   time.Duration // after midnight
	Closes  time.Duration // after midnight, up to 24 h
}

// Seat is one seat of the catalog.
type Seat struct {
	ID           int64
	BranchID     int64
	Area         string
	Label        string
	Amenities    []int16 // numbers of the enum dlsms.v1.Amenity
	OutOfService bool
}

// Taken is a reservation that takes its seat.
type Taken struct {
	ReservationID int64
	Version       int64
	SeatID        int64
	StartTime     time.Time
	EndTime       time.Time
}

// Catalog is what the library has: branches in the order of their codes, seats in the order of their ids.
type Catalog struct {
	Branches []Branch
	Seats    []Seat
}

// World is all that the read model begins with, as of one snapshot.
type World struct {
	Snapshot Snapshot
	Now      time.Time
	Catalog
	// Taken are the reservations that take their seat and end after Now.
	Taken []Taken
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
		w.Taken, _, err = collect[Taken](s, rows, tableReservations, nil)
		return err
	})
	return w, translate(err)
}

func (s *Store) catalog(ctx context.Context, tx pgx.Tx) (Catalog, error) {
	var c Catalog
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
	c.Seats, _, err = collect(s, rows, tableSeats, (*Seat).check)
	return c, err
}

// branches reads branches. One that is faulty is reported, mended as far as that goes, and kept: without it, its seats could not be shown.
func (s *Store) branches(rows pgx.Rows) ([]Branch, error) {
	branches, _, readErr := collect[Branch](s, rows, tableBranches, nil)
	for i := range branches {
		b := &branches[i]
		err := validText(b.Name, b.Timezone)
		if _, zoneErr := LoadZone(b.Timezone); zoneErr != nil {
			err = fmt.Errorf("the branch counts as closed, if it has opening hours: %w", zoneErr)
		}
		if err != nil {
			s.unreadable.report(tableBranches, b.ID, err)
			b.Name, b.Timezone = strings.ToValidUTF8(b.Name, "\uFFFD"), strings.ToValidUTF8(b.Timezone, "\uFFFD")
		}
	}
	return branches, readErr
}

func (seat *Seat) check() error { return validText(seat.Area, seat.Label) }

// addHours adds their opening hours to branches.
func addHours(rows pgx.Rows, branches []Branch) error {
	var branchID, weekday, opens, closes int64
	_, err := pgx.ForEachRow(rows, []any{&branchID, &weekday, &opens, &closes}, func() error {
		for i := range branches {
			if branches[i].ID == branchID {
				branches[i].Hours = append(branches[i].Hours, OpenHours{
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
