package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// redisGone: nobody needs it. Without the breaker each call would wait for a Redis that stands still: that is the control, which has to miss.
func redisGone(ctx context.Context, l *trialRun) error {
	n := l.times(100)
	err := l.withSteadyLoad(ctx, loadOptions{users: trialUsers, rest: trialRest}, func(s *system, load *steady, _ []call) error {
		what := fmt.Sprintf("Redis killed, stopped or flushed %d times", n)
		broken, whole, err := l.loseRedis(ctx, s, load, n, killed(cache), stopped(cache), flushed)
		if err != nil {
			return err
		}
		l.calls(what, append(broken, whole...))
		ratio, summary := slowdown(broken, whole)
		l.row(what+": P99, of that with Redis", "≤ 2", ratio <= mostWithoutRedis, "%s", summary)
		return l.kept(ctx, s, load, what)
	})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dlsms-control-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l.logf("the control: the same without the breaker, with a Redis that stands still")
	binary, err := noBreaker.build(ctx, dir)
	if err != nil {
		return err
	}
	return l.withSteadyLoad(ctx, loadOptions{users: trialUsers, rest: trialRest, binary: binary}, func(s *system, load *steady, _ []call) error {
		broken, whole, err := l.loseRedis(ctx, s, load, max(1, n/10), stopped(cache))
		if err != nil {
			return err
		}
		ratio, summary := slowdown(broken, whole)
		l.row("Redis stopped, replicas without the breaker: P99, of that with Redis", "> 2: the control", ratio > mostWithoutRedis, "%s", summary)
		return nil
	})
}

// mostWithoutRedis is how much longer a call may take, at the P99.
const mostWithoutRedis = 2

// noBreaker is the control: a system whose replicas ask Redis regardless of how the last request to
// it ended.
var noBreaker = canary{name: "no breaker", changes: []change{
	code("server/edge", `func \(\w+ \*Breaker\) Allow\((\w+) time\.Duration\) bool \{`, `$0
	if $1 > 0 {
		return true
	}`),
}}

// loseRedis takes Redis away n times, in one way after the other, for a second each, and ends the load. It returns the calls that were under way
// at some time when it was gone, and the others.
func (l *trialRun) loseRedis(ctx context.Context, s *system, load *steady, n int, ways ...injector) (broken, whole []call, err error) {
	from := load.since()
	var gone []span
	for i := range n {
		sleep(ctx, time.Second)
		went := load.since()
		heal, err := ways[i%len(ways)](ctx, s, l.rng)
		if err != nil {
			return nil, nil, err
		}
		sleep(ctx, time.Second)
		if err := heal(ctx); err != nil {
			return nil, nil, err
		}
		gone = append(gone, span{went, load.since()})
		if (i+1)%10 == 0 {
			l.logf("gone %d times", i+1)
		}
	}
	load.end() // so that what is under way counts too
	for _, c := range load.between(from, load.since()) {
		if slices.ContainsFunc(gone, func(s span) bool { return s.touches(c.at, c.at+c.took) }) {
			broken = append(broken, c)
		} else {
			whole = append(whole, c)
		}
	}
	return broken, whole, nil
}
