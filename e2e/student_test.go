package e2e_test

import (
	"context"
	"testing"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// student is a user. Its methods stop the test if a call fails. Calls that should fail, and calls
// in goroutines, use the client directly, or the methods whose names begin with tryTo.
type student struct {
	*e2e.Client

	t *testing.T
}

func (s student) id() int64 { return s.User.GetId() }

// need returns v. If err is not nil, it stops the test.
func need[T any](s student, what string, v T, err error) T {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s of %s: %v", what, s.User.GetStudentId(), err)
	}
	return v
}

func (s student) book(seatID int64, w window) *dlsmsv1.Reservation {
	s.t.Helper()
	return s.request(w.booking(seatID))
}

func (s student) request(req *dlsmsv1.CreateReservationRequest) *dlsmsv1.Reservation {
	s.t.Helper()
	resp, err := s.Reservations.CreateReservation(s.t.Context(), req)
	return need(s, "booking", resp, err).GetReservation()
}

// tryToBook returns the error of a booking.
func (s student) tryToBook(seatID int64, w window) error {
	_, err := s.Reservations.CreateReservation(s.t.Context(), w.booking(seatID))
	return err
}

// tryToWait, tryToCheckIn and tryToClaim return the error of the call.
func (s student) tryToWait(seatID int64, w window) error {
	_, err := s.Notify.JoinWaitlist(s.t.Context(), w.waiting(seatID))
	return err
}

func (s student) tryToCheckIn(reservationID int64) error {
	_, err := s.Reservations.CheckIn(s.t.Context(), &dlsmsv1.CheckInRequest{ReservationId: reservationID})
	return err
}

func (s student) tryToClaim(entryID int64) error {
	_, err := s.Notify.ClaimOffer(s.t.Context(), &dlsmsv1.ClaimOfferRequest{EntryId: entryID})
	return err
}

func (s student) reservation(id int64) *dlsmsv1.Reservation {
	s.t.Helper()
	resp, err := s.Reservations.GetReservation(s.t.Context(), &dlsmsv1.GetReservationRequest{ReservationId: id})
	return need(s, "reservation", resp, err).GetReservation()
}

func (s student) reservations(view dlsmsv1.ReservationView) []*dlsmsv1.Reservation {
	s.t.Helper()
	resp, err := s.Reservations.GetReservations(s.t.Context(), &dlsmsv1.GetReservationsRequest{View: view})
	return need(s, "reservations", resp, err).GetReservations()
}

func (s student) cancel(id int64) *dlsmsv1.Reservation {
	s.t.Helper()
	resp, err := s.Reservations.CancelReservation(s.t.Context(), &dlsmsv1.CancelReservationRequest{ReservationId: id})
	return need(s, "cancel", resp, err).GetReservation()
}

func (s student) checkIn(id int64) *dlsmsv1.Reservation {
	s.t.Helper()
	resp, err := s.Reservations.CheckIn(s.t.Context(), &dlsmsv1.CheckInRequest{ReservationId: id})
	return need(s, "check-in", resp, err).GetReservation()
}

func (s student) checkOut(id int64) *dlsmsv1.Reservation {
	s.t.Helper()
	resp, err := s.Reservations.CheckOut(s.t.Context(), &dlsmsv1.CheckOutRequest{ReservationId: id})
	return need(s, "check-out", resp, err).GetReservation()
}

func (s student) wait(seatID int64, w window) *dlsmsv1.WaitlistEntry {
	s.t.Helper()
	resp, err := s.Notify.JoinWaitlist(s.t.Context(), w.waiting(seatID))
	return need(s, "waiting", resp, err).GetEntry()
}

func (s student) entry(id int64) *dlsmsv1.WaitlistEntry {
	s.t.Helper()
	resp, err := s.Notify.GetWaitlist(s.t.Context(), &dlsmsv1.GetWaitlistRequest{})
	for _, e := range need(s, "waitlist", resp, err).GetEntries() {
		if e.GetId() == id {
			return e
		}
	}
	s.t.Fatalf("%s has no entry %d", s.User.GetStudentId(), id)
	return nil
}

