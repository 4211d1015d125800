package storetest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
)

func TestMain(m *testing.M) { Main(m) }

// TestViolationsFindsEachFault breaks a healthy database in one way at a time, and checks that the
// broken rule is reported. At the end, each rule must have been broken at least once.
func TestViolationsFindsEachFault(t *testing.T) {
	t.Parallel()
	db := NewDB(t)
	db.Altered()
	now := time.Now().Truncate(time.Minute)
	db.FreezeClock(t, now)
	s := db.Open(t, library.DefaultPolicy())
	seats, users := db.Seats(t, 5), db.Users(t, 5)
	book := func(user, seat int, from, length time.Duration) library.Reservation {
		t.Helper()
		r, err := s.Reserve(t.Context(), library.Booking{
			UserID: users[user], SeatID: seats[seat], StartTime: now.Add(from), EndTime: now.Add(from + length),
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	join := func(user, seat int, from, length time.Duration) library.WaitlistEntry {
		t.Helper()
		e, err := s.JoinWaitlist(t.Context(), library.Booking{
			UserID: users[user], SeatID: seats[seat], StartTime: now.Add(from), EndTime: now.Add(from + length),
		})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	// User 0 has checked in and user 1 waits. User 3 has an offer and user 4 waits behind it.
	here := book(0, 0, 0, time.Hour)
	if _, err := s.CheckIn(t.Context(), users[0], here.ID, nil); err != nil {
		t.Fatal(err)
	}
	waiting := join(1, 0, 0, time.Hour)
	given := book(2, 1, 0, time.Hour)
	offered := join(3, 1, 0, time.Hour)
	behind := join(4, 1, 0, time.Hour)
	if _, err := s.Cancel(t.Context(), users[2], given.ID); err != nil {
		t.Fatal(err)
	}
	later := book(2, 2, 2*time.Hour, time.Hour)
	CheckInvariants(t, db)

	db.Exec(t, `
		SET session_replication_role = replica;
		ALTER TABLE reservations
			DROP CONSTRAINT reservations_no_overlap,
			DROP CONSTRAINT reservations_held_check,
			DROP CONSTRAINT reservations_held_entry_check,
			DROP CONSTRAINT reservations_checked_in_check,
			DROP CONSTRAINT reservations_ended_check,
			DROP CONSTRAINT reservations_deadline_check;
		ALTER TABLE waitlist_entries
			DROP CONSTRAINT waitlist_offered_check,
			DROP CONSTRAINT waitlist_reservation_check,
			DROP CONSTRAINT waitlist_ended_check;
		DROP INDEX reservations_request_key;
		ALTER TABLE reservation_events DROP CONSTRAINT reservation_events_version_key`)
	broken := map[string]bool{}
	for _, tc := range []struct {
		rule string
		sql  string
		args []any
	}{
		{"two reservations take one seat at once", `
			UPDATE reservations
			SET seat_id = $1, during = (SELECT during FROM reservations WHERE seat_id = $1)
			WHERE id = $2`, []any{seats[0], later.ID}},
		{"one user has two seats at once", `
			UPDATE reservations
			SET user_id = $1, during = (SELECT during FROM reservations WHERE user_id = $1 AND seat_id = $3)
			WHERE id = $2`, []any{users[0], later.ID, seats[0]}},
		{"a request key has two rows", `UPDATE reservations SET request_id = 'once', request_hash = '', user_id = 1`, nil},
		{"a transition is not one of the state diagram", `
			UPDATE reservation_events SET kind = 'NO_SHOW' WHERE reservation_id = $1 AND version = 2`, []any{here.ID}},
		{"a transition is not one of the state diagram", `
			UPDATE reservation_events
			SET during = tstzrange(lower(during), upper(during) + interval '1 h')
			WHERE reservation_id = $1 AND version = 2`, []any{here.ID}},
		{"a transition is not one of the state diagram", `
			INSERT INTO reservation_events (library_id, at, kind, reservation_id, version,
				seat_id, user_id, during, status, check_in_opens_at, created_at)
			SELECT library_id, at, 'CANCELLED', reservation_id, 3,
				seat_id, user_id, during, 'CANCELLED', check_in_opens_at, created_at
			FROM reservation_events WHERE reservation_id = $1 AND version = 2`, []any{given.ID}},
		{"versions have gaps", `
			UPDATE reservation_events SET version = 3 WHERE reservation_id = $1 AND version = 2`, []any{here.ID}},
		{"versions have gaps", `UPDATE reservation_events SET version = 1 WHERE reservation_id = $1`, []any{here.ID}},
		{"a reservation changed its seat, user, entry, start or creation", `
			UPDATE reservation_events SET user_id = 99 WHERE reservation_id = $1 AND version = 2`, []any{here.ID}},
		{"the change log and the reservation differ", `
			UPDATE reservations SET check_in_deadline = check_in_deadline - interval '1 s' WHERE id = $1`, []any{later.ID}},
		{"the change log and the reservation differ", `
			DELETE FROM reservation_events WHERE reservation_id = $1`, []any{later.ID}},
		{"the change log and the reservation differ", `DELETE FROM reservations WHERE id = $1`, []any{later.ID}},
		{"a transition came at the wrong time", `
			UPDATE reservations SET checked_in_at = check_in_deadline WHERE id = $1`, []any{here.ID}},
		{"a transition came at the wrong time", `
			UPDATE reservations SET check_in_deadline = upper(during) + interval '1 s' WHERE id = $1`, []any{later.ID}},
		{"an offer ended at the wrong time", `
			UPDATE waitlist_entries SET status = 'EXPIRED', ended_at = created_at WHERE id = $1`, []any{offered.ID}},
		{"an offer ended at the wrong time", `
			UPDATE waitlist_entries SET status = 'CLAIMED', ended_at = offer_expires_at WHERE id = $1`, []any{offered.ID}},
		{"an entry and its reservation differ", `
			UPDATE waitlist_entries SET status = 'LEFT' WHERE id = $1`, []any{offered.ID}},
		{"an entry and its reservation differ", `
			UPDATE waitlist_entries SET reservation_id = NULL WHERE id = $1`, []any{offered.ID}},
		{"an entry and its reservation differ", `UPDATE reservations SET entry_id = NULL WHERE status = 'HELD'`, nil},
		{"an entry and its reservation differ", `UPDATE reservations SET user_id = 99 WHERE status = 'HELD'`, nil},
		{"an offer skipped an earlier entry", `UPDATE waitlist_entries SET id = 0 WHERE id = $1`, []any{behind.ID}},
		{"something is overdue", `UPDATE reservations SET check_in_deadline = dlsms_now() WHERE id = $1`, []any{later.ID}},
		{"something is overdue", `
			UPDATE waitlist_entries SET offer_expires_at = dlsms_now() WHERE id = $1`, []any{offered.ID}},
		{"something is overdue", `
			UPDATE waitlist_entries
			SET during = tstzrange(lower(during) - interval '1 h', dlsms_now())
			WHERE id = $1`, []any{waiting.ID}},
		{"a seat is free while an entry waits for it", `
			UPDATE waitlist_entries SET seat_id = $2 WHERE id = $1`, []any{waiting.ID, seats[4]}},
		{"a closure was swept and has a reservation inside", `
			WITH c AS (` + closureOver + ` RETURNING library_id, branch_id, id, during)
			INSERT INTO sweeps (library_id, branch_id, cause, closure_id, during, done_at)
			SELECT library_id, branch_id, 'CLOSURE', id, during, dlsms_now() FROM c`, []any{later.ID}},
		{"a sweep ended a reservation and did not tell its user once", `
			UPDATE reservation_events SET sweep_id = 1 WHERE reservation_id = $1`, []any{later.ID}},
		{"a change by staff and the audit log differ", closureOver, []any{later.ID}},
		{"a change by staff and the audit log differ", `
			INSERT INTO audit_log (library_id, user_id, role, action, object)
			VALUES (1, 1, 'ADMIN', 'CreateClosure', 'closure/7')`, nil},
		{"a no-show and its strike differ", strikeFor, []any{later.ID}},
		{"a row of a pseudonym is not marked, or a marked row is of a person", `
			UPDATE waitlist_entries SET anonymous = true WHERE id = $1`, []any{waiting.ID}},
		{"a pseudonym or a blanked user has live rows", `
			WITH u AS (
				INSERT INTO users (library_id, student_id, name, email, role, password_hash, blanked_at)
				VALUES (1, 'gone', 'gone', 'gone', 'STUDENT', '', dlsms_now()) RETURNING id
			)
			UPDATE reservations r SET user_id = u.id FROM u WHERE r.id = $1`, []any{later.ID}},
		{"a sweep is not done", `
			INSERT INTO sweeps (library_id, branch_id, cause, during)
			SELECT 1, min(id), 'HOURS', tstzrange(dlsms_now(), NULL) FROM branches`, nil},
		{"a strike was not judged", strikeFor, []any{later.ID}},
		{"an offer was made into a closure", strings.ReplaceAll(closureOver, "r.id = $1", "r.status = 'HELD'"), nil},
	} {
		// violations reads in a session of its own. So the test must commit the faulty row for
		// violations to see it. It keeps the old rows in temporary tables and restores them later.
		for _, table := range []string{"reservations", "waitlist_entries", "reservation_events"} {
			db.Exec(t, `CREATE TEMP TABLE kept_`+table+` AS SELECT * FROM `+table)
		}
		db.Exec(t, tc.sql, tc.args...)
		all := slices.Concat(atEveryCommit, whenIdle)
		faults, err := violations(t.Context(), db.URL, library.DefaultPolicy(), commitMargin, all)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(faults, func(fault string) bool { return strings.HasPrefix(fault, tc.rule+": ") }) {
			t.Errorf("%s (%s): found only %q", tc.rule, tc.sql, faults)
		}
		broken[tc.rule] = true
		db.Exec(t, `DELETE FROM reservations; DELETE FROM waitlist_entries; DELETE FROM reservation_events`)
		db.Exec(t, `DELETE FROM sweeps; DELETE FROM closures; DELETE FROM strikes; DELETE FROM audit_log`)
		for _, table := range []string{"reservations", "waitlist_entries", "reservation_events"} {
			columns := strings.Join(Rows[string](t, db, `
				SELECT attname::text FROM pg_attribute
				WHERE attrelid = $1::text::regclass AND attnum > 0 AND attgenerated = '' AND NOT attisdropped`, table), ", ")
			db.Exec(t, `INSERT INTO `+table+` (`+columns+`) OVERRIDING SYSTEM VALUE
				SELECT `+columns+` FROM kept_`+table+`; DROP TABLE kept_`+table)
		}
	}
	CheckInvariants(t, db)
	for _, r := range slices.Concat(atEveryCommit, whenIdle) {
		if !broken[r.name] {
			t.Errorf("no case breaks the rule: %s", r.name)
		}
	}
}

const (
	// closureOver makes a closure over the reservation $1, without a row in the audit log.
	closureOver = `
		INSERT INTO closures (library_id, branch_id, seat_ids, during, on_bookings, user_id)
		SELECT r.library_id, s.branch_id, ARRAY[s.id], r.during, 'CANCEL', r.user_id
		FROM reservations r JOIN seats s ON s.id = r.seat_id WHERE r.id = $1`

	// strikeFor makes a strike for the reservation $1.
	strikeFor = `
		INSERT INTO strikes (library_id, user_id, reservation_id, branch_id, at, expires_at, strike_limit, suspension_days)
		SELECT library_id, user_id, id, 1, created_at, created_at + interval '1 day', 3, '{7}'
		FROM reservations WHERE id = $1`
)

// TestRecycledDatabaseIsNew runs two tests in the same database. The second one must find the first
// ids unused, no rows, and a clock that shows real time.
func TestRecycledDatabaseIsNew(t *testing.T) { //nolint:paralleltest // both runs must get the same database
	urls := map[string]bool{}
	for range 2 { //nolint:paralleltest // see above
		t.Run("test", func(t *testing.T) {
			db := NewDB(t)
			urls[db.URL] = true
			if now := Value[time.Time](t, db, `SELECT dlsms_now()`); time.Since(now).Abs() > time.Hour {
				t.Errorf("the clock says %v", now)
			}
			db.FreezeClock(t, time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))
			if id := db.Seats(t, 1)[0]; id != firstID {
				t.Errorf("the first seat is %d", id)
			}
			if id := db.Users(t, 1)[0]; id != firstID {
				t.Errorf("the first user is %d", id)
			}
			db.Exec(t, `INSERT INTO libraries VALUES (2, 'Other')`)
		})
	}
	if len(urls) != 1 {
		t.Errorf("%d databases", len(urls))
	}
}
