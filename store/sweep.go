package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// A sweep ends the reservations that a change of the library has made impossible. It goes through
// the seats of its scope in the order of their ids, some seats in a transaction:
//
//  1. It locks its row in sweeps, so that only one worker runs it.
//  2. It locks all seats of the next step, those without a reservation, too. A booking that was
//     decided before the change may be committed while the sweep waits for the lock of its seat.
//     Every booking that gets the lock later sees the change, and is refused.
//  3. It reads the reservations in a new statement, ends them, and stores how far it has come.
//
// So a sweep that is interrupted goes on where it was, and no reservation is missed or ended twice.

// Swept is the result of one transaction of a sweep.
type Swept struct {
	SweepID int64 // 0: no sweep is open
	// Seats are the seats of the transaction. They are set even if the transaction failed.
	Seats []int64
	// Again says that the seat was skipped before.
	Again bool
	// Busy says that another worker runs the only open sweeps.
	Busy bool
	// Ended is the number of reservations that were ended or shortened.
	Ended int
}

const (
	selectSweep = `
		SELECT id, branch_id, cause, COALESCE(closure_id, 0), COALESCE(area, ''), seat_ids, lower(during), upper(during),
			last_seat_id, skipped
		FROM sweeps WHERE library_id = $1 AND done_at IS NULL AND id <> ALL ($2::bigint[])
		ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED`

	selectOpenSweep = `
		SELECT EXISTS (SELECT FROM sweeps WHERE library_id = $1 AND done_at IS NULL AND id <> ALL ($2::bigint[]))`

	selectSweepSeats = `
		SELECT id FROM seats
		WHERE library_id = $1 AND branch_id = $2 AND ($3 = '' OR area = $3) AND ($4::bigint[] IS NULL OR id = ANY ($4))
			AND id > $5
		ORDER BY id LIMIT $6`

	updateSweep = `
		UPDATE sweeps SET last_seat_id = $3, ended = ended + $4::bigint, skipped = $5,
			done_at = CASE WHEN $6 THEN dlsms_now() END
		WHERE library_id = $1 AND id = $2`

	// skipSweepSeat moves a seat to the end of the skipped ones, and the sweep past it.
	skipSweepSeat = `
		UPDATE sweeps SET last_seat_id = GREATEST(last_seat_id, $3), skipped = array_remove(skipped, $3) || $3
		WHERE library_id = $1 AND id = $2 AND done_at IS NULL`
)

// openSweep is a row of sweeps that a transaction has locked.
type openSweep struct {
	sweep

	id       int64
	lastSeat int64
	skipped  []int64
}

// SweepNext makes the next transaction of the oldest open sweep, with at most most seats. without
// are sweeps to leave out. After the last seat, it comes back to the seats that were skipped, one in
// a transaction. If the transaction fails, it is rolled back, and SweepNext returns its seats with
// the error.
func (s *Store) SweepNext(ctx context.Context, most int, without []int64) (r Swept, err error) {
	var freed []int64
	err = s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		w, found, err := t.lockSweep(ctx, without)
		if err != nil || !found {
			if err == nil {
				err = t.QueryRow(ctx, selectOpenSweep, s.lib, idsOrEmpty(without)).Scan(&r.Busy)
			}
			return err
		}
		r.SweepID = w.id
		last, err := t.nextSweepSeats(ctx, &w, most, &r)
		if err != nil {
			return err
		}
		ended, err := t.sweepSeats(ctx, w, r.Seats)
		if err != nil {
			return err
		}
		r.Ended = len(ended)
		for _, e := range ended {
			freed = append(freed, e.UserID)
		}
		_, err = t.Exec(ctx, updateSweep, s.lib, w.id, w.lastSeat, r.Ended, idsOrEmpty(w.skipped), last)
		return err
	})
	if err != nil {
		r.Ended = 0
		return r, err
	}
	s.offerToFreedUsers(ctx, s.background, nil, freed)
	return r, nil
}

// SkipSweepSeat makes a sweep go on without a seat whose transaction failed. SweepNext comes back to
// the seat after all others.
func (s *Store) SkipSweepSeat(ctx context.Context, sweepID, seatID int64) error {
	return s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		_, err := t.Exec(ctx, skipSweepSeat, s.lib, sweepID, seatID)
		return err
	})
}

