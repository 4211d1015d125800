package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// acknowledged is how many bookings and cancels are looked for after they were answered, and readers how many clients do so at once.
const acknowledged, readers = 1000, 10

// TestNoStaleRead looks, after each booking and cancel that was acknowledged, at what the next reads say, on other connections and so on any
// replica. Each client has a branch of its own, so that it knows what the counts must be. With READ_FRESHNESS above 0 it fails.
func TestNoStaleRead(t *testing.T) {
	t.Parallel()
	s := shared(t)
	users := s.users(t, readers)
	branches := make([]branch, readers)
	for i := range branches {
		branches[i] = s.branch(t, 3)
	}
	inParallel(t, readers, readers, func(i int) error {
		look := glance{users[i], branches[i], s.proxied[(i+1)%len(s.proxied)], s.log}
		for step := range acknowledged / readers / 2 {
			if err := look.bookAndCancel(t.Context(), step); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("%d reads of each kind after %d bookings and cancels: none was stale", acknowledged, acknowledged)
}

// glance is one client that looks at what it has just done.
type glance struct {
	user   *e2e.Client
	branch branch
	other  *grpc.ClientConn

	log *e2e.LogRecorder
}

func (g glance) bookAndCancel(ctx context.Context, step int) error {
	seat := g.branch.seats[step%len(g.branch.seats)]
	w := fromNow(2 * time.Hour)
	booked, err := g.user.Reservations.CreateReservation(ctx, w.booking(seat))
	if err != nil {
		return err
	}
	if err := g.sees(ctx, seat, w, false); err != nil {
		return fmt.Errorf("step %d, after the booking: %w", step, err)
	}
	_, err = g.user.Reservations.CancelReservation(ctx, &dlsmsv1.CancelReservationRequest{ReservationId: booked.GetReservation().GetId()})
	if err != nil {
		return err
	}
	if err := g.sees(ctx, seat, w, true); err != nil {
		return fmt.Errorf("step %d, after the cancel: %w", step, err)
	}
	return nil
}

// outOfReach is what a replica says that has had no answer from Postgres for seconds: as long as that lasts, it answers from memory.
const outOfReach = "can't follow the change log"

// sees looks, and fails if a read is stale. On a machine so busy that a replica says that it lost Postgres, it looks until that is over.
func (g glance) sees(ctx context.Context, seat int64, w window, free bool) error {
	err := g.look(ctx, seat, w, free)
	for over := time.Now().Add(10 * time.Second); err != nil && g.log.Has(outOfReach) && time.Now().Before(over); {
		err = g.look(ctx, seat, w, free)
	}
	return err
}

// look makes every kind of read once and fails if one of them is stale: the seat is free or not, all others of the branch are free.
func (g glance) look(ctx context.Context, seat int64, w window, free bool) error {
	c := g.user.WithConn(g.other)
	total, available := len(g.branch.seats), len(g.branch.seats)
	if !free {
		available--
	}

	// The call that everybody makes, whose answer is kept until something changes.
	all, err := c.Seats.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{AvailableOnly: true})
	if err != nil {
		return err
	}
	if has(all.GetSeats(), seat) != free {
		return fmt.Errorf("GetSeats of all, as of %s: the seat is in it: %t", all.GetAsOf().AsTime(), !free)
	}
	booked := w.booking(seat)
	ours, err := c.Seats.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{Branch: g.branch.code, StartTime: booked.GetStartTime(), EndTime: booked.GetEndTime()})
	if err != nil {
		return err
	}
	if int(ours.GetTotalCount()) != total || int(ours.GetAvailableCount()) != available {
		return fmt.Errorf("GetSeats of the branch in the window: %d of %d are free, want %d", ours.GetAvailableCount(), ours.GetTotalCount(), available)
	}
	one, err := c.Seats.GetSeat(ctx, &dlsmsv1.GetSeatRequest{SeatId: seat})
	if err != nil {
		return err
	}
	if one.GetSeat().GetAvailable() != free || (len(one.GetBusy()) == 0) != free {
		return fmt.Errorf("GetSeat: %v, want it free: %t", one, free)
	}
	branches, err := c.Seats.GetBranches(ctx, &dlsmsv1.GetBranchesRequest{})
	if err != nil {
		return err
	}
	for _, b := range branches.GetBranches() {
		if b.GetCode() == g.branch.code && int(b.GetAvailableCount()) == available {
			return nil
		}
	}
	return fmt.Errorf("GetBranches: %v, want %d free in %s", branches.GetBranches(), available, g.branch.code)
}
