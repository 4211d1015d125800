package e2e_test

import (
	"testing"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

func TestReplicaRestartsLoseNothing(t *testing.T) {
	t.Parallel()
	for _, p := range []protocol{overGRPC, overHTTP} {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			s := start(t, stack.Config{Env: e2e.NoRateLimits()}).view(t, p, "")
			rollingRestart(t, s)
			killAllReplicas(t, s)
		})
	}
}

// rollingRestart restarts each replica in turn with SIGTERM, under load. No call needs more than
// one retry, streams end with UNAVAILABLE and lose no message, and each replica exits with code 0.
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

// killAllReplicas kills all replicas. While no replica runs, calls fail with UNAVAILABLE. When
// replicas run again, the data is unchanged.
func killAllReplicas(t *testing.T, s *system) {
	t.Helper()
	u, seat := s.student(t), s.branch(t, 1).seats[0]
	booked := u.book(seat, tomorrow(0, 1))
	open := u.subscribe()
	for _, r := range s.Replicas {
		if err := r.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	// A killed replica breaks its streams without a status. nginx then resets the streams of the
	// clients, so they end with INTERNAL. A client opens such a stream again.
	if _, err := open.End(within(t, waitTimeout)); err != nil {
		t.Error(err)
	}
	_, err := u.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{})
	refused(t, err, "UNAVAILABLE")
	refused(t, u.tryToBook(seat, tomorrow(1, 2)), "UNAVAILABLE")
	_, err = s.anonymous().Login(t.Context(), u.User.GetStudentId(), password)
	refused(t, err, "UNAVAILABLE")
	subscription, err := u.Subscribe(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	endsUnavailable(t, subscription)
	watch, err := u.Watch(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	endsUnavailable(t, watch)

	// One running replica is enough to serve all calls.
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