func (s student) claim(entryID int64) *dlsmsv1.ClaimOfferResponse {
	s.t.Helper()
	resp, err := s.Notify.ClaimOffer(s.t.Context(), &dlsmsv1.ClaimOfferRequest{EntryId: entryID})
	return need(s, "claim", resp, err)
}

func (s student) leave(entryID int64) *dlsmsv1.WaitlistEntry {
	s.t.Helper()
	resp, err := s.Notify.LeaveWaitlist(s.t.Context(), &dlsmsv1.LeaveWaitlistRequest{EntryId: entryID})
	return need(s, "leaving", resp, err).GetEntry()
}

func (s student) notifications(afterID int64) []*dlsmsv1.Notification {
	s.t.Helper()
	resp, err := s.Notify.GetNotifications(s.t.Context(), &dlsmsv1.GetNotificationsRequest{AfterId: afterID})
	return need(s, "notifications", resp, err).GetNotifications()
}

// subscribe opens a stream of all notifications of the student, the old ones first, and records it.
// The stream is closed at the end of the test.
func (s student) subscribe() subscription {
	s.t.Helper()
	recorder, err := s.Subscribe(s.t.Context(), 0)
	sub := subscription{need(s, "subscription", recorder, err), s.t}
	s.t.Cleanup(recorder.Close)
	return sub
}

// subscription records the notifications of a student.
type subscription struct {
	*e2e.StreamRecorder[dlsmsv1.SubscribeResponse]

	t *testing.T
}

// next waits for a notification of this kind with an id above after, and returns it. If there is
// none within waitTimeout, it stops the test.
func (s subscription) next(after int64, kind dlsmsv1.NotificationKind) *dlsmsv1.Notification {
	s.t.Helper()
	var found *dlsmsv1.Notification
	err := s.Until(within(s.t, waitTimeout), func(got []*dlsmsv1.SubscribeResponse) bool {
		for _, n := range e2e.Notifications(got) {
			if n.GetId() > after && n.GetKind() == kind {
				found = n
				return true
			}
		}
		return false
	})
	if err != nil {
		s.t.Fatalf("no notification %s: %v", kind, err)
	}
	return found
}

// seatWatch records the messages of a watch.
type seatWatch struct {
	*e2e.StreamRecorder[dlsmsv1.WatchSeatsResponse]

	t *testing.T
}

// watch opens a watch and waits for its first snapshot. The watch is closed at the end of the test.
func watch(t *testing.T, c *e2e.Client, req *dlsmsv1.WatchSeatsRequest) seatWatch {
	t.Helper()
	recorder, err := c.Watch(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(recorder.Close)
	s := seatWatch{recorder, t}
	s.until(within(t, waitTimeout), "a snapshot", func(shown map[int64]*dlsmsv1.Seat) bool { return len(shown) > 0 })
	return s
}

// until waits until the function expected returns true for the seats that the watch shows. If ctx
// ends first, it stops the test, and the message contains the parameter what.
func (s seatWatch) until(ctx context.Context, what string, expected func(shown map[int64]*dlsmsv1.Seat) bool) {
	s.t.Helper()
	err := s.Until(ctx, func(got []*dlsmsv1.WatchSeatsResponse) bool { return expected(e2e.LatestSeats(got)) })
	if err != nil {
		s.t.Fatalf("the watch does not show %s: %v", what, err)
	}
}

// untilSeat waits until the watch shows the seat as available or taken.
func (s seatWatch) untilSeat(id int64, available bool) {
	s.t.Helper()
	what := "the seat taken"
	if available {
		what = "the seat free"
	}
	s.until(within(s.t, waitTimeout), what, func(shown map[int64]*dlsmsv1.Seat) bool {
		return shown[id] != nil && shown[id].GetAvailable() == available
	})
}
