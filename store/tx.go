package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dlsms/dlsms/library"
)

// budget returns a context for statements that ends after statementTimeout, and not when ctx ends.
// pgx closes a connection if the context of a statement ends, and a cancelled request must not cost
// a connection of the pool.
func budget(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
}

// bulkBudget is budget for the transactions of the bulk pool.
func bulkBudget(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), bulkTimeout)
}

// tx is one transaction. It collects the events of its transitions and writes them last.
type tx struct {
	pgx.Tx
	s      *Store
	events []transition
}

// transition is an event to write.
type transition struct {
	cause

	reservationID int64
	kind          library.EventKind
	sweepID       int64 // of the sweep that made the transition, or 0
	suggested     int64 // id of a free seat for the user, or 0
}

// cause says why a reservation was made or changed. The cause of a call by its user, and that of a
// change by time, is zero.
type cause struct {
	reason string // of staff; may be empty
	// byLibrary says that staff or a sweep made the change. The user then gets a notification. A
	// reservation that staff make is exempt from the limits of the policy on users.
	byLibrary bool
}

// record adds the event of a transition that a reservation has made. writeEvents reads the row of
// the reservation before the commit. So a reservation can make only one transition in a
// transaction.
func (t *tx) record(e transition) { t.events = append(t.events, e) }

// notifies reports whether the user gets a notification.
func (e transition) notifies() bool { return e.byLibrary || e.kind.Notifies() }

// inTx runs fn in a transaction and commits it together with the events that fn recorded. If fn
// fails, inTx rolls back. If ctx ends while inTx waits for a connection, inTx returns an error.
// Once the transaction has begun, the end of ctx has no effect: budget bounds the statements.
func (s *Store) inTx(ctx context.Context, pool *pgxpool.Pool, fn func(ctx context.Context, t *tx) error) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return translate(err)
	}
	defer conn.Release() // canary: release
	limit := budget
	if pool == s.bulk {
		limit = bulkBudget
	}
	ctx, cancel := limit(ctx)
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
		_ = pgTx.Rollback(rollback) // the pool closes a connection that fails to roll back
		return translate(err)
	}
	return translate(pgTx.Commit(ctx)) // canary: commit
}

// query runs one statement and collects its rows. The end of ctx ends only the wait for a
// connection. Once the statement runs, budget bounds it.
func query[T any](
	ctx context.Context, pool *pgxpool.Pool, collect pgx.RowToFunc[T], sql string, args ...any,
) ([]T, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, translate(err)
	}
	defer conn.Release()
	ctx, cancel := budget(ctx)
	defer cancel()
	out, err := rowsOf(ctx, conn, collect, sql, args...)
	return out, translate(err)
}

// queryOne runs a statement that returns at most one row. If there is no row, queryOne returns the
// error in the parameter none.
func queryOne[T any](
	ctx context.Context, pool *pgxpool.Pool, none error, collect pgx.RowToFunc[T], sql string, args ...any,
) (T, error) {
	rows, err := query(ctx, pool, collect, sql, args...)
	return first(rows, none, err)
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// rowsOf runs one statement and collects its rows.
func rowsOf[T any](
	ctx context.Context, q querier, collect pgx.RowToFunc[T], sql string, args ...any,
) ([]T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, collect)
}

// rowOf runs a statement that returns at most one row. If there is no row, rowOf returns the error in
// the parameter none.
func rowOf[T any](
	ctx context.Context, q querier, none error, collect pgx.RowToFunc[T], sql string, args ...any,
) (T, error) {
	rows, err := rowsOf(ctx, q, collect, sql, args...)
	return first(rows, none, err)
}

// first returns the first row, err, or none if there is no row.
func first[T any](rows []T, none, err error) (row T, _ error) {
	switch {
	case err != nil:
		return row, err
	case len(rows) == 0:
		return row, none
	}
	return rows[0], nil
}
