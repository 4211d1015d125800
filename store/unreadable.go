package store

import (
	"context"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Operators write rows with SQL, and a newer version may write values that this version does not
// know. The store skips a row that it cannot read, so that one bad row does not stop a replica. It
// logs the row once and counts it each time.

// unreadable counts the rows that were skipped. Its zero value is ready to use.
type unreadable struct {
	log *slog.Logger // may be nil

	mu     sync.Mutex
	count  map[string]int64 // by table
	logged map[unreadableRow]struct{}
}

type unreadableRow struct {
	table string
	id    int64
}

// maxLogged bounds the number of rows that are logged. Further rows are only counted.
const maxLogged = 1000

// report counts a row. It logs the row the first time.
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

// The tables whose unreadable rows are skipped.
const (
	tableBranches     = "branches"
	tableSeats        = "seats"
	tableReservations = "reservations"
	tableEvents       = "reservation_events"
)

// UnreadableRows returns, for each table, how often the store skipped a row that it could not read.
func (s *Store) UnreadableRows() map[string]int64 {
	out := map[string]int64{tableBranches: 0, tableSeats: 0, tableReservations: 0, tableEvents: 0}
	s.unreadable.mu.Lock()
	defer s.unreadable.mu.Unlock()
	for table, n := range s.unreadable.count {
		out[table] = n
	}
	return out
}

// tolerantRow is the current row of Rows. If its Scan fails, Rows stays open, so that the next rows
// can be read. The Scan of pgx closes Rows after an error.
type tolerantRow struct{ pgx.Rows }

func (r tolerantRow) Scan(dest ...any) error {
	return pgx.ScanRow(r.Conn().TypeMap(), r.FieldDescriptions(), r.RawValues(), dest...)
}

// id returns the first column, or 0 if the first column cannot be read either.
func (r tolerantRow) id() (id int64) {
	dest := make([]any, len(r.FieldDescriptions()))
	dest[0] = &id
	_ = r.Scan(dest...) // the caller reports the row in any case
	return id
}

// collect reads all rows into values of T, by the names of the columns. The first column must be
// the id. It skips rows that cannot be read, or for which check returns an error, and returns their
// ids. check may be nil.
func collect[T any](s *Store, rows pgx.Rows, table string, check func(*T) error) (out []T, skipped []int64, err error) {
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
			skipped = append(skipped, id)
			continue
		}
		out = append(out, value)
	}
	return out, skipped, rows.Err()
}

// queryReadable runs one statement on the pool for requests and collects its rows with collect.
func queryReadable[T any](ctx context.Context, s *Store, table string, check func(*T) error, sql string, args ...any) (
	out []T, skipped []int64, err error,
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
	out, skipped, err = collect(s, rows, table, check)
	return out, skipped, translate(err)
}
