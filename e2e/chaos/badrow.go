package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// badRow is an SQL statement that an operator could run on the database by mistake. The database
// may refuse the statement or execute it. In both cases, all replicas must then show the seats as
// the database has them, and no process may stop.
type badRow struct {
	name string
	// write is the statement. Its named arguments are ids:
	//
	//   - @branch and @depot: the two branches of the operator
	//   - @seat: a seat that no client books; @other: another such seat
	//   - @reservation: a reservation of the operator; @booked: its seat
	write string
	// undo is the SQL statement that reverses write. It runs at the end of the fault. A change of
	// @reservation needs no undo, because the function repair restores the reservation from the
	// change log.
	undo string
	// If due is true, the operator books a seat in the branch before the statement runs. Its user
	// does not check in, so a no-show becomes due during the fault. Then the fault checks that the
	// workers continue with the other branches.
	due bool
	// If unreadable is true, write may make a seat that a replica cannot read. A replica may leave
	// out such a seat.
	unreadable bool
}

const undoZone = `UPDATE branches SET timezone = 'Europe/Berlin' WHERE library_id = 1 AND id = @branch`

// undoHours restores the opening hours of the branch, which cover the whole week.
const undoHours = `
	WITH deleted AS (
		DELETE FROM branch_hours
		WHERE library_id = 1 AND branch_id = @branch AND NOT (weekday BETWEEN 1 AND 7 AND opens = '00:00'))
	INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes)
	SELECT 1, @branch, d, '00:00', '24:00' FROM generate_series(1, 7) d
	ON CONFLICT (library_id, branch_id, weekday, opens) DO UPDATE SET closes = EXCLUDED.closes`

const undoSeat = `
	UPDATE seats SET branch_id = @branch, label = 'S-' || id, amenities = '{}' WHERE library_id = 1 AND id = @seat`

