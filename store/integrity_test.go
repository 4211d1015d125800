package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// psql opens a session without the settings of a replica, like the session of an operator.
func psql(t *testing.T, db *storetest.DB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	return conn
}

// TestTimeZonesMustBeKnownToGo checks each time zone that the schema accepts for a branch. Go must
// know the zone and have the same offsets for it as Postgres.
func TestTimeZonesMustBeKnownToGo(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	refused := []string{
		"Europe/Berln", "europe/berlin", "EUROPE/BERLIN", " Europe/Berlin", "Europe/Berlin ", "Europe/", "Europe",
		"/Berlin", "../UTC",
		"EST5EDT", "CST6CDT", "CET", "CEST", "MEZ", "EST", "GMT", "Z", "Zulu", "utc", "UCT", "Etc/utc", "US/alaska",
		"GB", "Japan",
		"posix/Europe/Berlin", "right/Europe/Berlin", "posixrules", "localtime", "Local", "Factory", "default", "DEFAULT",
		"+02", "-02:00", "2", "02:00", "UTC+2", "UTC2", "GMT+2", "Etc/GMT+99", "Europe/Foo3", "EUROPE/FOO3",
		"US/FOO3", "Europe/Foo3Bar",
		"Europe/Foo3,M3.5.0,M10.5.0", "<+02>-2", "Europe/<A>2", "interval '2 hours'", "",
	}
	for _, zone := range refused {
		if storetest.Value[bool](t, db, `SELECT COALESCE(dlsms_zone($1) = $1, false)`, zone) {
			t.Errorf("%q is accepted", zone)
		}
	}
	accepted := storetest.Rows[string](t, db, `
		SELECT name FROM pg_timezone_names WHERE dlsms_zone(name) = name ORDER BY name COLLATE "C"`)
	if len(accepted) < 400 {
		t.Fatalf("only %d names are accepted", len(accepted))
	}
	// The offsets are compared at every fifth hour of a year. Within five days, this covers every
	// hour of the day.
	const step = 5 * time.Hour
	from, steps := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), int(366*24*time.Hour/step)
	for _, name := range accepted {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Errorf("Go does not know %s: %v", name, err)
			continue
		}
		want := make([]int32, steps)
		for i := range want {
			_, offset := from.Add(time.Duration(i) * step).In(zone).Zone()
			want[i] = int32(offset)
		}
		got := storetest.Rows[int32](t, db, `
			SELECT extract(epoch FROM (t AT TIME ZONE $1) - (t AT TIME ZONE 'UTC'))::int
			FROM generate_series($2::timestamptz, $2 + ($3 - 1) * $4::interval, $4) t ORDER BY t`, name, from, steps, step)
		wantEqual(t, "offsets of "+name, got, want)
	}
}

