package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dlsms/dlsms/library"
)

// A batch is a number of bookings that share one transaction. Bookings that arrive while a batch is
// in progress wait and form the next batch. If no batch is in progress, a booking starts at once. A
// booking alone costs Postgres 850 µs of CPU. In a batch of 16, a booking costs 190 µs.
//
// The path of a booking:
//
//	Reserve
//	   |
//	   v
//	reserveQueue.waiting
//	   |  a worker takes up to maxBatch bookings, at most one of each user
//	   v
//	reserveBatch: one transaction; waits batchLockTimeout for each lock
//	   |     |     |
//	   |     |     +-- another transaction holds a seat's lock
//	   |     |                |
//	   |     |                v
//	   |     |         reserveSeat: one transaction for the bookings of each seat;
//	   |     |         waits seatLockTimeout for each lock, then lock_timeout
//	   |     |            |         |
//	   |     +-- refused  |         +-- refused by Postgres
//	   |         by       |                |
//	   |         Postgres |                v
//	   |           +------|-------> reserveEach: one transaction for each booking;
//	   |                  |         waits lock_timeout for each lock
//	   |                  |                |
//	   v                  v                v
//	committed: each booking gets its own result
//
// If the connection breaks, the replica cannot know whether the transaction was committed. Then
// each booking of the batch fails with ErrUnavailable, without a retry.
const (
	// reserveWorkers is the number of batches that a replica has in progress at once. One worker is
	// faster than two: while its batch runs, more bookings wait, and the next batch is larger. One
	// worker makes 3,700 bookings a second for 50 clients and 4,800 for 150 clients. Two workers
	// make 2,800 and 4,500.
	reserveWorkers = 1
	// maxBatch bounds the number of rows that a batch locks.
	maxBatch = 32
	// batchLockTimeout bounds how long a batch waits for each row lock. A transaction normally
	// holds its locks for a few milliseconds. If a transaction holds the lock of a seat for longer,
	// the batch is split, so that only the bookings of this seat wait.
	batchLockTimeout = 50 * time.Millisecond
	// seatLockTimeout bounds how long the bookings of one seat wait for each row lock. It is short,
	// because these bookings share a transaction: if the row of one user is locked, all of them
	// wait.
	seatLockTimeout = 500 * time.Millisecond
)

// Reserve books a seat. It locks the user, then the seat, decides and commits, in one round trip
// that it shares with the other bookings of its batch. It fails with one of these errors:
//   - ErrSeatNotFound, ErrSeatOutOfService, ErrSeatTaken, ErrBranchClosed
//   - ErrUserBusy, ErrTooManyReservations
//   - ErrRequestIDReused
//   - ErrWindowNotAllowed, or Invalid if the window ends before it starts
//   - ErrTokenInvalid or ErrTokenRevoked if Token does not agree with the user's row
//
// If the call is repeated with the same RequestID and content, it returns the first answer again.
//
// If ctx ends before the booking is part of a batch, the booking is never made. Once the booking is
// part of a batch, the end of ctx has no effect.
func (s *Store) Reserve(ctx context.Context, b library.Booking) (library.Reservation, error) {
	r := s.reserves.reserve(ctx, b)
	s.refusals.count(b, r.at, r.err)
	return r.reservation, r.err
}

// reserveQueue collects bookings into batches.
type reserveQueue struct {
	store *Store
	pool  *pgxpool.Pool // one connection for each worker

	mu      sync.Mutex
	waiting []*pending
	workers int // running
}

// pending is a booking whose caller waits for the result.
type pending struct {
	library.Booking
	trace bookingTrace
	done  chan struct{} // closed when result is set
	result
}

// result is the result of one booking.
type result struct {
	reservation library.Reservation
	err         error
	at          time.Time // when it was decided; zero if it was not
}

func (q *reserveQueue) reserve(ctx context.Context, b library.Booking) result {
	p := &pending{Booking: b, trace: q.store.startWait(ctx), done: make(chan struct{})}
	q.mu.Lock()
	q.waiting = append(q.waiting, p)
	if q.workers < reserveWorkers {
		q.workers++
		go q.work() //nolint:contextcheck // a worker serves many callers and outlives each
	}
	q.mu.Unlock()
	select {
	case <-p.done:
	case <-ctx.Done():
		if q.remove(p) {
			p.trace.leaveQueue(ctx.Err())
			return result{err: translate(ctx.Err())}
		}
		<-p.done // reserveBatch sets a deadline
	}
	return p.result
}

