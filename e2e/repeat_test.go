package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// A client that gets no answer repeats its call. These tests send a call `repeats` times at once,
// over several connections. Each test does this with repeatRounds different calls.
const (
	repeats      = 12
	repeatRounds = 10
)

func TestRepeatedBookingIsOneBooking(t *testing.T) {
	t.Parallel()
	everywhere(t, repeatedBookingIsOneBooking)
}

func repeatedBookingIsOneBooking(t *testing.T, s *system) {
	t.Helper()
	seats := s.branch(t, repeatRounds).seats
	u := s.student(t)
	for round, seat := range seats {
		hour := float64(24 * round)
		req := tomorrow(hour, hour+2).booking(seat)
		req.RequestId = fmt.Sprintf("booking-%d", round)
		if round == 0 {
			req.StartTime, req.EndTime = nil, timestamppb.New(
				time.Now().Add(2*time.Hour),
			) // from now on: start_time is not set, so repeats are equal
		}
		first := oneAnswer(t, s, u, func(ctx context.Context, c *e2e.Client) (proto.Message, error) {
			return c.Reservations.CreateReservation(ctx, req)
		}).(*dlsmsv1.CreateReservationResponse).GetReservation()
		n := value[int](t, s, `SELECT count(*) FROM reservations WHERE user_id = $1 AND request_id = $2`,
			u.id(), req.GetRequestId())
		if n != 1 {
			t.Errorf("%d reservations", n)
		}
		u.cancel(first.GetId())
		// A later repeat gets the first answer, although the reservation has been cancelled.
		if again := u.request(req); !proto.Equal(again, first) {
			t.Errorf("the later answer is %v, the first was %v", again, first)
		}
		for _, other := range []*dlsmsv1.CreateReservationRequest{
			{SeatId: seat + 1, StartTime: req.GetStartTime(), EndTime: req.GetEndTime()},
			{SeatId: seat, StartTime: timestamppb.Now(), EndTime: req.GetEndTime()},
			{SeatId: seat, StartTime: req.GetStartTime(), EndTime: timestamppb.New(req.GetEndTime().AsTime().Add(time.Minute))},
		} {
			other.RequestId = req.GetRequestId()
			_, err := u.Reservations.CreateReservation(t.Context(), other)
			refused(t, err, "REQUEST_ID_REUSED")
		}
	}
	// A request_id belongs to one user: another user may use the same request_id.
	w := tomorrow(0, 2)
	req := w.booking(seats[1])
	req.RequestId = "booking-1"
	s.student(t).request(req)
}

func TestRepeatedJoinIsOneEntry(t *testing.T) {
	t.Parallel()
	everywhere(t, repeatedJoinIsOneEntry)
}

func repeatedJoinIsOneEntry(t *testing.T, s *system) {
	t.Helper()
	seats := s.branch(t, repeatRounds).seats
	owner, u := s.student(t), s.student(t)
	for round, seat := range seats {
		w := tomorrow(float64(24*round), float64(24*round)+2)
		booked := owner.book(seat, w)
		req := w.waiting(seat)
		req.RequestId = fmt.Sprintf("join-%d", round)
		first := oneAnswer(t, s, u, func(ctx context.Context, c *e2e.Client) (proto.Message, error) {
			return c.Notify.JoinWaitlist(ctx, req)
		}).(*dlsmsv1.JoinWaitlistResponse)
		n := value[int](t, s, `SELECT count(*) FROM waitlist_entries WHERE user_id = $1 AND seat_id = $2`, u.id(), seat)
		if n != 1 {
			t.Errorf("%d entries", n)
		}
		owner.cancel(booked.GetId()) // the entry is OFFERED now
		if again, err := u.Notify.JoinWaitlist(t.Context(), req); err != nil || !proto.Equal(again, first) {
			t.Errorf("the later answer is %v (%v), the first was %v", again, err, first)
		}
		other := tomorrow(float64(24*round), float64(24*round)+3).waiting(seat)
		other.RequestId = req.GetRequestId()
		_, err := u.Notify.JoinWaitlist(t.Context(), other)
		refused(t, err, "REQUEST_ID_REUSED")
		u.leave(first.GetEntry().GetId())
	}
}

// oneAnswer makes a call repeats times concurrently, over several connections. It checks that all
// answers are equal, and returns the answer.
func oneAnswer(
	t *testing.T, s *system, u student, call func(context.Context, *e2e.Client) (proto.Message, error),
) proto.Message {
	t.Helper()
	answers := make([]proto.Message, repeats)
	inParallel(t, repeats, repeats, func(i int) (err error) {
		answers[i], err = call(t.Context(), u.WithConn(s.proxied[i%len(s.proxied)]))
		return err
	})
	for _, a := range answers {
		if !proto.Equal(a, answers[0]) {
			t.Errorf("one answer is %v, another %v", a, answers[0])
		}
	}
	return answers[0]
}