// badRows returns all bad rows. Most of them write an invalid or unusual value: there is at least
// one for each column that an operator may write. The others delete rows.
func badRows() []badRow {
	zone := func(name, value string) badRow {
		return badRow{name: "a time zone " + name, due: true, undo: undoZone,
			write: `UPDATE branches SET timezone = '` + value + `' WHERE library_id = 1 AND id = @branch`}
	}
	hours := func(name, weekday, opens, closes string) badRow {
		return badRow{name: "hours " + name, due: true, undo: undoHours, write: fmt.Sprintf(
			`INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes) VALUES (1, @branch, %s, '%s', '%s')`,
			weekday, opens, closes)}
	}
	seat := func(name, set string) badRow {
		return badRow{name: name, unreadable: true, undo: undoSeat,
			write: `UPDATE seats SET ` + set + ` WHERE library_id = 1 AND id = @seat`}
	}
	reservation := func(name, set string) badRow {
		return badRow{name: name,
			write: `UPDATE reservations SET ` + set + ` WHERE library_id = 1 AND id = @reservation`}
	}
	const cancelled = `status = 'CANCELLED', ended_at = dlsms_now()`
	return []badRow{
		zone("that does not exist", "Europe/Berln"), zone("that is empty", ""), zone("in POSIX notation", "Foo+3"),
		zone("in lower case", "europe/berlin"), zone("of the machine", "localtime"),
		seat("a NULL amenity", `amenities = array_append(amenities, NULL)`),
		seat("amenities in two dimensions", `amenities = '{{1,2},{3,4}}'`),
		seat("amenities counted from 0", `amenities = '[0:1]={1,2}'`),
		seat("an unknown amenity", `amenities = '{32767}'`),
		seat("a label of 5 MiB", `label = repeat('x', 5 << 20)`),
		seat("a seat without a label", `label = ''`),
		seat("a seat in another branch", `branch_id = @depot`),
		reservation("a status without an event", cancelled),
		reservation("a version without an event", cancelled+`, version = version + 1`),
		reservation("a window without an event",
			`during = tstzrange(lower(during), upper(during) + interval '1 hour')`),
		reservation("a seat without an event", `seat_id = @seat`),
		reservation("an infinite deadline", `check_in_deadline = 'infinity'`),
		{name: "a deleted reservation", write: `DELETE FROM reservations WHERE library_id = 1 AND id = @reservation`},
		{name: "a deleted waitlist",
			write: `DELETE FROM waitlist_entries WHERE library_id = 1 AND seat_id = @booked AND status = 'WAITING'`},
		{name: "a deleted branch", write: `DELETE FROM branches WHERE library_id = 1 AND id = @branch`},
		{name: "a branch that is added and deleted", write: `
			DO $$ BEGIN
				INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'short-lived', 'Short-lived', 'UTC');
				DELETE FROM branches WHERE library_id = 1 AND code = 'short-lived';
			END $$`},
		{name: "a deleted seat that was booked", write: `DELETE FROM seats WHERE library_id = 1 AND id = @booked`},
		{name: "a seat whose id is 0", unreadable: true,
			write: `INSERT INTO seats (library_id, id, branch_id, area, label) VALUES (1, 0, @branch, 'Hall', 'zero')`,
			undo:  `DELETE FROM seats WHERE library_id = 1 AND id = 0`},
		{name: "a seat with another id", write: `UPDATE seats SET id = -id WHERE library_id = 1 AND id = @seat`,
			undo: `UPDATE seats SET id = -id WHERE library_id = 1 AND id = -(@seat::bigint)`},
		hours("on an eighth day", "8", "08:00", "20:00"), hours("that end when they begin", "1", "09:00", "09:00"),
		hours("from midnight to midnight", "2", "24:00", "24:00"), hours("within others", "3", "10:00", "11:00"),
		hours("of a second", "4", "12:00", "12:00:01"),
		{name: "hours of one second a week only", due: true, undo: undoHours, write: `
			WITH deleted AS (DELETE FROM branch_hours WHERE library_id = 1 AND branch_id = @branch AND weekday <> 5)
			UPDATE branch_hours SET closes = '00:00:01' WHERE library_id = 1 AND branch_id = @branch AND weekday = 5`},
	}
}

// writeBadRow runs one of the SQL statements of badRows, chosen at random, on the database. Then it
// waits until all replicas show the seats as the database has them. If a replica does not, that is
// a violation. The function heal checks that the workers continue with the other branches, cancels
// the reservation, and undoes the statement.
func (o *operator) writeBadRow(ctx context.Context, rng *rand.Rand) (heal func(context.Context) error, err error) {
	all := badRows()
	bad := all[rng.IntN(len(all))]
	var due time.Time
	if bad.due {
		due = o.reserveDue(ctx)
	}
	// If the statement changes @reservation, its seat may become free until repair restores the
	// reservation. The system must not offer the seat to another user in this time. So the user
	// waiter does not join the waitlist.
	reservation, start, end := o.reserveAhead(ctx, !strings.Contains(bad.write, "@reservation"))
	names := pgx.NamedArgs{
		"branch": o.branch, "depot": o.depot, "seat": o.seats[freeSeat], "other": o.seats[editedSeat],
		"reservation": reservation, "booked": o.seats[keptSeat],
	}
	err = o.exec(ctx, bad.write, names)
	accepted := err == nil
	if err != nil && !refusedBySQL(err) {
		return nil, err
	}
	o.recordOutcome(bad.name, accepted)
	var mayMiss []int64
	if bad.unreadable {
		mayMiss = []int64{0, o.seats[freeSeat]}
	}
	differs, err := o.waitForReplicas(ctx, start, end, mayMiss)
	if err != nil {
		return nil, err
	}
	if differs != "" {
		o.history.found.add(checkFreshness, "after %s was %s: %s", bad.name, verdict(accepted), differs)
	}
	return func(ctx context.Context) error {
		if err := o.checkOtherBranches(ctx, due, bad.name+" was "+verdict(accepted)); err != nil {
			return err
		}
		// The cancel frees the seat, and the system offers the seat to the user waiter. For the
		// offer, the system reads the branch and its opening hours, which the statement may have
		// changed.
		if reservation != 0 {
			o.call(ctx, o.owner, "CancelReservation", func(ctx context.Context, c *e2e.Client) error {
				req := &dlsmsv1.CancelReservationRequest{ReservationId: reservation}
				_, err := c.Reservations.CancelReservation(ctx, req)
				return err
			})
		}
		// Run undo even if the database refused the statement: an earlier try of the statement may
		// have succeeded although its answer was lost. If no try succeeded, the database may refuse
		// undo, and that is no error.
		if bad.undo != "" {
			if err := o.exec(ctx, bad.undo, names); err != nil && (accepted || !refusedBySQL(err)) {
				return fmt.Errorf("undo %s: %w", bad.name, err)
			}
		}
		return o.repair(ctx, reservation)
	}, nil
}

