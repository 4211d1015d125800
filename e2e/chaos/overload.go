package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// visitor books one hour after the other on a seat of its own, one call at a time.
type visitor struct {
	*e2e.Client

	seat   int64
	booked int // number of hours
}

// next books the next hour. If the last booking was refused, next tries the same hour again.
func (v *visitor) next(ctx context.Context, first time.Time) error {
	start := first.Add(time.Duration(v.booked) * time.Hour)
	_, err := v.Reservations.CreateReservation(ctx, &dlsmsv1.CreateReservationRequest{
		SeatId: v.seat, StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)),
		RequestId: fmt.Sprint(v.booked),
	})
	if err == nil {
		v.booked++
	}
	return err
}

// openLoad makes calls of visitors, at a rate that does not depend on the answers (open loop).
type openLoad struct {
	idle  chan *visitor
	first time.Time // first hour that visitors book
}

// newOpenLoad adds the visitors and their seats.
func (s *system) newOpenLoad(ctx context.Context, visitors int) (*openLoad, error) {
	const conns = 16
	crowd, err := s.crowd(ctx, "visitor", visitors, conns)
	if err != nil {
		return nil, err
	}
	seats, err := s.addBranch(ctx, "overload", visitors)
	if err != nil {
		return nil, err
	}
	g := &openLoad{idle: make(chan *visitor, visitors), first: time.Now().Add(time.Hour).Truncate(time.Hour)}
	for i, c := range crowd {
		g.idle <- &visitor{Client: c, seat: seats[i]}
	}
	return g, nil
}

// paced calls the function do at this rate (calls a second) until ctx ends. It catches up after a
// delay.
func paced(ctx context.Context, rate float64, do func(n int)) {
	began, n := time.Now(), 0
	every(ctx, time.Millisecond, func() {
		for due := int(time.Since(began).Seconds() * rate); n < due; n++ {
			do(n)
		}
	})
}

// deadline is the deadline of a call. The server sets the same deadline for calls that have none.
const deadline = 5 * time.Second

// run starts calls at this rate (calls a second) for this duration, even if earlier calls have not
// returned. The time that a call took begins when the call was due, so it includes a late start.
//
// run returns when it has started the last call. The function wait then waits until all calls have
// returned, and returns them. starved is the number of calls that were not made because no visitor
// was idle.
func (g *openLoad) run(
	ctx context.Context, rate float64, duration time.Duration,
) (wait func() []call, starved int) {
	ctx, stop := context.WithTimeout(ctx, duration)
	defer stop()
	var mu sync.Mutex
	var all sync.WaitGroup
	var calls []call
	began := time.Now()
	paced(ctx, rate, func(n int) {
		var v *visitor
		select {
		case v = <-g.idle:
		default:
			starved++
			return
		}
		at := time.Duration(float64(n) / rate * float64(time.Second))
		all.Go(func() {
			err := g.call(context.WithoutCancel(ctx), v)
			took := time.Since(began) - at
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, call{at: at, took: took, err: err})
		})
	})
	return func() []call {
		all.Wait()
		return calls
	}, starved
}

func (g *openLoad) call(ctx context.Context, v *visitor) error {
	ctx, end := context.WithTimeout(ctx, deadline)
	defer end()
	err := v.next(ctx, g.first)
	g.idle <- v
	return err
}

// runClosed makes calls of several visitors at once. Each visitor makes a call as soon as the last
// is answered (closed loop). runClosed returns the number of successful calls a second.
func (g *openLoad) runClosed(ctx context.Context, visitors int, duration time.Duration) float64 {
	ctx, stop := context.WithTimeout(ctx, duration)
	defer stop()
	var all sync.WaitGroup
	var served atomic.Int64
	for range visitors {
		all.Go(func() {
			for ctx.Err() == nil {
				if g.call(context.WithoutCancel(ctx), <-g.idle) == nil {
					served.Add(1)
				}
			}
		})
	}
	all.Wait()
	return float64(served.Load()) / duration.Seconds()
}

