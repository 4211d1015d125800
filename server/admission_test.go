package server

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// TestFullClassDoesNotDelayOtherClasses: when one class is full, its calls are refused with a retry
// delay. Calls of the other classes do not wait.
func TestFullClassDoesNotDelayOtherClasses(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	me := s.student(t)
	release, err := s.edge.OccupyBookSlots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.reservation.CancelReservation(me, &dlsmsv1.CancelReservationRequest{ReservationId: 1})
	want(t, err, codes.ResourceExhausted, "OVERLOADED")
	if retry := detail[*errdetails.RetryInfo](err).GetRetryDelay().AsDuration(); retry <= 0 {
		t.Error("the error has no retry delay")
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
		t.Errorf("calls of the other classes took %v", took)
	}
	release()
	_, err = s.reservation.CancelReservation(me, &dlsmsv1.CancelReservationRequest{ReservationId: 1})
	want(t, err, codes.NotFound, "RESERVATION_NOT_FOUND")
	eventually(t, "all slots are free", func() bool { return s.edge.Stats().BookSlots == 0 })
}

// TestSlotsAreReleased: every call releases its slot, even if it is cancelled or refused.
func TestSlotsAreReleased(t *testing.T) {
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
	eventually(t, "all slots are free", func() bool {
		stats := s.edge.Stats()
		return stats.BookSlots == 0 && stats.ReadSlots == 0
	})
}
