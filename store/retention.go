package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// The retention removes the link between people and what is older than some months. A row moves to
// the pseudonym of the user's group: a user that stands for all people of this group. So counts by
// group stay, and no query can tell which rows belong to one person.
//
// A reservation moves together with its events, its strike and its waitlist entry, because each of
// them must have the user of the reservation. No transition touches a reservation that has ended, so
// the retention locks no users and seats, and bookings do not wait for it.
//
//	reservations   with their events, notifications, strikes and waitlist entries
//	entries        waitlist entries that got no reservation
//	suspensions    that are over
//	audit          rows about people lose names, e-mail addresses, cards and reasons
//	people         students without a login for so long, of whom nothing is left to move
//
// Staff stay until an admin removes their role or erases them. Otherwise a library could lose its last
// admin after a long pause. An account that an admin has closed stays, since its student id must not
// register again.

// RetentionPart is one kind of rows that the retention handles.
type RetentionPart struct {
	Name string
	// find is the query of FindOld. It lists rows that are old enough, oldest first, after a cursor.
	// $1 is the library, $2 the time before which a row is old, ($3, $4) the cursor and $5 the limit.
	find string
	// pseudonyms inserts the pseudonyms that the move needs. $1 is the library, and $2 the ids. Empty:
	// the part needs none.
	pseudonyms string
	// move handles the rows $3 if they are still old. $1 is the library, $2 the time. It returns the
	// ids of the changed rows.
	move string
	// blanks means that the rows are users, whom Retain then blanks. move only locks them.
	blanks bool
}

// A strike that counts, or that has led to a suspension that lasts, keeps its reservation in place.
const strikeOver = `
	NOT EXISTS (
		SELECT FROM strikes k
		LEFT JOIN suspensions x ON x.library_id = k.library_id AND x.id = k.suspension_id
		WHERE k.library_id = r.library_id AND k.reservation_id = r.id
			AND (NOT k.judged OR k.expires_at > dlsms_now() OR x.ends_at > dlsms_now()) OFFSET 0)`

// nothingLeft is a condition on a user u: all history has moved, so that nothing refers to the user.
// OFFSET 0 makes Postgres look up each user, here and above. Otherwise it may read whole tables for a
// join. No anonymous row belongs to such a user. The condition says so, because most rows are
// anonymous, and Postgres would expect to find one of them at once in a scan of the table.
const nothingLeft = `
	(u.suspended_until IS NULL OR u.suspended_until <= dlsms_now())
	AND NOT EXISTS (
		SELECT FROM reservations r WHERE r.library_id = u.library_id AND r.user_id = u.id AND NOT r.anonymous OFFSET 0)
	AND NOT EXISTS (
		SELECT FROM waitlist_entries w WHERE w.library_id = u.library_id AND w.user_id = u.id AND NOT w.anonymous OFFSET 0)
	AND NOT EXISTS (
		SELECT FROM suspensions x WHERE x.library_id = u.library_id AND x.user_id = u.id AND NOT x.anonymous OFFSET 0)`

const (
	insertPseudonyms = `
		INSERT INTO users (library_id, student_id, name, email, role, password_hash, user_group, closed_at, blanked_at,
			pseudonym)
		SELECT $1, 'anon-' || substr(md5(random()::text || g.user_group), 1, 20), 'anonymous', 'anonymous', 'STUDENT', '',
			g.user_group, dlsms_now(), dlsms_now(), true
		FROM (SELECT DISTINCT o.user_group FROM unnest($2::bigint[]) AS i (id) CROSS JOIN LATERAL (
			SELECT (SELECT u.user_group FROM users u WHERE u.library_id = r.library_id AND u.id = r.user_id) AS user_group
			FROM `
	ofMissingGroups = ` r WHERE r.library_id = $1 AND r.id = i.id OFFSET 0) o) g
		WHERE NOT EXISTS (
			SELECT FROM users p WHERE p.library_id = $1 AND p.pseudonym AND p.user_group = g.user_group)
		ORDER BY g.user_group
		ON CONFLICT DO NOTHING`

	// The statement of a move begins with oldRows, the table with the condition on its rows, and
	// oldRowsEnd. It finds each row by its id. OFFSET 0 prevents a plan that joins the rows by their
	// users: in a table without statistics, this took 3 s for 100 of 1,000 rows.
	oldRows = `
		WITH old AS MATERIALIZED (
			SELECT o.id, o.pseudonym_id FROM unnest($3::bigint[]) AS i (id) CROSS JOIN LATERAL (
				SELECT r.id, (
					SELECT p.id FROM users u
					JOIN users p ON p.library_id = u.library_id AND p.pseudonym AND p.user_group = u.user_group
					WHERE u.library_id = r.library_id AND u.id = r.user_id) AS pseudonym_id
				FROM `
	oldRowsEnd = ` AND r.library_id = $1 AND r.id = i.id AND NOT r.anonymous OFFSET 0) o
			WHERE o.pseudonym_id IS NOT NULL
		)`
)

