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

// Snapshot is the set of transactions that a reader has seen: all with ids below Xmax, except those
// in InProgress.
type Snapshot struct {
	Xmax       uint64
	InProgress []uint64

	text        string            // as Postgres wrote it
	connID      uint64            // number of the logConn's connection
	revocations *revocationCursor // set between two pages of revocations
	// unchanged reports that the read with this snapshot found nothing new. The next read probably
	// finds nothing either. So Changes then tries selectSnapshot first, which costs less than
	// selectChanges.
	unchanged bool
}

// same reports whether both snapshots see the same transactions, so nothing was committed between
// them.
func (s Snapshot) same(o Snapshot) bool { return s.text == o.text && s.connID == o.connID }

// After reports whether it is certain that the snapshot was taken after the older one. A restore
// can reset the database to an earlier state, and if the connection is lost, a restore may have
// happened unseen. In both cases After returns false, and the reader must discard all that it has
// read. Every snapshot is after the zero Snapshot.
func (s Snapshot) After(older Snapshot) bool {
	return older.Xmax == 0 || s.connID == older.connID && s.Xmax >= older.Xmax
}

// parseSnapshot parses the text form of a pg_snapshot, xmin:xmax:xip_list.
func parseSnapshot(text string, connID uint64) (Snapshot, error) {
	s := Snapshot{text: text, connID: connID}
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

// Changes has everything that was committed between two snapshots.
type Changes struct {
	Snapshot Snapshot
	// Now is Postgres's clock just before the snapshot was taken. A reader that applies these
	// changes has the state at Now.
	Now time.Time
	// Events are the new events. After a failed read, the next read may return an event again. Of
	// two events of a reservation, the one with the higher Version is newer.
	Events []library.Event
	// CatalogChanged reports that a branch or seat was added, changed or deleted. Catalog has the
	// changes.
	CatalogChanged bool
	Catalog        CatalogChanges
}

// selectChanges reads the change log since a snapshot. It returns at least one row; if there are no
// events, the event columns of that row are NULL. One statement sees one snapshot, so the rows were
// read with exactly the snapshot that is returned.
//
// New rows come from transactions of two kinds: those that began after the previous snapshot (xid
// is at least $2, the Xmax of that snapshot), and those that were in progress at that time ($3). A
// single condition would be simpler: xid is at least the oldest transaction in progress. But while
// one long transaction runs, each read would then return the same events again.
//
// The statement must read only the new rows, whatever the planner assumes. Therefore:
//
//   - Each of the two conditions has its own SELECT. For an OR, Postgres would scan all rows of the
//     library.
//   - ORDER BY xid DESC LIMIT 1 finds the newest row of the catalog. With a plain condition on xid,
//     the planner would choose any index while there are few rows, and keep that plan.
//   - BETWEEN x AND x is used instead of = x. If the statistics say that one transaction wrote all
//     rows, the planner would scan all rows for = x.
//   - OFFSET 0 prevents a plan that reads all rows once and compares them with each transaction.
//   - The session has indexPlanSettings.
//
// If the library has no branch, the catalog counts as changed: no row shows that the last branch
// was deleted.
const selectChanges = `
	SELECT s.snapshot, s.now, s.catalog_changed,
		e.id, e.kind, e.at, e.reservation_id, e.version, e.seat_id, e.user_id,
		lower(e.during) AS start_time, upper(e.during) AS end_time,
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

// selectSnapshot reads only the current snapshot. If it equals the previous snapshot, nothing was
// committed in between, and selectChanges is not needed. This is the usual case, because reads are
// far more frequent than bookings. The start of selectChanges alone costs Postgres three times as
// much as selectSnapshot.
const selectSnapshot = `SELECT pg_current_snapshot()::text, dlsms_began()`

// Changes returns everything that was committed after the snapshot since, and the snapshot for the
// next call. If that snapshot is not After since, the changes may be incomplete: call LoadWorld
// again.
func (s *Store) Changes(ctx context.Context, since Snapshot) (c Changes, err error) {
	err = s.changes.do(ctx, func(conn *pgx.Conn) error { //nolint:contextcheck // do sets the deadline
		if s.changes.reconnectedSince(since) {
			c.Snapshot, c.Now, err = s.changes.snapshot(conn)
			return err
		}
		if since.unchanged {
			unchanged, err := s.changes.unchanged(conn, since, &c.Now)
			if unchanged {
				c.Snapshot = since
			}
			if unchanged || err != nil {
				return err
			}
		}
		c, err = s.allChanges(conn, since)
		return err
	})
	return c, err
}

// reconnectedSince reports whether the snapshot was taken on an earlier connection. Such a snapshot
// is invalid (see Snapshot.After), so the caller reads only the current snapshot. It does not read
// the changes since the old snapshot: this may take longer than logConnTimeout, and then this read
// and every later one would fail.
func (l *logConn) reconnectedSince(since Snapshot) bool {
	return since.Xmax != 0 && since.connID != l.connID
}

// snapshot returns the current snapshot and the time just before it was taken.
func (l *logConn) snapshot(conn *pgx.Conn) (s Snapshot, now time.Time, err error) {
	var text string
	if err = conn.QueryRow(context.Background(), selectSnapshot).Scan(&text, &now); err != nil {
		return s, now, err
	}
	s, err = parseSnapshot(text, l.connID)
	return s, now, err
}

// pgEpoch is the zero of Postgres's timestamps, in Unix microseconds.
var pgEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// unchanged reports whether the current snapshot equals since, so nothing was committed in between.
// It sets now to the time just before the current snapshot. It decodes the row itself, because the
// type conversion of pgx took one eighth of the CPU of a busy replica.
func (l *logConn) unchanged(conn *pgx.Conn, since Snapshot, now *time.Time) (unchanged bool, err error) {
	// In another mode, a pooler between the store and Postgres may keep no prepared statements.
	if l.connID != since.connID || l.config.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		return false, nil
	}
	if l.snapshotStmt == nil {
		if l.snapshotStmt, err = conn.Prepare(context.Background(), "snapshot", selectSnapshot); err != nil {
			return false, err
		}
	}
	result := conn.PgConn().ExecStatement(context.Background(), l.snapshotStmt, nil, nil,
		[]int16{pgtype.TextFormatCode, pgtype.BinaryFormatCode})
	for result.NextRow() {
		row := result.Values()
		unchanged = string(row[0]) == since.text
		micros := int64(binary.BigEndian.Uint64(row[1])) //nolint:gosec // the same bits: it may be before 2000
		*now = time.UnixMicro(pgEpoch + micros)
	}
	_, err = result.Close()
	return unchanged && err == nil, err
}

// allChanges reads the events and the catalog changes since a snapshot.
func (s *Store) allChanges(conn *pgx.Conn, since Snapshot) (c Changes, err error) {
	rows, err := conn.Query(context.Background(), selectChanges, s.lib, since.Xmax, since.InProgress)
	if err != nil {
		return c, err
	}
	defer rows.Close()
	var snapshot string
	for rows.Next() {
		row := tolerantRow{rows}
		if snapshot == "" { // the first three columns are the same in all rows
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
	if c.Snapshot, err = parseSnapshot(snapshot, s.changes.connID); err != nil {
		return c, err
	}
	c.Snapshot.unchanged = c.Snapshot.same(since)
	slices.SortFunc(c.Events, func(a, b library.Event) int { return int(a.ID - b.ID) })
	return c, nil
}

// changeColumns is the number of columns of selectChanges.
const changeColumns = 16

// event returns the event of a row of selectChanges. Its ID is 0 if the row has no event.
func (r tolerantRow) event() (e library.Event, err error) {
	var id *int64
	err = r.Scan(nil, nil, nil, &id, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil)
	if err != nil || id == nil {
		return e, err
	}
	e.ID = *id
	var deadline, offer *time.Time
	err = r.Scan(nil, nil, nil, nil, &e.Kind, &e.At, &e.ReservationID, &e.Version, &e.SeatID, &e.UserID,
		&e.StartTime, &e.EndTime, &e.Status, &e.Occupies, &deadline, &offer)
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
