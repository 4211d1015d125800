package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestPlansAtScale counts the rows that calls read in a large library. The library has 50,000 seats
// in 300 branches, half a million upcoming reservations, 15,000 checked-in users, 12,500 live
// waitlist entries, and 1,000 ended entries on each of the past 100 days.
func TestPlansAtScale(t *testing.T) {
	t.Parallel()
	db := storetest.NewUnusedDB(t)
	db.Altered()
	db.FreezeClock(t, noon)
	const seats, branches, daysAhead, seated, regulars, waitedOften = 50_000, 300, 10, 15_000, 1000, 100
	begin := time.Now()
	db.Exec(t, `SET session_replication_role = replica; SET maintenance_work_mem = '256MB'; SET synchronous_commit = off`)
	db.Exec(t, `
		INSERT INTO branches (library_id, code, name, timezone)
		SELECT 1, 'branch-' || i, 'Branch', 'Europe/Berlin' FROM generate_series(1, $1::int) i`, branches)
	p := place{now: noon, users: db.Users(t, seats), seats: storetest.Rows[int64](t, db, `
		INSERT INTO seats (library_id, branch_id, area, label) SELECT 1, b.id, 'Area', 'A-' || i
		FROM generate_series(1, $1::int) i
		JOIN branches b ON b.code = 'branch-' || (1 + i % $2)
		RETURNING id`, seats, branches)}
	withoutIndexes(t, db, "reservations", func() {
		db.Exec(t, `
			INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
				created_at)
			SELECT 1, s, u, tstzrange(start, start + interval '2 h'), 'CONFIRMED', start - interval '15 min',
				start + interval '15 min', $4
			FROM unnest($1::bigint[], $2::bigint[]) x (s, u), generate_series(0, $3::int - 1) d,
				LATERAL (SELECT $4::timestamptz + d * interval '1 day' + interval '2 h') y (start)`,
			p.seats, p.users, daysAhead, noon)
		db.Exec(t, `
			INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
				created_at, checked_in_at)
			SELECT 1, s, u, tstzrange($3, $4), 'CHECKED_IN', $3, $5, $3, $3 FROM unnest($1::bigint[], $2::bigint[]) x (s, u)`,
			p.seats[seats-seated:], p.users[seats-seated:], at(-120), at(60), at(-105))
	})
	withoutIndexes(t, db, "reservation_events", func() {
		db.Exec(t, `
			INSERT INTO reservation_events (library_id, at, kind, notifies, reservation_id, version, seat_id, user_id, during,
				status, check_in_opens_at, check_in_deadline, created_at)
			SELECT library_id, created_at, CASE id % 4 WHEN 0 THEN 'REMINDED' ELSE 'RESERVED' END, id % 4 = 0, id, 1,
				seat_id, user_id, during, 'CONFIRMED', check_in_opens_at, check_in_deadline, created_at
			FROM reservations`)
	})
	db.Exec(t, `
		INSERT INTO waitlist_entries (library_id, seat_id, user_id, during, joined_position, created_at)
		SELECT 1, s, u, tstzrange($3, $4), 1, $5 FROM unnest($1::bigint[], $2::bigint[]) x (s, u)`,
		p.seats[:seats/4], p.users[seats/4:seats/2], at(120), at(200), noon)
	db.Exec(t, `
		INSERT INTO waitlist_entries (library_id, seat_id, user_id, during, status, joined_position, created_at, ended_at)
		SELECT 1, s, u, tstzrange(start, start + interval '1 h'), 'LEFT', 1, start, start
		FROM unnest($1::bigint[], $2::bigint[]) x (s, u), generate_series(2, $3::int) d,
			LATERAL (SELECT $4::timestamptz - d * interval '1 day') y (start)`,
		p.seats[:regulars], p.users[:regulars], waitedOften, noon)
	db.Exec(t, `
		INSERT INTO revocations (library_id, user_id, jti, expires_at)
		SELECT 1, u, 'bulk' || u, $2 FROM unnest($1::bigint[]) u`, p.users[:10_000], at(600))
	db.Exec(t, `ANALYZE`)
	t.Logf("filled in %v", time.Since(begin))
	measure(t, db, p, trained(t, db, place{noon, p.users[10_000:], p.seats[10_000:]}), seated)
}

