package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jhump/protoreflect/dynamic" //nolint:staticcheck // ghz asks for it
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

const createReservation = dlsmsv1.ReservationService_CreateReservation_FullMethodName

// maxBookingRate is a rate in bookings a second that no measured machine has reached. A load
// prepares enough requests for this rate.
const maxBookingRate = 6000

func (b *bench) bookingsPerLoad() int64 {
	return int64((b.warm + b.measure + time.Second).Seconds() * maxBookingRate)
}

// bookingLoad returns a load that makes the next bookings of d, which do not conflict. It makes the
// requests now, before the load runs, so that the measurement does not include this work.
func (b *bench) bookingLoad(d *slots, clients int) (load, error) {
	n := b.bookingsPerLoad()
	first, err := d.take(n)
	if err != nil {
		return load{}, err
	}
	requests := make([]*dlsmsv1.CreateReservationRequest, n)
	for i := range requests {
		requests[i] = d.request(first + int64(i))
	}
	made := cycle(requests)
	return load{
		method: createReservation, clients: clients, warm: b.warm, measure: b.measure,
		request: func(i int64) (*dynamic.Message, error) {
			if i >= n {
				return nil, fmt.Errorf("more than %d bookings a second: raise maxBookingRate", maxBookingRate)
			}
			return made(i)
		},
		sign: func(i int64) *metadata.MD { return d.sign(first + i) },
	}, nil
}

// newSlotsFor adds a branch and users to each subject, and returns the bookings that they can make
// without conflicts. They are enough for this number of comparisons.
func (b *bench) newSlotsFor(
	ctx context.Context, branch string, subjects [2]*subject, comparisons int,
) (slotsOf map[*subject]*slots, err error) {
	slotsOf = map[*subject]*slots{}
	for _, s := range subjects {
		if slotsOf[s], err = b.newSlotsIn(ctx, s, branch, comparisons); err != nil {
			return nil, err
		}
	}
	return slotsOf, nil
}

// newSlotsIn is newSlotsFor for one subject.
func (b *bench) newSlotsIn(ctx context.Context, s *subject, branch string, comparisons int) (*slots, error) {
	const seats = 1000
	needed := int64(comparisons*b.rounds) * b.bookingsPerLoad()
	ids, err := s.addBranch(ctx, branch, seats)
	if err != nil {
		return nil, err
	}
	students, err := s.addUsers(ctx, branch+"-", int(max(needed/10+1, seats)))
	if err != nil {
		return nil, err
	}
	return newSlots(ids, students, time.Now())
}

// bookings measures CreateReservation of free seats.
func (b *bench) bookings(ctx context.Context) error {
	slotsOf, err := b.newSlotsFor(ctx, "booked", [2]*subject{b.ours, b.limit}, len(b.bookClients))
	if err != nil {
		return err
	}
	worst := comparison{rps: 1e9}
	for _, clients := range b.bookClients {
		c, err := b.compare(ctx, "CreateReservation", clients, [2]*subject{b.ours, b.limit}, func(s *subject) (load, error) {
			return b.bookingLoad(slotsOf[s], clients)
		})
		if err != nil {
			return err
		}
		worst.rps, worst.p99 = min(worst.rps, c.rps), max(worst.p99, c.p99)
	}
	b.report.atLeast("CreateReservation: RPS, divided by the limit's", worst.rps, 0.7)
	b.report.atMost("CreateReservation: P99, divided by the limit's", worst.p99, 1.5)
	return nil
}

// stampede measures many clients that book one seat at the same moment.
func (b *bench) stampede(ctx context.Context) error {
	const clients = 500
	students, err := b.ours.addUsers(ctx, "stampede-", clients)
	if err != nil {
		return err
	}
	seats, err := b.ours.addBranch(ctx, "stampede", 1)
	if err != nil {
		return err
	}
	deadlocksBefore, err := b.ours.deadlocks(ctx)
	if err != nil {
		return err
	}
	first := time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	var all []sample
	oneWinner := true
	for round := range b.stampedes {
		start := first.Add(time.Duration(round) * time.Hour)
		l := load{
			method: createReservation, clients: clients, calls: clients,
			request: sameMessage(&dlsmsv1.CreateReservationRequest{
				SeatId: seats[0], StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)),
			}),
			sign:    func(i int64) *metadata.MD { return students.signed[i%clients] },
			allowed: []codes.Code{codes.AlreadyExists},
		}
		s, err := l.run(ctx, b.ours)
		if err != nil {
			return fmt.Errorf("stampede: %w", err)
		}
		b.progress(
			"stampede of %d, round %d of %d: %d won, %d refused, P99 %s", clients, round+1, b.stampedes, s.calls, s.refused,
			millis(s.percentile(99)),
		)
		if err := s.failure(); err != nil {
			b.report.fault("stampede: %v", err)
		}
		oneWinner = oneWinner && s.calls == 1 && s.refused == clients-1
		all = append(all, s)
	}
	f := summary("stampede", clients, b.ours, all)
	b.report.add(f)
	deadlocks, err := b.ours.deadlocks(ctx)
	if err != nil {
		return err
	}
	b.report.goal(
		fmt.Sprintf("stampede of %d, %d times: winners each time", clients, b.stampedes), "1",
		map[bool]string{true: "1", false: "not 1"}[oneWinner], oneWinner,
	)
	b.report.goal(fmt.Sprintf("stampede of %d: P99", clients), "< 250 ms", millis(f.p99), f.p99 < 250*time.Millisecond)
	b.report.goal(
		fmt.Sprintf("stampede of %d: deadlocks", clients), "0", fmt.Sprint(deadlocks-deadlocksBefore),
		deadlocks == deadlocksBefore,
	)
	return nil
}
