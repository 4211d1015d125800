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

// TestStampede has crowds book one seat at the same moment: one gets it and everybody else is told so at once. With a plain INSERT as the
// decision, each round of 50 costs deadlocks, of which each takes Postgres's deadlock_timeout of a second; store/ has that as the control.
//
//nolint:paralleltest // its bound on time holds for a machine that does nothing else meanwhile
func TestStampede(t *testing.T) {
	if err := build("dlsms-fast", "0"); err != nil {
		t.Fatal(err)
	}
	s := start(t, stack.Config{Binary: program("dlsms-fast"), Env: map[string]string{"RATE_LIMIT_PER_MINUTE": "0", "AUTH_RATE_LIMIT_PER_MINUTE": "0"}})
	seats := s.branch(t, 21).seats
	crowd := s.users(t, 200)
	// The first rush after a start is another matter: the pools grow from DB_MIN_CONNS to what it takes, and some may be told OVERLOADED.
	t.Logf("the first of all took %s", stampede(t, crowd, seats[20], 5, "OVERLOADED"))
	for day, size := range []int{10, 50, 200} {
		t.Run(fmt.Sprintf("%d at once", size), func(t *testing.T) {
			var slowest time.Duration
			for _, seat := range seats[:20] {
				slowest = max(slowest, stampede(t, crowd[:size], seat, day))
			}
			if slowest > time.Second {
				t.Errorf("one of them waited for %s", slowest)
			}
			t.Logf("20 rounds of %d, the slowest call took %s", size, slowest)
		})
	}
	// That there was no deadlock, the end of the system checks: by Postgres's log and its statistics.
}

// stampede has each of a crowd book the seat at once, for windows that all have an hour in common, and returns how long the slowest waited.
// All but one have to be told SEAT_TAKEN, or something else that is tolerated.
func stampede(t *testing.T, crowd []*e2e.Client, seat int64, day int, tolerated ...string) time.Duration {
	t.Helper()
	type outcome struct {
		booked *dlsmsv1.Reservation
		err    error
		took   time.Duration
	}
	outcomes := make([]outcome, len(crowd))
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i, c := range crowd {
		w := tomorrow(float64(24*day)+float64(i%4)/4, float64(24*day)+2-float64(i%3)/6)
		req := &dlsmsv1.CreateReservationRequest{SeatId: seat, StartTime: timestamppb.New(w.start), EndTime: timestamppb.New(w.end)}
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
		_, err := crowd[i].Reservations.CancelReservation(t.Context(), &dlsmsv1.CancelReservationRequest{ReservationId: o.booked.GetId()})
		if err != nil {
			t.Error(err) // the next round is not about who is busy
		}
	}
	if won != 1 {
		t.Errorf("%d of %d got the seat", won, len(crowd))
	}
	return slowest
}
