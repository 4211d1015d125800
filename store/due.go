package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// Step is one kind of transition that the passing of time causes. FindDue finds the seats at which
// the step is due. Run makes the transition at some of them.
type Step struct {
	// Name identifies the step in logs and metrics.
	Name string
	// find is the query of FindDue. It lists the seats at which the transition is due, the longest
	// overdue first, and the time at which it is due next. Its parameters are:
	//   - $1: the library
	//   - $2: the seats to leave out
	//   - $3: the limit of rows
	//   - $4: how far to look ahead
	//   - $5: DueQuery.SkipBefore, if skips is set
	//   - $6: Policy.ReminderLead, if leads is set
	find string
	// update makes the transition at the locked seats. It returns the ids, seats and users of the
	// changed rows. $1 is the library, $2 the seats, $3 the current time. $4 is Policy.ReminderLead
	// if leads is set, and OutageThreshold if AfterOutages is set.
	update string
	// AfterOutages means that the step waits until all outages are settled: see Outage. While one is
	// open, Run changes nothing and reports that it was busy.
	AfterOutages bool

	kind  library.EventKind // of the event; empty if the transition has no event
	frees bool              // the transition frees the seat and its user
	leads bool              // the transition is due Policy.ReminderLead before the check-in deadline
	skips bool              // FindDue skips rows with a deadline up to DueQuery.SkipBefore
}

// The parts of Step.find. The queries get the current time from a scalar subquery, (SELECT t FROM
// now). So Postgres reads the index only up to this time. With a join, Postgres would read all
// future rows.
const (
	findNow  = `WITH now AS MATERIALIZED (SELECT dlsms_now() AS t), due AS (`
	findNext = `), next AS (`
	findEnd  = `)
		SELECT now.t, next.at, due.seat_id, due.at
		FROM now CROSS JOIN next LEFT JOIN due ON true ORDER BY due.at`

	inReservations = `
		FROM reservations WHERE library_id = $1 AND seat_id <> ALL ($2::bigint[]) AND occupies AND status = `
	inWaitlist = `
		FROM waitlist_entries WHERE library_id = $1 AND seat_id <> ALL ($2::bigint[]) AND live AND status = `
	toRemind = `'CONFIRMED' AND reminded_at IS NULL`

	returningMoved = ` RETURNING r.id, r.seat_id, r.user_id`
)

// DueSteps are the steps that become due at a time that is stored in a row, such as the check-in
// deadline. They may run in any order, concurrently, and in any number of replicas: an update
// changes a row only if the row still has the status that the step expects.
var DueSteps = []Step{
	{
		Name: "complete",
		find: findNow + `SELECT seat_id, upper(during) AS at` + inReservations + `'CHECKED_IN'
					AND upper(during) <= (SELECT t FROM now)
				ORDER BY upper(during) LIMIT $3` +
			findNext + `SELECT min(upper(during)) AS at` + inReservations + `'CHECKED_IN'
					AND upper(during) > (SELECT t FROM now) AND upper(during) <= (SELECT t + $4::interval FROM now)` + findEnd,
		update: `
			UPDATE reservations r SET status = 'COMPLETED', version = version + 1, ended_at = $3
				WHERE library_id = $1 AND seat_id = ANY($2) AND occupies AND status = 'CHECKED_IN'
					AND upper(during) <= $3` + returningMoved,
		kind: library.EventCompleted, frees: true,
	},
	{
		Name: "no_show",
		find: findNow + `SELECT seat_id, check_in_deadline AS at` + inReservations + `'CONFIRMED' AND check_in_deadline > $5
					AND check_in_deadline <= (SELECT t FROM now)
				ORDER BY check_in_deadline LIMIT $3` +
			findNext + `SELECT min(check_in_deadline) AS at` + inReservations + `'CONFIRMED'
					AND check_in_deadline > (SELECT t FROM now)
					AND check_in_deadline <= (SELECT t + $4::interval FROM now)` + findEnd,
		update: `
			WITH missed AS (
				UPDATE reservations r SET status = 'NO_SHOW', version = version + 1, ended_at = $3
				WHERE library_id = $1 AND seat_id = ANY($2) AND occupies AND status = 'CONFIRMED'
					AND check_in_deadline <= $3` + ` AND ` + noOutage + `
				RETURNING r.library_id, r.id, r.seat_id, r.user_id, lower(r.during) AS start_time
			), struck AS (` + insertStrikes + `)
			SELECT id, seat_id, user_id FROM missed`,
		kind: library.EventNoShow, frees: true, skips: true, AfterOutages: true,
	},
	{
		Name: "offer_expired",
		find: findNow + `SELECT seat_id, offer_expires_at AS at` + inReservations + `'HELD'
					AND offer_expires_at <= (SELECT t FROM now)
				ORDER BY offer_expires_at LIMIT $3` +
			findNext + `SELECT min(offer_expires_at) AS at` + inReservations + `'HELD'
					AND offer_expires_at > (SELECT t FROM now)
					AND offer_expires_at <= (SELECT t + $4::interval FROM now)` + findEnd,
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
		find: findNow + `SELECT seat_id, upper(during) AS at` + inWaitlist + `'WAITING'
					AND upper(during) <= (SELECT t FROM now)
				ORDER BY upper(during) LIMIT $3` +
			findNext + `SELECT min(upper(during)) AS at` + inWaitlist + `'WAITING'
					AND upper(during) > (SELECT t FROM now) AND upper(during) <= (SELECT t + $4::interval FROM now)` + findEnd,
		update: `
			UPDATE waitlist_entries r SET status = 'EXPIRED', ended_at = $3
				WHERE library_id = $1 AND seat_id = ANY($2) AND live AND status = 'WAITING'
					AND upper(during) <= $3` + returningMoved,
	},
	{
		// If the deadline of a new reservation is less than Policy.ReminderLead away, the reminder
		// is due at once.
		Name: "remind",
		find: findNow + `SELECT seat_id, check_in_deadline - $6::interval AS at` + inReservations + toRemind + `
					AND check_in_deadline > (SELECT GREATEST(t, $5) FROM now)
					AND check_in_deadline <= (SELECT t + $6 FROM now)
				ORDER BY check_in_deadline LIMIT $3` +
			findNext + `SELECT min(check_in_deadline) - $6::interval AS at` + inReservations + toRemind + `
					AND check_in_deadline > (SELECT t + $6 FROM now)
					AND check_in_deadline <= (SELECT t + $6 + $4::interval FROM now)` + findEnd,
		update: `
			UPDATE reservations r SET reminded_at = $3, version = version + 1
			WHERE library_id = $1 AND seat_id = ANY($2) AND occupies AND status = ` + toRemind + `
				AND check_in_deadline > $3 AND check_in_deadline <= $3 + $4::interval` + returningMoved,
		kind: library.EventReminded, leads: true, skips: true,
	},
}

