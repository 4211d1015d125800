package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// This file has the two load generators of the comparison that both protocols share, so that a
// difference between two systems is not one between two tools.

// outcome is the result of one call.
type outcome struct {
	start   time.Duration // from the start of the load: when the call was due, or when it began
	latency time.Duration
	err     error
}

// arrivals returns the times at which an open loop makes its calls: a Poisson process, as of many
// clients that do not know of each other. All systems get the same arrivals.
func arrivals(rate float64, d time.Duration) (due []time.Duration) {
	random := rand.New(rand.NewPCG(1, 2))
	mean := float64(time.Second) / rate
	for at := random.ExpFloat64() * mean; at < float64(d); at += random.ExpFloat64() * mean {
		due = append(due, time.Duration(at))
	}
	return due
}

// maxInFlight bounds the calls in flight of an open loop, and with them its connections. A system
// that reaches it is far behind.
const maxInFlight = 2000

// openLoop makes each call when it is due, whether or not earlier calls have returned. A latency
// counts from the time at which the call was due. So a pause of the system delays all calls that
// were due in the meantime, as it would delay real clients. A closed loop would make no calls then,
// and hide the pause (coordinated omission).
func openLoop(
	ctx context.Context, due []time.Duration, inFlight int, call func(ctx context.Context, n int) error,
) ([]outcome, error) {
	outcomes := make([]outcome, len(due))
	slot := make(chan struct{}, inFlight)
	var calls sync.WaitGroup
	defer calls.Wait()
	began := time.Now()
	for n, at := range due {
		if err := until(ctx, began.Add(at)); err != nil {
			return nil, err
		}
		slot <- struct{}{}
		calls.Go(func() {
			err := call(ctx, n)
			outcomes[n] = outcome{at, time.Since(began) - at, err}
			<-slot
		})
	}
	calls.Wait()
	return outcomes, ctx.Err()
}

// closedLoop has clients that each make their next call as soon as the last one has returned, for
// d. Each call has a number of its own.
func closedLoop(
	ctx context.Context, clients int, d time.Duration, call func(ctx context.Context, n int64) error,
) ([]outcome, error) {
	of := make([][]outcome, clients)
	var next atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i := range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				start := time.Since(began)
				if start >= d {
					return
				}
				err := call(ctx, next.Add(1)-1)
				of[i] = append(of[i], outcome{start, time.Since(began) - start, err})
			}
		})
	}
	all.Wait()
	return slices.Concat(of...), ctx.Err()
}

// sampleOf returns the sample of the calls that were due, or began, between two times from the start
// of the load. An error of any call is a failure.
func sampleOf(outcomes []outcome, from, to time.Duration) sample {
	s := sample{seconds: (to - from).Seconds(), failures: map[string]int{}}
	for _, o := range outcomes {
		switch {
		case o.err != nil:
			s.failed++
			s.failures[o.err.Error()]++
		case o.start >= from && o.start < to:
			s.calls++
			s.latencies = append(s.latencies, o.latency)
		}
	}
	slices.Sort(s.latencies)
	return s
}
