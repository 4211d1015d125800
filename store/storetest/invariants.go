package storetest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// rule forbids a state of the database. query finds this state: each row that it returns describes
// one violation.
type rule struct {
	name  string
	query string
}

// atEveryCommit lists the rules that hold at every commit, even after crashes. They are written
// from the specification and use no SQL of the store. The queries about overlaps sort the rows and
// compare neighbours. They do not use the index of the exclusion constraint, because an error in
// this index may be the cause of an overlap.
var atEveryCommit = []rule{
	{"two reservations take one seat at once", `
		SELECT format('seat %s: reservation %s begins before the one before it ends', seat_id, id)
		FROM (
			SELECT id, seat_id, lower(during) AS start,
				max(upper(during)) OVER (PARTITION BY library_id, seat_id ORDER BY lower(during), id
					ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS taken_until
			FROM reservations WHERE status IN ('HELD', 'CONFIRMED', 'CHECKED_IN')
		) r WHERE start < taken_until`},
	{"one user has two seats at once", `
		SELECT format('user %s: reservation %s begins before the one before it ends', user_id, id)
		FROM (
			SELECT id, user_id, lower(during) AS start,
				max(upper(during)) OVER (PARTITION BY library_id, user_id ORDER BY lower(during), id
					ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS busy_until
			FROM reservations WHERE status IN ('CONFIRMED', 'CHECKED_IN')
		) r WHERE start < busy_until`},
	{"a request key has two rows", `
		SELECT format('%s of user %s: request %s has %s rows', kind, user_id, request_id, count(*))
		FROM (
			SELECT 'reservations' AS kind, library_id, user_id, request_id FROM reservations
			UNION ALL
			SELECT 'entries', library_id, user_id, request_id FROM waitlist_entries
		) r WHERE request_id IS NOT NULL
		GROUP BY kind, library_id, user_id, request_id HAVING count(*) > 1`},
	{"a transition is not one of the state diagram", `
		WITH legal (was, kind, became) AS (VALUES
			('', 'RESERVED', 'CONFIRMED'), ('', 'OFFERED', 'HELD'),
			('HELD', 'CLAIMED', 'CONFIRMED'), ('HELD', 'DECLINED', 'CANCELLED'), ('HELD', 'OFFER_EXPIRED', 'CANCELLED'),
			('CONFIRMED', 'CHECKED_IN', 'CHECKED_IN'), ('CONFIRMED', 'CANCELLED', 'CANCELLED'),
			('CONFIRMED', 'NO_SHOW', 'NO_SHOW'),
			('CONFIRMED', 'EXTENDED', 'CONFIRMED'), ('CONFIRMED', 'REMINDED', 'CONFIRMED'),
			('CHECKED_IN', 'EXTENDED', 'CHECKED_IN'), ('CHECKED_IN', 'CHECKED_OUT', 'COMPLETED'),
			('CHECKED_IN', 'COMPLETED', 'COMPLETED'), ('CHECKED_IN', 'SHORTENED', 'CHECKED_IN'),
			('CONFIRMED', 'RESCHEDULED', 'CONFIRMED')
		), steps AS (
			SELECT *, COALESCE(lag(status) OVER w, '') AS was, lag(during) OVER w AS before, row_number() OVER w AS place,
				count(*) FILTER (WHERE kind = 'REMINDED') OVER w AS reminders
			FROM reservation_events WINDOW w AS (PARTITION BY library_id, reservation_id ORDER BY version, id)
		)
		SELECT format('reservation %s, version %s: %s from %s to %s', reservation_id, version, kind, was, status) FROM steps s
		WHERE NOT EXISTS (SELECT FROM legal l WHERE (l.was, l.kind, l.became) = (s.was, s.kind, s.status))
			OR reminders > 1
			OR CASE kind WHEN 'EXTENDED' THEN lower(during) <> lower(before) OR upper(during) <= upper(before)
				WHEN 'SHORTENED' THEN lower(during) <> lower(before) OR upper(during) >= upper(before)
				ELSE during IS DISTINCT FROM COALESCE(before, during) END`},
	{"versions have gaps", `
		SELECT format('reservation %s: versions %s', reservation_id, array_agg(version ORDER BY version))
		FROM reservation_events GROUP BY library_id, reservation_id
		HAVING min(version) <> 1 OR max(version) <> count(*) OR count(DISTINCT version) <> count(*)`},
	{"a reservation changed its seat, user, entry, start or creation", `
		SELECT format('reservation %s', reservation_id) FROM reservation_events GROUP BY library_id, reservation_id
		HAVING count(DISTINCT (seat_id, user_id, COALESCE(entry_id, 0), lower(during), created_at)) > 1`},
	{"the change log and the reservation differ", `
		SELECT format('reservation %s: change log %s, row %s', COALESCE(r.id, e.reservation_id), e, r)
		FROM (
			SELECT DISTINCT ON (library_id, reservation_id)
				library_id, reservation_id, version, seat_id, user_id, entry_id, during, status,
				check_in_opens_at, check_in_deadline, offer_expires_at, created_at, checked_in_at, ended_at
			FROM reservation_events ORDER BY library_id, reservation_id, version DESC
		) e
		FULL JOIN (
			SELECT library_id, id, version, seat_id, user_id, entry_id, during, status,
				check_in_opens_at, check_in_deadline, offer_expires_at, created_at, checked_in_at, ended_at
			FROM reservations
		) r ON r.library_id = e.library_id AND r.id = e.reservation_id
		WHERE ROW(r.*) IS DISTINCT FROM ROW(e.*)`},
	{"a transition came at the wrong time", `
		SELECT format('reservation %s: %s, checked in %s, ended %s, check-in from %s before %s, window %s',
			id, status, checked_in_at, ended_at, check_in_opens_at, check_in_deadline, during)
		FROM reservations r
		WHERE checked_in_at < check_in_opens_at
			OR checked_in_at >= check_in_deadline AND (checked_in_at >= upper(during) OR NOT EXISTS ( -- staff may be late
				SELECT FROM reservation_events e WHERE e.library_id = r.library_id AND e.reservation_id = r.id
					AND e.kind = 'CHECKED_IN' AND e.by_library))
			OR status = 'NO_SHOW' AND ended_at < check_in_deadline
			OR check_in_deadline > upper(during)
			OR check_in_deadline < GREATEST(lower(during), created_at)`},
	{"an offer ended at the wrong time", `
		SELECT format('entry %s: %s at %s, offered until %s', w.id, w.status, w.ended_at, o.offer_expires_at)
		FROM waitlist_entries w
		JOIN reservation_events o
			ON o.library_id = w.library_id AND o.reservation_id = w.reservation_id AND o.kind = 'OFFERED'
		WHERE w.status IN ('CLAIMED', 'LEFT') AND w.ended_at >= o.offer_expires_at
			OR w.status = 'EXPIRED' AND w.ended_at < o.offer_expires_at
			OR o.offer_expires_at > upper(o.during)`},
	// A sweep that ends an offer puts the entry back on the waitlist, without its reservation.
	{"an entry and its reservation differ", `
		SELECT format('entry %s is %s, its reservation %s is %s', w.id, w.status, r.id, r.status)
		FROM (SELECT * FROM waitlist_entries WHERE reservation_id IS NOT NULL) w
		FULL JOIN (
			-- After a sweep has ended an offer, its entry waits again and may get another offer.
			SELECT * FROM reservations s WHERE entry_id IS NOT NULL AND NOT EXISTS (
				SELECT FROM reservation_events e WHERE e.library_id = s.library_id AND e.reservation_id = s.id
					AND e.kind = 'DECLINED' AND e.sweep_id IS NOT NULL)) r
			ON r.library_id = w.library_id AND r.id = w.reservation_id AND r.entry_id = w.id
		WHERE w.id IS NULL OR r.id IS NULL
			OR (r.seat_id, r.user_id) <> (w.seat_id, w.user_id)
			OR CASE w.status
				WHEN 'OFFERED' THEN r.status <> 'HELD' OR r.during <> w.during OR r.offer_expires_at <> w.offer_expires_at
				WHEN 'CLAIMED' THEN r.status = 'HELD' OR r.status = 'CANCELLED' AND r.check_in_deadline IS NULL
				ELSE r.status <> 'CANCELLED' OR r.check_in_deadline IS NOT NULL END`},
	// The change log states which user had a seat at which time. The events of one seat are written
	// under the lock of the seat. So the state of the seat before an offer is the state after the
	// last event of the seat with a lower id. The events of a user at other seats have no such
	// order, so for these the rule compares times. It reports that an earlier entry was skipped
	// only if the user of this entry was free for the whole time from a margin before the offer to
	// a margin after it. A pseudonym stands for several users, so its stays may be those of any user.
	{"an offer skipped an earlier entry", `
		WITH stays AS (
			SELECT library_id, seat_id, user_id, during, id AS from_id, at AS from_at,
				user_id IN (SELECT id FROM users WHERE pseudonym) AS anonymous,
				lead(id) OVER w AS until_id, lead(at) OVER w AS until_at, status IN ('HELD', 'CONFIRMED', 'CHECKED_IN') AS occupies,
				status IN ('CONFIRMED', 'CHECKED_IN') AS counts
			FROM reservation_events WINDOW w AS (PARTITION BY library_id, reservation_id ORDER BY version)
		), offers AS (
			SELECT library_id, seat_id, entry_id, during, id, at FROM reservation_events WHERE kind = 'OFFERED'
		)
		SELECT format('seat %s: entry %s got the offer %s before entry %s', o.seat_id, o.entry_id, o.id, v.id)
		FROM offers o
		JOIN seats s ON s.library_id = o.library_id AND s.id = o.seat_id
		JOIN waitlist_entries v
			ON v.library_id = o.library_id AND v.seat_id = o.seat_id AND v.id < o.entry_id AND v.during && o.during
		WHERE (v.ended_at IS NULL OR v.ended_at > o.at) AND NOT v.anonymous
			AND upper(v.during) - GREATEST(lower(v.during), o.at) >= current_setting('storetest.min_duration')::interval
			AND dlsms_open(s.library_id, s.branch_id, v.during)
			AND NOT EXISTS ( -- the rule does not know when a closure was moved
				SELECT FROM closures c WHERE c.library_id = s.library_id AND c.branch_id = s.branch_id
					AND c.created_at <= o.at + current_setting('storetest.margin')::interval
					AND (c.lifted_at IS NULL OR c.lifted_at >= o.at - current_setting('storetest.margin')::interval))
			AND NOT EXISTS (SELECT FROM offers p WHERE p.library_id = v.library_id AND p.entry_id = v.id AND p.id < o.id)
			AND NOT EXISTS (
				SELECT FROM suspensions x WHERE x.library_id = v.library_id AND x.user_id = v.user_id
					AND x.begins_at <= o.at + current_setting('storetest.margin')::interval
					AND LEAST(x.lifted_at, x.ends_at) >= o.at - current_setting('storetest.margin')::interval)
			AND NOT EXISTS (
				SELECT FROM stays t
				WHERE t.library_id = v.library_id AND t.seat_id = v.seat_id AND t.occupies AND t.during && v.during
					AND t.from_id < o.id AND (t.until_id IS NULL OR t.until_id > o.id))
			AND NOT EXISTS (
				SELECT FROM stays t
				WHERE t.library_id = v.library_id AND (t.user_id = v.user_id OR t.anonymous) AND t.occupies
					AND t.during && v.during AND t.from_at <= o.at + current_setting('storetest.margin')::interval
					AND (t.until_at IS NULL OR t.until_at >= o.at - current_setting('storetest.margin')::interval))
			AND (SELECT count(*) FROM stays t WHERE t.library_id = v.library_id AND t.user_id = v.user_id AND t.counts
					AND upper(t.during) > o.at - current_setting('storetest.margin')::interval
					AND t.from_at <= o.at + current_setting('storetest.margin')::interval
					AND (t.until_at IS NULL OR t.until_at >= o.at - current_setting('storetest.margin')::interval))
				< current_setting('storetest.max_upcoming')::bigint`},
	{"a closure was swept and has a reservation inside", `
		SELECT format('closure %s, reservation %s: %s in %s', c.id, r.id, r.status, r.during)
		FROM closures c
		JOIN seats s ON s.library_id = c.library_id AND s.branch_id = c.branch_id
			AND (c.area IS NULL OR s.area = c.area) AND (c.seat_ids IS NULL OR s.id = ANY (c.seat_ids))
		JOIN reservations r ON r.library_id = s.library_id AND r.seat_id = s.id AND r.during && c.during
			AND r.status IN ('HELD', 'CONFIRMED', 'CHECKED_IN')
		WHERE c.lifted_at IS NULL AND c.on_bookings = 'CANCEL'
			AND EXISTS (SELECT FROM sweeps w WHERE w.library_id = c.library_id AND w.closure_id = c.id)
			AND NOT EXISTS (
				SELECT FROM sweeps w WHERE w.library_id = c.library_id AND w.closure_id = c.id AND w.done_at IS NULL)`},
	{"a sweep ended a reservation and did not tell its user once", `
		SELECT format('sweep %s, reservation %s: %s events, %s notifications', sweep_id, reservation_id, count(*),
			count(*) FILTER (WHERE notifies AND by_library))
		FROM reservation_events WHERE sweep_id IS NOT NULL GROUP BY library_id, sweep_id, reservation_id
		HAVING count(*) <> 1 OR count(*) FILTER (WHERE notifies AND by_library) <> 1`},
	{"a change by staff and the audit log differ", `
		SELECT format('closure %s, audit log %s', c.id, a.object)
		FROM (SELECT library_id, id, 'closure/' || id AS object FROM closures WHERE user_id IS NOT NULL) c
		FULL JOIN (SELECT library_id, object FROM audit_log WHERE action = 'CreateClosure' AND user_id IS NOT NULL) a
			ON a.library_id = c.library_id AND a.object = c.object
		WHERE c.id IS NULL OR a.object IS NULL`},
	{"a no-show and its strike differ", `
		SELECT format('strike %s of reservation %s: %s', k.id, k.reservation_id, r.status)
		FROM strikes k LEFT JOIN reservations r ON r.library_id = k.library_id AND r.id = k.reservation_id
		WHERE r.status IS DISTINCT FROM 'NO_SHOW' OR r.user_id <> k.user_id OR r.ended_at <> k.at`},
	{"a row of a pseudonym is not marked, or a marked row is of a person", `
		SELECT format('%s %s of user %s: %s', kind, r.id, r.user_id, r.anonymous)
		FROM (
			SELECT 'reservation' AS kind, library_id, id, user_id, anonymous FROM reservations
			UNION ALL SELECT 'entry', library_id, id, user_id, anonymous FROM waitlist_entries
			UNION ALL SELECT 'suspension', library_id, id, user_id, anonymous FROM suspensions
		) r JOIN users u ON u.library_id = r.library_id AND u.id = r.user_id
		WHERE u.pseudonym <> r.anonymous`},
	{"a pseudonym or a blanked user has live rows", `
		SELECT format('%s %s of user %s', kind, r.id, r.user_id)
		FROM (
			SELECT 'reservation' AS kind, library_id, id, user_id FROM reservations WHERE ended_at IS NULL
			UNION ALL SELECT 'entry', library_id, id, user_id FROM waitlist_entries WHERE ended_at IS NULL
		) r JOIN users u ON u.library_id = r.library_id AND u.id = r.user_id
		WHERE u.blanked_at IS NOT NULL`},
}

