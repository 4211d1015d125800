package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// The library of the scenario of reports: the reservations of a year, in 5 branches with 4 areas each,
// by users of 4 groups.
const (
	reportBranches = 5
	reportAreas    = 4
	reportSeats    = 1000
	reportUsers    = 20_000
)

// fillYear has the SQL statements that make a year of reservations. Each seat has the same number of
// reservations a day, one after another from 8 to 22 o'clock. One in 20 is a no-show, one in 10 was
// cancelled, and the others were checked in and out.
var fillYear = []struct{ rows, sql string }{
	{"branches", `INSERT INTO branches (library_id, code, name, timezone)
		SELECT 1, 'year-' || i, 'Branch ' || i, 'Europe/Berlin' FROM generate_series(1, @branches::int) i`},
	{"seats", `INSERT INTO seats (library_id, branch_id, area, label)
		SELECT 1, b.id, 'Area ' || i % @areas::int, 'Y-' || i
		FROM generate_series(1, @seats::int) i
		JOIN branches b ON b.library_id = 1 AND b.code = 'year-' || 1 + i / @areas::int % @branches::int`},
	{"users", `INSERT INTO users (library_id, student_id, name, email, role, password_hash, user_group)
		SELECT 1, 'year-' || i, 'Student ' || i, 'year-' || i || '@university.example', 'STUDENT', '',
			(ARRAY['', 'law', 'medicine', 'staff'])[1 + i % 4]
		FROM generate_series(1, @users::int) i`},
	{"reservations", `
		WITH s AS (
			SELECT id, row_number() OVER (ORDER BY id) - 1 AS place FROM seats WHERE library_id = 1 AND label LIKE 'Y-%'
		), u AS (
			SELECT min(id) AS first, count(*) AS size FROM users WHERE library_id = 1 AND student_id LIKE 'year-%'
		), each AS (
			SELECT greatest(1, @reservations::int / @seats::int / 365) AS daily
		), r AS (
			SELECT s.id AS seat_id, u.first + (s.place * 7919 + d * 31 + n * 977) % u.size AS user_id,
				(s.place + d + n) % 20 AS lot, each.daily,
				date_trunc('day', now()) - d * interval '1 day' + interval '7 hours'
					+ n * (interval '14 hours' / each.daily) AS start_time
			FROM each CROSS JOIN generate_series(365, 1, -1) d CROSS JOIN generate_series(0, each.daily - 1) n
			CROSS JOIN s CROSS JOIN u
		), timed AS (
			SELECT r.*, start_time + interval '14 hours' / daily AS end_time FROM r
		)
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, version, check_in_opens_at,
			check_in_deadline, created_at, checked_in_at, ended_at)
		SELECT 1, seat_id, user_id, tstzrange(start_time, end_time),
			CASE WHEN lot = 0 THEN 'NO_SHOW' WHEN lot < 3 THEN 'CANCELLED' ELSE 'COMPLETED' END,
			CASE WHEN lot < 3 THEN 2 ELSE 3 END,
			start_time - interval '15 minutes', start_time + interval '15 minutes', start_time - interval '1 day',
			CASE WHEN lot >= 3 THEN start_time + interval '2 minutes' END,
			CASE WHEN lot = 0 THEN start_time + interval '15 minutes' WHEN lot < 3 THEN start_time - interval '1 hour'
				ELSE end_time - interval '3 minutes' END
		FROM timed`},
	{"events", `
		INSERT INTO reservation_events (library_id, at, kind, notifies, reservation_id, version, seat_id, user_id, during,
			status, occupies, check_in_opens_at, check_in_deadline, created_at)
		SELECT r.library_id, CASE e.n WHEN 1 THEN r.created_at WHEN 3 THEN r.checked_in_at ELSE r.ended_at END,
			CASE e.n WHEN 1 THEN 'RESERVED' WHEN 3 THEN 'CHECKED_IN' ELSE
				CASE r.status WHEN 'COMPLETED' THEN 'CHECKED_OUT' ELSE r.status END END,
			false, r.id, CASE e.n WHEN 1 THEN 1 WHEN 3 THEN 2 ELSE r.version END, r.seat_id, r.user_id, r.during,
			CASE e.n WHEN 1 THEN 'CONFIRMED' WHEN 3 THEN 'CHECKED_IN' ELSE r.status END, e.n <> 2,
			r.check_in_opens_at, r.check_in_deadline, r.created_at
		FROM reservations r CROSS JOIN generate_series(1, 3) e (n)
		WHERE r.library_id = 1 AND (e.n < 3 OR r.checked_in_at IS NOT NULL)`},
}

