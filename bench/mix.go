package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/metadata"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// share is the percentage of one kind of call in the mix.
type share struct {
	name    string
	percent int
}

// mixed has the shares of the kinds of calls, as in real use. Each client makes one call a second.
var mixed = []share{{"reads", 90}, {"bookings", 4}, {"cancels", 4}, {"logins", 2}}

// mix measures all kinds of calls together, at a rate that password hashing allows.
func (b *bench) mix(ctx context.Context) error {
	seats, err := b.ours.seats(ctx)
	if err != nil {
		return err
	}
	slotsOf := map[*subject]*slots{}
	for _, s := range []*subject{b.ours, b.limit} {
		students, err := s.addUsers(ctx, "mixer-", 5000)
		if err != nil {
			return err
		}
		if slotsOf[s], err = newSlots(seats, students, time.Now()); err != nil {
			return err
		}
	}
	for _, clients := range b.readClients {
		samples := map[*subject][][]sample{}
		for round := range b.rounds {
			for i := range 2 {
				s := [2]*subject{b.ours, b.limit}[(i+round)%2]
				kinds, err := b.mixOnce(ctx, s, slotsOf[s], clients)
				if err != nil {
					return fmt.Errorf("mix on %s: %w", s.name, err)
				}
				b.progress(
					"mix, %d clients, %s, round %d of %d: P99 of reads %s, bookings %s, cancels %s, logins %s",
					clients, s.name, round+1, b.rounds,
					millis(kinds[0].percentile(99)), millis(kinds[1].percentile(99)),
					millis(kinds[2].percentile(99)), millis(kinds[3].percentile(99)),
				)
				samples[s] = append(samples[s], kinds)
			}
		}
		for _, s := range []*subject{b.ours, b.limit} {
			for k, kind := range mixed {
				var of []sample
				for _, kinds := range samples[s] {
					if err := kinds[k].failure(); err != nil {
						b.report.fault("mix with %d clients on %s, %s: %v", clients, s.name, kind.name, err)
					}
					kinds[k].cpu = cpuTimes{} // the measured CPU is that of all kinds together
					of = append(of, kinds[k])
				}
				b.report.add(summary("mix, "+kind.name, clients, s, of))
			}
		}
	}
	return nil
}

// mixOnce runs all kinds of load against a subject concurrently.
func (b *bench) mixOnce(ctx context.Context, s *subject, d *slots, clients int) ([]sample, error) {
	rate := func(k int) int { return clients * mixed[k].percent / 100 }
	seconds := int((b.warm + b.measure).Seconds()) + 2
	made := int64(rate(1) * seconds)
	first, err := d.take(made)
	if err != nil {
		return nil, err
	}
	requests := make([]*dlsmsv1.CreateReservationRequest, made)
	for i := range requests {
		requests[i] = d.request(first + int64(i))
	}
	cancels, signCancel, err := b.toCancel(ctx, s, d, int64(rate(2)*seconds))
	if err != nil {
		return nil, err
	}
	loads := []load{
		b.readLoad(0),
		{method: createReservation, request: cycle(requests), sign: func(i int64) *metadata.MD { return d.sign(first + i) }},
		{method: dlsmsv1.ReservationService_CancelReservation_FullMethodName, request: cycle(cancels), sign: signCancel},
		{method: loginMethod, request: cycle(demoLogins())},
	}
	samples := make([]sample, len(loads))
	errs := make([]error, len(loads))
	var all sync.WaitGroup
	for k, l := range loads {
		l.warm, l.measure, l.rps = b.warm, b.measure, rate(k)
		l.clients = rate(k)
		all.Go(func() { samples[k], errs[k] = l.run(ctx, s) })
	}
	all.Wait()
	return samples, errors.Join(errs...)
}

// toCancel books n slots. It returns the requests that cancel the bookings, and the function that
// returns the metadata of each request.
func (b *bench) toCancel(
	ctx context.Context, s *subject, d *slots, n int64,
) ([]*dlsmsv1.CancelReservationRequest, func(int64) *metadata.MD, error) {
	first, err := d.take(n)
	if err != nil {
		return nil, nil, err
	}
	reservations := dlsmsv1.NewReservationServiceClient(s.conn)
	cancels := make([]*dlsmsv1.CancelReservationRequest, n)
	var booking errgroup.Group
	booking.SetLimit(8)
	for i := range cancels {
		booking.Go(func() error {
			number := first + int64(i)
			made, err := reservations.CreateReservation(metadata.NewOutgoingContext(ctx, *d.sign(number)), d.request(number))
			cancels[i] = &dlsmsv1.CancelReservationRequest{ReservationId: made.GetReservation().GetId()}
			return err
		})
	}
	return cancels, func(i int64) *metadata.MD { return d.sign(first + i) }, booking.Wait()
}
