package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dlsms/dlsms/library"
)

// hashing is the time that one hash takes in these tests, on the fake clock of synctest.
const hashing = 250 * time.Millisecond

// flood starts n goroutines for each requester. They log in again and again until ctx ends. wait
// returns when all goroutines have ended. served is the number of their logins that got a slot.
func flood(ctx context.Context, s *fairSlots, n int, from ...requester) (wait func(), served *atomic.Int64) {
	var all sync.WaitGroup
	served = &atomic.Int64{}
	for range n {
		for _, r := range from {
			all.Go(func() {
				for ctx.Err() == nil {
					if login(ctx, s, r) == nil {
						served.Add(1)
					}
				}
			})
		}
	}
	return all.Wait, served
}

func login(ctx context.Context, s *fairSlots, from requester) error {
	if err := s.acquire(ctx, from); err != nil {
		return err
	}
	defer s.release()
	<-time.After(hashing)
	return nil
}

// logIns starts ten logins, one in each interval. It returns the number of logins that succeed, and
// the longest time that a login takes.
func logIns(
	ctx context.Context, s *fairSlots, interval time.Duration, from func(i int) requester,
) (served int, longest time.Duration) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			began := time.Now()
			err := login(ctx, s, from(i))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				served++
			}
			longest = max(longest, time.Since(began))
		})
		<-time.After(interval)
	}
	all.Wait()
	return served, longest
}

// TestFairSlotsDuringFlood: while 40 connections log in all the time, other requesters still get
// slots. They come from other addresses, or have other student ids behind the same address.
func TestFairSlotsDuringFlood(t *testing.T) {
	t.Parallel()
	var guesses []requester
	for i := range 40 {
		guesses = append(guesses, requester{"192.0.2.1", fmt.Sprintf("guess-%d", i)})
	}
	for name, test := range map[string]struct {
		flood []requester
		each  int
		from  func(i int) requester
	}{
		"from one address, with many student ids": {guesses, 1,
			func(i int) requester { return requester{fmt.Sprintf("198.51.100.%d", i), "s1"} }},
		"from one address, with one student id": {guesses[:1], 40,
			func(i int) requester { return requester{fmt.Sprintf("198.51.100.%d", i), "s1"} }},
		"behind the address of the other users, with one student id": {guesses[:1], 40,
			func(i int) requester { return requester{"192.0.2.1", fmt.Sprintf("s%d", i)} }},
		"from one address, and the other users behind a second address": {guesses, 1,
			func(i int) requester { return requester{"198.51.100.1", fmt.Sprintf("s%d", i)} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				slots := newFairSlots(1, PasswordWait)
				ctx, stop := context.WithCancel(t.Context())
				wait, served := flood(ctx, slots, test.each, test.flood...)
				<-time.After(5 * time.Second)
				n, longest := logIns(ctx, slots, 2*hashing, test.from)
				if n != 10 {
					t.Errorf("%d of 10 logins succeeded", n)
				}
				if longest > 4*hashing {
					t.Errorf("one login took %v", longest)
				}
				if served.Load() < 20 { // slots are not idle, and the flood gets its share
					t.Errorf("the flood got %d slots", served.Load())
				}
				stop()
				wait()
				if slots.free != 1 || len(slots.waiting)+len(slots.addresses)+len(slots.students) != 0 {
					t.Errorf("%d slots are free; %d requests wait, from %d addresses and %d students",
						slots.free, len(slots.waiting), len(slots.addresses), len(slots.students))
				}
			})
		})
	}
}

// TestFairSlotsServeOneAddress: if all calls come from one address, its students can use all slots.
func TestFairSlotsServeOneAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slots := newFairSlots(2, PasswordWait)
		var served atomic.Int64
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				switch err := login(t.Context(), slots, requester{"192.0.2.1", fmt.Sprintf("s%d", i)}); {
				case err == nil:
					served.Add(1)
				case !errors.Is(err, library.ErrOverloaded):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n, most := served.Load(), int64(2*(PasswordWait/hashing+1)); n < most-2 || n > most {
			t.Errorf("%d of 40 concurrent requests were served, want about %d", n, most)
		}
	})
}

// TestFairSlotsSkipCancelledCall: a cancelled call leaves its place in the queue to the next call.
func TestFairSlotsSkipCancelledCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slots := newFairSlots(1, PasswordWait)
		if err := slots.acquire(t.Context(), requester{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 2)
		go func() { got <- slots.acquire(ctx, requester{"a", "b"}) }()
		synctest.Wait()
		go func() { got <- slots.acquire(t.Context(), requester{"a", "c"}) }()
		synctest.Wait()
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled call: %v", err)
		}
		slots.release()
		if err := <-got; err != nil {
			t.Errorf("the next call: %v", err)
		}
		slots.release()
		if slots.free != 1 || len(slots.addresses)+len(slots.students) != 0 {
			t.Errorf("slots or waiting calls are left: %+v", slots)
		}
	})
}
