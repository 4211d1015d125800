package store

import (
	"context"
	"encoding/json"
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

// selectDays reads the dates with their own opening hours of the branches $2, or of all branches if
// $2 is NULL. It leaves out dates that are more than three days ago, because their hours have ended
// in every time zone. A date on which the branch is closed has one row, without times.
const selectDays = `
	SELECT d.branch_id, d.day - date '1970-01-01' AS day, extract(epoch FROM d.opens)::bigint AS opens,
		extract(epoch FROM d.closes)::bigint AS closes
	FROM branch_days d
	WHERE d.library_id = $1 AND ($2::bigint[] IS NULL OR d.branch_id = ANY($2)) AND d.day >= dlsms_now()::date - 3
	ORDER BY d.branch_id, d.day, d.opens`

// selectClosures reads the closures of the branches $2, or of all branches if $2 is NULL. It leaves
// out those that have ended or were lifted.
const selectClosures = `
	SELECT c.id, c.branch_id, COALESCE(c.area, '') AS area, c.seat_ids, lower(c.during) AS start_time,
		upper(c.during) AS end_time, c.note
	FROM closures c
	WHERE c.library_id = $1 AND ($2::bigint[] IS NULL OR c.branch_id = ANY($2)) AND c.lifted_at IS NULL
		AND COALESCE(upper(c.during), 'infinity') > dlsms_now()
	ORDER BY c.branch_id, lower(c.during), c.id`

const selectAnnouncements = `
	SELECT id, announcement, announced_until FROM branches
	WHERE library_id = $1 AND ($2::bigint[] IS NULL OR id = ANY($2)) AND announcement <> '{}'`

const selectFloors = `
	SELECT branch_id, name, floor FROM areas
	WHERE library_id = $1 AND ($2::bigint[] IS NULL OR branch_id = ANY($2)) AND floor <> ''`

const selectSeats = `
	SELECT id, branch_id, area, label, amenities, out_of_service, x_cm, y_cm, angle, desk FROM seats
	WHERE library_id = $1 AND retired_at IS NULL ORDER BY id`

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
	if err := s.addDetails(ctx, tx, c.Branches, nil); err != nil {
		return c, err
	}
	if rows, err = tx.Query(ctx, selectSeats, s.lib); err != nil {
		return c, err
	}
	c.Seats, _, err = collect(s, rows, tableSeats, checkSeat)
	return c, err
}

// checkSeat checks the text of a seat. It repairs the desk, because a seat is useful without it.
func checkSeat(seat *library.Seat) error {
	seat.Desk = strings.ToValidUTF8(seat.Desk, "\uFFFD")
	return seat.Validate()
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

// addDetails adds to branches what other tables have about them, and their announcements. ids are
// the ids of the branches; nil stands for all branches of the library.
func (s *Store) addDetails(ctx context.Context, tx pgx.Tx, branches []library.Branch, ids []int64) error {
	byID := make(map[int64]*library.Branch, len(branches))
	for i := range branches {
		byID[branches[i].ID] = &branches[i]
	}
	batch := &pgx.Batch{}
	batch.Queue(selectHours, s.lib, ids).Query(func(rows pgx.Rows) error { return addHours(rows, byID) })
	batch.Queue(selectDays, s.lib, ids).Query(func(rows pgx.Rows) error { return addDays(rows, byID) })
	batch.Queue(selectClosures, s.lib, ids).Query(func(rows pgx.Rows) error { return addClosures(rows, byID) })
	batch.Queue(selectAnnouncements, s.lib, ids).Query(func(rows pgx.Rows) error { return addAnnouncements(rows, byID) })
	batch.Queue(selectFloors, s.lib, ids).Query(func(rows pgx.Rows) error { return addFloors(rows, byID) })
	return tx.SendBatch(ctx, batch).Close()
}

// addHours adds the opening hours in rows to their branches.
func addHours(rows pgx.Rows, branches map[int64]*library.Branch) error {
	var branchID, weekday, opens, closes int64
	_, err := pgx.ForEachRow(rows, []any{&branchID, &weekday, &opens, &closes}, func() error {
		if b := branches[branchID]; b != nil {
			h := openHours(opens, closes)
			h.Weekday = time.Weekday(weekday)
			b.Hours = append(b.Hours, h)
		}
		return nil
	})
	return err
}

// openHours returns an opening. opens and closes are seconds after midnight.
func openHours(opens, closes int64) library.OpenHours {
	return library.OpenHours{Opens: time.Duration(opens) * time.Second, Closes: time.Duration(closes) * time.Second}
}

// addDays adds the dates in rows to their branches.
func addDays(rows pgx.Rows, branches map[int64]*library.Branch) error {
	var branchID int64
	var day int
	var opens, closes *int64
	_, err := pgx.ForEachRow(rows, []any{&branchID, &day, &opens, &closes}, func() error {
		if b := branches[branchID]; b != nil {
			b.Days = appendDay(b.Days, day, opens, closes)
		}
		return nil
	})
	return err
}

// appendDay appends a row of branch_days to days, which are sorted.
func appendDay(days []library.DayHours, day int, opens, closes *int64) []library.DayHours {
	if len(days) == 0 || days[len(days)-1].Day != day {
		days = append(days, library.DayHours{Day: day})
	}
	if opens != nil && closes != nil {
		last := &days[len(days)-1]
		last.Open = append(last.Open, openHours(*opens, *closes))
	}
	return days
}

// addClosures adds the closures in rows to their branches.
func addClosures(rows pgx.Rows, branches map[int64]*library.Branch) error {
	var c library.Closure
	var end *time.Time
	var note []byte
	columns := []any{&c.ID, &c.BranchID, &c.Area, &c.SeatIDs, &c.StartTime, &end, &note}
	_, err := pgx.ForEachRow(rows, columns, func() error {
		if b := branches[c.BranchID]; b != nil {
			c.EndTime, c.Note = orZero(end), readTexts(note)
			b.Closures = append(b.Closures, c)
		}
		c.SeatIDs = nil // the next row must not share the array
		return nil
	})
	return err
}

// addAnnouncements adds the announcements in rows to their branches.
func addAnnouncements(rows pgx.Rows, branches map[int64]*library.Branch) error {
	var branchID int64
	var text []byte
	var until *time.Time
	_, err := pgx.ForEachRow(rows, []any{&branchID, &text, &until}, func() error {
		if b := branches[branchID]; b != nil {
			b.Announcement, b.AnnouncedUntil = readTexts(text), orZero(until)
		}
		return nil
	})
	return err
}

// addFloors adds the floors in rows to their branches.
func addFloors(rows pgx.Rows, branches map[int64]*library.Branch) error {
	var branchID int64
	var area, floor string
	_, err := pgx.ForEachRow(rows, []any{&branchID, &area, &floor}, func() error {
		if b := branches[branchID]; b != nil {
			if b.Floors == nil {
				b.Floors = map[string]string{}
			}
			b.Floors[area] = strings.ToValidUTF8(floor, "\uFFFD")
		}
		return nil
	})
	return err
}

// readTexts reads texts from JSON. It leaves out values that are not strings, which an operator may
// have written with SQL. A closure must be known to readers even if its note is malformed.
func readTexts(text []byte) library.Texts {
	var values map[string]any
	if json.Unmarshal(text, &values) != nil {
		return nil
	}
	var out library.Texts
	for language, v := range values {
		if s, ok := v.(string); ok {
			if out == nil {
				out = library.Texts{}
			}
			out[language] = s
		}
	}
	return out
}