// reports measures reports and an export in a library with a year of reservations, and their effect on
// the reads of students.
func (b *bench) reports(ctx context.Context, cfg stack.Config) (err error) {
	year, err := startSubject(ctx, "a year of "+ours, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, year.stop()) }()
	size := pgx.NamedArgs{
		"branches": reportBranches, "areas": reportAreas, "seats": reportSeats, "users": reportUsers,
		"reservations": b.growth.reservations,
	}
	// The worker begins with the oldest event, so it must not run before there are events. The demo has
	// sums of its own.
	for _, r := range year.Replicas {
		if err := r.Stop(ctx); err != nil {
			return err
		}
	}
	if _, err := year.db.Exec(ctx,
		`TRUNCATE usage_hours, usage_open, usage_waits, usage_refusals, usage_progress`); err != nil {
		return err
	}
	for _, step := range append(fillYear, struct{ rows, sql string }{"", `VACUUM ANALYZE`}) {
		began := time.Now()
		var args []any
		if step.rows != "" {
			args = []any{size}
		}
		tag, err := year.db.Exec(ctx, step.sql, args...)
		if err != nil {
			return fmt.Errorf("fill the year with %s: %w", step.rows, err)
		}
		b.progress("a year: %d %s in %s", tag.RowsAffected(), step.rows, time.Since(began).Round(time.Second))
	}
	for _, r := range year.Replicas {
		if err := r.Start(ctx); err != nil {
			return err
		}
	}
	var made int64
	if err := year.db.QueryRow(ctx, `SELECT count(*) FROM reservations`).Scan(&made); err != nil {
		return err
	}
	if err := b.awaitSums(ctx, year); err != nil {
		return err
	}
	librarian, err := newLibrarian(ctx, year)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d reservations of a year", made)
	if err := b.usageTimes(ctx, librarian, name, made); err != nil {
		return err
	}
	return b.besideReports(ctx, year, librarian, name, made)
}

// awaitSums waits until the worker has written the sums of the year.
func (b *bench) awaitSums(ctx context.Context, year *subject) error {
	began := time.Now()
	for done := false; !done; sleep(ctx, time.Second) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := year.db.QueryRow(ctx, `
			SELECT COALESCE(bool_and(counted_until > now() - interval '2 hours'), false) AND count(*) > 0 FROM usage_progress`).
			Scan(&done); err != nil {
			return err
		}
	}
	b.progress("the worker has counted the year in %s", time.Since(began).Round(time.Second))
	_, err := year.db.Exec(ctx, `VACUUM ANALYZE usage_hours, usage_open`)
	return err
}

// newLibrarian adds a librarian of all branches and logs in.
func newLibrarian(ctx context.Context, s *subject) (*e2e.Client, error) {
	if _, err := s.addUsers(ctx, "librarian-", 1); err != nil {
		return nil, err
	}
	if _, err := s.db.Exec(ctx, `UPDATE users SET role = 'LIBRARIAN' WHERE student_id = 'librarian-0'`); err != nil {
		return nil, err
	}
	return e2e.Anonymous(s.conn).Login(ctx, "librarian-0", demoPassword)
}

// yearOf is a report of the last year by weekday and hour.
func yearOf() *dlsmsv1.GetUsageRequest {
	now := time.Now()
	return &dlsmsv1.GetUsageRequest{
		From: now.AddDate(-1, 0, -1).Format(time.DateOnly), To: now.Format(time.DateOnly),
		By: dlsmsv1.UsageBy_USAGE_BY_WEEKDAY_HOUR,
	}
}

