package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// Step is one kind of transition that time brings about. Look finds the seats at which it is due, Run makes it at some of them.
type Step struct {
	// Name tells steps apart in logs and metrics.
	Name string
	// look lists the seats at which the transition is due, the longest overdue first, and when the next one will be. Arguments:
	// library, seats to leave out, most, how far to look ahead, and then those of the step.
	look string
	// update makes it at the locked seats ($1: library, $2: seats, $3: now, $4: the reminder's lead, where it counts), and returns the
	// id, seat and user of what made it.
	update string
	kind   library.EventKind // of its event; empty: it has none
	frees  bool              // the seat is free afterwards, and its user too
	leads  bool              // it comes by the reminder's lead before the check-in deadline
	// passed says that what has been looked at once need not be looked at again: see Look.After.
	passed bool
}

// The parts of a look. The time is a value of its own, so that the index is read up to it: as a join with the time, Postgres would
// read everything that is to come.
const (
	lookNow  = `WITH now AS MATERIALIZED (SELECT dlsms_now() AS t), due AS (`
	lookNext = `), next AS (`
	lookEnd  = `) SELECT now.t, next.at, due.seat_id, due.at FROM now CROSS JOIN next LEFT JOIN due ON true ORDER BY due.at`

	inReservations = ` FROM reservations WHERE library_id = $1 AND seat_id <> ALL ($2::bigint[]) AND occupies AND status = `
	inWaitlist     = ` FROM waitlist_entries WHERE library_id = $1 AND seat_id <> ALL ($2::bigint[]) AND live AND status = `
	toRemind       = `'CONFIRMED' AND reminded_at IS NULL`

	returningMoved = ` RETURNING r.id, r.seat_id, r.user_id`
)