// classify returns the calls that succeeded, the calls that were refused as OVERLOADED, and the
// number of the other calls by code.
func classify(calls []call) (served, refused []call, others map[codes.Code]int) {
	others = map[codes.Code]int{}
	for _, c := range calls {
		switch refusal := e2e.RefusalOf(c.err); {
		case c.err == nil:
			served = append(served, c)
		case refusal.Reason == "OVERLOADED":
			refused = append(refused, c)
		default:
			others[refusal.Code]++
		}
	}
	return served, refused, others
}

// overload is a trial. It verifies that the system still serves about its peak rate while calls
// arrive at ten times that rate.
func overload(ctx context.Context, l *trialRun) (err error) {
	s, err := l.startSlow(ctx, map[string]string{"DB_MIN_CONNS": "8", "DB_MAX_CONNS": "8"})
	if err != nil {
		return err
	}
	defer func() {
		if stopped := s.stop(); err == nil {
			err = stopped
		}
	}()
	g, err := s.newOpenLoad(ctx, 4000)
	if err != nil {
		return err
	}
	const closed, step = 96, 10 * time.Second
	g.runClosed(ctx, closed, warmUp)
	peak := g.runClosed(ctx, closed, step)
	l.logf("%d clients: %.0f calls a second, the peak", closed, peak)
	wait, starved := g.run(ctx, 0.7*peak, step)
	easy := wait()
	served, _, others := classify(easy)
	usual := quantile(served, 0.99)
	l.logf("70%% of the peak: %d of %d served, P99 %s, others %v, %d starved",
		len(served), len(easy), usual, others, starved)

	duration := l.scaled(5 * time.Minute)
	l.logf("ten times the peak for %s", duration)
	wait, starved = g.run(ctx, 10*peak, duration)
	waitAfter, starvedAfter := g.run(ctx, 0.7*peak, step) // while the last calls of the overload are in progress
	calls, after := wait(), waitAfter()
	served, refused, others := classify(calls)
	title := fmt.Sprintf("10 times the capacity for %s: ", duration)
	if starved > len(calls)/100 || starvedAfter > 0 || len(after) == 0 {
		return fmt.Errorf("no visitor was idle %d times during the overload and %d times after it: the run proves nothing",
			starved, starvedAfter)
	}
	goodput := float64(len(served)) / duration.Seconds() / peak
	const leastGoodput, maxSlowdown, maxRefusal = 0.85, 3, 20 * time.Millisecond
	l.row(title+"goodput, relative to the peak", "≥ 0.85", goodput >= leastGoodput,
		"%.2f (%d of %d calls)", goodput, len(served), len(calls))
	slow := quantile(served, 0.99)
	ratio := slow.Seconds() / usual.Seconds()
	l.row(title+"P99 of the served calls, relative to that at 70% load", "≤ 3", ratio <= maxSlowdown,
		"%.2f (%s against %s)", ratio, slow.Round(time.Millisecond), usual.Round(time.Millisecond))
	l.row(title+"P99 of a refusal", "≤ 20 ms", quantile(refused, 0.99) <= maxRefusal, "%s, the median %s, of %d",
		quantile(refused, 0.99).Round(time.Millisecond), quantile(refused, 0.5).Round(time.Millisecond), len(refused))
	l.row(title+"answers other than success and OVERLOADED", "0", len(others) == 0, "%v", others)

	var lastBad time.Duration
	for _, c := range after {
		if c.err != nil || c.took > maxSlowdown*usual {
			lastBad = max(lastBad, c.at)
		}
	}
	const maxAfter = 5 * time.Second
	l.row(title+"time until all calls are as before", "≤ 5 s", lastBad <= maxAfter,
		"%s", lastBad.Round(100*time.Millisecond))
	l.logErrors(s, strings.TrimSuffix(title, ": "))
	return nil
}