// usageTimes measures the report of the year, and checks that it has all reservations.
func (b *bench) usageTimes(ctx context.Context, librarian *e2e.Client, name string, made int64) error {
	const reports = 9
	var times []time.Duration
	for range reports {
		began := time.Now()
		usage, err := librarian.Report.GetUsage(ctx, yearOf())
		if err != nil {
			return fmt.Errorf("report of a year: %w", err)
		}
		times = append(times, time.Since(began))
		var counted int64
		for _, row := range usage.GetRows() {
			counted += int64(row.GetReservations())
		}
		if counted != made {
			b.report.fault("the report of the year has %d reservations, the table %d", counted, made)
		}
	}
	slices.Sort(times)
	worst := times[len(times)-1]
	b.report.goal(name+": report by weekday and hour, the slowest of 9", "≤ 1 s", millis(worst), worst <= time.Second)
	return nil
}

// besideReports compares GetSeats alone with GetSeats while reports are made without a pause, and then
// while all reservations are exported.
func (b *bench) besideReports(
	ctx context.Context, year *subject, librarian *e2e.Client, name string, made int64,
) error {
	before, err := year.memory("VmHWM")
	if err != nil {
		return err
	}
	for _, beside := range []struct {
		scenario string
		work     func(context.Context) error
	}{
		{"reports", func(ctx context.Context) error {
			_, err := librarian.Report.GetUsage(ctx, yearOf())
			return err
		}},
		{"an export", func(ctx context.Context) error { return b.exportYear(ctx, librarian, name, made) }},
	} {
		reads := load{
			method: getSeats, request: sameMessage(&dlsmsv1.GetSeatsRequest{Branch: "main"}),
			clients: 20, rps: 200, warm: b.warm, measure: 2 * b.measure,
		}
		title := "GetSeats of a branch, 200 a second, beside " + beside.scenario
		if err := b.besideWork(ctx, year, title, reads, beside.work); err != nil {
			return err
		}
	}
	after, err := year.memory("VmHWM")
	if err != nil {
		return err
	}
	b.report.goal(name+": memory of a replica that reports and an export add", "≤ 100 MiB", mebibytes(after-before),
		after-before <= 100<<20)
	return nil
}

// besideWork runs a load alone, and then while work is repeated. It reports the ratio of the P99.
func (b *bench) besideWork(
	ctx context.Context, s *subject, title string, l load, work func(context.Context) error,
) error {
	var p99 [2]time.Duration
	for i, scenario := range []string{title + " (alone)", title} {
		working, stop := context.WithCancel(ctx)
		worked := make(chan error, 1)
		go func() {
			for i > 0 && working.Err() == nil {
				if err := work(ctx); err != nil {
					worked <- err
					return
				}
			}
			worked <- nil
		}()
		measured, err := l.run(ctx, s)
		stop()
		if err := errors.Join(err, <-worked, measured.failure()); err != nil {
			return fmt.Errorf("%s: %w", scenario, err)
		}
		b.report.add(summary(scenario, l.clients, s, []sample{measured}))
		p99[i] = measured.percentile(99)
		b.progress("%s: P99 %s", scenario, millis(p99[i]))
	}
	b.report.atMost(title+": P99, divided by that alone", p99[1].Seconds()/p99[0].Seconds(), 1.5)
	return nil
}

// exportYear exports all reservations and reports the rate.
func (b *bench) exportYear(ctx context.Context, librarian *e2e.Client, name string, made int64) error {
	began := time.Now()
	days := yearOf()
	stream, err := librarian.Report.ExportReservations(ctx, &dlsmsv1.ExportReservationsRequest{
		From: days.GetFrom(), To: days.GetTo(),
	})
	if err != nil {
		return err
	}
	lines := int64(-1) // the first line is not a reservation
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("export after %d lines: %w", lines, err)
		}
		for _, c := range part.GetContent() {
			if c == '\n' {
				lines++
			}
		}
	}
	rate := float64(lines) / time.Since(began).Seconds()
	b.report.goal(name+": rows of an export a second, beside reads", "≥ 50,000", fmt.Sprintf("%.0f", rate), rate >= 50_000)
	if lines != made {
		b.report.fault("the export has %d reservations, the table %d", lines, made)
	}
	return nil
}
