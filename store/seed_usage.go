package store

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// demoUsage adds four weeks of sums for reports, up to the present hour, as if the demo library had
// been used. It adds no reservations: the lists of the demo users stay empty. The figures follow from
// the place, the day and the hour alone, so they are the same each time.
//
// The load is the part of the seats that are reserved in each hour of the day. Weekends have less of
// it. The noise is a number from 0 to 1 that differs by place, group and hour.
const demoUsage = `
	WITH now AS MATERIALIZED (
		SELECT COALESCE((SELECT counted_until FROM usage_progress WHERE library_id = $1),
			` + hourOf + `dlsms_now()` + hourOfEnd + `) AS t
	), hours AS (
		SELECT h.hour, (ARRAY[0, 0, 0, 0, 0, 0, 0, 5, 25, 55, 75, 80, 60, 70, 85, 80, 70, 55, 45, 40, 30, 15, 5, 0])
				[1 + extract(hour FROM h.hour AT TIME ZONE 'Europe/Berlin')::int]
			* CASE WHEN extract(isodow FROM h.hour AT TIME ZONE 'Europe/Berlin') > 5 THEN 0.4 ELSE 1 END / 100 AS load
		FROM now CROSS JOIN generate_series(now.t - interval '28 days', now.t - interval '1 hour', interval '1 hour') h (hour)
	), places AS (
		SELECT branch_id, area, count(*) AS seats FROM seats WHERE library_id = $1 GROUP BY branch_id, area
	), open AS (
		INSERT INTO usage_open (library_id, hour, branch_id, area, open_seconds)
		SELECT $1, h.hour, p.branch_id, p.area, 3600 * p.seats FROM hours h CROSS JOIN places p
	), used AS (
		SELECT h.hour, p.branch_id, p.area, g.name AS user_group, n.noise,
			(3600 * p.seats * h.load * g.share * (0.7 + 0.3 * n.noise))::int AS seconds
		FROM hours h CROSS JOIN places p
		CROSS JOIN (VALUES ('', 0.7), ('postgraduate', 0.3)) g (name, share)
		CROSS JOIN LATERAL (
			SELECT (hashtextextended(p.area || g.name || extract(epoch FROM h.hour)::text, 0) & 1023) / 1023.0 AS noise) n
		WHERE h.load > 0
	), counted AS (
		SELECT u.*, (u.seconds / 7200.0 + u.noise)::int AS made FROM used u WHERE u.seconds > 0
	), figures AS (
		SELECT c.*, (c.made * 0.85)::int AS arrived, (c.made * c.noise * 0.25)::int AS missed,
			CASE WHEN c.noise > 0.8 THEN 1 + (c.noise * 100)::int % 3 ELSE 0 END AS joined
		FROM counted c
	), hourly AS (
		INSERT INTO usage_hours (library_id, hour, branch_id, area, user_group, reserved_seconds, used_seconds,
			reservations, check_ins, check_ins_seat, check_ins_screen, check_ins_both, check_ins_desk, check_ins_arrival,
			no_shows, cancelled, cancelled_by_library, joins, offers, claims)
		SELECT $1, hour, branch_id, area, user_group, seconds, (seconds * 0.85)::int, made, arrived, 0, 0, 0, arrived / 8,
			0, missed, (made * (1 - noise) * 0.3)::int, 0, joined, joined / 2, joined / 3
		FROM figures
	), waits AS (
		INSERT INTO usage_waits (library_id, hour, branch_id, area, user_group, minutes, offers)
		SELECT $1, hour, branch_id, area, user_group, 10 + (noise * 1000)::int % 80, joined / 2
		FROM figures WHERE joined >= 2
	), refused AS (
		INSERT INTO usage_refusals (library_id, hour, branch_id, area, user_group, taken)
		SELECT $1, hour, branch_id, area, user_group, joined + (noise * 4)::int FROM figures WHERE joined > 0
	)
	INSERT INTO usage_progress (library_id, counted_until) SELECT $1, t FROM now ON CONFLICT DO NOTHING`

// seedUsage adds the sums of the demo, unless the library has sums or reservations already. A worker
// may have begun to count: the row that it has then made is locked, so that it does not count now.
func (t *tx) seedUsage(ctx context.Context) error {
	const lock = `SELECT FROM usage_progress WHERE library_id = $1 FOR NO KEY UPDATE`
	const used = `
		SELECT EXISTS (SELECT FROM usage_open WHERE library_id = $1)
			OR EXISTS (SELECT FROM usage_hours WHERE library_id = $1)
			OR EXISTS (SELECT FROM reservation_events WHERE library_id = $1)`
	if _, err := t.Exec(ctx, lock, t.s.lib); err != nil {
		return err
	}
	skip, err := rowOf(ctx, t, pgx.ErrNoRows, pgx.RowTo[bool], used, t.s.lib)
	if err != nil || skip {
		return err
	}
	_, err = t.Exec(ctx, demoUsage, t.s.lib)
	return err
}