// OfferStep offers a free seat to a user who waits for it and is free at that time. A transaction
// that frees a seat serves the waitlist of this seat itself. So OfferStep has work only in these
// cases:
//   - a waiting user became free later than the seat
//   - a seat came back into service, or its branch opened
//   - the transaction that freed the seat could not serve the waitlist
var OfferStep = Step{Name: "offer"}

// DueQuery are the arguments of FindDue.
type DueQuery struct {
	// Without lists seats to leave out.
	Without []int64
	// Most bounds the number of rows that are read.
	Most int
	// Within is how far FindDue looks ahead for the next due time. It must be bounded. At night no
	// user is checked in. Without a bound, the search for the next end of a checked-in reservation
	// would then read all future reservations, half a million in a large library.
	Within time.Duration
	// SkipBefore makes FindDue skip deadlines up to this time. Set it to the Upto of an earlier
	// FindDue after all seats of that FindDue have been processed. The zero value skips nothing.
	//
	// A check-in changes no index (a HOT update), so the deadline of a checked-in reservation stays
	// in the index. Without SkipBefore, FindDue reads these deadlines again each time, which takes
	// 20 ms for 20,000 users.
	//
	// With SkipBefore, FindDue misses a reservation that was confirmed, or committed, after its
	// deadline. So the caller must set the zero value when it learns of such a reservation, and
	// from time to time.
	SkipBefore time.Time
}

// Due is the result of FindDue.
type Due struct {
	Seats []int64 // distinct, the longest overdue first
	More  bool    // there may be more seats
	// Late is how long ago the first seat was due, or 0 if none is due.
	Late time.Duration
	// Next is the time until the next due time, or 0 if there is none within DueQuery.Within.
	Next time.Duration
	// Upto is the value of SkipBefore for the next FindDue.
	Upto time.Time
}

// FindDue finds the seats at which a step is due by Postgres's clock, and when the step is due
// next.
func (s *Store) FindDue(ctx context.Context, step Step, q DueQuery) (Due, error) {
	if step.find == "" {
		return s.findFree(ctx, q)
	}
	args := []any{s.lib, q.Without, q.Most, q.Within}
	if q.Without == nil {
		args[1] = []int64{}
	}
	if step.skips {
		args = append(args, q.SkipBefore)
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
	}, step.find, args...)
	if err != nil {
		return Due{}, err
	}
	f := Due{Upto: rows[0].now}
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

// Run makes the due transitions of a step at seats, in one transaction, and returns the number of
// changed rows. It skips a seat that another transaction has locked, because that transaction may
// change the same rows. busy reports that a seat was skipped, or that the step waits for an outage
// to be settled: a later Run can process it.
func (s *Store) Run(ctx context.Context, step Step, seats []int64) (n int, busy bool, err error) {
	var freed []int64
	err = s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		locked, now, err := t.lockSeatsAfter(ctx, boundedBatch(), seats, " SKIP LOCKED")
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
		if step.AfterOutages {
			args = append(args, OutageThreshold)
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
		if n == 0 && step.AfterOutages { // another replica was faster, or an outage is open
			var settled bool
			err := t.QueryRow(ctx, selectSettled, s.lib, OutageThreshold).Scan(&settled)
			busy = busy || !settled
			return err
		}
		var free []int64
		for _, r := range moved {
			if step.kind != "" {
				t.record(transition{kind: step.kind, reservationID: r.ID})
			}
			free, freed = append(free, r.SeatID), append(freed, r.UserID)
		}
		switch {
		case !step.frees || n == 0:
			return nil
		case len(seats) == 1: // the worker runs a seat alone after a failure: end its reservation in any case
			return t.tryOffer(ctx, now, free[0])
		}
		return t.offer(ctx, now, sorted(free))
	})
	if err != nil {
		return 0, busy, err
	}
	if step.frees {
		s.offerToFreedUsers(ctx, s.background, nil, freed)
	}
	return n, busy, nil
}

// dueTimeout bounds each statement of Run. It is well below statementTimeout. So Postgres ends a
// slow statement with an error while the transaction has time left to roll back.
const dueTimeout = statementTimeout / 5

// boundStatements bounds the statements of the rest of its transaction.
const boundStatements = `SELECT set_config('statement_timeout', $1, true)`

// boundedBatch returns a batch that bounds the statements after it.
func boundedBatch() *pgx.Batch {
	batch := &pgx.Batch{}
	batch.Queue(boundStatements, millis(dueTimeout))
	return batch
}