func verdict(accepted bool) string {
	if accepted {
		return "accepted"
	}
	return "refused"
}

func (o *operator) recordOutcome(name string, accepted bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.outcomes[name]
	if f == nil {
		f = &outcome{}
		o.outcomes[name] = f
	}
	if accepted {
		f.accepted++
	} else {
		f.refused++
	}
}

// badRowSummary returns how many bad rows were refused and accepted, and the names of those that
// were accepted.
func (o *operator) badRowSummary() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var refused, accepted int
	var names []string
	for _, name := range slices.Sorted(maps.Keys(o.outcomes)) {
		f := o.outcomes[name]
		refused, accepted = refused+f.refused, accepted+f.accepted
		if f.accepted > 0 {
			names = append(names, name)
		}
	}
	return fmt.Sprintf("%d refused, %d accepted (%s)", refused, accepted, strings.Join(names, "; "))
}

// repairSQL restores reservation $1 from its last event. The first statement disables all triggers
// in the transaction, because triggers may refuse a change that writes no event.
var repairSQL = []string{
	`SET LOCAL session_replication_role = replica`,
	`INSERT INTO reservations AS r (library_id, id, seat_id, user_id, entry_id, during, status, version,
		check_in_opens_at, check_in_deadline, offer_expires_at, created_at, checked_in_at, ended_at)
	OVERRIDING SYSTEM VALUE
	SELECT library_id, reservation_id, seat_id, user_id, entry_id, during, status, version,
		check_in_opens_at, check_in_deadline, offer_expires_at, created_at, checked_in_at, ended_at
	FROM reservation_events WHERE library_id = 1 AND reservation_id = $1 ORDER BY version DESC LIMIT 1
	ON CONFLICT (library_id, id) DO UPDATE SET
		seat_id = EXCLUDED.seat_id, during = EXCLUDED.during, status = EXCLUDED.status, version = EXCLUDED.version,
		check_in_deadline = EXCLUDED.check_in_deadline, ended_at = EXCLUDED.ended_at
	WHERE (r.version, r.status, r.during, r.seat_id, r.check_in_deadline)
		IS DISTINCT FROM (EXCLUDED.version, EXCLUDED.status, EXCLUDED.during, EXCLUDED.seat_id, EXCLUDED.check_in_deadline)`,
}

// repair restores a reservation from the change log. It disables the triggers, so no replica
// notices the change. No replica has to notice it, because replicas read reservations from the
// change log only.
func (o *operator) repair(ctx context.Context, reservation int64) error {
	return o.retry(ctx, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, o.system.db, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, repairSQL[0])
			if err != nil {
				return err
			}
			if _, err = tx.Exec(ctx, repairSQL[1], reservation); err != nil {
				err = fmt.Errorf("repair reservation %d: %w", reservation, err)
			}
			return err
		})
	})
}