// TestCatalogRefusesBadRows runs SQL statements as an operator does, in a session with the guard.
// The schema must refuse a row that a replica could not read or show, and accept the valid rows.
func TestCatalogRefusesBadRows(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	seat := db.Seats(t, 1)[0]
	user := db.Users(t, 1)[0]
	operator := psql(t, db)
	const branch = `INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'new', `
	const hours = `INSERT INTO branch_hours SELECT 1, id, 1, `
	const revocation = `INSERT INTO revocations (library_id, user_id, generation, expires_at) VALUES (1, $1, 1, `
	for _, c := range []struct {
		sql, refusal string // "" means that the statement is accepted
		args         []any
	}{
		{`UPDATE branches SET timezone = 'Europe/Berln'`, "Europe/Berln' is not a time zone; write an IANA name", nil},
		{`UPDATE branches SET timezone = 'europe/berlin'`, "spelled as in Europe/Berlin", nil},
		{`UPDATE branches SET timezone = 'America/New_York'`, "", nil},
		{`UPDATE branches SET timezone = 'UTC'`, "", nil},
		{branch + `'New', 'CET')`, "is not a time zone", nil},
		{branch + `'', 'UTC')`, "branches_name_check", nil},
		{branch + `E'N\n', 'UTC')`, "branches_name_check", nil},
		{branch + `' N', 'UTC')`, "branches_name_check", nil},
		{branch + `repeat('ü', 201), 'UTC')`, "branches_name_check", nil},
		{branch + `repeat('ü', 200), 'UTC')`, "", nil},
		{`UPDATE branches SET id = 7`, "can only be updated to DEFAULT", nil},
		{hours + `'24:00', '2:00' FROM branches`, "branch_hours_opens_check", nil},
		{hours + `'8:00:00.5', '20:00' FROM branches`, "branch_hours_seconds_check", nil},
		{hours + `'8:00', '20:00:00.000001' FROM branches`, "branch_hours_seconds_check", nil},
		{hours + `'8:00:30', '24:00' FROM branches WHERE code = 'new'`, "", nil},
		{hours + `'00:00', '00:00' FROM branches WHERE code <> 'new'`, "", nil}, // a whole day
		{`UPDATE seats SET amenities = array_append(amenities, NULL) WHERE id = $1`, "seats_amenities_check", []any{seat}},
		{`UPDATE seats SET amenities = '{NULL}' WHERE id = $1`, "seats_amenities_check", []any{seat}},
		{`UPDATE seats SET amenities = '{{1,2},{3,4}}' WHERE id = $1`, "seats_amenities_check", []any{seat}},
		{`UPDATE seats SET amenities = '[0:1]={1,2}' WHERE id = $1`, "seats_amenities_check", []any{seat}},
		{`UPDATE seats SET amenities = '{0}' WHERE id = $1`, "seats_amenities_check", []any{seat}},
		{`UPDATE seats SET amenities = '{99}' WHERE id = $1`, "seats_amenities_check", []any{seat}},
		{`UPDATE seats SET amenities = array_fill(1::smallint, ARRAY[33]) WHERE id = $1`,
			"seats_amenities_check", []any{seat}},
		{`UPDATE seats SET amenities = '{5,1,1}' WHERE id = $1`, "", []any{seat}},
		{`UPDATE seats SET amenities = '{}' WHERE id = $1`, "", []any{seat}},
		{`UPDATE seats SET label = '' WHERE id = $1`, "seats_label_check", []any{seat}},
		{`UPDATE seats SET label = E'A\u202e1' WHERE id = $1`, "seats_label_check", []any{seat}},
		{`UPDATE seats SET label = E'A-1\u00a0' WHERE id = $1`, "seats_label_check", []any{seat}},
		{`UPDATE seats SET area = E'Ground\tFloor' WHERE id = $1`, "seats_area_check", []any{seat}},
		{`UPDATE seats SET area = repeat('A', 101) WHERE id = $1`, "seats_area_check", []any{seat}},
		{`UPDATE seats SET area = 'Lesesaal 2. OG – Süd', label = '座-1' WHERE id = $1`, "", []any{seat}},
		{`UPDATE seats SET id = 7 WHERE id = $1`, "can only be updated to DEFAULT", []any{seat}},
		{`INSERT INTO seats (library_id, id, branch_id, area, label) SELECT 1, 7, id, 'A', 'B' FROM branches LIMIT 1`,
			"non-DEFAULT value", nil},
		{`UPDATE users SET created_at = 'infinity' WHERE id = $1`, "users_times_check", []any{user}},
		{`UPDATE users SET name = repeat('n', 1001) WHERE id = $1`, "users_text_check", []any{user}},
		{`UPDATE users SET email = repeat('e', 1001) WHERE id = $1`, "users_text_check", []any{user}},
		{`UPDATE users SET id = 7 WHERE id = $1`, "can only be updated to DEFAULT", []any{user}},
		{`UPDATE users SET password_hash = 'secret' WHERE id = $1`, "bcrypt hash", []any{user}},
		{`UPDATE users SET password_hash = '$2a$31$' || repeat('a', 53) WHERE id = $1`, "cost 4 to 16", []any{user}},
		{`UPDATE users SET password_hash = '$2a$12$' || repeat('a', 53) WHERE id = $1`, "", []any{user}},
		{`UPDATE users SET student_id = 'Zoë' WHERE id = $1`, "ASCII", []any{user}},
		{`UPDATE users SET student_id = 'S-1' WHERE id = $1`, "", []any{user}},
		{`UPDATE users SET token_generation = 0 WHERE id = $1`, "does not go back", []any{user}},
		{`DELETE FROM users WHERE id = $1`, "dlsms erase", []any{user}},
		{revocation + `'infinity')`, "revocations_times_check", []any{user}},
		{revocation + `now() + interval '1 day')`, "", []any{user}},
		{`UPDATE revocations SET expires_at = now() - interval '1 h'`, "is not edited", nil},
		{`DELETE FROM revocations`, "before it expires", nil},
		{`INSERT INTO libraries VALUES (2, 'Other')`, "", nil},
		{`UPDATE branches SET library_id = 2 WHERE code = 'new'`, "does not move", nil},
		{`UPDATE seats SET library_id = 2`, "does not move", nil},
		{`UPDATE users SET library_id = 2`, "does not move", nil},
		{`UPDATE seats SET branch_id = (SELECT id FROM branches WHERE code = 'new') WHERE id = $1`, "", []any{seat}},
		{`DELETE FROM branches WHERE code <> 'new'`, "", nil},
		{`DELETE FROM seats`, "", nil},
		{`DELETE FROM branches`, "add another one first", nil},
		{`INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'last', 'Last', 'UTC')`, "", nil},
		{`DELETE FROM branches WHERE code = 'new'`, "", nil},
	} {
		_, err := operator.Exec(t.Context(), c.sql, c.args...)
		checkRefusal(t, c.sql, err, c.refusal)
	}
	for _, table := range []string{
		"libraries", "branches", "branch_hours", "seats", "users", "reservations", "waitlist_entries",
		"reservation_events", "revocations",
	} {
		_, err := operator.Exec(t.Context(), `TRUNCATE `+table+` CASCADE`)
		checkRefusal(t, "TRUNCATE "+table, err, "truncated")
	}
}