// remove removes a booking from the queue. It returns false if a worker has taken the booking.
func (q *reserveQueue) remove(p *pending) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, other := range q.waiting {
		if other == p {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// work is one worker. It ends when the queue is empty.
func (q *reserveQueue) work() {
	for {
		batch := q.take()
		if len(batch) == 0 {
			return
		}
		q.reserveBatch(batch)
	}
}

// take removes the next batch from the queue: the oldest bookings, at most one of each user. If the
// queue is empty, it unregisters the worker.
func (q *reserveQueue) take() []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	var batch, rest []*pending
	users := make(map[int64]bool, maxBatch)
	for _, p := range q.waiting {
		if len(batch) == maxBatch || users[p.UserID] {
			rest = append(rest, p)
			continue
		}
		users[p.UserID] = true
		p.trace.leaveQueue(nil)
		batch = append(batch, p)
	}
	q.waiting = rest
	if len(batch) == 0 {
		q.workers--
	}
	return batch
}

// reserveBatch makes the bookings of a batch within statementTimeout. If Postgres refuses the
// transaction, smaller parts are retried on other connections, while the worker continues with the
// next batch.
//
// If another transaction holds the lock of a seat, the batch is split by seat, not by booking. Many
// transactions with one booking each would delay each other at the same seat.
func (q *reserveQueue) reserveBatch(batch []*pending) {
	deadline := time.Now().Add(statementTimeout)
	err := q.try(batch, q.pool, batchLockTimeout, deadline)
	if !errors.Is(err, errSeatLocked) {
		q.reserveEach(batch, err, deadline)
		return
	}
	q.store.observer.split(len(batch))
	bySeat := map[int64][]*pending{}
	for _, p := range batch {
		bySeat[p.SeatID] = append(bySeat[p.SeatID], p)
	}
	for _, group := range bySeat {
		go q.reserveSeat(group, deadline)
	}
}

// reserveSeat makes the bookings of one seat in one transaction. They come from a batch in which
// the wait for the lock of a seat, this one or another, took too long.
func (q *reserveQueue) reserveSeat(group []*pending, deadline time.Time) {
	err := q.try(group, q.store.pool, seatLockTimeout, deadline)
	if errors.Is(err, errSeatLocked) {
		// errSeatLocked means that the locks of all users were free. All these bookings need the
		// lock of this seat, so they wait for it together a second time, now for the session's
		// lock_timeout.
		err = q.try(group, q.store.pool, 0, deadline)
	}
	if errors.Is(err, errSeatLocked) {
		for _, p := range group {
			p.fail(err)
		}
		return
	}
	q.reserveEach(group, err, deadline)
}

// reserveEach handles the error of a transaction. If Postgres refused the transaction, one booking
// may be the cause, so each booking is retried in a transaction of its own. After any other error
// the outcome is unknown, and each booking fails with this error. If err is nil, there is nothing
// to do.
func (q *reserveQueue) reserveEach(batch []*pending, err error, deadline time.Time) {
	if err == nil {
		return
	}
	_, refused := errors.AsType[*pgconn.PgError](err)
	if refused && len(batch) > 1 {
		q.store.observer.split(len(batch))
	}
	for _, p := range batch {
		if !refused {
			p.fail(err)
			continue
		}
		go func() {
			if err := q.try([]*pending{p}, q.store.pool, 0, deadline); err != nil {
				p.fail(err)
			}
		}()
	}
}

func (p *pending) fail(err error) {
	p.err = translate(err)
	close(p.done)
}

// try makes the bookings in one transaction. If the transaction succeeds, try sets the result of
// each booking. lockTimeout bounds the wait for each row lock; 0 means the session's lock_timeout.
func (q *reserveQueue) try(
	batch []*pending, pool *pgxpool.Pool, lockTimeout time.Duration, deadline time.Time,
) error {
	ctx, end := q.store.startBatch(batch)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	results, err := q.transact(ctx, batch, pool, lockTimeout)
	end(err)
	if err != nil {
		return err
	}
	q.store.observer.batch(len(batch))
	for i, p := range batch {
		p.result = results[i]
		close(p.done)
	}
	return nil
}

// transact makes the bookings in one transaction. A panic becomes an error.
func (q *reserveQueue) transact(
	ctx context.Context, batch []*pending, pool *pgxpool.Pool, lockTimeout time.Duration,
) (results []result, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	bookings := make([]library.Booking, len(batch))
	for i, p := range batch {
		bookings[i] = p.Booking
	}
	return q.store.reserveAll(ctx, conn, bookings, lockTimeout)
}
