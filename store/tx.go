package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dlsms/dlsms/library"
)

// budget is the context that statements run on. A request that is cancelled must not cost its pooled connection (pgx closes one whose
// context ends), so the statements go on without the caller, for at most statementTimeout.
func budget(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
}

// tx is one transaction. It collects the events of the transitions made in it and writes them last.
type tx struct {
	pgx.Tx
	s      *Store
	events []transition
}

// transition is an event to be written: which reservation, and what happened to it.
type transition struct {
	reservationID int64
	kind          library.EventKind
	reason        string // of an operator; empty: none
}

// record notes that a reservation has just made a transition, at most one in a transaction; its row holds the state after it.
func (t *tx) record(kind library.EventKind, reservationID int64) {
	t.events = append(t.events, transition{reservationID: reservationID, kind: kind})
}

// inTx runs fn in a transaction of pool and commits it with the events that fn recorded. Waiting for a connection ends with ctx; what
// runs then does not. When fn fails, nothing has happened.
func (s *Store) inTx(ctx context.Context, pool *pgxpool.Pool, fn func(ctx context.Context, t *tx) error) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return translate(err)
	}
	defer conn.Release()
	ctx, cancel := budget(ctx)
	defer cancel()
	pgTx, err := conn.Begin(ctx)
	if err != nil {
		return translate(err)
	}
	t := &tx{Tx: pgTx, s: s}
	err = fn(ctx, t)
	if err == nil {
		err = t.writeEvents(ctx)
	}
	if err != nil {
		rollback, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = pgTx.Rollback(rollback) // a connection that can't roll back is closed by the pool
		return translate(err)
	}
	return translate(pgTx.Commit(ctx))
}

// query runs one statement on pool and collects its rows. Waiting for a connection ends with ctx, the statement does not.
func query[T any](ctx context.Context, pool *pgxpool.Pool, collect pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, translate(err)
	}
	defer conn.Release()
	ctx, cancel := budget(ctx)
	defer cancel()
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, translate(err)
	}
	out, err := pgx.CollectRows(rows, collect)
	return out, translate(err)
}

// queryOne is query for a statement that returns one row; without one it fails with none.
func queryOne[T any](ctx context.Context, pool *pgxpool.Pool, none error, collect pgx.RowToFunc[T], sql string, args ...any) (T, error) {
	rows, err := query(ctx, pool, collect, sql, args...)
	if err == nil && len(rows) == 0 {
		err = none
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return rows[0], nil
}