// whenIdle lists the rules that hold once the workers have done everything that is due.
var whenIdle = []rule{
	{"something is overdue", `
		SELECT format('%s %s: %s, due %s', kind, id, status, due) FROM (
			SELECT 'reservation' AS kind, id, status,
				CASE status
					WHEN 'HELD' THEN offer_expires_at
					WHEN 'CONFIRMED' THEN check_in_deadline
					WHEN 'CHECKED_IN' THEN upper(during) END AS due
			FROM reservations
			UNION ALL
			SELECT 'entry', id, status, CASE status WHEN 'OFFERED' THEN offer_expires_at WHEN 'WAITING' THEN upper(during) END
			FROM waitlist_entries
		) d WHERE due <= dlsms_now()`},
	{"a sweep is not done", `SELECT format('sweep %s of branch %s', id, branch_id) FROM sweeps WHERE done_at IS NULL`},
	{"a strike was not judged", `SELECT format('strike %s of user %s', id, user_id) FROM strikes WHERE NOT judged`},
	{"an offer was made into a closure", `
		SELECT format('reservation %s of seat %s in %s', r.id, r.seat_id, r.during)
		FROM reservations r JOIN seats s ON s.library_id = r.library_id AND s.id = r.seat_id
		WHERE r.status = 'HELD' AND EXISTS (SELECT FROM closures c
			WHERE c.library_id = s.library_id AND c.branch_id = s.branch_id AND c.lifted_at IS NULL AND c.on_bookings = 'CANCEL'
				AND (c.area IS NULL OR c.area = s.area) AND (c.seat_ids IS NULL OR s.id = ANY (c.seat_ids))
				AND c.during && r.during)`},
	{"a seat is free while an entry waits for it", `
		SELECT format('entry %s of user %s for seat %s in %s', w.id, w.user_id, w.seat_id, w.during)
		FROM waitlist_entries w JOIN seats s ON s.library_id = w.library_id AND s.id = w.seat_id
		WHERE w.status = 'WAITING' AND NOT s.out_of_service
			AND upper(w.during) - GREATEST(lower(w.during), dlsms_now()) >= current_setting('storetest.min_duration')::interval
			AND (SELECT count(*) FROM reservations r WHERE r.library_id = w.library_id AND r.user_id = w.user_id
				AND r.status IN ('CONFIRMED', 'CHECKED_IN') AND upper(r.during) > dlsms_now())
				< current_setting('storetest.max_upcoming')::bigint
			AND dlsms_open(s.library_id, s.branch_id, w.during) AND s.retired_at IS NULL
			AND NOT dlsms_closed(s.library_id, s.branch_id, s.area, s.id,
				tstzrange(GREATEST(lower(w.during), dlsms_now()), upper(w.during)))
			AND NOT EXISTS (SELECT FROM users u
				WHERE u.library_id = w.library_id AND u.id = w.user_id AND u.suspended_until > dlsms_now())
			AND NOT EXISTS (
				SELECT FROM reservations r WHERE r.library_id = w.library_id AND r.status IN ('HELD', 'CONFIRMED', 'CHECKED_IN')
					AND r.during && w.during AND (r.seat_id = w.seat_id OR r.user_id = w.user_id))`},
}

