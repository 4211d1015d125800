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

// waiter is a waiting entry that can get an offer.
type waiter struct {
	EntryID   int64
	SeatID    int64
	UserID    int64
	StartTime time.Time
	EndTime   time.Time
}

// waits is an SQL condition on an entry w: the entry waits, and its window has not passed.
const waits = `w.status = 'WAITING' AND upper(w.during) > now.t`

// claimable is an SQL condition on an entry w at a seat place: its user could claim an offer at now.t
// by the rules of ClaimOffer, and the rest of the window is at least as long as the shortest
// reservation. A shorter offer would block the seat and help no user. The user is free for the whole
// window and has fewer upcoming reservations than the policy allows. The CASE looks up the policy
// only if the user is free, because most waiters of a long waitlist are not.
const claimable = `
	(SELECT CASE WHEN a.free THEN COALESCE((
		SELECT COALESCE(p.may_book, true)
			AND upper(w.during) - GREATEST(lower(w.during), now.t) >= COALESCE(p.min_duration, @min_duration::interval)
			AND (COALESCE(p.max_upcoming, @max_upcoming::bigint) = 0
				OR COALESCE(p.max_upcoming, @max_upcoming) > a.upcoming)
			AND CASE WHEN GREATEST(p.max_minutes_per_day, p.max_minutes_per_week,
				p.max_reservations_per_day, p.max_reservations_per_week) > 0
			THEN (
				SELECT NOT (COALESCE(p.max_minutes_per_day, 0) > 0
							AND g.day_time + (upper(w.during) - lower(w.during)) > p.max_minutes_per_day * interval '1 minute'
						OR COALESCE(p.max_minutes_per_week, 0) > 0
							AND g.week_time + (upper(w.during) - lower(w.during)) > p.max_minutes_per_week * interval '1 minute'
						OR COALESCE(p.max_reservations_per_day, 0) > 0 AND g.day_count >= p.max_reservations_per_day
						OR COALESCE(p.max_reservations_per_week, 0) > 0 AND g.week_count >= p.max_reservations_per_week)
				FROM dlsms_usage(w.library_id, w.user_id, place.timezone, lower(w.during), 0) g)
			ELSE true END
		FROM users u
		LEFT JOIN LATERAL dlsms_policy(w.library_id, place.branch_id, place.area, u.user_group,
			(lower(w.during) AT TIME ZONE place.timezone)::date) p ON true
		WHERE u.library_id = w.library_id AND u.id = w.user_id AND (u.suspended_until > now.t) IS NOT TRUE
		), false) ELSE false END
	FROM (
		SELECT COALESCE(bool_and(isempty(r.during * w.during)), true) AS free,
			count(*) FILTER (WHERE r.status <> 'HELD' AND upper(r.during) > now.t) AS upcoming
		FROM reservations r WHERE r.library_id = w.library_id AND r.user_id = w.user_id AND r.occupies
	) a)`

// atPlace joins the seat of an entry w, with the time zone of its branch.
const atPlace = `
	JOIN (
		SELECT s.library_id, s.id, s.branch_id, s.area, s.out_of_service, b.timezone
		FROM seats s JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
	) place ON place.library_id = w.library_id AND place.id = w.seat_id`

// seatFree is an SQL condition on an entry w: its seat is free for the whole window.
const seatFree = `
	NOT EXISTS (
		SELECT FROM reservations r
		WHERE r.library_id = w.library_id AND r.seat_id = w.seat_id AND r.occupies AND r.during && w.during)`

// restOfWindow is the part of the window of an entry w that has not passed. The branch must be open
// during this part. It may be closed during the part that has passed.
const restOfWindow = `tstzrange(GREATEST(lower(w.during), now.t), upper(w.during))`

// waitersPerRead is how many waiters of a seat one query reads. One query is usually enough: the
// first waiter gets an offer, and the windows of the other waiters overlap the window of this
// offer.
const waitersPerRead = 16

