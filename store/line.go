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

// lineTimeout bounds one look at a log, which takes well under a millisecond when all is well: past it Postgres counts as out of reach.
const lineTimeout = 2 * time.Second

// line is a connection of its own, on which a log is followed. A pool would replace one that broke without a word, and Postgres, when it
// comes back from a crash, gives transaction ids again of which nothing had reached the disk: to an older snapshot, they look seen. So
// each connection is an epoch, and a snapshot counts in its own epoch only.
type line struct {
	config *pgx.ConnConfig
	// moved is called, once the ids were moved on, because the database is not where it was; nil: another line asks.
	moved func()

	mu     sync.Mutex
	asked  time.Time                    // when it was asked whether the database is where it was
	conn   *pgx.Conn                    // nil, or closed: none
	epoch  uint64                       // of the connection
	look   *pgconn.StatementDescription // of selectSnapshot; nil: it has not been prepared on this connection
	closed bool
}

// do runs f on the line, for one caller at a time. It ends at the deadline of ctx, or after lineTimeout for a new connection and lineTimeout for
// f, which needs no context for that: watching one costs as much as the look itself. A connection that breaks is replaced by the next call.
func (l *line) do(ctx context.Context, f func(conn *pgx.Conn) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil || l.conn.IsClosed() {
		if err := l.connect(ctx); err != nil {
			return translate(err)
		}
	}
	now := time.Now()
	if now.Sub(l.asked) > settleInterval && l.moved != nil {
		if err := l.settle(ctx); err != nil {
			return translate(err)
		}
	}
	end := now.Add(lineTimeout)
	if last, ok := ctx.Deadline(); ok && last.Before(end) {
		end = last
	}
	if err := l.conn.PgConn().Conn().SetDeadline(end); err != nil {
		return translate(err)
	}
	return translate(f(l.conn))
}

func (l *line) connect(ctx context.Context) error {
	if l.closed {
		return library.ErrUnavailable.WithCause(errClosedStore)
	}
	ctx, cancel := context.WithTimeout(ctx, lineTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, l.config)
	if err != nil {
		return err
	}
	if err := prepareSession(ctx, conn, logSettings()); err != nil {
		_ = conn.Close(ctx)
		return err
	}
	l.conn, l.look = conn, nil
	l.epoch++
	l.asked = time.Time{}
	return nil
}

// settleInterval is how often a replica asks whether the database is where it was. It also asks on each new connection,
// of which there is one after each failover and each recovery of Postgres.
const settleInterval = time.Minute

// settle moves ids on if the database was restored, copied or failed over, although the replica runs. Then nothing that
// was read on this connection before is worth anything, so it ends, and with it all that is built on its snapshots.
func (l *line) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lineTimeout)
	defer cancel()
	var moved bool
	if err := l.conn.QueryRow(ctx, `SELECT dlsms_settle()`).Scan(&moved); err != nil {
		return err
	}
	fresh := l.asked.IsZero()
	l.asked = time.Now()
	if moved {
		l.moved()
	}
	if !moved || fresh {
		return nil
	}
	_ = l.conn.Close(ctx)
	return library.ErrUnavailable.WithCause(errMoved)
}

var errMoved = errors.New("the database was restored, copied or failed over: ids were moved on")

// cut ends the connection: the next call begins a new epoch.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		_ = l.conn.PgConn().Conn().SetDeadline(time.Now())
		_ = l.conn.Close(context.Background())
	}
}

var errClosedStore = errors.New("the store is closed")

// current returns the epoch, and begins one if there is none. What is read after this, on whichever connection, is of this epoch or, if the
// line has broken since, of none.
func (l *line) current(ctx context.Context) (epoch uint64, err error) {
	err = l.do(ctx, func(conn *pgx.Conn) error { //nolint:contextcheck // the line has its own time
		epoch = l.epoch
		return conn.Ping(context.Background())
	})
	return epoch, err
}

func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.conn != nil {
		_ = l.conn.PgConn().Conn().SetDeadline(time.Now().Add(time.Second))
		_ = l.conn.Close(context.Background())
	}
}