func checkRefusal(t *testing.T, what string, err error, refusal string) {
	t.Helper()
	switch {
	case refusal == "" && err != nil:
		t.Errorf("%s: refused: %v", what, err)
	case refusal != "" && err == nil:
		t.Errorf("%s: accepted", what)
	case refusal != "" && !strings.Contains(err.Error(), refusal):
		t.Errorf("%s: refused, but not with %q: %v", what, refusal, err)
	}
}

// TestGuardRefusesReservationWithoutEvent changes a reservation, an event or a waitlist entry by
// SQL, without the other rows that must change with it. Postgres must refuse this. Replicas learn
// of changes from events only, so they would show the old state.
func TestGuardRefusesReservationWithoutEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	confirmed := b.reserve(t, 0, 0, 30, 90)
	ended := b.reserve(t, 1, 1, 30, 90)
	if _, err := b.Cancel(t.Context(), b.users[1], ended.ID); err != nil {
		t.Fatal(err)
	}
	waiting := b.join(t, 2, 0, 30, 90)
	behind := b.reserve(t, 2, 2, 30, 90)
	offered := b.join(t, 3, 2, 30, 90)
	if _, err := b.Cancel(t.Context(), b.users[2], behind.ID); err != nil {
		t.Fatal(err)
	}
	entry := b.entry(t, 3, offered.ID)
	if entry.Status != library.EntryOffered {
		t.Fatalf("the entry is %s", entry.Status)
	}
	operator := psql(t, b.db)
	const event = `
		INSERT INTO reservation_events (library_id, at, kind, reservation_id, version, seat_id, user_id, entry_id, status,
			check_in_opens_at, check_in_deadline, offer_expires_at, created_at, checked_in_at, ended_at, during)
		SELECT library_id, now(), 'CANCELLED', id, version, seat_id, user_id, entry_id, status,
			check_in_opens_at, check_in_deadline, offer_expires_at, created_at, checked_in_at, ended_at, during
		FROM reservations WHERE id = $1`
	cancel := fmt.Sprintf("run: dlsms cancel %d", confirmed.ID)
	for _, c := range []struct {
		sql, refusal string // "" means that the statement is accepted
		id           int64
	}{
		{`UPDATE reservations SET status = 'CANCELLED', ended_at = now() WHERE id = $1`, cancel, confirmed.ID},
		{`UPDATE reservations SET status = 'CANCELLED', ended_at = now(), version = version + 1 WHERE id = $1`,
			cancel, confirmed.ID},
		{`UPDATE reservations SET id = 7 WHERE id = $1`, "can only be updated to DEFAULT", confirmed.ID},
		{`UPDATE reservations SET version = version + 1 WHERE id = $1`, cancel, confirmed.ID},
		{`UPDATE reservations SET seat_id = (SELECT max(id) FROM seats) WHERE id = $1`, cancel, confirmed.ID},
		{`UPDATE reservations SET user_id = (SELECT max(id) FROM users) WHERE id = $1`, cancel, confirmed.ID},
		{`UPDATE reservations SET during = tstzrange(lower(during), upper(during) + interval '1 h') WHERE id = $1`,
			cancel, confirmed.ID},
		{`
			UPDATE reservations SET check_in_deadline = check_in_deadline + interval '1 h' WHERE id = $1`, cancel, confirmed.ID},
		{`UPDATE reservations SET check_in_deadline = 'infinity' WHERE id = $1`, cancel, confirmed.ID},
		{`UPDATE reservations SET status = 'CONFIRMED', ended_at = NULL WHERE id = $1`, "dlsms cancel", ended.ID},
		{`UPDATE reservations SET request_id = 'r', request_hash = '' WHERE id = $1`, "", confirmed.ID},
		{`DELETE FROM reservations WHERE id = $1`, "dlsms cancel", confirmed.ID},
		{`DELETE FROM reservations WHERE id = $1`, "dlsms cancel", ended.ID},
		{`
			INSERT INTO reservations (library_id, seat_id, user_id, during, status,
				check_in_opens_at, check_in_deadline, created_at)
			SELECT library_id, seat_id, user_id, during, 'CONFIRMED', check_in_opens_at, check_in_deadline, created_at
			FROM reservations WHERE id = $1`, "replicas would not learn", ended.ID},
		{`DELETE FROM reservation_events WHERE reservation_id = $1`, "change log", ended.ID},
		{`UPDATE reservation_events SET status = 'CONFIRMED' WHERE reservation_id = $1`, "change log", ended.ID},
		{`UPDATE reservation_events SET xid = DEFAULT WHERE reservation_id = $1`, "", ended.ID},
		{event, "reservation_events_version_key", confirmed.ID},
		{strings.Replace(event, "'CANCELLED', id, version,", "'CANCELLED', id, version + 1,", 1),
			"has not the version 2", confirmed.ID},
		{strings.Replace(event, "'CANCELLED', id, version,", "'CANCELLED', id + 1000, version,", 1),
			"replicas would not learn", confirmed.ID},
		{strings.Replace(event, "'CANCELLED', id, version,", "'CANCELLED', id, 0,", 1),
			"has not the version 0", confirmed.ID},
		{`UPDATE waitlist_entries SET status = 'LEFT', ended_at = now(), offer_expires_at = NULL WHERE id = $1`,
			fmt.Sprintf("run: dlsms cancel %d", entry.ReservationID), offered.ID},
		{`UPDATE waitlist_entries SET status = 'CLAIMED', ended_at = now(), offer_expires_at = NULL WHERE id = $1`,
			"do not say the same", offered.ID},
		{`UPDATE waitlist_entries SET offer_expires_at = offer_expires_at + interval '1 h' WHERE id = $1`,
			"do not say the same", offered.ID},
		{`UPDATE waitlist_entries SET offer_expires_at = 'infinity' WHERE id = $1`, "waitlist_times_check", offered.ID},
		{`DELETE FROM waitlist_entries WHERE id = $1`, "reservations_entry_fkey", offered.ID},
		{`
			UPDATE waitlist_entries
			SET status = 'OFFERED', offer_expires_at = now(), reservation_id = (SELECT min(id) FROM reservations)
			WHERE id = $1`, "do not say the same", waiting.ID},
		{`
			UPDATE waitlist_entries
			SET status = 'CLAIMED', ended_at = now(), reservation_id = (SELECT min(id) FROM reservations)
			WHERE id = $1`, "do not say the same", waiting.ID},
		{`UPDATE waitlist_entries SET seat_id = (SELECT max(id) FROM seats) WHERE id = $1`, "does not move", waiting.ID},
		{`UPDATE waitlist_entries SET id = -1 WHERE id = $1`, "does not move", waiting.ID},
		{`UPDATE waitlist_entries SET status = 'LEFT', ended_at = now() WHERE id = $1`, "", waiting.ID},
		{`UPDATE waitlist_entries SET status = 'WAITING', ended_at = NULL WHERE id = $1`, "", waiting.ID},
		{`DELETE FROM waitlist_entries WHERE id = $1`, "", waiting.ID},
	} {
		_, err := operator.Exec(t.Context(), c.sql, c.id)
		checkRefusal(t, c.sql, err, c.refusal)
	}

	// Each statement changes a reservation and inserts its event, as the guard requires. But a time
	// in one of the two rows is infinite, or the xid is that of an old transaction. The guard must
	// refuse it.
	both := `
		WITH r AS (
			UPDATE reservations SET status = 'CANCELLED', version = version + 1, ended_at = %s
			WHERE id = $1
			RETURNING *)
		INSERT INTO reservation_events (library_id, at, kind, reservation_id, version, seat_id, user_id, entry_id, status,
			check_in_opens_at, check_in_deadline, offer_expires_at, created_at, checked_in_at, ended_at, during, xid)
		SELECT library_id, %s, 'CANCELLED', id, version, seat_id, user_id, entry_id, status,
			check_in_opens_at, check_in_deadline, offer_expires_at, created_at, checked_in_at, ended_at, during, %s FROM r`
	for _, c := range []struct{ ended, at, xid, refusal string }{
		{"'infinity'", "now()", "pg_current_xact_id()", cancel}, {"now()", "'infinity'", "pg_current_xact_id()", cancel},
		{"now()", "now()", "'3'", "the xid of an event"},
	} {
		_, err := operator.Exec(t.Context(), fmt.Sprintf(both, c.ended, c.at, c.xid), confirmed.ID)
		checkRefusal(t, fmt.Sprintf("%+v", c), err, c.refusal)
	}

	// The guard must accept a transaction that changes a reservation and inserts its event. A
	// replica of the previous version makes such transactions in a session with the guard.
	tx, err := operator.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `
		UPDATE reservations SET status = 'CANCELLED', ended_at = now(), version = version + 1
		WHERE id = $1`, confirmed.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), event, confirmed.ID); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("a reservation changed together with its event: %v", err)
	}
}

