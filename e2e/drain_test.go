package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

var drains = flag.Int("drains", 3, "restarts of a replica under load over HTTP")

// TestDrainingLosesNoRequest restarts replicas one after the other, while clients send POSTs through
// nginx over connections that stay open. nginx does not repeat a POST, and the clients do not
// either: each must succeed. With http.Server.Shutdown alone in rest/server.go, requests are lost.
func TestDrainingLosesNoRequest(t *testing.T) {
	t.Parallel()
	const clients = 8
	s := start(t, stack.Config{Env: e2e.NoRateLimits()}).overHTTP(t)
	seats, users := s.branch(t, clients).seats, s.users(t, clients)
	ctx, stop := context.WithCancel(t.Context())
	var sent, lost atomic.Int64
	var all sync.WaitGroup
	t.Cleanup(func() { stop(); all.Wait() })
	for i, u := range users {
		client := poster{u.WithConn(s.proxied[i%len(s.proxied)]), seats[i]}
		all.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				for _, err := range client.post(ctx, round) {
					sent.Add(1)
					if err != nil && ctx.Err() == nil && lost.Add(1) <= 10 {
						t.Errorf("%s: a request was lost: %v", time.Now().Format(time.StampMilli), err)
					}
				}
			}
		})
	}
	progress := func(n int64) {
		t.Helper()
		n += sent.Load()
		eventually(t, "the clients make progress", func() bool { return sent.Load() >= n })
	}
	progress(500)
	for i := range *drains {
		if err := s.Replicas[i%len(s.Replicas)].Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		progress(500)
	}
	stop()
	all.Wait()
	t.Logf("%d restarts, %d requests, %d lost", *drains, sent.Load(), lost.Load())
}

// poster is a client that sends POSTs.
type poster struct {
	*e2e.Client

	seat int64
}

// post books and cancels, and makes cheaper calls in between. It returns the result of each call.
func (p poster) post(ctx context.Context, round int) (results []error) {
	req := tomorrow(0, 1).booking(p.seat)
	req.RequestId = fmt.Sprintf("drain-%d", round)
	verify := func() {
		_, err := p.Auth.VerifyToken(ctx, &dlsmsv1.VerifyTokenRequest{Token: p.Token})
		results = append(results, err)
	}
	verify()
	booked, err := p.Reservations.CreateReservation(ctx, req)
	results = append(results, err)
	verify()
	if err != nil {
		return results // the booking may exist: the next round repeats nothing of this one
	}
	_, err = p.Reservations.CancelReservation(
		ctx, &dlsmsv1.CancelReservationRequest{ReservationId: booked.GetReservation().GetId()},
	)
	return append(results, err)
}
