package store

import (
	"context"
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

const selectBranches = `SELECT id, code, name, timezone FROM branches WHERE library_id = $1 ORDER BY code`

const selectHours = `
	SELECT branch_id, weekday % 7 AS weekday, extract(epoch FROM opens)::bigint AS opens, extract(epoch FROM closes)::bigint AS closes
	FROM branch_hours WHERE library_id = $1 ORDER BY branch_id, weekday, opens`

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
		w.Taken, err = pgx.CollectRows(rows, pgx.RowToStructByName[Taken])
		return err
	})
	return w, translate(err)
}

// LoadCatalog reads the catalog.
func (s *Store) LoadCatalog(ctx context.Context) (Catalog, error) {
	var c Catalog
	err := s.inTx(ctx, s.background, func(ctx context.Context, t *tx) (err error) {
		c, err = s.catalog(ctx, t)
		return err
	})
	return c, err
}

func (s *Store) catalog(ctx context.Context, tx pgx.Tx) (Catalog, error) {
	var c Catalog
	rows, err := tx.Query(ctx, selectBranches, s.lib)
	if err != nil {
		return c, err
	}
	if c.Branches, err = pgx.CollectRows(rows, pgx.RowToStructByName[Branch]); err != nil {
		return c, err
	}
	if err := s.hours(ctx, tx, c.Branches); err != nil {
		return c, err
	}
	if rows, err = tx.Query(ctx, selectSeats, s.lib); err != nil {
		return c, err
	}
	c.Seats, err = pgx.CollectRows(rows, pgx.RowToStructByName[Seat])
	return c, err
}

func (s *Store) hours(ctx context.Context, tx pgx.Tx, branches []Branch) error {
	rows, err := tx.Query(ctx, selectHours, s.lib)
	if err != nil {
		return err
	}
	var branchID, weekday, opens, closes int64
	_, err = pgx.ForEachRow(rows, []any{&branchID, &weekday, &opens, &closes}, func() error {
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
