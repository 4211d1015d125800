package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// What comes due as time passes. Each method does one bounded batch in one transaction and returns how many rows made the transition and
// whether more may be due. Any number of replicas may call them at once: they skip seats that others have locked, and a row makes its
// transition only while it is still in the state that is due.

// dueStep is one kind of transition that time brings about.
type dueStep struct {
	// seats finds the seats ($1: library, $2: most) at which it is due.
	seats string
	// update makes it at the locked seats ($1: library, $2: seats, $3: now), and returns the reservations.
	update string
	kind   EventKind
}

const returningEnded = ` RETURNING r.id, r.seat_id, r.user_id`

var (
	noShows = dueStep{
		seats: `
			SELECT seat_id FROM reservations
			WHERE library_id = $1 AND occupies AND status = 'CONFIRMED' AND check_in_deadline <= (SELECT dlsms_now())
			ORDER BY check_in_deadline LIMIT $2`,
		update: `
			UPDATE reservations r SET status = 'NO_SHOW', version = version + 1, ended_at = $3
			WHERE library_id = $1 AND seat_id = ANY($2) AND occupies AND status = 'CONFIRMED' AND check_in_deadline <= $3` + returningEnded,
		kind: EventNoShow,
	}
	completions = dueStep{
		seats: `
			SELECT seat_id FROM reservations
			WHERE library_id = $1 AND occupies AND status = 'CHECKED_IN' AND upper(during) <= (SELECT dlsms_now())
			ORDER BY upper(during) LIMIT $2`,
		update: `
			UPDATE reservations r SET status = 'COMPLETED', version = version + 1, ended_at = $3
			WHERE library_id = $1 AND seat_id = ANY($2) AND occupies AND status = 'CHECKED_IN' AND upper(during) <= $3` + returningEnded,
		kind: EventCompleted,
	}
	expiredOffers = dueStep{
		seats: `
			SELECT seat_id FROM reservations WHERE library_id = $1 AND offer_expires_at <= (SELECT dlsms_now())
			ORDER BY offer_expires_at LIMIT $2`,
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
		kind: EventOfferExpired,
	}
)

// MarkNoShows ends CONFIRMED reservations past their check-in deadline and offers their seats.
func (s *Store) MarkNoShows(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.endDue(ctx, noShows, limit)
}

// CompleteEnded completes CHECKED_IN reservations past their end.
func (s *Store) CompleteEnded(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.endDue(ctx, completions, limit)
}

// ExpireOffers ends offers that ran out and makes them to the next in line.
func (s *Store) ExpireOffers(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.endDue(ctx, expiredOffers, limit)
}

func (s *Store) endDue(ctx context.Context, step dueStep, limit int) (n int, more bool, err error) {
	var freed []int64
	err = s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		due, locked, err := t.lockDueSeats(ctx, step.seats, limit)
		if err != nil || len(due) == 0 {
			return err
		}
		// Seats that others have locked are theirs to look at now, and ours the next time.
		more = len(due) == limit || len(locked) < len(sorted(due))
		now, err := t.now(ctx)
		if err != nil {
			return err
		}
		rows, err := t.Query(ctx, step.update, s.lib, locked, now)
		if err != nil {
			return err
		}
		ended, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Reservation, err error) {
			return r, row.Scan(&r.ID, &r.SeatID, &r.UserID)
		})
		if err != nil {
			return err
		}
		var seats []int64
		for _, r := range ended {
			t.record(step.kind, r.ID)
			seats, freed = append(seats, r.SeatID), append(freed, r.UserID)
		}
		n = len(ended)
		return t.offer(ctx, now, sorted(seats))
	})
	s.offerToFreed(ctx, s.background, err, freed)
	return n, more, err
}

// lockDueSeats returns the seats that find ($1: library, $2: most, then args) names, and those of them that it could lock.
func (t *tx) lockDueSeats(ctx context.Context, find string, limit int, args ...any) (due, locked []int64, err error) {
	rows, err := t.Query(ctx, find, append([]any{t.s.lib, limit}, args...)...)
	if err != nil {
		return nil, nil, err
	}
	if due, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil || len(due) == 0 {
		return nil, nil, err
	}
	locked, err = t.lockSeats(ctx, due, true)
	return due, locked, err
}

