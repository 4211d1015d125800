package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// cancelled is a trial. It verifies that a flood of cancelled bookings does not make the replicas
// close their connections to Postgres, and does not slow down other users.
//
// For comparison, it measures a second flood, the control: health watches, which do not use
// Postgres and never end by themselves. The control slows down users too, because nginx opens a
// connection to a replica for each call, and because the processors are busy.
//
// The trial repeats the flood of bookings with a Postgres that answers slowly. There, a replica
// that closes a connection waits long for a new one.
func cancelled(ctx context.Context, l *trialRun) error {
	const rest = 5 * trialRest
	normal := loadOptions{users: trialUsers, rest: rest}
	slow := loadOptions{users: trialUsers, rest: rest, slowPostgres: true}
	return errors.Join(
		l.withSteadyLoad(ctx, normal, func(s *system, load *steady, before []call) error {
			return l.floods(ctx, s, load, before, "", watches, bookings)
		}),
		l.withSteadyLoad(ctx, slow, func(s *system, load *steady, before []call) error {
			return l.floods(ctx, s, load, before, ", a slow Postgres", bookings)
		}))
}

// flood is a kind of call that is made in large numbers.
type flood struct {
	name string
	// control reports that the flood is only for comparison: it has no goal.
	control bool
	// next returns call number n of a visitor. No other visitor uses this seat.
	next func(n int, visitor *e2e.Client, seat int64) request
}

var (
	watches = flood{"watches of the health", true, func(_ int, visitor *e2e.Client, _ int64) request {
		return request{healthpb.Health_Watch_FullMethodName, visitor.Token, &healthpb.HealthCheckRequest{}}
	}}
	bookings = flood{"bookings", false, func(n int, visitor *e2e.Client, seat int64) request {
		start := time.Now().Add(time.Duration(24+n%200) * time.Hour)
		create := &dlsmsv1.CreateReservationRequest{
			SeatId: seat, StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)),
		}
		return request{dlsmsv1.ReservationService_CreateReservation_FullMethodName, visitor.Token, create}
	}}
)

// floods makes a flood of each of these kinds of call, one after the other. The parameter where
// describes the system in the results.
func (l *trialRun) floods(
	ctx context.Context, s *system, load *steady, before []call, where string, kinds ...flood,
) error {
	const visitors = 2000
	crowd, err := s.crowd(ctx, "flood", visitors, 1)
	if err != nil {
		return err
	}
	seats, err := s.addBranch(ctx, "flood", visitors)
	if err != nil {
		return err
	}
	for _, f := range kinds {
		next := func(n int) request { return f.next(n/visitors, crowd[n%visitors], seats[n%visitors]) }
		if err := l.flood(ctx, f, where, next, s, load, before); err != nil {
			return err
		}
	}
	var booked int
	err = s.db.QueryRow(ctx, `
		SELECT count(*) FROM reservations r JOIN users u ON u.id = r.user_id
		WHERE u.student_id LIKE 'flood%'`).Scan(&booked)
	if err != nil {
		return err
	}
	l.logf("%d cancelled bookings were made", booked)
	if booked == 0 {
		return errors.New("no cancelled booking reached Postgres: the run proves nothing")
	}
	return l.lostBookings(ctx, s, load, "other users, with cancelled calls"+where)
}

// flood makes calls, cancels each within 3 ms, and measures the effect on the users of the load.
// The parameter before has calls of the load without a flood, for comparison.
func (l *trialRun) flood(
	ctx context.Context, f flood, where string, next func(n int) request, s *system, load *steady, before []call,
) error {
	const rate, cancelTime, goal, conns = 5000, 3 * time.Millisecond, 2, 8
	const pools = replicas * (100 + 9) // DB_MAX_CONNS, and 9 other connections of each replica
	duration := l.scaled(time.Minute)
	l.logf("%d %s a second for %s, each cancelled within %s", rate, f.name, duration, cancelTime)
	clients, err := newCancelClients(ctx, s.Addr(), conns)
	if err != nil {
		return err
	}
	defer clients.close()
	flooding, stop := context.WithTimeout(ctx, duration)
	defer stop()
	most, watched := s.mostConnections(flooding)
	opened, err := s.opened(ctx)
	if err != nil {
		return err
	}
	from := load.since()
	cancelAfter := func() time.Duration { return time.Duration(l.rng.Int64N(int64(cancelTime))) }
	sent, err := clients.run(flooding, rate, next, cancelAfter)
	if err != nil {
		return fmt.Errorf("after %d %s: %w", sent, f.name, err)
	}
	<-watched
	after, err := s.opened(ctx)
	if err != nil {
		return err
	}
	calls := load.between(from, load.since())
	title := fmt.Sprintf("%d %s, %d a second, cancelled within %s%s (%d were done before): ",
		sent, f.name, rate, cancelTime, where, clients.done())
	bound := fmt.Sprintf("≤ %d", pools)
	l.row(title+"most connections to Postgres", bound, 0 < *most && *most <= pools, "%d", *most)
	l.row(title+"new connections to Postgres", bound, after-opened <= pools, "%d", after-opened)
	ratio, summary := slowdown(calls, before)
	bound = fmt.Sprint("≤ ", goal)
	if f.control {
		bound = "none: the control"
	}
	l.row(title+"P99 of other users, relative to that before", bound, ratio <= goal || f.control, "%s", summary)
	l.failedCalls(title+"other users", calls)
	return nil
}

// opened returns the number of connections to Postgres that were opened so far. A replica that
// closes a connection because of a cancelled call opens a new one.
func (s *system) opened(ctx context.Context) (n int, err error) {
	err = s.db.QueryRow(ctx, `SELECT sessions FROM pg_stat_database WHERE datname = current_database()`).Scan(&n)
	return n, err
}

// mostConnections counts the connections between the replicas and Postgres until ctx ends, and then
// closes over. After that, most points to the largest count.
func (s *system) mostConnections(ctx context.Context) (most *int, over <-chan struct{}) {
	most = new(int)
	done := make(chan struct{})
	go func() {
		defer close(done)
		every(ctx, 100*time.Millisecond, func() {
			const count = `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dlsms'`
			var n int
			if err := s.db.QueryRow(ctx, count).Scan(&n); err == nil {
				*most = max(*most, n)
			}
		})
	}()
	return most, done
}
