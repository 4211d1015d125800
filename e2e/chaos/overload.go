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

// visitor is one of a crowd, who books a seat of their own for one hour after the other, one call at a time.
type visitor struct {
	*e2e.Client

	seat   int64
	booked int // hours
}

// next books the next hour, or the one that was not booked the last time.
func (v *visitor) next(ctx context.Context, first time.Time) error {
	start := first.Add(time.Duration(v.booked) * time.Hour)
	_, err := v.Reservations.CreateReservation(ctx, &dlsmsv1.CreateReservationRequest{
		SeatId: v.seat, StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)), RequestId: fmt.Sprint(v.booked),
	})
	if err == nil {
		v.booked++
	}
	return err
}

// gate is where a crowd comes in.
type openLoad struct {
	idle  chan *visitor
	first time.Time // that they book
}

func (s *system) openLoad(ctx context.Context, visitors int) (*openLoad, error) {
	const conns = 16
	crowd, err := s.crowd(ctx, "visitor", visitors, conns)
	if err != nil {
		return nil, err
	}
	seats, err := s.addBranch(ctx, "gate", visitors)
	if err != nil {
		return nil, err
	}
	g := &openLoad{idle: make(chan *visitor, visitors), first: time.Now().Add(time.Hour).Truncate(time.Hour)}
	for i, c := range crowd {
		g.idle <- &visitor{Client: c, seat: seats[i]}
	}
	return g, nil
}

// paced does something so many times a second until ctx ends, and makes up for what it was too late for.
func paced(ctx context.Context, rate float64, do func(n int)) {
	began, n := time.Now(), 0
	every(ctx, time.Millisecond, func() {
		for due := int(time.Since(began).Seconds() * rate); n < due; n++ {
			do(n)
		}
	})
}

// deadline of a call, as the server has it where a client gives none.
const deadline = 5 * time.Second

// arrive has visitors come at a rate, whether or not those before them are served: so how long a call takes is counted from when it was due,
// and a system that stands still is seen to. It returns when the last of them has come, and what waits for the last to have left and returns
// all their calls; starved is how many there was nobody left for.
func (g *openLoad) arrive(ctx context.Context, rate float64, lasts time.Duration) (leave func() []call, starved int) {
	ctx, stop := context.WithTimeout(ctx, lasts)
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

// saturate has so many visitors call as fast as they are served, and returns how many calls a second are.
func (g *openLoad) runClosed(ctx context.Context, visitors int, lasts time.Duration) float64 {
	ctx, stop := context.WithTimeout(ctx, lasts)
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
	return float64(served.Load()) / lasts.Seconds()
}

// sorted out: those that succeeded, those that were refused, and what else there was.
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

// overload: ten times what can be served comes, and what can be served is.
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
	g, err := s.openLoad(ctx, 4000)
	if err != nil {
		return err
	}
	const closed, step = 96, 10 * time.Second
	g.runClosed(ctx, closed, warmUp)
	peak := g.runClosed(ctx, closed, step)
	l.logf("%d clients get %.0f calls a second, the most that there are", closed, peak)
	leave, starved := g.arrive(ctx, 0.7*peak, step)
	easy := leave()
	served, _, others := classify(easy)
	usual := quantile(served, 0.99)
	l.logf("at 70%% of it: %d of %d served, P99 %s, others %v, %d starved", len(served), len(easy), usual, others, starved)

	lasts := l.lasting(5 * time.Minute)
	l.logf("ten times as many for %s", lasts)
	leave, starved = g.arrive(ctx, 10*peak, lasts)
	leaveAfter, starvedAfter := g.arrive(ctx, 0.7*peak, step) // while the last of the many are still there
	calls, after := leave(), leaveAfter()
	served, refused, others := classify(calls)
	const tenfold = "10 times the capacity for %s: "
	what := fmt.Sprintf(tenfold, lasts)
	if starved > len(calls)/100 || starvedAfter > 0 || len(after) == 0 {
		return fmt.Errorf("the load ran out of visitors %d times, and %d times after it: that is no test", starved, starvedAfter)
	}
	goodput := float64(len(served)) / lasts.Seconds() / peak
	const leastGoodput, mostSlower, mostRefusal = 0.85, 3, 20 * time.Millisecond
	l.row(what+"goodput, of the peak", "≥ 0.85", goodput >= leastGoodput, "%.2f (%d of %d calls)", goodput, len(served), len(calls))
	slower := quantile(served, 0.99).Seconds() / usual.Seconds()
	l.row(what+"P99 of those served, of that at 70% load", "≤ 3", slower <= mostSlower, "%.2f (%s to %s)", slower, quantile(served, 0.99).Round(time.Millisecond), usual.Round(time.Millisecond))
	l.row(what+"P99 of a refusal", "≤ 20 ms", quantile(refused, 0.99) <= mostRefusal, "%s, the median %s, of %d", quantile(refused, 0.99).Round(time.Millisecond), quantile(refused, 0.5).Round(time.Millisecond), len(refused))
	l.row(what+"anything else than done or OVERLOADED", "0", len(others) == 0, "%v", others)

	var lastBad time.Duration
	for _, c := range after {
		if c.err != nil || c.took > mostSlower*usual {
			lastBad = max(lastBad, c.at)
		}
	}
	const mostAfter = 5 * time.Second
	l.row(what+"all as before after it", "≤ 5 s", lastBad <= mostAfter, "%s", lastBad.Round(100*time.Millisecond))
	l.quiet(s, strings.TrimSuffix(what, ": "))
	return nil
}
