package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/dlsms/dlsms/library"
)

// Snapshot says which transactions a reader has seen: those before Xmax, but for the ones in InProgress.
type Snapshot struct {
	Xmax       uint64
	InProgress []uint64

	text  string             // as Postgres wrote it
	epoch uint64             // of the line
	page  *pageOfRevocations // set between two pages of revocations
	// calm says that nothing had happened since the snapshot before: chances are that nothing happens until the next one either.
	calm bool
}

// same reports whether the two see the same transactions, so that nothing was committed between them.
func (s Snapshot) same(o Snapshot) bool { return s.text == o.text && s.epoch == o.epoch }

// After reports whether the snapshot was surely taken after the older one. If not, the database went back (it was restored, say), or may
// have, as the connection was lost; then what a reader knows is worth nothing. Every snapshot is after the zero one.
func (s Snapshot) After(older Snapshot) bool {
	return older.Xmax == 0 || s.epoch == older.epoch && s.Xmax >= older.Xmax
}

// parseSnapshot reads the text form of a pg_snapshot, xmin:xmax:xip_list.
func parseSnapshot(text string, epoch uint64) (Snapshot, error) {
	s := Snapshot{text: text, epoch: epoch}
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return s, fmt.Errorf("%q is not a pg_snapshot", text)
	}
	var err error
	if s.Xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return s, fmt.Errorf("pg_snapshot %q: %w", text, err)
	}
	s.InProgress = []uint64{}
	for xip := range strings.SplitSeq(parts[2], ",") {
		if xip == "" {
			continue
		}
		x, err := strconv.ParseUint(xip, 10, 64)
		if err != nil {
			return s, fmt.Errorf("pg_snapshot %q: %w", text, err)
		}
		s.InProgress = append(s.InProgress, x)
	}
	return s, nil
}

// Changes are what happened between two snapshots.
type Changes struct {
	Snapshot Snapshot
	// Now is Postgres's clock just before the snapshot was taken: with these changes applied, a reader's knowledge is true of it.
	Now time.Time
	// Events are in no particular order; one may come again in the next read after a failure. Their Version tells the newer.
	Events []library.Event
	// CatalogChanged says that a branch or seat was added, changed or deleted, and Catalog how.
	CatalogChanged bool
	Catalog        CatalogChanges
}

// selectChanges returns at least one row; without events, one of which all event columns are NULL. One statement sees one snapshot, so the
// snapshot returned is exactly the one that the rows were read with. What the snapshot before could not see is what began after it ($2), or
// was in progress then ($3): a condition on xmin alone would read everything again and again while one long transaction runs.
//
// It must never cost more than what is new, whatever the planner believes. Hence one part for each of the two conditions, since an OR of
// them is answered by a walk over the library; ORDER BY xid for whether one is new enough, since any index will do for that among a few rows,
// and then for ever; BETWEEN for =, since statistics may say that one transaction wrote all rows; and OFFSET 0,
// which keeps it from reading the rows once and comparing them with each transaction. See logSettings too.
//
// Without any branch, the catalog counts as changed: the last one that is deleted leaves its mark nowhere.
const selectChanges = `
	SELECT s.snapshot, s.now, s.catalog_changed,
		e.id, e.kind, e.at, e.reservation_id, e.version, e.seat_id, e.user_id, lower(e.during) AS start_time, upper(e.during) AS end_time,
		e.status, e.occupies, e.check_in_deadline, e.offer_expires_at
	FROM (
		SELECT pg_current_snapshot()::text AS snapshot, dlsms_began() AS now,
			COALESCE((SELECT xid FROM seats WHERE library_id = $1 ORDER BY xid DESC LIMIT 1) >= $2, false)
			OR COALESCE((SELECT xid FROM branches WHERE library_id = $1 ORDER BY xid DESC LIMIT 1) >= $2, true)
			OR EXISTS (SELECT FROM unnest($3::xid8[]) x, LATERAL (
				SELECT FROM seats WHERE library_id = $1 AND xid BETWEEN x AND x OFFSET 0) c)
			OR EXISTS (SELECT FROM unnest($3::xid8[]) x, LATERAL (
				SELECT FROM branches WHERE library_id = $1 AND xid BETWEEN x AND x OFFSET 0) c) AS catalog_changed
		OFFSET 0
	) s
	LEFT JOIN (
		SELECT * FROM reservation_events WHERE library_id = $1 AND xid >= $2
		UNION ALL
		SELECT e.* FROM unnest($3::xid8[]) x, LATERAL (
			SELECT * FROM reservation_events WHERE library_id = $1 AND xid BETWEEN x AND x OFFSET 0) e
	) e ON true`

// selectSnapshot is all of selectChanges that is needed when nothing has happened. Most looks at the log find that, since there are far more
// of them than bookings, and starting the larger statement costs Postgres three times as much as starting this one.
const selectSnapshot = `SELECT pg_current_snapshot()::text, dlsms_began()`

