package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/worker"
)

// fillOld inserts $3 reservations that ended two years ago and before, with two events each. $1 are
// seats, and $2 users.
var fillOld = []string{`
	INSERT INTO reservations (library_id, seat_id, user_id, during, status, version,
		check_in_opens_at, check_in_deadline, created_at, ended_at)
	SELECT 1, ($1::bigint[])[1 + i % cardinality($1::bigint[])], ($2::bigint[])[1 + i % cardinality($2::bigint[])],
		tstzrange(t, t + interval '1 hour'), 'CANCELLED', 2, t, t, t - interval '1 day', t - interval '1 hour'
	FROM generate_series(1, $3::bigint) i,
		LATERAL (SELECT now() - interval '2 years' - (i / cardinality($1::bigint[])) * interval '2 hours' AS t OFFSET 0) x`, `
	INSERT INTO reservation_events (library_id, at, kind, notifies, reservation_id, version, seat_id, user_id, during,
		status, occupies, check_in_opens_at, check_in_deadline, created_at, ended_at)
	SELECT library_id, created_at, CASE v WHEN 1 THEN 'RESERVED' ELSE 'CANCELLED' END, false, id, v, seat_id, user_id,
		during, CASE v WHEN 1 THEN 'CONFIRMED' ELSE 'CANCELLED' END, v = 1, check_in_opens_at, check_in_deadline,
		created_at, CASE v WHEN 2 THEN ended_at END
	FROM reservations, generate_series(1, 2) v
	WHERE ended_at < now() - interval '23 months' AND $1::bigint[] IS NOT NULL AND $2::bigint[] IS NOT NULL
		AND $3::bigint > 0`,
	`ANALYZE`,
}

// retention measures bookings while a worker removes people from many old reservations.
func (b *bench) retention(ctx context.Context) (err error) {
	const rate = 200
	old := b.growth.reservations / 5
	slots, err := b.newSlotsIn(ctx, b.ours, "retained", 2)
	if err != nil {
		return err
	}
	seats, err := b.ours.addBranch(ctx, "old", 1000)
	if err != nil {
		return err
	}
	people, err := b.ours.addUsers(ctx, "old-", 5000)
	if err != nil {
		return err
	}
	b.progress("inserting %d old reservations", old)
	for i, sql := range fillOld {
		args := []any{seats, people.ids, old}
		if i == len(fillOld)-1 {
			args = nil
		}
		if _, err := b.ours.db.Exec(ctx, sql, args...); err != nil {
			return fmt.Errorf("insert old reservations: %w", err)
		}
	}
	db, err := store.Open(ctx, store.Config{
		URL: b.ours.Postgres.DatabaseURL(), MinConns: 1, MaxConns: 1, Policy: library.DefaultPolicy(),
	})
	if err != nil {
		return err
	}
	defer db.Close()
	var moved int
	var took time.Duration
	err = b.beside(ctx, "CreateReservation, 200 a second, while old reservations lose their users", func() (load, error) {
		l, err := b.bookingLoad(slots, 20)
		l.rps = rate
		return l, err
	}, func(ctx context.Context) error {
		began := time.Now()
		ctx, cancel := context.WithTimeout(ctx, b.measure)
		defer cancel()
		worker.New(db, worker.Config{
			Interval: time.Minute, RetentionMonths: 12, Logger: slog.New(slog.DiscardHandler),
		}).Run(ctx)
		took = time.Since(began)
		return b.ours.db.QueryRow(context.WithoutCancel(ctx), `
			SELECT count(*) FROM reservations WHERE anonymous`).Scan(&moved)
	}, 1.5)
	if err != nil {
		return err
	}
	if moved == 0 {
		return errors.New("no old reservation lost its user")
	}
	perSecond := float64(moved) / took.Seconds()
	million := time.Duration(1e6 / perSecond * float64(time.Second))
	name := fmt.Sprintf("retention, with %d old reservations: time for a million, at %.0f a second", old, perSecond)
	b.report.goal(name, "≤ 12 h", million.Round(time.Minute).String(), million <= 12*time.Hour)
	return nil
}
