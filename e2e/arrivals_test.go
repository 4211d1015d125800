package e2e_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// TestArrivalsAreWatched follows the list of a day at the desk, while a student checks in and leaves
// through whichever replica serves the call, and another one books and cancels.
func TestArrivalsAreWatched(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, s *system) {
		here, there := s.branch(t, 2), s.branch(t, 1)
		staff, u, other := s.withRole(t, staffRole, here.code), s.student(t), s.student(t)
		u.book(there.seats[0], tomorrow(4, 5))
		booked := u.request(&dlsmsv1.CreateReservationRequest{
			SeatId: here.seats[0], EndTime: timestamppb.New(time.Now().Add(time.Hour)),
		})
		zone, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		day := booked.GetStartTime().AsTime().In(zone).Format(time.DateOnly)
		watched, err := e2e.Record(t.Context(),
			func(ctx context.Context) (grpc.ServerStreamingClient[dlsmsv1.WatchArrivalsResponse], error) {
				return staff.desk().WatchArrivals(ctx, &dlsmsv1.WatchArrivalsRequest{Branch: here.code, Day: day})
			})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(watched.Close)
		until := func(what string, shows func(*dlsmsv1.WatchArrivalsResponse) bool) {
			t.Helper()
			err := watched.Until(within(t, waitTimeout), func(got []*dlsmsv1.WatchArrivalsResponse) bool {
				return slices.ContainsFunc(got, shows)
			})
			if err != nil {
				t.Fatalf("the watch does not show %s: %v", what, err)
			}
		}
		untilStatus := func(id int64, status dlsmsv1.ReservationStatus) {
			t.Helper()
			until(status.String(), func(m *dlsmsv1.WatchArrivalsResponse) bool {
				return slices.ContainsFunc(m.GetChange().GetReservations(), func(a *dlsmsv1.AffectedReservation) bool {
					return a.GetReservation().GetId() == id && a.GetReservation().GetStatus() == status && a.GetName() != ""
				})
			})
		}
		until("the start", func(m *dlsmsv1.WatchArrivalsResponse) bool { return m.GetStarted() != nil })
		u.checkIn(booked.GetId())
		untilStatus(booked.GetId(), dlsmsv1.ReservationStatus_RESERVATION_STATUS_CHECKED_IN)
		u.checkOut(booked.GetId())
		untilStatus(booked.GetId(), dlsmsv1.ReservationStatus_RESERVATION_STATUS_COMPLETED)
		second := other.request(&dlsmsv1.CreateReservationRequest{
			SeatId: here.seats[1], EndTime: timestamppb.New(time.Now().Add(time.Hour)),
		})
		untilStatus(second.GetId(), dlsmsv1.ReservationStatus_RESERVATION_STATUS_CONFIRMED)
		other.cancel(second.GetId())
		untilStatus(second.GetId(), dlsmsv1.ReservationStatus_RESERVATION_STATUS_CANCELLED)
		for _, m := range watched.Messages() {
			for _, a := range m.GetChange().GetReservations() {
				if id := a.GetReservation().GetId(); id != booked.GetId() && id != second.GetId() {
					t.Errorf("the watch shows reservation %d of another branch", id)
				}
			}
		}
	})
}
