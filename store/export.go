package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// exportSlice is the span of starts that one statement of an export reads. A day has at most a few
// ten thousand reservations. So an export needs little memory, and no transaction lives long, however
// slowly its client reads.
const exportSlice = 24 * time.Hour

const (
	// selectExportPlaces returns the branches of an export, and the span of its days in their time
	// zones.
	selectExportPlaces = `
		SELECT b.id, $3::date::timestamp AT TIME ZONE b.timezone AS begins,
			($4::date + 1)::timestamp AT TIME ZONE b.timezone AS ends
		FROM branches b WHERE b.library_id = $1 AND ($2::bigint[] IS NULL OR b.id = ANY ($2)) ORDER BY b.id`

	// selectExported reads the reservations of branches that start from $5 to $6, and in the span of
	// their branch. The inner query reads the index of the reservations of a seat. OFFSET 0 keeps it
	// apart: see selectOccupied. Offers that were not claimed are no reservations: they have no
	// deadline.
	selectExported = `
		SELECT CASE WHEN u.pseudonym THEN 0 ELSE r.user_id END AS user_id, u.user_group AS "group",
			b.code AS branch, b.timezone, s.area, s.label,
			lower(r.during) AS start_time, upper(r.during) AS end_time, r.status, r.created_at, r.checked_in_at,
			COALESCE(r.proof, '') AS proof, r.ended_at
		FROM unnest($2::bigint[], $3::timestamptz[], $4::timestamptz[]) p (branch_id, begins, ends)
		JOIN branches b ON b.library_id = $1 AND b.id = p.branch_id
		JOIN seats s ON s.library_id = $1 AND s.branch_id = p.branch_id
		CROSS JOIN LATERAL (
			SELECT r.* FROM reservations r
			WHERE r.library_id = $1 AND r.seat_id = s.id AND r.check_in_deadline IS NOT NULL
				AND lower(r.during) >= GREATEST(p.begins, $5) AND lower(r.during) < LEAST(p.ends, $6)
			OFFSET 0
		) r
		JOIN users u ON u.library_id = $1 AND u.id = r.user_id
		ORDER BY lower(r.during), r.id`
)

type exportPlace struct {
	ID     int64
	Begins time.Time
	Ends   time.Time
}

// ExportReservations calls emit with the reservations of the branches in the scope of the actor that
// start on some days, sorted by start. Each call gets those of one day, and must not keep the slice. It
// fails with ErrBranchNotFound or ErrBranchRequired, or with the error of emit. If the token or key of
// the actor is revoked meanwhile, it fails with ErrTokenRevoked before the next day.
func (s *Store) ExportReservations(
	ctx context.Context, actor library.Actor, q library.ExportQuery, emit func([]library.ExportedReservation) error,
) error {
	var places []exportPlace
	order := library.Order{Actor: actor}
	err := s.asStaffOn(ctx, s.reports, order, func(ctx context.Context, t *staffTx) error {
		branches, err := t.branchesOf(ctx, q.Branch)
		if err != nil {
			return err
		}
		places, err = rowsOf(ctx, t, pgx.RowToStructByName[exportPlace], selectExportPlaces,
			s.lib, branches, q.FirstDay, q.LastDay)
		return err
	})
	if err != nil || len(places) == 0 {
		return err
	}
	var ids []int64
	var begins, ends []time.Time
	first, last := places[0].Begins, places[0].Ends
	for _, p := range places {
		ids, begins, ends = append(ids, p.ID), append(begins, p.Begins), append(ends, p.Ends)
		first, last = earliest(first, p.Begins), latest(last, p.Ends)
	}
	var rows []library.ExportedReservation
	for from := first; from.Before(last); from = from.Add(exportSlice) {
		if err := context.Cause(ctx); err != nil {
			return translate(err)
		}
		// Each day is a transaction that checks the actor again, since an export may take long.
		err := s.asStaffOn(ctx, s.reports, order, func(ctx context.Context, t *staffTx) (err error) {
			rows, err = appendExported(ctx, t, rows[:0], selectExported, s.lib, ids, begins, ends, from, from.Add(exportSlice))
			return err
		})
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			continue
		}
		if err := emit(rows); err != nil {
			return err
		}
	}
	return nil
}

// appendExported appends to rows the reservations that a query returns.
func appendExported(
	ctx context.Context, t *staffTx, rows []library.ExportedReservation, sql string, args ...any,
) ([]library.ExportedReservation, error) {
	found, err := t.Query(ctx, sql, args...)
	if err != nil {
		return nil, translate(err)
	}
	var r library.ExportedReservation
	columns := []any{
		&r.UserID, &r.Group, &r.Branch, &r.Timezone, &r.Area, &r.Label,
		&r.StartTime, &r.EndTime, &r.Status, &r.CreatedAt, &r.CheckedInAt, &r.Proof, &r.EndedAt,
	}
	_, err = pgx.ForEachRow(found, columns, func() error {
		rows = append(rows, r)
		r.CheckedInAt, r.EndedAt = nil, nil // each row has times of its own
		return nil
	})
	return rows, translate(err)
}
