package edge

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge/edgetest"
	"github.com/dlsms/dlsms/server/identity"
)

func TestSlotsRefuseAfterMaxWait(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSlots(2, 300*time.Millisecond, 10*time.Millisecond)
	for range 2 {
		if err := s.acquire(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// A call that waits gets the next free slot.
	got := make(chan error, 1)
	go func() { got <- s.acquire(ctx) }()
	s.release()
	if err := <-got; err != nil {
		t.Errorf("with a slot that became free in time: %v", err)
	}
	// No call waits for longer than maxWait.
	began := time.Now()
	if err := s.acquire(ctx); !errors.Is(err, library.ErrOverloaded) {
		t.Errorf("without a slot: %v", err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("refused after %v", took)
	}
	// During an overload, new calls are refused after overloadWait.
	began = time.Now()
	if err := s.acquire(ctx); !errors.Is(err, library.ErrOverloaded) {
		t.Errorf("in an overload: %v", err)
	}
	if took := time.Since(began); took > 250*time.Millisecond {
		t.Errorf("refused after %v, in an overload", took)
	}
	// A cancelled wait takes no slot.
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.acquire(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: %v", err)
	}
	s.release()
	s.release()
	if n := s.inUse(); n != 0 {
		t.Errorf("%d slots are still in use", n)
	}
	// With a free slot, the last overload does not matter.
	if err := s.acquire(ctx); err != nil {
		t.Errorf("with a free slot: %v", err)
	}
}

// TestScansHaveTheirOwnSlots takes all slots for scans. Calls with a token must still get a slot.
func TestScansHaveTheirOwnSlots(t *testing.T) {
	t.Parallel()
	const conns = 48
	a := newAdmission(conns)
	method := dlsmsv1.ReservationService_RecordScan_FullMethodName
	entered := 0
	for range conns {
		c := &call{rule: policy[method]}
		defer c.finish()
		err := a.enter(t.Context(), c)
		if errors.Is(err, library.ErrOverloaded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		entered++
	}
	if entered != conns/16 {
		t.Errorf("%d scans have a slot, want %d", entered, conns/16)
	}
	for method, rule := range policy {
		if rule.access != public {
			c := &call{rule: rule, caller: identity.Caller{UserID: 1}}
			if err := a.enter(t.Context(), c); err != nil {
				t.Errorf("%s: %v", method, err)
			}
			c.finish()
		}
	}
}

// TestOneUserCannotTakeAllSlots starts more calls of one user than there are slots for bookings. A
// call of another user must still get a slot. The number of slots follows from the number of
// connections to Postgres: 8 connections give only three slots.
func TestOneUserCannotTakeAllSlots(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{100, 8} {
		oneUserCannotTakeAllSlots(t, newAdmission(conns))
	}
}

func oneUserCannotTakeAllSlots(t *testing.T, a *admission) {
	t.Helper()
	books := a.classes[book]
	running, finish := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var entered atomic.Int64
	callOf := func(user int64) *call { return &call{rule: rule{class: book}, caller: identity.Caller{UserID: user}} }
	for range 2 * cap(books.taken) {
		all.Go(func() {
			c := callOf(1)
			defer c.finish()
			if a.enter(running, c) == nil {
				entered.Add(1)
				<-running.Done()
			}
		})
	}
	edgetest.Eventually(t, "one user has all the slots that it may have", func() bool {
		return entered.Load() == int64(a.users.each) && books.inUse() == a.users.each
	})
	other := callOf(2)
	if err := a.enter(t.Context(), other); err != nil {
		t.Errorf("another user: %v", err)
	}
	other.finish()
	finish()
	all.Wait()
	if n := books.inUse(); n != 0 || len(a.users.open) != 0 {
		t.Errorf("%d slots are still in use, %d users are still counted", n, len(a.users.open))
	}
}
