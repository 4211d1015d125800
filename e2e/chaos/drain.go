package main

import (
	"context"
	"slices"
	"time"

	"github.com/dlsms/dlsms/stack"
)

// postLoad is a load of POST requests over HTTP without retries. If a request has no answer, its
// client cannot know whether the system has done it: the request is lost.
func postLoad() loadOptions {
	return loadOptions{users: trialUsers, rest: 5 * time.Millisecond, http: true}
}

// restartInTurn restarts the replicas one by one, as an operator does.
func (s *system) restartInTurn(ctx context.Context) error {
	for _, r := range s.Replicas {
		if err := r.Restart(ctx); err != nil {
			return err
		}
	}
	return nil
}

const (
	// restartRounds is how often restartRun restarts all replicas.
	restartRounds = 3
	// leastPosts is the number of requests that restartRun needs: 100 for each restart.
	leastPosts = 100 * restartRounds * replicas
)

// restartRun restarts the replicas under postLoad, and reports lost requests. The clients of other
// runs repeat a request, so those runs cannot find a lost one.
func restartRun(ctx context.Context, p *plan) ([]violation, error) {
	s, err := startSystem(ctx, stack.Config{Binary: p.binary}, 1, false)
	if err != nil {
		return nil, err
	}
	var found violations
	err = s.restartUnderPosts(ctx, &found)
	if stopped := s.stop(); stopped != nil && err == nil {
		found.add(checkLog, "the system did not stop cleanly: %v", stopped)
	}
	return found.list(), err
}

func (s *system) restartUnderPosts(ctx context.Context, found *violations) error {
	l, err := startSteady(ctx, s, "posts", postLoad())
	if err != nil {
		return err
	}
	defer l.end()
	sleep(ctx, warmUp)
	from := l.since()
	for range restartRounds {
		if err := s.restartInTurn(ctx); err != nil {
			return err
		}
	}
	l.end()
	calls := l.between(from, l.since())
	if i := slices.IndexFunc(calls, func(c call) bool { return c.err != nil }); i >= 0 {
		found.add(checkRestarts, "%d of %d requests were lost in %d restarts; the first: %v",
			len(calls)-succeeded(calls), len(calls), restartRounds*replicas, calls[i].err)
	}
	if len(calls) < leastPosts {
		found.add(checkActivity, "only %d requests in %d restarts: too few for a test", len(calls), restartRounds*replicas)
	}
	_, missing, err := l.missing(ctx, s)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		found.add(checkDurability, "the database does not have the acknowledged reservations %v", missing)
	}
	if err := s.breaches(); err != nil {
		found.add(checkAnswers, "%v", err)
	}
	if err := s.journal.Err(); err != nil {
		found.add(checkLog, "%v", err)
	}
	return ctx.Err()
}
