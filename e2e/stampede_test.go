package e2e_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// TestStampedeHasOneWinner lets up to 200 users book one seat at the same moment. One user gets the
// seat, and all others are refused within a second.
//
// If a booking were a plain INSERT, the bookings would deadlock, and this test would fail: Postgres
// detects a deadlock only after deadlock_timeout (1 s). TestControlPlainInsertsDeadlock in package
// store shows these deadlocks.
//
//nolint:paralleltest // the bound on time needs an otherwise idle machine
func TestStampedeHasOneWinner(t *testing.T) {
	if err := build("dlsms-fast", "0"); err != nil {
		t.Fatal(err)
	}
	s := start(
		t,
		stack.Config{
			Binary: program("dlsms-fast"),
			Env:    map[string]string{"RATE_LIMIT_PER_MINUTE": "0", "AUTH_RATE_LIMIT_PER_MINUTE": "0"},
		},
	)
	seats := s.branch(t, 21).seats
	users := s.users(t, 200)
	// In the first round some calls may get OVERLOADED, because the connection pools still grow
	// from DB_MIN_CONNS.
	t.Logf("the first round took %s", stampede(t, users, seats[20], 5, "OVERLOADED"))
	for day, size := range []int{10, 50, 200} {
		t.Run(fmt.Sprintf("%d at once", size), func(t *testing.T) {
			var slowest time.Duration
			for _, seat := range seats[:20] {
				slowest = max(slowest, stampede(t, users[:size], seat, day))
			}
			if slowest > time.Second {
				t.Errorf("the slowest call took %s", slowest)
			}
			t.Logf("20 rounds of %d, the slowest call took %s", size, slowest)
		})
	}
	// system.stop checks that the log and the statistics of Postgres have no deadlock.
}

// stampede lets each user book the seat at the same moment. All windows overlap, so one booking
// must succeed. The other users must get SEAT_TAKEN or a tolerated reason. stampede returns the
// time of the slowest call.
func stampede(t *testing.T, users []*e2e.Client, seat int64, day int, tolerated ...string) time.Duration {
	t.Helper()
	type outcome struct {
		booked *dlsmsv1.Reservation
		err    error
		took   time.Duration
	}
	outcomes := make([]outcome, len(users))
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i, c := range users {
		w := tomorrow(float64(24*day)+float64(i%4)/4, float64(24*day)+2-float64(i%3)/6)
		req := &dlsmsv1.CreateReservationRequest{
			SeatId:    seat,
			StartTime: timestamppb.New(w.start),
			EndTime:   timestamppb.New(w.end),
		}
		all.Go(func() {
			<-begin
			at := time.Now()
			resp, err := c.Reservations.CreateReservation(t.Context(), req)
			outcomes[i] = outcome{resp.GetReservation(), err, time.Since(at)}
		})
	}
	close(begin)
	all.Wait()

	var slowest time.Duration
	won := 0
	for i, o := range outcomes {
		slowest = max(slowest, o.took)
		if o.err != nil {
			if !slices.Contains(tolerated, e2e.Reason(o.err)) {
				refused(t, o.err, "SEAT_TAKEN")
			}
			continue
		}
		won++
		_, err := users[i].Reservations.CancelReservation(
			t.Context(), &dlsmsv1.CancelReservationRequest{ReservationId: o.booked.GetId()},
		)
		if err != nil {
			t.Error(err) // without the cancel, the next round gets USER_BUSY
		}
	}
	if won != 1 {
		t.Errorf("%d of %d got the seat", won, len(users))
	}
	return slowest
}
