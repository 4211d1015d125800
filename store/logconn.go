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
// After this time, Postgres counts as unreachable.
const logConnTimeout = 2 * time.Second

// logConn is the connection on which a Store follows the change log, or the revocation list.
//
// It does not belong to a pool, because a pool silently replaces a broken connection. After a
// crash, Postgres may use a transaction id again, if nothing of the first transaction with this id
// had reached the disk. A snapshot from before the crash counts the second transaction as seen, so
// a reader would miss its changes. Therefore each connection has a number, and a snapshot is valid
// only on the connection with its number.
type logConn struct {
	config *pgx.ConnConfig
	// onIDsMoved is called after checkRestored has moved ids forward. It is set only for the
	// connection of the change log. The connection of the revocation list does not call
	// checkRestored.
	onIDsMoved func()

	mu             sync.Mutex
	restoreChecked time.Time                    // time of the last checkRestored
	conn           *pgx.Conn                    // nil or closed: not connected
	connID         uint64                       // number of the connection, from 1
	snapshotStmt   *pgconn.StatementDescription // selectSnapshot; nil: not prepared on this connection
	closed         bool
}

// do connects if necessary and runs f on the connection, for one caller at a time. Connecting and f
// may each take logConnTimeout. An earlier deadline of ctx applies to both.
//
// do sets the deadline of f on the socket, so f needs no context. To watch a context costs as much
// CPU as the read itself.
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

// restoreCheckInterval is the time between two calls of checkRestored. A new connection is checked
// at its first use, because a failover or a crash of Postgres breaks the old connection.
const restoreCheckInterval = time.Minute

// checkRestored moves ids forward if the database was restored, copied or failed over (dlsms_settle
// in migrations/00007_identity.sql). If this happened while the connection was open, the results of
// its earlier reads are invalid. So checkRestored closes the connection, which invalidates its
// snapshots.
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

// ensure connects if necessary and returns the number of the connection. LoadWorld takes its
// snapshot on a connection of a pool, after ensure, and gives the snapshot this number. If the
// logConn breaks in the meantime, the number is outdated and the snapshot is invalid.
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
