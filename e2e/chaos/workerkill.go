package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/dlsms/dlsms/store/storetest"
)

// workersKilled is a trial. Three workers make 100,000 no-shows that are due, while one worker
// after another is killed. Each no-show must happen exactly once.
func workersKilled(ctx context.Context, l *trialRun) (err error) {
	s, err := l.start(ctx, map[string]string{"WORKER_INTERVAL": "1s"})
	if err != nil {
		return err
	}
	defer func() {
		if stopped := s.stop(); err == nil {
			err = stopped
		}
	}()
	for _, r := range s.Replicas {
		if err := r.Stop(ctx); err != nil {
			return err
		}
	}
	const seats = 1000
	each := l.times(100)
	due := seats * each
	l.logf("adding %d reservations whose check-in deadline has passed", due)
	if err := s.addDue(ctx, seats, each); err != nil {
		return err
	}
	if err := s.startAll(ctx); err != nil {
		return err
	}
	began := time.Now()
	left := due
	kills := 0
	lastKill := began // stays if no worker is killed
	for left > 0 {
		if time.Since(began) > 5*time.Minute {
			return fmt.Errorf("%d due reservations are left after five minutes", left)
		}
		sleep(ctx, time.Duration(l.rng.Int64N(int64(500*time.Millisecond))))
		const count = `SELECT count(*) FROM reservations WHERE status = 'CONFIRMED' AND check_in_deadline < now()`
		if err := s.db.QueryRow(ctx, count).Scan(&left); err != nil {
			return err
		}
		if left > due/4 { // no kills in the last quarter, to measure the time without them
			r := s.Replicas[l.rng.IntN(len(s.Replicas))]
			if err := r.Kill(); err != nil {
				return err
			}
			lastKill = time.Now()
			kills++
			if err := r.Start(ctx); err != nil {
				return err
			}
		}
		l.logf("%d left, %d kills", left, kills)
	}
	took, sinceKill := time.Since(began), time.Since(lastKill)
	var once, transitions int
	err = s.db.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE n = 1), sum(n) FROM (
			SELECT count(*) AS n FROM reservation_events WHERE kind = 'NO_SHOW' GROUP BY reservation_id
		) e`).Scan(&once, &transitions)
	if err != nil {
		return err
	}
	title := fmt.Sprintf("%d due rows, three workers, %d killed: ", due, kills)
	l.row(title+"rows with exactly one transition", fmt.Sprint(due), once == due && transitions == due,
		"%d, in %s", once, took.Round(100*time.Millisecond))
	const goal = 5 * time.Second
	l.row(title+"all done after the last kill", "≤ 5 s", sinceKill <= goal, "%s", sinceKill.Round(100*time.Millisecond))
	broken, err := storetest.Violations(ctx, s.Postgres.AdminURL(), 1)
	if err != nil {
		return err
	}
	l.row(title+"violated invariants", "0", len(broken) == 0, "%v", broken)
	l.logErrors(s, strings.TrimSuffix(title, ": "))
	return nil
}

// startAll starts all replicas concurrently.
func (s *system) startAll(ctx context.Context) error {
	var all errgroup.Group
	for _, r := range s.Replicas {
		all.Go(func() error { return r.Start(ctx) })
	}
	return all.Wait()
}

// addDue adds seats with reservations in the past. There is one user for each seat. The parameter
// each is the number of reservations of a seat.
func (s *system) addDue(ctx context.Context, seats, each int) error {
	ids, err := s.addBranch(ctx, "due", seats)
	if err != nil {
		return err
	}
	users, err := s.crowd(ctx, "due", seats, 1)
	if err != nil {
		return err
	}
	var userIDs []int64
	err = s.db.QueryRow(ctx, `SELECT array_agg(id ORDER BY id) FROM users WHERE student_id LIKE 'due%'`).Scan(&userIDs)
	if err != nil || len(userIDs) != len(users) {
		return fmt.Errorf("%d of %d users: %w", len(userIDs), len(users), err)
	}
	if err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		// The guard, a set of triggers, refuses reservations without an event. storetest.HistorySQL
		// adds the events.
		if _, err := tx.Exec(ctx, `SET LOCAL dlsms.guard = 'off'`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, dueSQL, ids, userIDs, each); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, storetest.HistorySQL)
		return err
	}); err != nil {
		return fmt.Errorf("add due reservations: %w", err)
	}
	_, err = s.db.Exec(ctx, `ANALYZE`)
	return err
}

// dueSQL adds $3 reservations in the past for each seat and its user.
const dueSQL = `
	INSERT INTO reservations
		(library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline, created_at)
	SELECT 1, s, u, tstzrange(at, at + interval '20 min'), 'CONFIRMED',
		at - interval '15 min', at + interval '15 min', at - interval '1 h'
	FROM unnest($1::bigint[], $2::bigint[]) p (s, u), generate_series(1, $3) i,
		LATERAL (SELECT date_trunc('hour', now()) - i * interval '30 min' - interval '1 h' AS at) t
	ORDER BY i`
