package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// fill has the SQL statements that make the big library: branches, seats, users, reservations and
// their events. They run in this order. @reservations is the number of all reservations, @ahead the
// number of upcoming ones. In a full run, the reservations span the last 45 days and the next 10
// days.
var fill = []struct{ rows, sql string }{
	{"branches", `INSERT INTO branches (library_id, code, name, timezone)
		SELECT 1, 'big-' || i, 'Branch ' || i, 'Europe/Berlin' FROM generate_series(1, @branches::int) i`},
	{"seats", `INSERT INTO seats (library_id, branch_id, area, label, amenities)
		SELECT 1, b.id, 'Area ' || i % 7, 'B-' || i, ARRAY[1 + i % 5]::smallint[]
		FROM generate_series(1, @seats::int) i
		JOIN branches b ON b.library_id = 1 AND b.code = 'big-' || 1 + i % @branches::int`},
	{"users", `INSERT INTO users (library_id, student_id, name, email, role, password_hash)
		SELECT 1, 'big-' || i, 'Student ' || i, 'big-' || i || '@university.example', 'STUDENT', 'x'
		FROM generate_series(1, greatest(@ahead::int / 5, 1)) i`},
	// Each seat has two past reservations a day, and one upcoming reservation a day. Each user has
	// five upcoming reservations, on different days.
	{"reservations", `WITH s AS (
			SELECT id, row_number() OVER (ORDER BY id) - 1 AS place FROM seats s WHERE library_id = 1 AND label LIKE 'B-%'
		), u AS (
			SELECT min(id) AS first, count(*) AS n FROM users WHERE library_id = 1 AND student_id LIKE 'big-%'
		), r AS (
			SELECT i, s.id AS seat_id, u.first + i % u.n AS user_id, i < @ahead::int AS ahead,
				CASE WHEN i < @ahead::int
					THEN date_trunc('day', now()) + (1 + i / @seats::int) * interval '1 day' + interval '9 hours'
				ELSE date_trunc('day', now()) - (2 + (i - @ahead::int) / @seats::int) * interval '12 hours' END AS start_time
			FROM generate_series(0, @reservations::int - 1) i JOIN s ON s.place = i % @seats::int CROSS JOIN u
		)
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, version,
			check_in_opens_at, check_in_deadline, created_at, checked_in_at, ended_at)
		SELECT 1, seat_id, user_id, tstzrange(start_time, start_time + interval '2 hours'),
			CASE WHEN ahead THEN 'CONFIRMED' ELSE 'COMPLETED' END,
			CASE WHEN ahead THEN 1 ELSE 3 END,
			start_time - interval '15 minutes', start_time + interval '15 minutes', least(start_time, now()) - interval '1 day',
			CASE WHEN NOT ahead THEN start_time END,
			CASE WHEN NOT ahead THEN start_time + interval '2 hours' END
		FROM r ORDER BY i`},
	{
		"events",
		`INSERT INTO reservation_events (library_id, at, kind, reservation_id, version, seat_id, user_id, during, status,
			check_in_opens_at, check_in_deadline, created_at, checked_in_at, ended_at)
		SELECT library_id, coalesce(ended_at, created_at), CASE WHEN occupies THEN 'RESERVED' ELSE 'COMPLETED' END,
			id, version, seat_id, user_id, during, status,
			check_in_opens_at, check_in_deadline, created_at, checked_in_at, ended_at
		FROM reservations WHERE library_id = 1`,
	},
}

// grow measures the start of a replica on a big library. Then it compares reads and bookings there
// with those of the demo library.
func (b *bench) grow(ctx context.Context, cfg stack.Config) (err error) {
	big, err := startSubject(ctx, "big "+ours, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, big.stop()) }()
	ready, err := b.fillBig(ctx, big)
	if err != nil {
		return err
	}
	memory, err := big.memory("VmHWM")
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d seats, %d reservations", b.growth.seats, b.growth.reservations)
	b.report.goal(
		name+": a replica is ready after", "≤ 10 s", fmt.Sprintf("%.1f s", ready.Seconds()), ready <= 10*time.Second,
	)
	b.report.goal(name+": peak memory of a replica at its start", "≤ 600 MiB", mebibytes(memory), memory <= 600<<20)

	pair := [2]*subject{big, b.ours}
	const clients = 50
	c, err := b.compare(ctx, "GetSeats of a 25-seat branch", clients, pair, func(*subject) (load, error) {
		l := b.readLoad(clients)
		l.request = sameMessage(&dlsmsv1.GetSeatsRequest{Branch: "main", AvailableOnly: true})
		return l, nil
	})
	if err != nil {
		return err
	}
	b.report.atMost(name+": GetSeats of 25 seats: time, divided by the demo library's", 1/c.rps, 1.1)

	slotsOf, err := b.newSlotsFor(ctx, "grown", pair, 1)
	if err != nil {
		return err
	}
	if c, err = b.compare(ctx, "CreateReservation, big", clients, pair, func(s *subject) (load, error) {
		return b.bookingLoad(slotsOf[s], clients)
	}); err != nil {
		return err
	}
	b.report.atMost(name+": CreateReservation: time, divided by the demo library's", 1/c.rps, 1.3)
	if memory, err = big.memory("VmHWM"); err != nil {
		return err
	}
	b.report.goal(name+": peak memory of a replica under load", "≤ 600 MiB", mebibytes(memory), memory <= 600<<20)
	return nil
}

// fillBig stops the replicas, fills the library, and starts the replicas one after the other. It
// returns the time of the slowest start.
func (b *bench) fillBig(ctx context.Context, big *subject) (ready time.Duration, err error) {
	for _, r := range big.Replicas {
		if err := r.Stop(ctx); err != nil {
			return 0, err
		}
	}
	g := b.growth
	size := pgx.NamedArgs{"seats": g.seats, "branches": g.branches, "reservations": g.reservations, "ahead": g.upcoming}
	for _, step := range fill {
		began := time.Now()
		tag, err := big.db.Exec(ctx, step.sql, size)
		if err != nil {
			return 0, fmt.Errorf("fill the big library with %s: %w", step.rows, err)
		}
		b.progress(
			"the big library has %d more %s, after %s", tag.RowsAffected(), step.rows, time.Since(began).Round(time.Second),
		)
	}
	// Vacuum both databases now, so that autovacuum does not run during a measurement.
	for _, s := range []*subject{big, b.ours} {
		for _, sql := range []string{`VACUUM ANALYZE`, `CHECKPOINT`} {
			if _, err := s.db.Exec(ctx, sql); err != nil {
				return 0, err
			}
		}
	}
	for _, r := range big.Replicas {
		began := time.Now()
		if err := r.Start(ctx); err != nil {
			return 0, fmt.Errorf("start on the big library: %w", err)
		}
		ready = max(ready, time.Since(began))
	}
	b.progress("the slowest replica was ready on it after %s", ready.Round(10*time.Millisecond))
	return ready, nil
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
