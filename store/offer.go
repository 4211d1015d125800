package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dlsms/dlsms/library"
)

// waiter is an entry that could be served.
type waiter struct {
	EntryID   int64
	SeatID    int64
	UserID    int64
	StartTime time.Time
	EndTime   time.Time
}

// left says of an entry w that enough of its window is left at now.t: an offer that could only be claimed for less than the
// shortest reservation would keep the seat from everyone and help no one.
const left = `w.status = 'WAITING' AND upper(w.during) - GREATEST(lower(w.during), now.t) >= @min_duration::interval`

// claimable says of an entry w that its user could claim an offer at now.t, as ClaimOffer decides it: the user is free for the whole
// window, and has fewer upcoming reservations than the library allows.
const claimable = `
	(SELECT COALESCE(bool_and(isempty(r.during * w.during)), true) AND (@max_upcoming::bigint = 0
			OR count(*) FILTER (WHERE r.status <> 'HELD' AND upper(r.during) > now.t) < @max_upcoming)
		FROM reservations r WHERE r.library_id = w.library_id AND r.user_id = w.user_id AND r.occupies)`

// seatFree says of an entry w that its seat is free for the whole window.
const seatFree = `NOT EXISTS (SELECT FROM reservations r
	WHERE r.library_id = w.library_id AND r.seat_id = w.seat_id AND r.occupies AND r.during && w.during)`

// rest is what is left of the window of an entry w: of what has passed it does not matter whether the branch was open.
const rest = `tstzrange(GREATEST(lower(w.during), now.t), upper(w.during))`

// waitersAtOnce is how many waiters of a seat are read at once. Most often the first one is served, and no other fits any more.
const waitersAtOnce = 16