// TestGuardRefusesWrongEvent changes a reservation by SQL and writes an event for it. The guard
// must refuse an event that does not agree with the reservation. It must also refuse the end of a
// hold if the entry of the hold still has the status OFFERED.
func TestGuardRefusesWrongEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	confirmed := b.reserve(t, 0, 0, 30, 90)
	offered := b.offeredBy(t, 1, 2, 1, 30, 90)
	const both = `
		WITH r AS (
			UPDATE reservations SET status = 'CANCELLED', version = version + 1, ended_at = now(),
				offer_expires_at = NULL
			WHERE id = $1 RETURNING *
		)
		INSERT INTO reservation_events (library_id, at, kind, reservation_id, version, seat_id,
			user_id, entry_id, status, occupies, check_in_opens_at, check_in_deadline, created_at, ended_at,
			during)
		SELECT library_id, now(), 'CANCELLED', id, version, seat_id, user_id,
			entry_id, status, $2, check_in_opens_at, check_in_deadline, created_at, ended_at, during
		FROM r`
	operator := psql(t, b.db)
	for _, c := range []struct {
		what     string
		id       int64
		occupies bool
		refusal  string // empty: accepted
	}{
		{"the event says that the seat is taken", confirmed.ID, true, "what its newest event says"},
		{"the entry stays offered", offered.ReservationID, false, "do not say the same"},
		{"all rows agree", confirmed.ID, false, ""},
	} {
		_, err := operator.Exec(t.Context(), both, c.id, c.occupies)
		checkRefusal(t, c.what, err, c.refusal)
	}
}