// Changes returns everything that was committed after the snapshot since, and the snapshot to ask with next. When that one is not After the
// one given, there may be changes that are not among them: load the world anew.
func (s *Store) Changes(ctx context.Context, since Snapshot) (c Changes, err error) {
	err = s.changes.do(ctx, func(conn *pgx.Conn) error { //nolint:contextcheck // the line has its own time
		if s.changes.interrupted(since) {
			c.Snapshot, c.Now, err = s.changes.snapshot(conn)
			return err
		}
		if since.calm {
			calm, err := s.changes.calm(conn, since, &c.Now)
			if calm {
				c.Snapshot = since
			}
			if calm || err != nil {
				return err
			}
		}
		c, err = s.allChanges(conn, since)
		return err
	})
	return c, err
}

// interrupted reports whether the line is another one than when the snapshot was taken. Nothing is built upon that snapshot then (see After), so
// what happened since is not even asked for: it may be more than can be read in the time of a look, and then would be the next time too.
func (l *line) interrupted(since Snapshot) bool { return since.Xmax != 0 && since.epoch != l.epoch }

// snapshot returns one, and the time that what it shows is true of.
func (l *line) snapshot(conn *pgx.Conn) (s Snapshot, now time.Time, err error) {
	var text string
	if err = conn.QueryRow(context.Background(), selectSnapshot).Scan(&text, &now); err != nil {
		return s, now, err
	}
	s, err = parseSnapshot(text, l.epoch)
	return s, now, err
}

// pgEpoch is where Postgres begins to count, in microseconds.
var pgEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// calm reports whether the snapshot is still the same, so that nothing has happened since, and tells the time. It goes around all of pgx that
// has to do with types, which made it one eighth of what a busy replica did.
func (l *line) calm(conn *pgx.Conn, since Snapshot, now *time.Time) (calm bool, err error) {
	if l.epoch != since.epoch || l.config.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement { // a pooler that keeps no statements
		return false, nil
	}
	if l.look == nil {
		if l.look, err = conn.Prepare(context.Background(), "look", selectSnapshot); err != nil {
			return false, err
		}
	}
	result := conn.PgConn().ExecStatement(context.Background(), l.look, nil, nil, []int16{pgtype.TextFormatCode, pgtype.BinaryFormatCode})
	for result.NextRow() {
		row := result.Values()
		calm = string(row[0]) == since.text
		*now = time.UnixMicro(pgEpoch + int64(binary.BigEndian.Uint64(row[1]))) //nolint:gosec // its bits: it may be before 2000
	}
	_, err = result.Close()
	return calm && err == nil, err
}

func (s *Store) allChanges(conn *pgx.Conn, since Snapshot) (c Changes, err error) {
	rows, err := conn.Query(context.Background(), selectChanges, s.lib, since.Xmax, since.InProgress)
	if err != nil {
		return c, err
	}
	defer rows.Close()
	var snapshot string
	for rows.Next() {
		row := tolerantRow{rows}
		if snapshot == "" { // it is the same in all rows
			var head [changeColumns]any
			head[0], head[1], head[2] = &snapshot, &c.Now, &c.CatalogChanged
			if err := row.Scan(head[:]...); err != nil {
				return c, err
			}
		}
		e, err := row.event()
		if err != nil {
			s.unreadable.report(tableEvents, e.ID, err)
		} else if e.ID != 0 {
			c.Events = append(c.Events, e)
		}
	}
	if err := rows.Err(); err != nil {
		return c, err
	}
	if c.CatalogChanged {
		if c.Catalog, err = s.catalogChanges(conn, since); err != nil {
			return c, err
		}
	}
	if c.Snapshot, err = parseSnapshot(snapshot, s.changes.epoch); err != nil {
		return c, err
	}
	c.Snapshot.calm = c.Snapshot.same(since)
	slices.SortFunc(c.Events, func(a, b library.Event) int { return int(a.ID - b.ID) })
	return c, nil
}

// changeColumns is how many columns selectChanges has.
const changeColumns = 16

// event reads the event of a row of selectChanges. Its ID is 0 if there is none.
func (r tolerantRow) event() (e library.Event, err error) {
	var id *int64
	if err := r.Scan(nil, nil, nil, &id, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil); err != nil || id == nil {
		return e, err
	}
	e.ID = *id
	var deadline, offer *time.Time
	err = r.Scan(nil, nil, nil, nil, &e.Kind, &e.At, &e.ReservationID, &e.Version, &e.SeatID, &e.UserID, &e.StartTime, &e.EndTime,
		&e.Status, &e.Occupies, &deadline, &offer)
	if err != nil {
		return e, err
	}
	e.CheckInDeadline, e.OfferExpiresAt = orZero(deadline), orZero(offer)
	switch {
	case e.Occupies == nil && !e.Status.Known():
		return e, fmt.Errorf("unknown status %q", e.Status)
	case e.Occupies != nil && *e.Occupies == e.Status.Occupies():
		e.Occupies = nil
	}
	return e, nil
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
