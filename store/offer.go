package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// waiter is an entry that could be served.
type waiter struct {
	EntryID   int64
	SeatID    int64
	UserID    int64
	StartTime time.Time
	EndTime   time.Time
}

// fitting says of an entry w at seat s that its whole window is free and its user too, at time now.
const fitting = `
	w.status = 'WAITING' AND upper(w.during) > now.t AND NOT s.out_of_service
	AND dlsms_open(w.library_id, s.branch_id, w.during)
	AND NOT EXISTS (SELECT FROM reservations r WHERE r.library_id = w.library_id AND r.seat_id = w.seat_id AND r.occupies AND r.during && w.during)
	AND NOT EXISTS (SELECT FROM reservations r WHERE r.library_id = w.library_id AND r.user_id = w.user_id AND r.occupies
		AND NOT isempty(r.during * w.during))`

const selectWaiters = `
	SELECT w.id AS entry_id, w.seat_id, w.user_id, lower(w.during) AS start_time, upper(w.during) AS end_time
	FROM (SELECT $3::timestamptz AS t) now, waitlist_entries w JOIN seats s ON s.library_id = w.library_id AND s.id = w.seat_id
	WHERE w.library_id = $1 AND w.seat_id = ANY($2) AND w.live AND ` + fitting + `
	ORDER BY w.id`

// hold makes an offer: the seat becomes HELD for the waiter's user.
const hold = `
	WITH held AS (
		INSERT INTO reservations (library_id, seat_id, user_id, entry_id, during, status, check_in_opens_at, offer_expires_at, created_at)
		SELECT library_id, seat_id, user_id, id, during, 'HELD', lower(during) - $3::interval, $4, $5
		FROM waitlist_entries WHERE library_id = $1 AND id = $2 AND status = 'WAITING'
		RETURNING library_id, id, entry_id
	)
	UPDATE waitlist_entries w SET status = 'OFFERED', reservation_id = held.id, offer_expires_at = $4
	FROM held WHERE w.library_id = held.library_id AND w.id = held.entry_id
	RETURNING held.id`

// offer serves the waitlists of seats that are locked: in FIFO order, each waiter whose whole window is free and who is free then gets it.
func (t *tx) offer(ctx context.Context, now time.Time, seatIDs []int64) error {
	rows, err := t.Query(ctx, selectWaiters, t.s.lib, seatIDs, now)
	if err != nil {
		return err
	}
	waiters, err := pgx.CollectRows(rows, pgx.RowToStructByName[waiter])
	if err != nil {
		return err
	}
	var served []waiter
	batch := &pgx.Batch{}
	for _, w := range waiters {
		if overlapsAny(w, served) {
			continue
		}
		served = append(served, w)
		expires := now.Add(t.s.rules.ClaimTime)
		if expires.After(w.EndTime) {
			expires = w.EndTime
		}
		batch.Queue(hold, t.s.lib, w.EntryID, t.s.rules.CheckInLead, expires, now).QueryRow(func(row pgx.Row) error {
			var id int64
			err := row.Scan(&id)
			t.record(EventOffered, id)
			return err
		})
	}
	if len(served) == 0 {
		return nil
	}
	return t.SendBatch(ctx, batch).Close()
}

// overlapsAny reports whether w wants a seat, or is a user, that one of those served before it has in an overlapping window.
func overlapsAny(w waiter, served []waiter) bool {
	for _, s := range served {
		if (w.SeatID == s.SeatID || w.UserID == s.UserID) && w.StartTime.Before(s.EndTime) && s.StartTime.Before(w.EndTime) {
			return true
		}
	}
	return false
}

// lockSeats locks seats in id order and returns those that it got: all, or with skip those that nobody else has locked.
func (t *tx) lockSeats(ctx context.Context, ids []int64, skip bool) ([]int64, error) {
	lock := lockSeats
	if skip {
		lock += ` SKIP LOCKED`
	}
	rows, err := t.Query(ctx, lock, t.s.lib, ids)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// now returns the time, by Postgres's clock. It is asked for after the locks, which may have taken long.
func (t *tx) now(ctx context.Context) (now time.Time, err error) {
	err = t.QueryRow(ctx, `SELECT dlsms_now()`).Scan(&now)
	return now, err
}

const selectFittingFor = `
	SELECT DISTINCT w.seat_id
	FROM (SELECT dlsms_now() AS t OFFSET 0) now, waitlist_entries w JOIN seats s ON s.library_id = w.library_id AND s.id = w.seat_id
	WHERE w.library_id = $1 AND w.user_id = ANY($2) AND w.ended_at IS NULL AND ` + fitting

// offerToFreed offers seats that were free all along to users whom a transaction has just freed by ending their reservations; err is how
// that one ended. It needs a transaction of its own: the first one can't lock further seats without breaking the lock order, and only
// after its commit does nobody miss that these users are free. Should this fail, or wait too long for who holds a seat, the worker's sweep does it.
func (s *Store) offerToFreed(ctx context.Context, pool *pgxpool.Pool, err error, users []int64) {
	if err != nil || len(users) == 0 {
		return
	}
	ctx, cancel := budget(ctx) // a caller who has gone is no reason to let others wait
	defer cancel()
	seats, err := query(ctx, pool, pgx.RowTo[int64], selectFittingFor, s.lib, sorted(users))
	if err != nil || len(seats) == 0 {
		return
	}
	_ = s.inTx(ctx, pool, func(ctx context.Context, t *tx) error {
		if _, err := t.Exec(ctx, boundLocks, millis(seatPatience)); err != nil {
			return err
		}
		locked, err := t.lockSeats(ctx, seats, false)
		if err != nil {
			return err
		}
		now, err := t.now(ctx)
		if err != nil {
			return err
		}
		return t.offer(ctx, now, locked)
	})
}