// TestGuardOverwritesForgedXID writes an old xid into an event and into a revocation by SQL.
// Replicas would not find rows with an old xid. So a trigger must set the xid of the present
// transaction instead.
func TestGuardOverwritesForgedXID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 30, 90)
	operator := psql(t, b.db)
	for what, sql := range map[string]string{
		"an event": `UPDATE reservation_events SET xid = '3' RETURNING xid = pg_current_xact_id()`,
		"a revocation": `INSERT INTO revocations (library_id, user_id, generation, expires_at, xid)
			SELECT library_id, min(id), 1, now() + interval '1 day', '3' FROM users GROUP BY library_id
			RETURNING xid = pg_current_xact_id()`,
	} {
		var marked bool
		if err := operator.QueryRow(t.Context(), sql).Scan(&marked); err != nil || !marked {
			t.Errorf("%s: has the xid of its transaction: %v, %v", what, marked, err)
		}
	}
}

// TestUserChangesBySQLRevokeTokens changes a role, student id or password by SQL. Each change must
// revoke the user's tokens. A token carries the role and the student id, so an old token would
// still have the old ones. With a token from before a change of the password, an intruder could
// continue.
func TestUserChangesBySQLRevokeTokens(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	user := db.Users(t, 1)[0]
	s := db.Open(t, library.DefaultPolicy())
	operator := psql(t, db)
	generation, ends := storetest.Value[int64](t, db, `SELECT token_generation FROM users`), 0
	newest := generation
	for _, c := range []struct {
		sql  string
		ends bool
	}{
		{`UPDATE users SET role = 'LIBRARIAN' WHERE id = $1`, true},
		{`UPDATE users SET role = 'LIBRARIAN' WHERE id = $1`, false},
		{`UPDATE users SET name = 'Another' WHERE id = $1`, false},
		{`UPDATE users SET password_hash = '$2a$12$' || repeat('a', 53) WHERE id = $1`, true},
		{`UPDATE users SET student_id = 'another' WHERE id = $1`, true},
		{`UPDATE users SET token_generation = token_generation + 1 WHERE id = $1`, true},
		// A replica of the previous version changes a password like this. The trigger must not add
		// a second revocation.
		{`WITH u AS (UPDATE users SET token_generation = token_generation + 1 WHERE id = $1 RETURNING *)
			INSERT INTO revocations (library_id, user_id, generation, expires_at)
			SELECT library_id, id, token_generation, now() + interval '1 h' FROM u`, true},
	} {
		if _, err := operator.Exec(t.Context(), c.sql, user); err != nil {
			t.Fatal(err)
		}
		if c.ends {
			generation++
			ends++
		}
		log, err := s.Revocations(t.Context(), store.Snapshot{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range log.Revocations {
			newest = max(newest, r.Generation)
		}
		if newest != generation || len(log.Revocations) != ends {
			t.Errorf("%s: %d revocations, the newest of generation %d; want %d and %d", c.sql, len(log.Revocations), newest,
				ends, generation)
		}
	}
}