// selectWaiters finds for each of some seats the first waiters, in FIFO order, who could be served. What a seat is taken for and when
// its branch is open is computed once for all that wait. An entry in a crowd that waits for a window that is taken costs a
// microsecond, its user is looked up only when the window is free, and none after the last waiter that is returned.
const selectWaiters = `
	WITH now AS MATERIALIZED (
		SELECT @now::timestamptz AS t
	), freed AS MATERIALIZED (
		SELECT s.id, s.branch_id, (SELECT range_agg(r.during) FROM reservations r
			WHERE r.library_id = @library AND r.seat_id = s.id AND r.occupies) AS taken
		FROM seats s WHERE s.library_id = @library AND s.id = ANY (@seats::bigint[]) AND NOT s.out_of_service
			AND EXISTS (SELECT FROM waitlist_entries w WHERE w.library_id = @library AND w.seat_id = s.id AND w.live)
	), hours AS MATERIALIZED (
		SELECT b.branch_id, dlsms_hours(@library, b.branch_id, tstzrange(now.t, GREATEST(now.t, LEAST(now.t + interval '1 year',
			(SELECT max(upper(during)) FROM waitlist_entries WHERE library_id = @library AND live))))) AS open
		FROM now CROSS JOIN (SELECT DISTINCT branch_id FROM freed) b
	)
	SELECT w.id AS entry_id, f.id AS seat_id, w.user_id, w.start_time, w.end_time
	FROM now CROSS JOIN freed f JOIN hours h ON h.branch_id = f.branch_id CROSS JOIN LATERAL (
		SELECT w.id, w.user_id, lower(w.during) AS start_time, upper(w.during) AS end_time
		FROM waitlist_entries w
		WHERE w.library_id = @library AND w.seat_id = f.id AND w.live AND ` + left + `
			AND (f.taken && w.during) IS NOT TRUE AND (h.open @> ` + rest + `) IS NOT FALSE AND ` + claimable + `
		ORDER BY w.id LIMIT @most::bigint
	) w
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
	return t.offerAfter(ctx, &pgx.Batch{}, now, seatIDs)
}

// offerTimeout bounds the statements of tryOffer, so that the transaction has time left for its own transition.
const offerTimeout = statementTimeout * 3 / 10

// tryOffer is offer for a transaction that shall commit its own transition all the same if the seat's waitlist can't be served: its
// user must not stay in a seat because of who waits for it. The offers are of the same transaction, as always, but after a savepoint;
// if they fail, the worker's sweep makes them, and reports the seat where it fails too.
func (t *tx) tryOffer(ctx context.Context, now time.Time, seatID int64) error {
	recorded := len(t.events)
	savepoint := &pgx.Batch{} // goes along with the first look at the waitlist: no round trip of its own
	savepoint.Queue(`SAVEPOINT offers`)
	savepoint.Queue(boundStatements, millis(offerTimeout))
	err := t.offerAfter(ctx, savepoint, now, []int64{seatID})
	if _, refused := errors.AsType[*pgconn.PgError](err); !refused {
		return err
	}
	t.events = t.events[:recorded]
	_, err = t.Exec(ctx, `ROLLBACK TO SAVEPOINT offers`)
	return err
}

// offerAfter is offer after the statements of a batch, which go along with its own.
func (t *tx) offerAfter(ctx context.Context, batch *pgx.Batch, now time.Time, seatIDs []int64) error {
	judged := 0
	for len(seatIDs) > 0 {
		var waiters []waiter
		batch.Queue(selectWaiters, t.s.waiterArgs(pgx.NamedArgs{"now": now, "seats": seatIDs, "most": waitersAtOnce})).Query(func(rows pgx.Rows) (err error) {
			waiters, err = pgx.CollectRows(rows, pgx.RowToStructByName[waiter])
			return err
		})
		if err := t.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		judged += len(waiters)
		batch = &pgx.Batch{}
		seatIDs = t.queueHolds(batch, now, waiters)
		if batch.Len() == 0 {
			break
		}
		if err := t.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		batch = &pgx.Batch{}
	}
	if judged > 0 {
		t.s.observer.judged(judged)
	}
	return nil
}

// queueHolds makes offers to waiters, in FIFO order, and returns the seats of which more waiters may fit.
func (t *tx) queueHolds(batch *pgx.Batch, now time.Time, waiters []waiter) (more []int64) {
	var served []waiter
	read := map[int64]int{}
	for _, w := range waiters {
		if read[w.SeatID]++; read[w.SeatID] == waitersAtOnce {
			more = append(more, w.SeatID)
		}
		if overlapsAny(w, served) {
			continue
		}
		served = append(served, w)
		expires := now.Add(t.s.policy.ClaimTime)
		if expires.After(w.EndTime) {
			expires = w.EndTime
		}
		batch.Queue(hold, t.s.lib, w.EntryID, t.s.policy.CheckInLead, expires, now).QueryRow(func(row pgx.Row) error {
			var id int64
			err := row.Scan(&id)
			t.record(library.EventOffered, id)
			return err
		})
	}
	return more
}

// waiterArgs adds to args what decides who could be served.
func (s *Store) waiterArgs(args pgx.NamedArgs) pgx.NamedArgs {
	args["library"], args["min_duration"], args["max_upcoming"] = s.lib, s.policy.MinDuration, s.policy.MaxUpcoming
	return args
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

// lockSeats locks seats in id order and returns those that exist.
func (t *tx) lockSeats(ctx context.Context, ids []int64) ([]int64, error) {
	rows, err := t.Query(ctx, lockSeats, t.s.lib, ids)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// now returns the time, by Postgres's clock. It is asked for after the locks, which may have taken long.
func (t *tx) now(ctx context.Context) (now time.Time, err error) {
	err = t.QueryRow(ctx, selectNow).Scan(&now)
	return now, err
}

const selectNow = `SELECT dlsms_now()`

// selectFree finds the seats that could be offered: whether the branch is open is asked last, once a branch, and only where a seat and
// its waiter are free. A branch whose hours can't be computed counts as open: OfferStep fails there, and the worker reports the seat.
const selectFree = `
	WITH now AS MATERIALIZED (
		SELECT dlsms_now() AS t
	), free AS MATERIALIZED (
		SELECT w.seat_id, s.branch_id, ` + rest + ` AS rest
		FROM now CROSS JOIN waitlist_entries w JOIN seats s ON s.library_id = w.library_id AND s.id = w.seat_id
		WHERE w.library_id = @library AND w.live AND ` + left + ` AND NOT s.out_of_service AND w.seat_id <> ALL (@without::bigint[])
			AND ` + seatFree + ` AND ` + claimable + `
	), hours AS MATERIALIZED (
		SELECT b.branch_id, dlsms_hours_if_known(@library, b.branch_id, tstzrange(now.t, LEAST(now.t + interval '1 year', b.until))) AS open
		FROM now CROSS JOIN (SELECT branch_id, max(upper(rest)) AS until FROM free GROUP BY branch_id) b
	)
	SELECT f.seat_id FROM free f JOIN hours h ON h.branch_id = f.branch_id
	WHERE (h.open @> f.rest) IS NOT FALSE LIMIT @most::bigint`

// lookForFree is Look for OfferStep.
func (s *Store) lookForFree(ctx context.Context, q Look) (Found, error) {
	args := s.waiterArgs(pgx.NamedArgs{"without": q.Without, "most": q.Most})
	if q.Without == nil {
		args["without"] = []int64{}
	}
	seats, err := query(ctx, s.background, pgx.RowTo[int64], selectFree, args)
	return Found{Seats: sorted(seats), More: len(seats) == q.Most}, err
}

// selectFreeFor finds the seats that users wait for and could have. It does not ask whether the branch is open: the offer does.
const selectFreeFor = `
	SELECT DISTINCT w.seat_id
	FROM (SELECT dlsms_now() AS t OFFSET 0) now, waitlist_entries w JOIN seats s ON s.library_id = w.library_id AND s.id = w.seat_id
	WHERE w.library_id = @library AND w.user_id = ANY (@users::bigint[]) AND w.ended_at IS NULL AND ` + left + ` AND NOT s.out_of_service
		AND ` + seatFree + ` AND ` + claimable + `
	LIMIT @most::bigint`

// freedAtOnce bounds the seats that offerToFreed locks.
const freedAtOnce = 1000

// offerToFreed offers seats that were free all along to users whom a transaction has just freed by ending their reservations; err is how
// that one ended. It needs a transaction of its own: the first one can't lock further seats without breaking the lock order, and only
// after its commit does nobody miss that these users are free. Should this fail, or wait too long for a seat's lock, the worker's sweep
// does it.
func (s *Store) offerToFreed(ctx context.Context, pool *pgxpool.Pool, err error, users []int64) {
	if err != nil || len(users) == 0 {
		return
	}
	ctx, cancel := budget(ctx) // a caller who has gone is no reason to let others wait
	defer cancel()
	args := s.waiterArgs(pgx.NamedArgs{"users": sorted(users), "most": freedAtOnce})
	seats, err := query(ctx, pool, pgx.RowTo[int64], selectFreeFor, args)
	if err != nil || len(seats) == 0 {
		return
	}
	err = s.offerSeats(ctx, pool, seats)
	if _, refused := errors.AsType[*pgconn.PgError](err); !refused || len(seats) == 1 {
		return
	}
	for _, seat := range seats { // one of them can't be served: the others can
		_ = s.offerSeats(ctx, pool, []int64{seat})
	}
}

// offerSeats serves the waitlists of seats, in one transaction.
func (s *Store) offerSeats(ctx context.Context, pool *pgxpool.Pool, seats []int64) error {
	return s.inTx(ctx, pool, func(ctx context.Context, t *tx) error {
		if _, err := t.Exec(ctx, boundLocks, millis(seatPatience)); err != nil {
			return err
		}
		locked, err := t.lockSeats(ctx, seats)
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