// RetentionParts are the parts in the order in which they must run: people are blanked last.
var RetentionParts = []RetentionPart{
	{
		Name: "reservations",
		find: `
			SELECT r.id, r.ended_at AS at FROM reservations r
			WHERE r.library_id = $1 AND r.ended_at IS NOT NULL AND NOT r.anonymous AND r.ended_at < $2
				AND (r.ended_at, r.id) > ($3, $4::bigint) AND ` + strikeOver + `
			ORDER BY r.ended_at, r.id LIMIT $5`,
		pseudonyms: insertPseudonyms + `reservations` + ofMissingGroups,
		move: oldRows + `reservations r WHERE r.ended_at < $2` + oldRowsEnd + `, moved AS (
				UPDATE reservations r SET user_id = o.pseudonym_id, anonymous = true, request_id = NULL, request_hash = NULL
				FROM old o WHERE r.library_id = $1 AND r.id = o.id
				RETURNING r.library_id, r.id, r.user_id, r.entry_id
			), events AS (
				UPDATE reservation_events e SET user_id = m.user_id, reason = NULL
				FROM moved m WHERE e.library_id = m.library_id AND e.reservation_id = m.id
			), entries AS (
				UPDATE waitlist_entries w SET user_id = m.user_id, anonymous = true, request_id = NULL, request_hash = NULL
				FROM moved m WHERE w.library_id = m.library_id AND w.id = m.entry_id AND w.reservation_id = m.id
			), struck AS (
				UPDATE strikes k SET user_id = m.user_id, suspension_id = NULL, reason = ''
				FROM moved m WHERE k.library_id = m.library_id AND k.reservation_id = m.id
			)
			SELECT id FROM moved`,
	},
	{
		Name: "entries",
		find: `
			SELECT r.id, r.ended_at AS at FROM waitlist_entries r
			WHERE r.library_id = $1 AND r.ended_at IS NOT NULL AND r.reservation_id IS NULL AND NOT r.anonymous
				AND r.ended_at < $2 AND (r.ended_at, r.id) > ($3, $4::bigint)
			ORDER BY r.ended_at, r.id LIMIT $5`,
		pseudonyms: insertPseudonyms + `waitlist_entries` + ofMissingGroups,
		move: oldRows + `waitlist_entries r WHERE r.ended_at < $2` + oldRowsEnd + `
			UPDATE waitlist_entries r SET user_id = o.pseudonym_id, anonymous = true, request_id = NULL, request_hash = NULL
			FROM old o WHERE r.library_id = $1 AND r.id = o.id
			RETURNING r.id`,
	},
	{
		Name: "suspensions",
		find: `
			SELECT r.id, r.ends_at AS at FROM suspensions r
			WHERE r.library_id = $1 AND NOT r.anonymous AND r.ends_at < $2 AND (r.ends_at, r.id) > ($3, $4::bigint)
			ORDER BY r.ends_at, r.id LIMIT $5`,
		pseudonyms: insertPseudonyms + `suspensions` + ofMissingGroups,
		move: oldRows + `suspensions r WHERE r.ends_at < $2` + oldRowsEnd + `
			UPDATE suspensions r SET user_id = o.pseudonym_id, anonymous = true, reason = ''
			FROM old o WHERE r.library_id = $1 AND r.id = o.id
			RETURNING r.id`,
	},
	{
		Name: "audit",
		find: `
			SELECT r.id, r.at FROM audit_log r
			WHERE r.library_id = $1 AND NOT r.anonymous AND r.at < $2 AND (r.at, r.id) > ($3, $4::bigint)
			ORDER BY r.at, r.id LIMIT $5`,
		move: `
			UPDATE audit_log a SET anonymous = true, ` + withoutPerson + `
			WHERE a.library_id = $1 AND a.id = ANY ($3) AND a.at < $2 AND NOT a.anonymous
			RETURNING a.id`,
	},
	{
		Name: "people",
		find: `
			SELECT u.id, u.last_login_at AS at FROM users u
			WHERE u.library_id = $1 AND u.blanked_at IS NULL AND NOT u.pseudonym AND u.last_login_at < $2
				AND u.role = 'STUDENT' AND u.closed_at IS NULL AND (u.last_login_at, u.id) > ($3, $4::bigint)
				AND ` + nothingLeft + `
			ORDER BY u.last_login_at, u.id LIMIT $5`,
		move: `
			SELECT u.id FROM users u
			WHERE u.library_id = $1 AND u.id = ANY ($3)
				AND u.blanked_at IS NULL AND NOT u.pseudonym AND u.last_login_at < $2
				AND u.role = 'STUDENT' AND u.closed_at IS NULL
			ORDER BY u.id FOR NO KEY UPDATE SKIP LOCKED`,
		blanks: true,
	},
}