// DueSteps are the steps of which Postgres knows when each is due. They may run in any order and at the same time, in any number of
// replicas: a row makes its transition only while it is still in the state that is due.
var DueSteps = []Step{
	{
		Name: "complete",
		look: lookNow + `SELECT seat_id, upper(during) AS at` + inReservations + `'CHECKED_IN' AND upper(during) <= (SELECT t FROM now)
				ORDER BY upper(during) LIMIT $3` +
			lookNext + `SELECT min(upper(during)) AS at` + inReservations + `'CHECKED_IN'
				AND upper(during) > (SELECT t FROM now) AND upper(during) <= (SELECT t + $4::interval FROM now)` + lookEnd,
		update: `
			UPDATE reservations r SET status = 'COMPLETED', version = version + 1, ended_at = $3
			WHERE library_id = $1 AND seat_id = ANY($2) AND occupies AND status = 'CHECKED_IN' AND upper(during) <= $3` + returningMoved,
		kind: library.EventCompleted, frees: true,
	},
	{
		Name: "no_show",
		look: lookNow + `SELECT seat_id, check_in_deadline AS at` + inReservations + `'CONFIRMED' AND check_in_deadline > $5
				AND check_in_deadline <= (SELECT t FROM now) ORDER BY check_in_deadline LIMIT $3` +
			lookNext + `SELECT min(check_in_deadline) AS at` + inReservations + `'CONFIRMED'
				AND check_in_deadline > (SELECT t FROM now) AND check_in_deadline <= (SELECT t + $4::interval FROM now)` + lookEnd,
		update: `
			UPDATE reservations r SET status = 'NO_SHOW', version = version + 1, ended_at = $3
			WHERE library_id = $1 AND seat_id = ANY($2) AND occupies AND status = 'CONFIRMED' AND check_in_deadline <= $3` + returningMoved,
		kind: library.EventNoShow, frees: true, passed: true,
	},
	{
		Name: "offer_expired",
		look: lookNow + `SELECT seat_id, offer_expires_at AS at` + inReservations + `'HELD' AND offer_expires_at <= (SELECT t FROM now)
				ORDER BY offer_expires_at LIMIT $3` +
			lookNext + `SELECT min(offer_expires_at) AS at` + inReservations + `'HELD'
				AND offer_expires_at > (SELECT t FROM now) AND offer_expires_at <= (SELECT t + $4::interval FROM now)` + lookEnd,
		update: `
			WITH lapsed AS (
				UPDATE reservations r SET status = 'CANCELLED', version = version + 1, ended_at = $3, offer_expires_at = NULL
				WHERE library_id = $1 AND seat_id = ANY($2) AND status = 'HELD' AND offer_expires_at <= $3
				RETURNING r.library_id, r.id, r.seat_id, r.user_id, r.entry_id
			), entries AS (
				UPDATE waitlist_entries w SET status = 'EXPIRED', ended_at = $3, offer_expires_at = NULL
				FROM lapsed WHERE w.library_id = lapsed.library_id AND w.id = lapsed.entry_id AND w.status = 'OFFERED'
			)
			SELECT id, seat_id, user_id FROM lapsed`,
		kind: library.EventOfferExpired, frees: true,
	},
	{
		Name: "waiting_expired",
		look: lookNow + `SELECT seat_id, upper(during) AS at` + inWaitlist + `'WAITING' AND upper(during) <= (SELECT t FROM now)
				ORDER BY upper(during) LIMIT $3` +
			lookNext + `SELECT min(upper(during)) AS at` + inWaitlist + `'WAITING'
				AND upper(during) > (SELECT t FROM now) AND upper(during) <= (SELECT t + $4::interval FROM now)` + lookEnd,
		update: `
			UPDATE waitlist_entries r SET status = 'EXPIRED', ended_at = $3
			WHERE library_id = $1 AND seat_id = ANY($2) AND live AND status = 'WAITING' AND upper(during) <= $3` + returningMoved,
	},
	{
		// A reservation that is made so late that less than the lead is left is reminded of at once.
		Name: "remind",
		look: lookNow + `SELECT seat_id, check_in_deadline - $6::interval AS at` + inReservations + toRemind + `
				AND check_in_deadline > (SELECT GREATEST(t, $5) FROM now) AND check_in_deadline <= (SELECT t + $6 FROM now)
				ORDER BY check_in_deadline LIMIT $3` +
			lookNext + `SELECT min(check_in_deadline) - $6::interval AS at` + inReservations + toRemind + `
				AND check_in_deadline > (SELECT t + $6 FROM now) AND check_in_deadline <= (SELECT t + $6 + $4::interval FROM now)` + lookEnd,
		update: `
			UPDATE reservations r SET reminded_at = $3, version = version + 1
			WHERE library_id = $1 AND seat_id = ANY($2) AND occupies AND status = ` + toRemind + `
				AND check_in_deadline > $3 AND check_in_deadline <= $3 + $4::interval` + returningMoved,
		kind: library.EventReminded, leads: true, passed: true,
	},
}

// OfferStep offers seats that are free while a user who is free waits for them. The transaction that frees a seat serves its waitlist,
// so there is something to do only where a waiter became free later, a seat came back into service, or serving failed.
var OfferStep = Step{Name: "offer"}

// Look says what to look for.
type Look struct {
	// Without are seats to leave out.
	Without []int64
	// Most bounds how many seats are found.
	Most int
	// Within is how far to look ahead for what is due next. At night the next check-out, say, is behind half a million reservations
	// whose users have not checked in.
	Within time.Duration
	// After is the Upto of an earlier look after which everything found was done; zero: look at everything.
	//
	// A check-in must not touch an index (a HOT update), so the index of deadlines holds the reservations whose users have checked in,
	// until these end. After spares a look those that earlier looks have passed: 20,000 of them take 20 ms. What it misses are
	// reservations that were confirmed, or committed, after their deadline had passed already; the caller must look at everything
	// whenever it learns of one, and now and then.
	After time.Time
}

// Found is what a look has found.
type Found struct {
	Seats []int64 // distinct, the longest overdue first
	More  bool    // there may be more of them
	// Late is how long ago the first of them was due; 0: none is.
	Late time.Duration
	// Next is how long it is until something else comes due; 0: nothing will as far as the look went.
	Next time.Duration
	// Upto is what to give to the next look as After.
	Upto time.Time
}

