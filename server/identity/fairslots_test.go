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

// hashing is how long a password takes in these tests, on the clock of the bubble.
const hashing = 250 * time.Millisecond

// hammer has n connections of each of the turns log in all the time, until ctx ends, and returns when none does any more.
func hammer(ctx context.Context, t *fairSlots, n int, who ...requester) (wait func(), served *atomic.Int64) {
	var all sync.WaitGroup
	served = &atomic.Int64{}
	for range n {
		for _, w := range who {
			all.Go(func() {
				for ctx.Err() == nil {
					if login(ctx, t, w) == nil {
						served.Add(1)
					}
				}
			})
		}
	}
	return all.Wait, served
}

func login(ctx context.Context, t *fairSlots, who requester) error {
	if err := t.acquire(ctx, who); err != nil {
		return err
	}
	defer t.release()
	<-time.After(hashing)
	return nil
}

// honest has ten users log in, one every so often, and returns how many of them could, and the longest time that it took one.
func honest(ctx context.Context, t *fairSlots, every time.Duration, who func(i int) requester) (served int, longest time.Duration) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			began := time.Now()
			err := login(ctx, t, who(i))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				served++
			}
			longest = max(longest, time.Since(began))
		})
		<-time.After(every)
	}
	all.Wait()
	return served, longest
}

// TestFairSlotsDuringFlood: 40 connections that log in all the time keep none of the others out, who come from other addresses, or are other
// students behind the same one.
func TestFairSlotsDuringFlood(t *testing.T) {
	t.Parallel()
	var guesses []requester
	for i := range 40 {
		guesses = append(guesses, requester{"192.0.2.1", fmt.Sprintf("guess-%d", i)})
	}
	for name, test := range map[string]struct {
		flood []requester
		each  int
		who   func(i int) requester
	}{
		"from one address, with many student ids": {guesses, 1,
			func(i int) requester { return requester{fmt.Sprintf("198.51.100.%d", i), "s1"} }},
		"from one address, with one student id": {guesses[:1], 40,
			func(i int) requester { return requester{fmt.Sprintf("198.51.100.%d", i), "s1"} }},
		"from within the campus, with one student id": {guesses[:1], 40,
			func(i int) requester { return requester{"192.0.2.1", fmt.Sprintf("s%d", i)} }},
		"beside a campus behind one address": {guesses, 1,
			func(i int) requester { return requester{"198.51.100.1", fmt.Sprintf("s%d", i)} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				slots := newFairSlots(1, PasswordWait)
				ctx, stop := context.WithCancel(t.Context())
				wait, served := hammer(ctx, slots, test.each, test.flood...)
				<-time.After(5 * time.Second)
				n, longest := honest(ctx, slots, 2*hashing, test.who)
				if n != 10 {
					t.Errorf("%d of 10 could log in", n)
				}
				if longest > 4*hashing {
					t.Errorf("one login took %v", longest)
				}
				if served.Load() < 20 { // slots don't stand idle, and the flood gets its share
					t.Errorf("the flood had %d turns", served.Load())
				}
				stop()
				wait()
				if slots.free != 1 || len(slots.waiting)+len(slots.addresses)+len(slots.students) != 0 {
					t.Errorf("%d slots are free; %d wait, of %d addresses and %d students",
						slots.free, len(slots.waiting), len(slots.addresses), len(slots.students))
				}
			})
		})
	}
}

// TestFairSlotsServeOneAddress gets all the turns that there are, one student after the other.
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
			t.Errorf("%d of 40 who came at once were served, of %d who could be", n, most)
		}
	})
}

// TestFairSlotsSkipCancelledCall leaves its turn to the next one.
func TestFairSlotsSkipCancelledCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slots := newFairSlots(1, PasswordWait)
		if err := slots.acquire(t.Context(), requester{}); err != nil {
			t.Fatal(err)
		}
		gone, leave := context.WithCancel(t.Context())
		got := make(chan error, 2)
		go func() { got <- slots.acquire(gone, requester{"a", "b"}) }()
		synctest.Wait()
		go func() { got <- slots.acquire(t.Context(), requester{"a", "c"}) }()
		synctest.Wait()
		leave()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("who went: %v", err)
		}
		slots.release()
		if err := <-got; err != nil {
			t.Errorf("who stayed: %v", err)
		}
		slots.release()
		if slots.free != 1 || len(slots.addresses)+len(slots.students) != 0 {
			t.Errorf("%+v", slots)
		}
	})
}
