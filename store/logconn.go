package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dlsms/dlsms/library"
)

// logConnTimeout bounds one read of the change log, which normally takes well under a millisecond.
// After it, Postgres counts as unreachable.
const logConnTimeout = 2 * time.Second

// logConn is the connection on which a Store follows the change log, or the revocation list.
//
// It is not a connection of a pool, because a pool silently replaces a broken connection. After a
// crash, Postgres reuses the ids of transactions of which nothing had reached the disk. An older
// snapshot takes such an id for one that it has seen. So each connection has a number, and a
// snapshot is valid only on the connection that it was taken on.
type logConn struct {
	config *pgx.ConnConfig
	// onIDsMoved is called after checkRestored moved ids forward. If it is nil, this connection
	// does not check: the other logConn does.
	onIDsMoved func()

	mu             sync.Mutex
	restoreChecked time.Time                    // time of the last checkRestored
	conn           *pgx.Conn                    // nil or closed: not connected
	connID         uint64                       // number of the connection, from 1
	snapshotStmt   *pgconn.StatementDescription // selectSnapshot; nil: not prepared on this connection
	closed         bool
}

// do runs f on the connection, for one caller at a time, and connects first if necessary. It ends
// at the deadline of ctx. At the latest, it ends logConnTimeout after the start of the connect, and
// again logConnTimeout after the start of f. f needs no context for that: to watch a context costs
// as much CPU as the read itself.
func (l *logConn) do(ctx context.Context, f func(conn *pgx.Conn) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil || l.conn.IsClosed() {
		if err := l.connect(ctx); err != nil {
			return translate(err)
		}
	}
	now := time.Now()
	if now.Sub(l.restoreChecked) > restoreCheckInterval && l.onIDsMoved != nil {
		if err := l.checkRestored(ctx); err != nil {
			return translate(err)
		}
	}
	end := now.Add(logConnTimeout)
	if last, ok := ctx.Deadline(); ok && last.Before(end) {
		end = last
	}
	if err := l.conn.PgConn().Conn().SetDeadline(end); err != nil {
		return translate(err)
	}
	return translate(f(l.conn))
}

func (l *logConn) connect(ctx context.Context) error {
	if l.closed {
		return library.ErrUnavailable.WithCause(errClosedStore)
	}
	ctx, cancel := context.WithTimeout(ctx, logConnTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, l.config)
	if err != nil {
		return err
	}
	if err := prepareSession(ctx, conn, indexPlanSettings()); err != nil {
		_ = conn.Close(ctx)
		return err
	}
	l.conn, l.snapshotStmt = conn, nil
	l.connID++
	l.restoreChecked = time.Time{}
	return nil
}

// restoreCheckInterval is the time between two checks for a restored database. A replica also
// checks on each new connection, which follows every failover and every crash recovery of Postgres.
const restoreCheckInterval = time.Minute

// checkRestored moves ids forward if the database was restored, copied or failed over. If that
// happened while this connection was open, everything read on it before is invalid. Then
// checkRestored closes the connection, which invalidates the snapshots taken on it.
func (l *logConn) checkRestored(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logConnTimeout)
	defer cancel()
	var moved bool
	if err := l.conn.QueryRow(ctx, `SELECT dlsms_settle()`).Scan(&moved); err != nil {
		return err
	}
	isNew := l.restoreChecked.IsZero()
	l.restoreChecked = time.Now()
	if moved {
		l.onIDsMoved()
	}
	if !moved || isNew {
		return nil
	}
	_ = l.conn.Close(ctx)
	return library.ErrUnavailable.WithCause(errIDsMoved)
}

var errIDsMoved = errors.New("the database was restored, copied or failed over: ids were moved on")

// disconnect closes the connection. The next call of do opens another.
func (l *logConn) disconnect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		_ = l.conn.PgConn().Conn().SetDeadline(time.Now())
		_ = l.conn.Close(context.Background())
	}
}

var errClosedStore = errors.New("the store is closed")

// ensure connects if necessary and returns the number of the connection. A snapshot that is taken
// later, on any connection of the pools, may carry this number: if the connection breaks in the
// meantime, the number is outdated and the snapshot is invalid.
func (l *logConn) ensure(ctx context.Context) (connID uint64, err error) {
	err = l.do(ctx, func(conn *pgx.Conn) error { //nolint:contextcheck // do sets the deadline
		connID = l.connID
		return conn.Ping(context.Background())
	})
	return connID, err
}

// close closes the connection and makes all later calls fail.
func (l *logConn) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.conn != nil {
		_ = l.conn.PgConn().Conn().SetDeadline(time.Now().Add(time.Second))
		_ = l.conn.Close(context.Background())
	}
}