// Look finds the seats at which a step is due, by Postgres's clock, and when it is due next.
func (s *Store) Look(ctx context.Context, step Step, q Look) (Found, error) {
	if step.look == "" {
		return s.lookForFree(ctx, q)
	}
	args := []any{s.lib, q.Without, q.Most, q.Within}
	if q.Without == nil {
		args[1] = []int64{}
	}
	if step.passed {
		args = append(args, q.After)
	}
	if step.leads {
		args = append(args, s.policy.ReminderLead)
	}
	type row struct {
		now      time.Time
		next, at *time.Time
		seat     *int64
	}
	rows, err := query(ctx, s.background, func(r pgx.CollectableRow) (v row, err error) {
		return v, r.Scan(&v.now, &v.next, &v.seat, &v.at)
	}, step.look, args...)
	if err != nil {
		return Found{}, err
	}
	f := Found{Upto: rows[0].now}
	if step.leads {
		f.Upto = f.Upto.Add(s.policy.ReminderLead)
	}
	if next := rows[0].next; next != nil {
		f.Next = max(next.Sub(rows[0].now), time.Nanosecond)
	}
	if rows[0].seat == nil {
		return f, nil
	}
	f.More, f.Late = len(rows) == q.Most, rows[0].now.Sub(*rows[0].at)
	seen := make(map[int64]bool, len(rows))
	for _, r := range rows {
		if !seen[*r.seat] {
			seen[*r.seat] = true
			f.Seats = append(f.Seats, *r.seat)
		}
	}
	return f, nil
}

// Run makes what is due of a step at seats, in one transaction, and returns how many rows made the transition and whether others have
// some of the seats locked: those are theirs to look at now, and ours the next time.
func (s *Store) Run(ctx context.Context, step Step, seats []int64) (n int, busy bool, err error) {
	var freed []int64
	err = s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		locked, now, err := t.lockDue(ctx, seats)
		busy = len(locked) < len(seats)
		if err != nil || len(locked) == 0 {
			return err
		}
		if step.update == "" {
			err = t.offer(ctx, now, locked)
			n = len(t.events)
			return err
		}
		args := []any{s.lib, locked, now}
		if step.leads {
			args = append(args, s.policy.ReminderLead)
		}
		rows, err := t.Query(ctx, step.update, args...)
		if err != nil {
			return err
		}
		moved, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r library.Reservation, err error) {
			return r, row.Scan(&r.ID, &r.SeatID, &r.UserID)
		})
		if err != nil {
			return err
		}
		n = len(moved)
		var free []int64
		for _, r := range moved {
			if step.kind != "" {
				t.record(step.kind, r.ID)
			}
			free, freed = append(free, r.SeatID), append(freed, r.UserID)
		}
		switch {
		case !step.frees || n == 0:
			return nil
		case len(seats) == 1: // by itself, so that a waitlist which can't be served does not keep the seat taken
			return t.tryOffer(ctx, now, free[0])
		}
		return t.offer(ctx, now, sorted(free))
	})
	if err != nil {
		return 0, busy, err
	}
	if step.frees {
		s.offerToFreed(ctx, s.background, nil, freed)
	}
	return n, busy, nil
}

// dueTimeout bounds a statement of Run. It is well below statementTimeout, so that Postgres says which statement is slow while the
// transaction has time left.
const dueTimeout = statementTimeout / 5

// boundStatements is for the rest of the transaction that it is in.
const boundStatements = `SELECT set_config('statement_timeout', $1, true)`

// lockDue locks seats in id order, returns those that no one else has locked, and the time after that.
func (t *tx) lockDue(ctx context.Context, seats []int64) (locked []int64, now time.Time, err error) {
	batch := &pgx.Batch{}
	batch.Queue(boundStatements, millis(dueTimeout))
	batch.Queue(lockSeats+` SKIP LOCKED`, t.s.lib, seats).Query(func(rows pgx.Rows) error {
		locked, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	batch.Queue(selectNow).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	err = t.SendBatch(ctx, batch).Close()
	return locked, now, err
}