// lockSweep locks the oldest open sweep that no other worker has locked.
func (t *tx) lockSweep(ctx context.Context, without []int64) (w openSweep, found bool, err error) {
	batch := &pgx.Batch{}
	batch.Queue(boundStatements, millis(dueTimeout))
	batch.Queue(setLockTimeout, millis(seatLockTimeout))
	batch.Queue(planEachTime)
	batch.Queue(selectSweep, t.s.lib, idsOrEmpty(without)).QueryRow(func(row pgx.Row) error {
		var until *time.Time
		err := row.Scan(&w.id, &w.branchID, &w.cause, &w.closureID, &w.area, &w.seatIDs, &w.from, &until,
			&w.lastSeat, &w.skipped)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		w.until, found = orZero(until), true
		return err
	})
	err = t.SendBatch(ctx, batch).Close()
	return w, found && err == nil, err
}

// nextSweepSeats sets the seats of the next transaction in r, and moves w past them. last says that
// no seat is left after them.
func (t *tx) nextSweepSeats(ctx context.Context, w *openSweep, most int, r *Swept) (last bool, err error) {
	r.Seats, err = rowsOf(ctx, t, pgx.RowTo[int64],
		selectSweepSeats, t.s.lib, w.branchID, w.area, w.seatIDs, w.lastSeat, most)
	if err != nil {
		return false, err
	}
	switch n := len(r.Seats); {
	case n > 0:
		w.lastSeat = r.Seats[n-1]
		return n < most && len(w.skipped) == 0, nil
	case len(w.skipped) > 0:
		r.Seats, r.Again = w.skipped[:1:1], true
		w.skipped = w.skipped[1:]
	}
	return len(w.skipped) == 0, nil
}

// swept is a reservation that a sweep ends.
type swept struct {
	ID      int64
	SeatID  int64
	UserID  int64
	Status  library.ReservationStatus
	EntryID int64
	Now     time.Time
	// StartTime is the start of the reservation. UsableUntil is the time from which the seat cannot
	// be used; nil or a time that has passed: it cannot be used now.
	StartTime   time.Time
	UsableUntil *time.Time
	Suggested   *int64 // a free seat for the part of the window that is lost
}

// mostCandidates bounds the seats that selectSwept checks for a suggestion, for each reservation.
const mostCandidates = 100

// selectSwept finds the reservations of a sweep at the seats @seats, and for each of them a seat of
// the branch that is free for the lost part of the window: one with all amenities of the lost seat,
// in the same area if possible, with the nearest id. candidates are the seats that the sweep leaves
// usable; @suggest is false if there are none. The planner keeps the order of the inner query, so
// that only the nearest candidates are checked.
const selectSwept = selectAffected + `, candidates AS MATERIALIZED (
		SELECT c.id, c.area, c.amenities FROM seats c
		WHERE @suggest AND c.library_id = @library AND c.branch_id = @branch AND NOT c.out_of_service
			AND (@closed_area = '' OR c.area <> @closed_area)
			AND (@closed_seats::bigint[] IS NULL OR c.id <> ALL (@closed_seats))
	)
	SELECT r.id, r.seat_id, r.user_id, r.status, COALESCE(r.entry_id, 0) AS entry_id, now.t AS now,
		lower(r.during) AS start_time, u.until AS usable_until, n.id AS suggested
	FROM now CROSS JOIN open CROSS JOIN affected r
	JOIN seats s ON s.library_id = r.library_id AND s.id = r.seat_id
	CROSS JOIN LATERAL (
		SELECT CASE @cause WHEN 'CLOSURE' THEN @from WHEN 'HOURS' THEN (
			SELECT upper(o) FROM unnest(open.hours) o WHERE o @> GREATEST(lower(r.during), now.t)) END AS until
		OFFSET 0
	) u
	CROSS JOIN LATERAL (
		SELECT tstzrange(GREATEST(lower(r.during), now.t,
			CASE WHEN r.status = 'CHECKED_IN' THEN LEAST(u.until, upper(r.during)) END), upper(r.during)) AS lost
		OFFSET 0
	) l
	LEFT JOIN LATERAL (
		SELECT f.id FROM (
			SELECT c.id, c.area, c.area <> s.area AS elsewhere, abs(c.id - r.seat_id) AS distance FROM candidates c
			WHERE c.id <> r.seat_id AND c.amenities @> s.amenities
			ORDER BY elsewhere, distance, c.id LIMIT @most_candidates::bigint) f
		WHERE upper(l.lost) - lower(l.lost) >= @min_duration::interval
			AND (SELECT dlsms_open(@library, @branch, l.lost))
			AND NOT EXISTS (SELECT FROM reservations o WHERE o.library_id = @library AND o.seat_id = f.id AND o.occupies
				AND o.during && l.lost)
			AND NOT dlsms_closed(@library, @branch, f.area, f.id, l.lost)
		ORDER BY f.elsewhere, f.distance, f.id LIMIT 1
	) n ON true
	ORDER BY r.id`

