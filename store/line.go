package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// lineTimeout bounds one look at a log, which takes well under a millisecond when all is well: past it Postgres counts as out of reach.
const lineTimeout = 2 * time.Second

// line is a connection of its own, on which a log is followed. A pool would replace one that broke without a word, and Postgres, when it
// comes back from a crash, gives transaction ids again of which nothing had reached the disk: to an older snapshot, they look seen. So
// each connection is an epoch, and a snapshot counts in its own epoch only.
type line struct {
	config *pgx.ConnConfig

	mu     sync.Mutex
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
	end := time.Now().Add(lineTimeout)
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
		return ErrUnavailable.Because(errClosedStore)
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
	return nil
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
