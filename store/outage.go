package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// While no worker sees the database, users cannot check in either: Postgres is unreachable, or all
// replicas are stopped. A check-in deadline that falls into this time must not become a no-show. So
// the check-in period of a reservation is paused during an outage: the new deadline is as long
// after the end of the outage as the old one was after its beginning. For example, check-in is open
// from 11:45 to 12:15, and an outage lasts from 12:10 to 12:40. Then check-in is open until 12:45.
// With an outage from 11:00 to 13:00, it is open until 13:30.
//
//   - Each worker writes a heartbeat: see Beat. If the last one is older than OutageThreshold, the
//     time since then is an outage, and Beat inserts it into the table outages.
//   - NextOutage returns an outage that is not settled, and its seats. MoveDeadlines settles some
//     seats, and FinishOutage marks the outage as settled.
//   - No transaction marks a no-show while the heartbeat is old or an outage is not settled: see
//     noOutage. So it does not matter which replica settles an outage.
//
// Replicas of the version before this file neither write nor read the heartbeat. If they alone have
// run for a while, that time counts as an outage. A deadline in this time is then moved although
// users could check in, which does no harm.

// OutageThreshold is the time without a heartbeat after which the system counts as unavailable. It
// is above the time of a restart or failover of Postgres, which is up to a minute: users retry such
// a call, so it costs them little of a grace of 15 minutes. It is twelve heartbeats.
const OutageThreshold = 2 * time.Minute

// HeartbeatInterval is the time between two heartbeats of a worker. minHeartbeatAge is the age of a
// heartbeat below which a worker does not write another one, so several replicas together write
// hardly more often than one.
const (
	HeartbeatInterval = 10 * time.Second
	minHeartbeatAge   = 8 * time.Second
)

// The conditions for marking no-shows: noOutage for the statement of the step, with OutageThreshold
// as $4. A missing heartbeat is no outage: no worker of this version has run yet.
//
// The statement reads the heartbeat in its own snapshot, after the current time $3 was read. So an
// outage that is recorded later begins less than OutageThreshold before $3. The deadlines that the
// statement considers are at or before $3.
const (
	heartbeatIsOld = `EXISTS (
			SELECT FROM worker_heartbeat h WHERE h.library_id = $1 AND h.seen_at < clock_timestamp() - `
	outageIsOpen = `EXISTS (SELECT FROM outages o WHERE o.library_id = $1 AND o.done_at IS NULL)`

	noOutage      = `NOT ` + heartbeatIsOld + `$4::interval) AND NOT ` + outageIsOpen
	selectSettled = `SELECT NOT ` + heartbeatIsOld + `$2::interval) AND NOT ` + outageIsOpen
)

const (
	// selectHeartbeat finds whether a heartbeat is due, and whether an outage is open. A heartbeat in
	// the future, from before the clock was set back, is due too.
	selectHeartbeat = `
		SELECT NOT EXISTS (
				SELECT FROM worker_heartbeat h
				WHERE h.library_id = $1 AND h.seen_at > clock_timestamp() - $2::interval AND h.seen_at <= clock_timestamp()),
			` + outageIsOpen

	// insertHeartbeat locks the row of the heartbeat first. So of several replicas that end an
	// outage at the same time, one records it, and the others see its heartbeat. If dlsms_now has
	// been set back, the span would be reversed, and no outage is recorded.
	insertHeartbeat = `
		WITH last AS MATERIALIZED (
			SELECT alive_at, seen_at FROM worker_heartbeat WHERE library_id = $1 FOR NO KEY UPDATE
		), now AS MATERIALIZED (
			SELECT dlsms_now() AS t, clock_timestamp() AS real FROM (SELECT count(*) FROM last) locked
		), beat AS (
			INSERT INTO worker_heartbeat (library_id, alive_at, seen_at) SELECT $1, t, real FROM now
			ON CONFLICT (library_id) DO UPDATE SET alive_at = EXCLUDED.alive_at, seen_at = EXCLUDED.seen_at
		)
		INSERT INTO outages (library_id, during)
		SELECT $1, tstzrange(last.alive_at, now.t) FROM last CROSS JOIN now
		WHERE last.seen_at < now.real - $2::interval AND last.alive_at < now.t
		RETURNING id`
)

// Beat writes the heartbeat of the worker if the last one is older than minHeartbeatAge. If it is
// older than OutageThreshold, Beat also records an outage. It returns whether an outage is open.
func (s *Store) Beat(ctx context.Context) (outage bool, err error) {
	type row struct{ Due, Open bool }
	state, err := queryOne(ctx, s.background, pgx.ErrNoRows, pgx.RowToStructByPos[row],
		selectHeartbeat, s.lib, minHeartbeatAge)
	if err != nil || !state.Due {
		return state.Open, err
	}
	recorded, err := query(ctx, s.background, pgx.RowTo[int64], insertHeartbeat, s.lib, OutageThreshold)
	return state.Open || len(recorded) > 0, err
}

// Outage is a span, [StartTime, EndTime), in which no worker saw the database.
type Outage struct {
	ID        int64
	StartTime time.Time
	EndTime   time.Time
	// Seats are the seats with reservations whose check-in period overlaps the outage, in the order
	// of their ids. Those that were settled before are left out.
	Seats []int64 `db:"-"`
}