// selectWaiters finds the first waiters of each seat in FIFO order. For each seat, it computes the
// taken windows and the opening hours of the branch once. So an entry whose window is taken costs
// only one microsecond. This matters because a seat may have thousands of such entries. The query
// reads the reservations of a user only if the window of the entry is free. It stops after @most
// waiters of a seat: the subquery sorts the entries before the users are looked at.
const selectWaiters = `
	WITH now AS MATERIALIZED (
		SELECT @now::timestamptz AS t
	), freed AS MATERIALIZED (
		SELECT s.id, s.branch_id, s.area, b.timezone, (
			SELECT range_agg(r.during) FROM reservations r
			WHERE r.library_id = @library AND r.seat_id = s.id AND r.occupies) AS taken
		FROM seats s JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
		WHERE s.library_id = @library AND s.id = ANY (@seats::bigint[]) AND NOT s.out_of_service
			AND EXISTS (
				SELECT FROM waitlist_entries w WHERE w.library_id = @library AND w.seat_id = s.id AND w.live)
	), hours AS MATERIALIZED (
		SELECT b.branch_id, dlsms_hours(@library, b.branch_id,
			tstzrange(now.t, GREATEST(now.t, LEAST(now.t + interval '1 year',
				(SELECT max(upper(during)) FROM waitlist_entries WHERE library_id = @library AND live))))) AS open
		FROM now CROSS JOIN (SELECT DISTINCT branch_id FROM freed) b
	)
	SELECT w.id AS entry_id, place.id AS seat_id, w.user_id, w.start_time, w.end_time
	FROM now CROSS JOIN freed place JOIN hours h ON h.branch_id = place.branch_id CROSS JOIN LATERAL (
		SELECT w.id, w.user_id, lower(w.during) AS start_time, upper(w.during) AS end_time
		FROM (
			SELECT w.library_id, w.id, w.user_id, w.during FROM waitlist_entries w
			WHERE w.library_id = @library AND w.seat_id = place.id AND w.live
				AND ` + waits + `
				AND (place.taken && w.during) IS NOT TRUE
				AND (h.open @> ` + restOfWindow + `) IS NOT FALSE
			ORDER BY w.id OFFSET 0
		) w
		WHERE NOT dlsms_closed(@library, place.branch_id, place.area, place.id, ` + restOfWindow + `)
			AND ` + claimable + `
		ORDER BY w.id LIMIT @most::bigint
	) w
	ORDER BY w.id`

// insertHold makes an offer: it inserts a HELD reservation for the waiter's user.
const insertHold = `
	WITH held AS (
		INSERT INTO reservations (library_id, seat_id, user_id, entry_id, during, status,
			check_in_opens_at, offer_expires_at, created_at)
		SELECT r.library_id, r.seat_id, r.user_id, r.id, r.during, 'HELD',
			lower(r.during) - COALESCE(p.check_in_lead, $3::interval), $4, $5
		FROM waitlist_entries r ` + withPolicy + ` WHERE r.library_id = $1 AND r.id = $2 AND r.status = 'WAITING'
		RETURNING library_id, id, entry_id
	)
	UPDATE waitlist_entries w SET status = 'OFFERED', reservation_id = held.id, offer_expires_at = $4
	FROM held WHERE w.library_id = held.library_id AND w.id = held.entry_id
	RETURNING held.id`

// offer serves the waitlists of locked seats in FIFO order. A waiter gets an offer if the whole
// window is free and the user is free during it.
func (t *tx) offer(ctx context.Context, now time.Time, seatIDs []int64) error {
	return t.offerAfter(ctx, &pgx.Batch{}, now, seatIDs)
}

// offerTimeout bounds each statement of tryOffer, so that the transaction has time left to commit
// its own transition.
const offerTimeout = statementTimeout * 3 / 10

