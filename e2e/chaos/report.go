package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// wrongSumsSQL finds sums of reports that differ from the number of events in the change log. A sum
// may lack the events that were committed after it. Under faults, and with a fast clock, a commit
// may be later than the ten minutes after which an hour is counted. So a sum is too small only if it
// lacks an event that was committed $3 or more before it. usage_open has a row for each hour and
// area.
//
// The branches of the operator, $1 and $2, do not count: bad rows move seats there.
const wrongSumsSQL = `
	WITH counted AS (
		SELECT hour, max(pg_xact_commit_timestamp(xmin)) AS at FROM usage_open GROUP BY hour
	), events AS (
		SELECT c.hour, s.branch_id, COALESCE(e.proof, e.kind) AS kind, count(*) AS most,
			count(*) FILTER (WHERE pg_xact_commit_timestamp(e.xmin) < c.at - $3::interval) AS least
		FROM counted c
		JOIN reservation_events e ON e.at >= c.hour AND e.at < c.hour + interval '1 hour'
		JOIN seats s ON s.library_id = e.library_id AND s.id = e.seat_id
		WHERE e.kind IN ('RESERVED', 'CLAIMED', 'CHECKED_IN', 'NO_SHOW', 'CANCELLED', 'OFFERED')
		GROUP BY c.hour, s.branch_id, COALESCE(e.proof, e.kind)
	), sums AS (
		SELECT u.hour, u.branch_id, v.kind, sum(v.n) AS n
		FROM usage_hours u CROSS JOIN LATERAL (VALUES
			('RESERVED', reservations - claims), ('CLAIMED', claims), ('OFFERED', offers), ('NO_SHOW', no_shows),
			('CANCELLED', cancelled + cancelled_by_library), ('SEAT', check_ins_seat), ('SCREEN', check_ins_screen),
			('SEAT_AND_SCREEN', check_ins_both), ('DESK', check_ins_desk), ('ARRIVAL', check_ins_arrival),
			('NONE', check_ins - check_ins_seat - check_ins_screen - check_ins_both - check_ins_desk - check_ins_arrival)
		) v (kind, n) GROUP BY u.hour, u.branch_id, v.kind
	)
	SELECT format('the sum of %s in branch %s from %s on is %s, and the change log has %s', kind, b.code, hour,
		COALESCE(n, 0), COALESCE(most, 0))
	FROM sums FULL JOIN events USING (hour, branch_id, kind)
	JOIN branches b ON b.id = branch_id
	WHERE b.code NOT IN ($1, $2) AND NOT COALESCE(n, 0) BETWEEN COALESCE(least, 0) AND COALESCE(most, 0)`

// countSums counts the hours that have sums, and the events in these sums.
func (r *result) countSums(ctx context.Context, s *system) error {
	return s.db.QueryRow(ctx, `
		SELECT (SELECT count(DISTINCT hour) FROM usage_open),
			(SELECT COALESCE(sum(reservations + check_ins + no_shows + cancelled + cancelled_by_library + offers), 0)
				FROM usage_hours)`).Scan(&r.countedHours, &r.countedEvents)
}

// exporters is the number of clients whose export is checked. Half of them use HTTP.
const exporters = 4

// exportSections has the sections of the export that do not have the name of their table.
var exportSections = map[string]string{"audit_log": "changes_as_staff", "revocations": "ended_tokens"}

// checkExports checks that the export of a client has each row of the client, and no row of another
// user. This concerns each table with a column user_id, also a table that a later migration adds.
func (r *result) checkExports(ctx context.Context, s *system, clients []*client) error {
	rows, err := s.db.Query(ctx, `
		SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'user_id'`)
	if err != nil {
		return err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, c := range clients[:exporters] {
		before, err := s.rowsOf(ctx, tables, c.User.GetId())
		if err != nil {
			return err
		}
		exported, err := c.export(ctx)
		if err != nil {
			r.found.add(checkAnswers, "ExportMyData of user %d: %v", c.User.GetId(), err)
			continue
		}
		after, err := s.rowsOf(ctx, tables, c.User.GetId())
		if err != nil {
			return err
		}
		for _, table := range tables {
			r.exportedRows += len(exported[table])
			for id := range before[table] {
				if !exported[table][id] {
					r.found.add(checkAnswers, "the export of user %d lacks row %d of %s", c.User.GetId(), id, table)
				}
			}
			for id := range exported[table] {
				if !after[table][id] {
					r.found.add(checkAnswers, "the export of user %d has row %d of %s of another user", c.User.GetId(), id, table)
				}
			}
		}
	}
	return nil
}

// rowIDs has the ids of rows, by table.
type rowIDs map[string]map[int64]bool

func (ids rowIDs) add(table string, id int64) {
	if ids[table] == nil {
		ids[table] = map[int64]bool{}
	}
	ids[table][id] = true
}

// rowsOf returns the rows of a user in some tables.
func (s *system) rowsOf(ctx context.Context, tables []string, user int64) (rowIDs, error) {
	ids := rowIDs{}
	for _, table := range tables {
		rows, err := s.db.Query(ctx, `SELECT id FROM `+pgx.Identifier{table}.Sanitize()+` WHERE user_id = $1`, user)
		if err != nil {
			return nil, err
		}
		var id int64
		if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { ids.add(table, id); return nil }); err != nil {
			return nil, fmt.Errorf("%s: %w", table, err)
		}
	}
	return ids, nil
}

// export returns the rows in the export of the client.
func (c *client) export(ctx context.Context) (rowIDs, error) {
	text, err := c.ExportMyData(ctx)
	if err != nil {
		return nil, err
	}
	var document map[string]json.RawMessage
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	ids := rowIDs{}
	for section, list := range document {
		var rows []struct {
			ID     int64
			Events []struct{ ID int64 }
		}
		if json.Unmarshal(list, &rows) != nil { // the row of the user, and the time of the export
			continue
		}
		for _, row := range rows {
			ids.add(section, row.ID)
			for _, e := range row.Events {
				ids.add("reservation_events", e.ID)
			}
		}
	}
	for table, section := range exportSections {
		ids[table] = ids[section]
	}
	return ids, nil
}
