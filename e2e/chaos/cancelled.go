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

// cancelled: masses of calls whose clients go away cost neither connections nor others their time. The same masses of calls that do nothing,
// and never end by themselves, are the control: what others suffer from those, they suffer from nginx, which opens a connection to a replica
// for each, and from the processors. With a slow Postgres it is its connections that there is too little of, and whoever closes one waits long for another.
func cancelled(ctx context.Context, l *trialRun) error {
	const rest = 5 * trialRest
	return errors.Join(
		l.withSteadyLoad(ctx, loadOptions{users: trialUsers, rest: rest}, func(s *system, load *steady, before []call) error {
			return l.floods(ctx, s, load, before, "", watches, bookings)
		}),
		l.withSteadyLoad(ctx, loadOptions{users: trialUsers, rest: rest, slowPostgres: true}, func(s *system, load *steady, before []call) error {
			return l.floods(ctx, s, load, before, ", a slow Postgres", bookings)
		}))
}

// flood is a mass of calls.
type flood struct {
	of string
	// control says that it is only for comparison: nothing depends on how it goes.
	control bool
	// next is the n-th call of one who books a seat of their own.
	next func(n int, visitor *e2e.Client, seat int64) request
}

var (
	watches = flood{"watches of the health", true, func(_ int, visitor *e2e.Client, _ int64) request {
		return request{healthpb.Health_Watch_FullMethodName, visitor.Token, &healthpb.HealthCheckRequest{}}
	}}
	bookings = flood{"bookings", false, func(n int, visitor *e2e.Client, seat int64) request {
		start := time.Now().Add(time.Duration(24+n%200) * time.Hour)
		return request{dlsmsv1.ReservationService_CreateReservation_FullMethodName, visitor.Token, &dlsmsv1.CreateReservationRequest{
			SeatId: seat, StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)),
		}}
	}}
)

// floods has a crowd make calls that are each cancelled soon, of one kind after the other.
func (l *trialRun) floods(ctx context.Context, s *system, load *steady, before []call, where string, kinds ...flood) error {
	const visitors = 2000
	crowd, err := s.crowd(ctx, "fickle", visitors, 1)
	if err != nil {
		return err
	}
	seats, err := s.addBranch(ctx, "fickle", visitors)
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
	err = s.db.QueryRow(ctx, `SELECT count(*) FROM reservations r JOIN users u ON u.id = r.user_id WHERE u.student_id LIKE 'fickle%'`).Scan(&booked)
	if err != nil {
		return err
	}
	l.logf("%d bookings whose users had gone were made", booked)
	if booked == 0 {
		return errors.New("of the cancelled bookings none got as far as Postgres: that is no test")
	}
	return l.kept(ctx, s, load, "others, with cancelled calls"+where)
}

// flood makes calls that are each cancelled soon, and tells what the users of the load see of it.
func (l *trialRun) flood(ctx context.Context, f flood, where string, next func(n int) request, s *system, load *steady, before []call) error {
	const rate, leaves, goal, conns = 5000, 3 * time.Millisecond, 2, 8
	const pools = replicas * (100 + 6)
	lasts := l.lasting(time.Minute)
	l.logf("%d %s a second for %s, each cancelled within %s", rate, f.of, lasts, leaves)
	cancelClients, err := newCancelClients(ctx, s.Addr(), conns)
	if err != nil {
		return err
	}
	defer cancelClients.close()
	fickle, stop := context.WithTimeout(ctx, lasts)
	defer stop()
	most, watched := s.mostConnections(fickle)
	opened, err := s.opened(ctx)
	if err != nil {
		return err
	}
	from := load.since()
	sent, err := cancelClients.run(fickle, rate, next, func() time.Duration { return time.Duration(l.rng.Int64N(int64(leaves))) })
	if err != nil {
		return fmt.Errorf("after %d %s: %w", sent, f.of, err)
	}
	<-watched
	after, err := s.opened(ctx)
	if err != nil {
		return err
	}
	calls := load.between(from, load.since())
	what := fmt.Sprintf("%d %s, %d a second, cancelled within %s%s (%d were done by then): ", sent, f.of, rate, leaves, where, cancelClients.done())
	l.row(what+"connections to Postgres at most", fmt.Sprintf("≤ %d", pools), 0 < *most && *most <= pools, "%d", *most)
	l.row(what+"connections to Postgres that were opened", fmt.Sprintf("≤ %d", pools), after-opened <= pools, "%d", after-opened)
	ratio, summary := slowdown(calls, before)
	bound := fmt.Sprint("≤ ", goal)
	if f.control {
		bound = "none: the control"
	}
	l.row(what+"P99 of others, of that before", bound, ratio <= goal || f.control, "%s", summary)
	l.calls(what+"others", calls)
	return nil
}

// opened returns how many connections to Postgres there have been. Those that are closed since a call was cancelled are replaced.
func (s *system) opened(ctx context.Context) (n int, err error) {
	err = s.db.QueryRow(ctx, `SELECT sessions FROM pg_stat_database WHERE datname = current_database()`).Scan(&n)
	return n, err
}

// mostConnections watches how many connections the replicas have to Postgres, until ctx ends.
func (s *system) mostConnections(ctx context.Context) (most *int, over <-chan struct{}) {
	most = new(int)
	done := make(chan struct{})
	go func() {
		defer close(done)
		every(ctx, 100*time.Millisecond, func() {
			var n int
			if err := s.db.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dlsms'`).Scan(&n); err == nil {
				*most = max(*most, n)
			}
		})
	}()
	return most, done
}