// tryOffer serves the waitlist of a seat that the transaction has freed. Unlike offer, it does not
// fail if Postgres refuses its statements: the transition that freed the seat must be committed
// even if the waitlist is faulty. The offers are part of the same transaction, after a savepoint.
// If they fail, tryOffer returns to the savepoint, and the sweep of the worker makes the offers
// later. If the sweep fails, too, the worker reports the seat.
func (t *tx) tryOffer(ctx context.Context, now time.Time, seatID int64) error {
	recorded := len(t.events)
	savepoint := &pgx.Batch{} // sent together with the first read of the waitlist, to save a round trip
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

// offerAfter does the work of offer. It sends the statements in batch first, in the same round trip
// as its own first statement.
func (t *tx) offerAfter(ctx context.Context, batch *pgx.Batch, now time.Time, seatIDs []int64) error {
	judged := 0
	for len(seatIDs) > 0 {
		var waiters []waiter
		args := t.s.waiterArgs(pgx.NamedArgs{"now": now, "seats": seatIDs, "most": waitersPerRead})
		batch.Queue(selectWaiters, args).Query(func(rows pgx.Rows) (err error) {
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

// queueHolds adds to batch the statements that make offers to waiters, in FIFO order. It leaves out
// a waiter whose window overlaps an offer to the same user or at the same seat. It returns the
// seats that may have more waiters.
func (t *tx) queueHolds(batch *pgx.Batch, now time.Time, waiters []waiter) (more []int64) {
	var served []waiter
	read := map[int64]int{}
	for _, w := range waiters {
		if read[w.SeatID]++; read[w.SeatID] == waitersPerRead {
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
		batch.Queue(insertHold, t.s.lib, w.EntryID, t.s.policy.CheckInLead, expires, now).QueryRow(func(row pgx.Row) error {
			var id int64
			err := row.Scan(&id)
			t.record(transition{kind: library.EventOffered, reservationID: id})
			return err
		})
	}
	return more
}

// waiterArgs adds to args the arguments of claimable.
func (s *Store) waiterArgs(args pgx.NamedArgs) pgx.NamedArgs {
	args["library"], args["min_duration"], args["max_upcoming"] = s.lib, s.policy.MinDuration, s.policy.MaxUpcoming
	return args
}

// overlapsAny reports whether a waiter in served has the same seat or the same user as w, and a
// window that overlaps the window of w.
func overlapsAny(w waiter, served []waiter) bool {
	for _, s := range served {
		same := w.SeatID == s.SeatID || w.UserID == s.UserID
		if same && w.StartTime.Before(s.EndTime) && s.StartTime.Before(w.EndTime) {
			return true
		}
	}
	return false
}

// lockSeats locks seats in id order and returns those that exist.
func (t *tx) lockSeats(ctx context.Context, ids []int64) ([]int64, error) {
	return rowsOf(ctx, t, pgx.RowTo[int64], lockSeats, t.s.lib, ids)
}

// lockSeatsAfter runs a batch and then locks seats in id order, in one round trip. how is empty or a
// clause of SELECT such as " SKIP LOCKED". It returns the locked seats, and the time after the locks
// were taken.
func (t *tx) lockSeatsAfter(
	ctx context.Context, batch *pgx.Batch, ids []int64, how string,
) (locked []int64, now time.Time, err error) {
	batch.Queue(lockSeats+how, t.s.lib, ids).Query(func(rows pgx.Rows) error {
		locked, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	batch.Queue(selectNow).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	err = t.SendBatch(ctx, batch).Close()
	return locked, now, err
}

// now returns the time of Postgres's clock. Call it after taking the locks, which may take long.
func (t *tx) now(ctx context.Context) (now time.Time, err error) {
	err = t.QueryRow(ctx, selectNow).Scan(&now)
	return now, err
}

const selectNow = `SELECT dlsms_now()`

// selectFree finds the seats that could be offered. It checks the opening hours last, once for each
// branch, and only for free seats with free users. If the hours of a branch cannot be computed, the
// branch counts as open. OfferStep then fails for the seat, and the worker reports it.
const selectFree = `
	WITH now AS MATERIALIZED (
		SELECT dlsms_now() AS t
	), free AS MATERIALIZED (
		SELECT w.seat_id, place.branch_id, ` + restOfWindow + ` AS rest
		FROM now
		CROSS JOIN waitlist_entries w ` + atPlace + `
		WHERE w.library_id = @library AND w.live
			AND ` + waits + `
			AND NOT place.out_of_service
			AND w.seat_id <> ALL (@without::bigint[])
			AND CASE WHEN ` + seatFree + `
				AND NOT dlsms_closed(@library, place.branch_id, place.area, place.id, ` + restOfWindow + `)
				THEN ` + claimable + ` END
	), hours AS MATERIALIZED (
		SELECT b.branch_id, dlsms_hours_if_known(@library, b.branch_id,
			tstzrange(now.t, LEAST(now.t + interval '1 year', b.until))) AS open
		FROM now CROSS JOIN (SELECT branch_id, max(upper(rest)) AS until FROM free GROUP BY branch_id) b
	)
	SELECT f.seat_id FROM free f JOIN hours h ON h.branch_id = f.branch_id
	WHERE (h.open @> f.rest) IS NOT FALSE LIMIT @most::bigint`

// findFree does the work of FindDue for OfferStep.
func (s *Store) findFree(ctx context.Context, q DueQuery) (Due, error) {
	args := s.waiterArgs(pgx.NamedArgs{"without": q.Without, "most": q.Most})
	if q.Without == nil {
		args["without"] = []int64{}
	}
	seats, err := query(ctx, s.background, pgx.RowTo[int64], selectFree, args)
	return Due{Seats: sorted(seats), More: len(seats) == q.Most}, err
}

// selectFreeFor finds the free seats for which the users @users wait, and which they could claim.
// It does not check whether the branch is open, because the offer checks it.
const selectFreeFor = `
	SELECT DISTINCT w.seat_id
	FROM (SELECT dlsms_now() AS t OFFSET 0) now CROSS JOIN waitlist_entries w ` + atPlace + `
	WHERE w.library_id = @library AND w.user_id = ANY (@users::bigint[]) AND w.ended_at IS NULL
		AND ` + waits + `
		AND NOT place.out_of_service
		AND CASE WHEN ` + seatFree + `
			AND NOT dlsms_closed(w.library_id, place.branch_id, place.area, place.id, ` + restOfWindow + `)
			THEN ` + claimable + ` END
	LIMIT @most::bigint`

// maxFreedSeats bounds the seats that offerToFreedUsers locks.
const maxFreedSeats = 1000

// offerToFreedUsers makes offers to users whose reservations a transaction has just ended. Such a
// user may also wait for other seats. These seats may be free and were not offered only because the
// user was busy. err is the result of the transaction: if it failed, there is nothing to do.
// offerToFreedUsers needs a transaction of its own for two reasons:
//   - the first transaction cannot lock further seats without breaking the lock order
//   - other transactions see that these users are free only after the first one has committed
//
// If it fails, or waits too long for the lock of a seat, the sweep of the worker makes the offers.
func (s *Store) offerToFreedUsers(ctx context.Context, pool *pgxpool.Pool, err error, users []int64) {
	if err != nil || len(users) == 0 {
		return
	}
	ctx, cancel := budget(ctx) // waiters are served even if the caller has disconnected
	defer cancel()
	args := s.waiterArgs(pgx.NamedArgs{"users": sorted(users), "most": maxFreedSeats})
	seats, err := query(ctx, pool, pgx.RowTo[int64], selectFreeFor, args)
	if err != nil || len(seats) == 0 {
		return
	}
	err = s.offerSeats(ctx, pool, seats)
	if _, refused := errors.AsType[*pgconn.PgError](err); !refused || len(seats) == 1 {
		return
	}
	for _, seat := range seats { // one seat failed, so each seat gets a transaction of its own
		_ = s.offerSeats(ctx, pool, []int64{seat})
	}
}

// offerSeats serves the waitlists of seats, in one transaction.
func (s *Store) offerSeats(ctx context.Context, pool *pgxpool.Pool, seats []int64) error {
	return s.inTx(ctx, pool, func(ctx context.Context, t *tx) error {
		batch := &pgx.Batch{}
		batch.Queue(setLockTimeout, millis(seatLockTimeout))
		locked, now, err := t.lockSeatsAfter(ctx, batch, seats, "")
		if err != nil {
			return err
		}
		return t.offer(ctx, now, locked)
	})
}