// sweepSeats locks seats and ends the reservations of a sweep there. It returns these reservations.
func (t *tx) sweepSeats(ctx context.Context, w openSweep, seats []int64) ([]swept, error) {
	if len(seats) == 0 {
		return nil, nil
	}
	if _, err := t.lockSeats(ctx, seats); err != nil {
		return nil, err
	}
	here := w.sweep
	here.seatIDs = seats
	args := here.args(t.s.lib)
	// A closure of the whole branch, and opening hours, leave no seat usable.
	args["suggest"] = w.cause == sweepSeats || w.cause == sweepClosure && (w.area != "" || w.seatIDs != nil)
	args["closed_area"], args["closed_seats"] = w.area, w.seatIDs
	args["most_candidates"], args["min_duration"] = mostCandidates, t.s.policy.MinDuration
	found, err := rowsOf(ctx, t, pgx.RowToStructByName[swept], selectSwept, args)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	free, err := t.endSwept(ctx, w.id, found)
	if err != nil || w.cause == sweepSeats { // such a seat cannot be offered
		return found, err
	}
	if len(seats) == 1 { // the worker sweeps a seat alone after a failure: end its reservations in any case
		return found, t.tryOffer(ctx, found[0].Now, free[0])
	}
	return found, t.offer(ctx, found[0].Now, free)
}

const (
	endReservations = `
		UPDATE reservations r SET status = c.status, version = r.version + 1,
			during = CASE WHEN c.end_time IS NULL THEN r.during ELSE tstzrange(lower(r.during), c.end_time) END,
			check_in_deadline = LEAST(r.check_in_deadline, c.end_time),
			ended_at = CASE WHEN c.end_time IS NULL THEN $6::timestamptz END, offer_expires_at = NULL
		FROM unnest($2::bigint[], $3::text[], $4::text[], $5::timestamptz[]) c (id, was, status, end_time)
		WHERE r.library_id = $1 AND r.id = c.id AND r.status = c.was`

	// returnToWaiting makes entries wait again whose offers a sweep has ended.
	returnToWaiting = `
		UPDATE waitlist_entries SET status = 'WAITING', reservation_id = NULL, offer_expires_at = NULL
		WHERE library_id = $1 AND id = ANY ($2) AND status = 'OFFERED'`
)

// endSwept ends or shortens reservations and records their events. It returns their seats.
func (t *tx) endSwept(ctx context.Context, sweepID int64, found []swept) (seats []int64, err error) {
	var ids, entries []int64
	var was, becomes []string
	var ends []*time.Time
	for _, r := range found {
		status, kind, end := r.outcome()
		ids, was, becomes = append(ids, r.ID), append(was, string(r.Status)), append(becomes, string(status))
		ends, seats = append(ends, end), append(seats, r.SeatID)
		if r.Status == library.Held {
			entries = append(entries, r.EntryID)
		}
		e := transition{cause: cause{byLibrary: true}, kind: kind, reservationID: r.ID, sweepID: sweepID}
		if r.Suggested != nil {
			e.suggested = *r.Suggested
		}
		t.record(e)
	}
	tag, err := t.Exec(ctx, endReservations, t.s.lib, ids, was, becomes, ends, found[0].Now)
	if err != nil {
		return nil, err
	}
	if n := tag.RowsAffected(); n != int64(len(found)) {
		return nil, fmt.Errorf("%d of %d reservations changed while their seats were locked", int64(len(found))-n, len(found))
	}
	if len(entries) > 0 {
		if _, err := t.Exec(ctx, returnToWaiting, t.s.lib, entries); err != nil {
			return nil, err
		}
	}
	return sorted(seats), nil
}

// outcome returns what a sweep makes of a reservation: its status, the kind of the event, and the
// new end of a reservation that goes on until the closure begins or the branch closes. The end is
// nil if the reservation ends now.
func (r swept) outcome() (status library.ReservationStatus, kind library.EventKind, end *time.Time) {
	switch r.Status {
	case library.Held:
		return library.Cancelled, library.EventDeclined, nil
	case library.CheckedIn:
		if u := r.UsableUntil; u != nil && u.After(r.Now) && u.After(r.StartTime) {
			return library.CheckedIn, library.EventShortened, u
		}
		return library.Completed, library.EventCompleted, nil
	case library.Confirmed, library.Completed, library.Cancelled, library.NoShow:
	}
	return library.Cancelled, library.EventCancelled, nil
}

// idsOrEmpty returns ids for a parameter or column that is not NULL.
func idsOrEmpty(ids []int64) []int64 {
	if ids == nil {
		return []int64{}
	}
	return ids
}