// RemindOfCheckIn tells the users of CONFIRMED reservations whose check-in closes soon, once each. A reservation that is made so late that less
// than the reminder's lead is left is reminded of at once.
func (s *Store) RemindOfCheckIn(ctx context.Context, limit int) (n int, more bool, err error) {
	const soon = `occupies AND status = 'CONFIRMED' AND reminded_at IS NULL`
	const due = `
		SELECT seat_id FROM reservations
		WHERE library_id = $1 AND ` + soon + ` AND check_in_deadline > (SELECT dlsms_now())
			AND check_in_deadline <= (SELECT dlsms_now()) + $3::interval -- as a join with the time it would walk all deadlines to come
		ORDER BY check_in_deadline LIMIT $2`
	const remind = `
		UPDATE reservations SET reminded_at = $3, version = version + 1
		WHERE library_id = $1 AND seat_id = ANY($2) AND ` + soon + ` AND check_in_deadline > $3 AND check_in_deadline <= $3 + $4::interval
		RETURNING id`
	err = s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		seats, locked, err := t.lockDueSeats(ctx, due, limit, s.rules.ReminderLead)
		if err != nil || len(seats) == 0 {
			return err
		}
		more = len(seats) == limit || len(locked) < len(sorted(seats))
		now, err := t.now(ctx)
		if err != nil {
			return err
		}
		rows, err := t.Query(ctx, remind, s.lib, locked, now, s.rules.ReminderLead)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		for _, id := range ids {
			t.record(EventReminded, id)
		}
		n = len(ids)
		return err
	})
	return n, more, err
}

// ExpireWaiting ends entries that wait for a window that has passed.
func (s *Store) ExpireWaiting(ctx context.Context, limit int) (n int, more bool, err error) {
	const due = `
		SELECT seat_id FROM waitlist_entries
		WHERE library_id = $1 AND live AND status = 'WAITING' AND upper(during) <= (SELECT dlsms_now()) ORDER BY upper(during) LIMIT $2`
	const expire = `
		UPDATE waitlist_entries SET status = 'EXPIRED', ended_at = $3
		WHERE library_id = $1 AND seat_id = ANY($2) AND live AND status = 'WAITING' AND upper(during) <= $3`
	err = s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		seats, locked, err := t.lockDueSeats(ctx, due, limit)
		if err != nil || len(seats) == 0 {
			return err
		}
		now, err := t.now(ctx)
		if err != nil {
			return err
		}
		tag, err := t.Exec(ctx, expire, s.lib, locked, now)
		n, more = int(tag.RowsAffected()), len(seats) == limit || len(locked) < len(sorted(seats))
		return err
	})
	return n, more, err
}

// OfferFreeSeats offers seats that are free while somebody who is free waits for them. The transaction that frees a seat serves its waitlist,
// so there is something to do only where a waiter became free later, or a seat came back into service.
func (s *Store) OfferFreeSeats(ctx context.Context, limit int) (n int, more bool, err error) {
	const waitedFor = `
		SELECT w.seat_id FROM (SELECT dlsms_now() AS t OFFSET 0) now, waitlist_entries w
		JOIN seats s ON s.library_id = w.library_id AND s.id = w.seat_id
		WHERE w.library_id = $1 AND w.live AND ` + fitting + ` LIMIT $2`
	err = s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		due, locked, err := t.lockDueSeats(ctx, waitedFor, limit)
		if err != nil || len(due) == 0 {
			return err
		}
		now, err := t.now(ctx)
		if err != nil {
			return err
		}
		err = t.offer(ctx, now, locked)
		n, more = len(t.events), len(due) == limit || len(locked) < len(sorted(due))
		return err
	})
	return n, more, err
}

// selectNextDue looks no further ahead than $3: at night the next check-out, say, is behind half a million reservations that nobody has
// checked in to.
const selectNextDue = `
	SELECT extract(epoch FROM LEAST(
		(SELECT min(check_in_deadline) FROM reservations
			WHERE library_id = $1 AND occupies AND status = 'CONFIRMED' AND check_in_deadline <= n.t + $3),
		(SELECT min(check_in_deadline) - $2::interval FROM reservations
			WHERE library_id = $1 AND occupies AND status = 'CONFIRMED' AND reminded_at IS NULL
			AND check_in_deadline > n.t AND check_in_deadline <= n.t + $2 + $3),
		(SELECT min(upper(during)) FROM reservations
			WHERE library_id = $1 AND occupies AND status = 'CHECKED_IN' AND upper(during) <= n.t + $3),
		(SELECT min(offer_expires_at) FROM reservations WHERE library_id = $1 AND offer_expires_at <= n.t + $3),
		(SELECT min(upper(during)) FROM waitlist_entries
			WHERE library_id = $1 AND live AND status = 'WAITING' AND upper(during) <= n.t + $3)
	) - n.t)::float8
	FROM (SELECT dlsms_now() AS t OFFSET 0) n`

// NextDue returns how long it is until something comes due, by Postgres's clock: 0 or less when something is due now, and false when nothing
// will be for as long as within.
func (s *Store) NextDue(ctx context.Context, within time.Duration) (time.Duration, bool, error) {
	seconds, err := queryOne(ctx, s.background, pgx.ErrNoRows, pgx.RowTo[*float64], selectNextDue, s.lib, s.rules.ReminderLead, within)
	if err != nil || seconds == nil {
		return 0, false, err
	}
	return time.Duration(*seconds * float64(time.Second)), true, nil
}