// TestPlansOfBranchesWithHours counts the rows of opening hours that are read to serve waitlists.
// The hours of a branch must be read once, however many entries wait there.
func TestPlansOfBranchesWithHours(t *testing.T) {
	t.Parallel()
	b := setupIn(t, storetest.NewUnusedDB(t), library.DefaultPolicy())
	const branches, waiters = 10, 2000
	taken := b.reserve(t, 0, 0, 0, 60)
	seats := slices.Clone(b.seats[:1])
	for range branches - 1 {
		seats = append(seats, b.db.Seats(t, 1)...)
	}
	crowd(t, b, seats, waiters, 0, 60)
	openAllDay(t, b, "13:30") // in Berlin, noon UTC is 13:00: the branches close before the windows end
	b.db.Exec(t, `ANALYZE`)
	const all = 7 * branches
	for _, c := range []struct {
		what     string
		branches int
		do       func(s *session)
	}{
		{"a sweep", branches, func(s *session) { wantDone(t, 0, s.OfferFreeSeats) }},
		{"a cancel", 1, func(s *session) { mustDo(t, s.Cancel, b.users[0], taken.ID) }},
	} {
		s := openSession(t, b.db)
		b.db.Exec(t, `SELECT pg_stat_force_next_flush()`) // reports the preparations, so that they do not count
		before := rowsRead(t, b.db, "branch_hours")
		c.do(s)
		s.end(t, b.db)
		rows := rowsRead(t, b.db, "branch_hours") - before
		t.Logf("%s read %d rows of hours", c.what, rows)
		// Postgres may read the whole table, because it is small. It may do so for each branch to see
		// whether the branch has hours, and then for each of the three dates of the span.
		if most := 4 * all * c.branches; rows == 0 || rows > most {
			t.Errorf("%s read %d rows of hours; want 1 to %d", c.what, rows, most)
		}
	}
}

// TestPlansOfLongWaitlist cancels a reservation at a seat for which 1,000 users wait. Another
// reservation takes the window of all of them, so none can get an offer. The test counts the rows
// of reservations that Postgres reads. It must read the reservations of the seat once, and not
// again for each of the 1,000 entries.
func TestPlansOfLongWaitlist(t *testing.T) {
	t.Parallel()
	b := setupIn(t, storetest.NewUnusedDB(t), library.DefaultPolicy())
	b.reserve(t, 0, 0, 0, 60)
	later := b.reserve(t, 1, 0, 120, 180)
	crowd(t, b, b.seats[:1], 1000, 0, 60)
	s := openSession(t, b.db)
	b.db.Exec(t, `SELECT pg_stat_force_next_flush()`) // reports the preparations, so that they do not count
	before := rowsRead(t, b.db, "reservations")
	mustDo(t, s.Cancel, b.users[1], later.ID)
	s.end(t, b.db)
	const most = 60
	if rows := rowsRead(t, b.db, "reservations") - before; rows == 0 || rows > most {
		t.Errorf("a cancel read %d rows of reservations; want 1 to %d", rows, most)
	}
}

// TestJoinFullWaitlistReadsFewRows joins a waitlist that is full, with 1,000 entries. Postgres must
// not read all of them to refuse the call.
func TestJoinFullWaitlistReadsFewRows(t *testing.T) {
	t.Parallel()
	b := setupIn(t, storetest.NewUnusedDB(t), library.DefaultPolicy())
	b.reserve(t, 0, 0, 0, 60)
	crowd(t, b, b.seats[:1], 1000, 0, 60)
	s := openSession(t, b.db)
	b.db.Exec(t, `SELECT pg_stat_force_next_flush()`) // reports the preparations, so that they do not count
	before := rowsRead(t, b.db, "waitlist")
	_, err := s.JoinWaitlist(t.Context(), library.Booking{
		UserID: b.users[1], SeatID: b.seats[0], StartTime: at(0), EndTime: at(60),
	})
	wantErr(t, err, library.ErrWaitlistFull)
	s.end(t, b.db)
	const most = 300
	if rows := rowsRead(t, b.db, "waitlist") - before; rows == 0 || rows > most {
		t.Errorf("a refused JoinWaitlist read %d rows of entries; want 1 to %d", rows, most)
	}
}

// rowsRead returns how many rows of a table Postgres has read so far.
func rowsRead(t *testing.T, db *storetest.DB, table string) (rows int) {
	t.Helper()
	for name, n := range workDone(t, db) {
		if strings.HasPrefix(name, table) {
			rows += n
		}
	}
	return rows
}

// withoutIndexes drops the secondary indexes of a table, calls fill, and creates the indexes again.
// This takes a third of the time of filling the table with its indexes. The index of an exclusion
// constraint becomes a plain index, which is enough for the plans.
func withoutIndexes(t *testing.T, db *storetest.DB, table string, fill func()) {
	t.Helper()
	const secondary = `
		FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid
		WHERE indrelid = $1::text::regclass AND (c.oid IS NULL OR c.contype = 'x') ORDER BY indexrelid`
	create := storetest.Rows[string](t, db, `SELECT pg_get_indexdef(indexrelid)`+secondary, table)
	for _, sql := range storetest.Rows[string](t, db, `
		SELECT CASE WHEN c.oid IS NULL THEN format('DROP INDEX %s', indexrelid::regclass)
			ELSE format('ALTER TABLE %s DROP CONSTRAINT %s', $1::text, conname) END`+secondary, table) {
		db.Exec(t, sql)
	}
	fill()
	for _, sql := range create {
		db.Exec(t, sql)
	}
}