// maxCases is the largest number of violations that are reported for one rule.
const maxCases = 5

// Violations returns the violations in the database at url, or nothing if there are none. It checks
// the rules that hold at every moment, even right after a crash. speed is how many times as fast as
// real time the clock of the database ran.
func Violations(ctx context.Context, url string, speed int) ([]string, error) {
	return violations(ctx, url, library.DefaultPolicy(), commitMargin*time.Duration(speed), atEveryCommit)
}

// Unfinished returns the open work of the database at url: overdue transitions, and free seats that
// have waitlist entries. It returns nothing once the workers are idle.
func Unfinished(ctx context.Context, url string) ([]string, error) {
	return violations(ctx, url, library.DefaultPolicy(), commitMargin, whenIdle)
}

// commitMargin is the margin of the rule "an offer skipped an earlier entry". An event has a time
// and is committed a little later. commitMargin is more than the longest time between the two.
const commitMargin = 2 * time.Second

func violations(
	ctx context.Context, url string, settings library.Policy, margin time.Duration, rules []rule,
) ([]string, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// All rules read one snapshot. They use no index, because an index could be wrong.
	_, err = conn.Exec(ctx, `
		SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SET work_mem = '64MB';
		BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`)
	if err != nil {
		return nil, err
	}
	most := settings.MaxUpcoming
	if most == 0 {
		most = math.MaxInt
	}
	if _, err := conn.Exec(ctx, `
		SELECT set_config('storetest.margin', $1, false), set_config('storetest.min_duration', $2, false),
			set_config('storetest.max_upcoming', $3, false)`,
		margin.String(), fmt.Sprint(settings.MinDuration.Seconds(), " s"), strconv.Itoa(most)); err != nil {
		return nil, err
	}
	var faults []string
	for _, r := range rules {
		rows, err := conn.Query(ctx, fmt.Sprintf(`SELECT * FROM (%s) cases LIMIT %d`, r.query, maxCases))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		cases, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		for _, c := range cases {
			faults = append(faults, r.name+": "+c)
		}
	}
	return faults, nil
}

// CheckInvariants fails the test if its database violates a rule or has open work.
func CheckInvariants(t testing.TB, db *DB) {
	t.Helper()
	rules := db.rules
	if rules == (library.Policy{}) {
		rules = library.DefaultPolicy()
	}
	margin := commitMargin * time.Duration(max(db.speed, 1))
	all := slices.Concat(atEveryCommit, whenIdle)
	faults, err := violations(context.WithoutCancel(t.Context()), db.URL, rules, margin, all)
	if err != nil {
		t.Fatal(err)
	}
	if len(faults) > 0 {
		t.Errorf("the database breaks its invariants:\n\t%s", strings.Join(faults, "\n\t"))
	}
}