// pausedBy is an SQL condition on a reservation r: an outage from $2 to $3 overlaps its check-in
// period. The period begins when check-in opens, or when the reservation was confirmed, if that was
// later: pausedFrom is the later one of this and the start of the outage.
const (
	pausedFrom = `GREATEST($2, r.check_in_opens_at, COALESCE((
			SELECT w.ended_at FROM waitlist_entries w WHERE w.library_id = r.library_id AND w.id = r.entry_id), r.created_at))`
	pausedBy = `
		r.library_id = $1 AND r.occupies AND r.status = 'CONFIRMED' AND r.check_in_deadline > $2
		AND r.check_in_opens_at < $3::timestamptz AND ` + pausedFrom + ` < LEAST($3, r.check_in_deadline)`
)

const (
	selectOutage = `
		SELECT id, lower(during) AS start_time, upper(during) AS end_time
		FROM outages WHERE library_id = $1 AND done_at IS NULL ORDER BY id LIMIT 1`

	selectPausedSeats = `
		SELECT DISTINCT r.seat_id FROM reservations r
		WHERE ` + pausedBy + `
			AND r.seat_id > (SELECT last_seat_id FROM outages WHERE library_id = $1 AND id = $4::bigint)
		ORDER BY r.seat_id`
)

// NextOutage returns the first outage that is not settled, or nil if there is none.
func (s *Store) NextOutage(ctx context.Context) (*Outage, error) {
	open, err := query(ctx, s.background, pgx.RowToAddrOfStructByName[Outage], selectOutage, s.lib)
	if err != nil || len(open) == 0 {
		return nil, err
	}
	o := open[0]
	o.Seats, err = query(ctx, s.background, pgx.RowTo[int64], selectPausedSeats, s.lib, o.StartTime, o.EndTime, o.ID)
	return o, err
}

const (
	// lockOutage makes replicas settle an outage one after another. It locks the outage before the
	// seats. No transaction that holds a seat waits for this lock.
	lockOutage = `
		SELECT last_seat_id FROM outages WHERE library_id = $1 AND id = $2 AND done_at IS NULL FOR NO KEY UPDATE`

	// moveDeadlines does not move a deadline beyond the end of the reservation. If the reservation
	// has ended already, its user had no chance to use it.
	moveDeadlines = `
		WITH paused AS MATERIALIZED (
			SELECT r.id, upper(r.during) AS end_time, r.check_in_deadline AS deadline,
				LEAST(r.check_in_deadline + ($3 - ` + pausedFrom + `), upper(r.during)) AS new_deadline
			FROM reservations r WHERE ` + pausedBy + ` AND r.seat_id = ANY($4::bigint[])
		), moved AS (
			UPDATE reservations r SET check_in_deadline = p.new_deadline, version = version + 1
			FROM paused p
			WHERE r.library_id = $1 AND r.id = p.id AND p.end_time > $5::timestamptz AND p.new_deadline > p.deadline
			RETURNING r.id
		), cancelled AS (
			UPDATE reservations r SET status = 'CANCELLED', version = version + 1, ended_at = $5
			FROM paused p WHERE r.library_id = $1 AND r.id = p.id AND p.end_time <= $5
			RETURNING r.id
		)
		SELECT id, false FROM moved UNION ALL SELECT id, true FROM cancelled`

	advanceOutage = `
		UPDATE outages SET last_seat_id = GREATEST(last_seat_id, $3), moved = moved + $4::bigint
		WHERE library_id = $1 AND id = $2`

	finishOutage = `
		UPDATE outages SET done_at = dlsms_now() WHERE library_id = $1 AND id = $2 AND done_at IS NULL`
)

// outageReason is the reason in the events of an outage. The user sees it.
const outageReason = "The reservation system was not available."

// MoveDeadlines moves the check-in deadlines at some seats of an outage, in one transaction, and
// returns the number of changed reservations. A reservation whose end has passed is cancelled. The
// seats are in the order of Outage.Seats, and all seats before them must have been settled. Seats
// that were settled before are left out, for example by another replica.
func (s *Store) MoveDeadlines(ctx context.Context, o *Outage, seats []int64) (n int, err error) {
	err = s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		var last int64
		err := t.QueryRow(ctx, lockOutage, s.lib, o.ID).Scan(&last)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		for len(seats) > 0 && seats[0] <= last {
			seats = seats[1:]
		}
		if len(seats) == 0 {
			return nil
		}
		locked, now, err := t.lockSeatsAfter(ctx, boundedBatch(), seats, "")
		if err != nil {
			return err
		}
		rows, err := t.Query(ctx, moveDeadlines, s.lib, o.StartTime, o.EndTime, locked, now)
		if err != nil {
			return err
		}
		var id int64
		var cancelled bool
		_, err = pgx.ForEachRow(rows, []any{&id, &cancelled}, func() error {
			e := transition{
				cause: cause{outageReason, true}, kind: library.EventRescheduled, reservationID: id,
			}
			if cancelled {
				e.kind = library.EventCancelled
			}
			t.record(e)
			return nil
		})
		if err != nil {
			return err
		}
		n = len(t.events)
		_, err = t.Exec(ctx, advanceOutage, s.lib, o.ID, seats[len(seats)-1], n)
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// SkipSeat leaves out one seat of an outage, whose transaction fails again and again.
func (s *Store) SkipSeat(ctx context.Context, o *Outage, seat int64) error {
	return s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		_, err := t.Exec(ctx, advanceOutage, s.lib, o.ID, seat, 0)
		return err
	})
}

// FinishOutage marks an outage as settled. All its seats must have been settled.
func (s *Store) FinishOutage(ctx context.Context, o *Outage) error {
	return s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		_, err := t.Exec(ctx, finishOutage, s.lib, o.ID)
		return err
	})
}
