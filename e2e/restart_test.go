package e2e_test

import (
	"testing"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

func TestReplicasStop(t *testing.T) {
	t.Parallel()
	s := start(t, stack.Config{Env: e2e.NoRateLimits()})
	rollingRestart(t, s)
	allGone(t, s)
}

// rollingRestart stops one replica after the other with SIGTERM, and starts it again, while clients go on: none of them has to make a call
// more than twice, streams end with UNAVAILABLE and lose nothing, and each replica ends with exit code 0.
func rollingRestart(t *testing.T, s *system) {
	t.Helper()
	l, end := startLoad(t, s)
	l.progress(60, 10)
	for i, r := range s.Replicas {
		reopened := l.reopened.Load()
		if err := r.Restart(t.Context()); err != nil {
			t.Fatalf("replica %d: %v", i, err)
		}
		l.progress(60, 10)
		if l.reopened.Load() == reopened {
			t.Errorf("replica %d ended no stream", i)
		}
	}
	end()
}

// allGone kills all replicas. Clients are told to come back, and when they do, everything is as it was.
func allGone(t *testing.T, s *system) {
	t.Helper()
	u, seat := s.student(t), s.branch(t, 1).seats[0]
	booked := u.book(seat, tomorrow(0, 1))
	open := u.subscribe()
	for _, r := range s.Replicas {
		if err := r.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	// An open stream is cut off. All that a proxy can do by then is to reset it, so it ends with INTERNAL, and a client opens it again.
	if _, err := open.End(within(t, waitTimeout)); err != nil {
		t.Error(err)
	}
	_, err := u.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{})
	refused(t, err, "UNAVAILABLE")
	refused(t, u.tryToBook(seat, tomorrow(1, 2)), "UNAVAILABLE")
	_, err = s.anonymous().Login(t.Context(), u.User.GetStudentId(), password)
	refused(t, err, "UNAVAILABLE")
	mail, err := u.Subscribe(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	unavailable(t, mail)
	screen, err := u.Watch(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	unavailable(t, screen)

	// One is enough.
	if err := s.Replicas[1].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if got := u.reservation(booked.GetId()); got.GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_CONFIRMED {
			t.Errorf("the reservation is %v", got)
		}
	}
	u.cancel(booked.GetId())
	for _, i := range []int{0, 2} {
		if err := s.Replicas[i].Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	u.book(seat, tomorrow(0, 1))
}
