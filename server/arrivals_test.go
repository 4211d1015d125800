package server

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// watchArrivals opens a watch of today as a librarian, and reads its first message.
func watchArrivals(
	t *testing.T, s *testServer, db *storetest.DB,
) grpc.ServerStreamingClient[dlsmsv1.WatchArrivalsResponse] {
	t.Helper()
	ctx, cancel := context.WithTimeout(s.librarianOf(t, db, "L0001"), within)
	t.Cleanup(cancel)
	stream, err := dlsmsv1.NewDeskServiceClient(s.conn).WatchArrivals(ctx,
		&dlsmsv1.WatchArrivalsRequest{Branch: "branch-0"})
	if err != nil {
		t.Fatal(err)
	}
	wantStarted(t, stream)
	return stream
}

func wantStarted(t *testing.T, stream grpc.ServerStreamingClient[dlsmsv1.WatchArrivalsResponse]) {
	t.Helper()
	if got, err := stream.Recv(); err != nil || got.GetStarted() == nil {
		t.Fatalf("the watch got %v, %v; want started", got, err)
	}
}

// TestWatchArrivals follows a reservation from the booking to its end, and one that is cancelled. A
// reservation of another day is not told.
func TestWatchArrivals(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	db.FreezeClock(t, noon)
	seat := db.Seats(t, 1)[0]
	s := startOn(t, db, nil, nil)
	student := s.student(t)
	stream := watchArrivals(t, s, db)
	book := func(start time.Time) int64 {
		t.Helper()
		got, err := s.reservation.CreateReservation(student, &dlsmsv1.CreateReservationRequest{
			SeatId: seat, StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)),
		})
		if err != nil {
			t.Fatal(err)
		}
		return got.GetReservation().GetId()
	}
	wantChange := func(id int64, status dlsmsv1.ReservationStatus) {
		t.Helper()
		got, err := stream.Recv()
		list := got.GetChange().GetReservations()
		if err != nil || len(list) != 1 {
			t.Fatalf("the watch got %v, %v; want one reservation", got, err)
		}
		if r := list[0].GetReservation(); r.GetId() != id || r.GetStatus() != status || list[0].GetStudentId() == "" {
			t.Errorf("the watch got %v; want reservation %d with %v and its user", list[0], id, status)
		}
	}
	book(noon.AddDate(0, 0, 1))
	here := book(noon)
	wantChange(here, dlsmsv1.ReservationStatus_RESERVATION_STATUS_CONFIRMED)
	if _, err := s.reservation.CheckIn(student, &dlsmsv1.CheckInRequest{ReservationId: here}); err != nil {
		t.Fatal(err)
	}
	wantChange(here, dlsmsv1.ReservationStatus_RESERVATION_STATUS_CHECKED_IN)
	if _, err := s.reservation.CheckOut(student, &dlsmsv1.CheckOutRequest{ReservationId: here}); err != nil {
		t.Fatal(err)
	}
	wantChange(here, dlsmsv1.ReservationStatus_RESERVATION_STATUS_COMPLETED)
	tonight := book(noon.Add(6 * time.Hour))
	wantChange(tonight, dlsmsv1.ReservationStatus_RESERVATION_STATUS_CONFIRMED)
	if _, err := s.reservation.CancelReservation(student, &dlsmsv1.CancelReservationRequest{
		ReservationId: tonight,
	}); err != nil {
		t.Fatal(err)
	}
	wantChange(tonight, dlsmsv1.ReservationStatus_RESERVATION_STATUS_CANCELLED)

	s.config.Arrivals.Restart()
	wantStarted(t, stream)
}

// TestWatchArrivalsEndsWithTheScope takes the branch from a librarian who watches it.
func TestWatchArrivalsEndsWithTheScope(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	seat := db.Seats(t, 1)[0]
	s := startOn(t, db, nil, nil)
	stream := watchArrivals(t, s, db)
	db.Exec(t, `UPDATE users SET branches = '{}' WHERE student_id = 'L0001'`)
	if _, err := s.reservation.CreateReservation(s.student(t), &dlsmsv1.CreateReservationRequest{
		SeatId: seat, EndTime: timestamppb.New(time.Now().Add(time.Hour)),
	}); err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err == nil {
		t.Fatalf("the watch got %v", got)
	}
	want(t, err, codes.PermissionDenied, "BRANCH_REQUIRED")
}

// TestArrivalsOfManyChanges makes more changes than a watch keeps, and then some more.
func TestArrivalsOfManyChanges(t *testing.T) {
	t.Parallel()
	var a Arrivals
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	w, stop := a.watch(start, start.AddDate(0, 0, 1))
	defer stop()
	w.take()
	events := make([]library.Event, maxArrivals+3)
	for i := range events {
		events[i] = library.Event{ReservationID: int64(i + 1), StartTime: start}
	}
	a.Notify(events[:maxArrivals])
	if ids, restart := w.take(); len(ids) != maxArrivals || restart {
		t.Errorf("%d changes, restart %v", len(ids), restart)
	}
	a.Notify(events)
	if ids, restart := w.take(); !slices.Equal(ids, []int64{maxArrivals + 2, maxArrivals + 3}) || !restart {
		t.Errorf("changes %v, restart %v", ids, restart)
	}
	for _, out := range []time.Time{start.Add(-time.Microsecond), start.AddDate(0, 0, 1)} {
		a.Notify([]library.Event{{ReservationID: 1, StartTime: out}})
	}
	if ids, restart := w.take(); len(ids) > 0 || restart {
		t.Errorf("changes %v of other days, restart %v", ids, restart)
	}
	select {
	case <-w.woken:
	default:
		t.Error("the watch was not woken")
	}
	stop()
	a.Notify(events)
	if ids, _ := w.take(); len(ids) > 0 {
		t.Errorf("changes %v after the end", ids)
	}
}
