package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
)

func TestSlots(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSlots(2, 300*time.Millisecond, 10*time.Millisecond)
	for range 2 {
		if err := s.take(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// In a rush, one waits and gets its turn.
	got := make(chan error, 1)
	go func() { got <- s.take(ctx) }()
	s.release()
	if err := <-got; err != nil {
		t.Errorf("with a slot free in time: %v", err)
	}
	// Nobody waits for longer than the patience.
	began := time.Now()
	if err := s.take(ctx); !errors.Is(err, library.ErrOverloaded) {
		t.Errorf("without a slot: %v", err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("refused after %v", took)
	}
	// In an overload, newcomers hear of it soon.
	began = time.Now()
	if err := s.take(ctx); !errors.Is(err, library.ErrOverloaded) {
		t.Errorf("in an overload: %v", err)
	}
	if took := time.Since(began); took > 250*time.Millisecond {
		t.Errorf("refused after %v, in an overload", took)
	}
	// Who gives up waiting takes no slot with them.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.take(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who is gone: %v", err)
	}
	s.release()
	s.release()
	if n := s.inUse(); n != 0 {
		t.Errorf("%d slots are left taken", n)
	}
	// With room again, the overload doesn't matter.
	if err := s.take(ctx); err != nil {
		t.Errorf("with room: %v", err)
	}
}

// TestAdmissionByClass: when one class is full, its calls are refused and say when to come back, and nobody else waits for anything.
func TestAdmissionByClass(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	me := s.student(t)
	books := s.edge.admission.classes[book]
	for range cap(books.taken) {
		if err := books.take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.reservation.CancelReservation(me, &dlsmsv1.CancelReservationRequest{ReservationId: 1})
	want(t, err, codes.ResourceExhausted, "OVERLOADED")
	if retry := detail[*errdetails.RetryInfo](err).GetRetryDelay().AsDuration(); retry <= 0 {
		t.Error("the client isn't told when to come back")
	}
	began := time.Now()
	if _, err := s.reservation.GetReservations(me, &dlsmsv1.GetReservationsRequest{}); err != nil {
		t.Errorf("reading: %v", err)
	}
	if _, err := s.seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{}); err != nil {
		t.Errorf("browsing: %v", err)
	}
	s.student(t)
	if took := time.Since(began); took > time.Second {
		t.Errorf("the others waited, for %v", took)
	}
	for range cap(books.taken) {
		books.release()
	}
	_, err = s.reservation.CancelReservation(me, &dlsmsv1.CancelReservationRequest{ReservationId: 1})
	want(t, err, codes.NotFound, "RESERVATION_NOT_FOUND")
	eventually(t, "all slots back", func() bool { return books.inUse() == 0 })
}

// TestOneUsersRush: whoever makes many calls at once waits for themselves, and nobody else does.
func TestOneUsersRush(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{100, 8} {
		oneUsersRush(t, newAdmission(conns))
	}
}

func oneUsersRush(t *testing.T, a *admission) {
	t.Helper()
	books := a.classes[book]
	rush, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var entered atomic.Int64
	callsOf := func(user int64) *call { return &call{rule: rule{class: book}, caller: Caller{UserID: user}} }
	for range 2 * cap(books.taken) {
		all.Go(func() {
			c := callsOf(1)
			defer c.finish()
			if a.enter(rush, c) == nil {
				entered.Add(1)
				<-rush.Done()
			}
		})
	}
	eventually(t, "the rush is on", func() bool { return entered.Load() == int64(a.bookers.each) && books.inUse() == a.bookers.each })
	other := callsOf(2)
	if err := a.enter(t.Context(), other); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	other.finish()
	leave()
	all.Wait()
	if n := books.inUse(); n != 0 || len(a.bookers.now) != 0 {
		t.Errorf("%d slots are left taken, %d users remembered", n, len(a.bookers.now))
	}
}

// TestSlotsAreGivenBack, whatever comes of a call.
func TestSlotsAreGivenBack(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	me := s.student(t)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(me, time.Duration(i)*50*time.Microsecond)
			defer cancel()
			_, _ = s.reservation.CheckIn(ctx, &dlsmsv1.CheckInRequest{ReservationId: int64(i % 2)})
			_, _ = s.notify.GetWaitlist(ctx, &dlsmsv1.GetWaitlistRequest{})
		})
	}
	all.Wait()
	eventually(t, "all slots back", func() bool {
		return s.edge.admission.classes[book].inUse() == 0 && s.edge.admission.classes[read].inUse() == 0
	})
}
