package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// redisUnavailable is a trial. It verifies that calls succeed, and stay fast, without Redis.
//
// Then it measures a control, for comparison: a build without the circuit breaker for Redis. In
// this build each call waits for a stopped Redis, so the control must miss the goal.
func redisUnavailable(ctx context.Context, l *trialRun) error {
	n := l.times(100)
	options := loadOptions{users: trialUsers, rest: trialRest}
	err := l.withSteadyLoad(ctx, options, func(s *system, load *steady, _ []call) error {
		title := fmt.Sprintf("Redis killed, stopped or flushed %d times", n)
		without, with, err := l.loseRedis(ctx, s, load, n, killed(cache), stopped(cache), flushed)
		if err != nil {
			return err
		}
		l.failedCalls(title, append(without, with...))
		ratio, summary := slowdown(without, with)
		l.row(title+": P99, relative to that with Redis", "≤ 2", ratio <= maxSlowdownWithoutRedis, "%s", summary)
		return l.lostBookings(ctx, s, load, title)
	})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dlsms-control-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l.logf("the control: replicas without the circuit breaker, Redis stopped")
	binary, err := noBreaker.build(ctx, dir)
	if err != nil {
		return err
	}
	options.binary = binary
	return l.withSteadyLoad(ctx, options, func(s *system, load *steady, _ []call) error {
		without, with, err := l.loseRedis(ctx, s, load, max(1, n/10), stopped(cache))
		if err != nil {
			return err
		}
		ratio, summary := slowdown(without, with)
		l.row("Redis stopped, replicas without the circuit breaker: P99, relative to that with Redis", "> 2: the control",
			ratio > maxSlowdownWithoutRedis, "%s", summary)
		return nil
	})
}

// maxSlowdownWithoutRedis bounds the P99 without Redis, relative to the P99 with Redis.
const maxSlowdownWithoutRedis = 2

// noBreaker is the change for the control: the circuit breaker never stops requests to Redis.
var noBreaker = canary{name: "no breaker", changes: []change{
	code("server/edge", `func \(\w+ \*Breaker\) Allow\((\w+) time\.Duration\) bool \{`, `$0
	if $1 > 0 {
		return true
	}`),
}}

// loseRedis makes Redis unavailable n times, for one second each, in the given ways in turn. Then
// it ends the load. The result without has the calls that were in progress during such a second.
// The result with has all other calls.
func (l *trialRun) loseRedis(
	ctx context.Context, s *system, load *steady, n int, ways ...injector,
) (without, with []call, err error) {
	from := load.since()
	var outages []span
	for i := range n {
		sleep(ctx, time.Second)
		start := load.since()
		heal, err := ways[i%len(ways)](ctx, s, l.rng)
		if err != nil {
			return nil, nil, err
		}
		sleep(ctx, time.Second)
		if err := heal(ctx); err != nil {
			return nil, nil, err
		}
		outages = append(outages, span{start, load.since()})
		if (i+1)%10 == 0 {
			l.logf("unavailable %d times", i+1)
		}
	}
	load.end() // so that calls in progress count too
	for _, c := range load.between(from, load.since()) {
		if slices.ContainsFunc(outages, func(s span) bool { return s.touches(c.at, c.at+c.took) }) {
			without = append(without, c)
		} else {
			with = append(with, c)
		}
	}
	return without, with, nil
}