// leastRetention is how long a row is kept at least. A client may repeat a request with its
// request_id for this time.
const leastRetention = 30 * 24 * time.Hour

const selectOldBefore = `
	SELECT LEAST(n.t - make_interval(months => $1::bigint::int), n.t - $2::interval)
	FROM (SELECT dlsms_now() AS t OFFSET 0) n`

// OldBefore returns the time before which rows are old, by Postgres's clock: months ago, but at least
// 30 days ago.
func (s *Store) OldBefore(ctx context.Context, months int) (time.Time, error) {
	return queryOne(ctx, s.background, pgx.ErrNoRows, pgx.RowTo[time.Time], selectOldBefore, months, leastRetention)
}

// OldRow is a row that the retention must handle. It is also the cursor for the next rows.
type OldRow struct {
	ID int64
	At time.Time // when it ended; for a user, the last login
}

// FindOld returns at most limit rows of a part that are older than before, oldest first, after the
// cursor.
func (s *Store) FindOld(
	ctx context.Context, part RetentionPart, before time.Time, after OldRow, limit int,
) ([]OldRow, error) {
	return query(ctx, s.background, pgx.RowToStructByName[OldRow], part.find, s.lib, before, after.At, after.ID, limit)
}

const (
	// tryRetention lets one replica at a time work on the retention: several would only add load.
	tryRetention = `SELECT pg_try_advisory_xact_lock(hashtextextended('dlsms retention ' || $1::bigint, 0))`

	selectNothingLeft = `SELECT u.id FROM users u WHERE u.library_id = $1 AND u.id = ANY ($2) AND ` + nothingLeft
)

// retentionLockTimeout bounds the wait for a row lock, so that the retention gives way to any other
// transaction.
const retentionLockTimeout = 100 * time.Millisecond

// Retain handles rows of a part that FindOld has returned, in one transaction. It returns the number
// of changed rows. busy means that another replica works on the retention.
func (s *Store) Retain(
	ctx context.Context, part RetentionPart, before time.Time, ids []int64,
) (n int, busy bool, err error) {
	err = s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		var alone bool
		batch := boundedBatch()
		batch.Queue(setLockTimeout, millis(retentionLockTimeout))
		batch.Queue(tryRetention, s.lib).QueryRow(func(row pgx.Row) error { return row.Scan(&alone) })
		if err := t.SendBatch(ctx, batch).Close(); err != nil || !alone {
			busy = err == nil
			return err
		}
		if part.pseudonyms != "" {
			if _, err := t.Exec(ctx, part.pseudonyms, s.lib, ids); err != nil {
				return err
			}
		}
		moved, err := rowsOf(ctx, t, pgx.RowTo[int64], part.move, s.lib, before, ids)
		if err != nil {
			return err
		}
		n = len(moved)
		if !part.blanks {
			return nil
		}
		// A separate statement after the lock: a booking may have been committed during the wait.
		idle, err := rowsOf(ctx, t, pgx.RowTo[int64], selectNothingLeft, s.lib, moved)
		if err != nil || len(idle) == 0 {
			n = 0
			return err
		}
		blanked, err := t.blankPeople(ctx, sorted(idle)...)
		n = len(blanked)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	return n, busy, nil
}
