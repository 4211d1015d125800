package store

import (
	"context"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Operators write rows with SQL, and a newer version may write what this one does not know. A row that cannot be read is left out, so
// that one bad row does not stop a replica: it is logged once, and counted each time.

// unreadable counts the rows that were left out. Its zero value is ready.
type unreadable struct {
	log *slog.Logger // nil: none

	mu     sync.Mutex
	count  map[string]int64 // by table
	logged map[unreadableRow]struct{}
}

type unreadableRow struct {
	table string
	id    int64
}

// maxLogged bounds the rows that are remembered as logged; rows beyond it are counted only.
const maxLogged = 1000

// report counts a row, and logs it the first time.
func (u *unreadable) report(table string, id int64, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count == nil {
		u.count, u.logged = map[string]int64{}, map[unreadableRow]struct{}{}
	}
	u.count[table]++
	row := unreadableRow{table, id}
	if _, ok := u.logged[row]; ok || len(u.logged) == maxLogged || u.log == nil {
		return
	}
	u.logged[row] = struct{}{}
	u.log.Error("a row cannot be read", "table", table, "id", id, "error", err)
}

// The tables whose unreadable rows are left out.
const (
	tableBranches     = "branches"
	tableSeats        = "seats"
	tableReservations = "reservations"
	tableEvents       = "reservation_events"
)

// UnreadableRows returns how often a row was left out because it could not be read, by table.
func (s *Store) UnreadableRows() map[string]int64 {
	out := map[string]int64{tableBranches: 0, tableSeats: 0, tableReservations: 0, tableEvents: 0}
	s.unreadable.mu.Lock()
	defer s.unreadable.mu.Unlock()
	for table, n := range s.unreadable.count {
		out[table] = n
	}
	return out
}

// tolerantRow is a row whose Scan leaves the rows open when it fails, so that the rows after it can be read.
type tolerantRow struct{ pgx.Rows }

func (r tolerantRow) Scan(dest ...any) error {
	return pgx.ScanRow(r.Conn().TypeMap(), r.FieldDescriptions(), r.RawValues(), dest...)
}

// id is the first column, 0 if that cannot be read either.
func (r tolerantRow) id() (id int64) {
	dest := make([]any, len(r.FieldDescriptions()))
	dest[0] = &id
	_ = r.Scan(dest...) // the row is reported anyway
	return id
}

// collect reads all rows of a table into values of T, by the names of the columns, of which the first is the id. It leaves out the rows
// that cannot be read or that check, which may be nil, finds fault with, and returns their ids.
func collect[T any](s *Store, rows pgx.Rows, table string, check func(*T) error) (out []T, leftOut []int64, err error) {
	defer rows.Close()
	out = []T{}
	for rows.Next() {
		row := tolerantRow{rows}
		value, err := pgx.RowToStructByName[T](row)
		if err == nil && check != nil {
			err = check(&value)
		}
		if err != nil {
			id := row.id()
			s.unreadable.report(table, id, err)
			leftOut = append(leftOut, id)
			continue
		}
		out = append(out, value)
	}
	return out, leftOut, rows.Err()
}

// queryReadable is query with collect, on the pool that serves requests.
func queryReadable[T any](ctx context.Context, s *Store, table string, check func(*T) error, sql string, args ...any) (
	out []T, leftOut []int64, err error,
) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, nil, translate(err)
	}
	defer conn.Release()
	ctx, cancel := budget(ctx)
	defer cancel()
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, nil, translate(err)
	}
	out, leftOut, err = collect(s, rows, table, check)
	return out, leftOut, translate(err)
}
