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

// acknowledged is the number of bookings and cancellations of all clients together. The test reads
// after each of them. readers is the number of clients.
const acknowledged, readers = 1000, 10

// TestNoStaleRead makes every kind of read after each acknowledged booking and cancellation. The
// reads use another connection than the change, so another replica may answer them. Each client has
// a branch of its own, so it knows how many seats must be free. With READ_FRESHNESS above 0 the
// test fails, because then the server may answer with an older state.
func TestNoStaleRead(t *testing.T) {
	t.Parallel()
	everywhere(t, noStaleRead)
}

func noStaleRead(t *testing.T, s *system) {
	t.Helper()
	users := s.users(t, readers)
	branches := make([]branch, readers)
	for i := range branches {
		branches[i] = s.branch(t, 3)
	}
	inParallel(t, readers, readers, func(i int) error {
		client := freshClient{users[i], branches[i], s.reader(t, i), s.log}
		for step := range acknowledged / readers / 2 {
			if err := client.bookAndCancel(t.Context(), step); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("%d reads of each kind after %d bookings and cancellations: none was stale", acknowledged, acknowledged)
}

// reader returns a connection for the reads of a client. Over HTTP it sends If-None-Match: a 304 must
// be as fresh as a 200.
func (s *system) reader(t *testing.T, client int) grpc.ClientConnInterface {
	t.Helper()
	if s.protocol != overHTTP {
		return s.proxied[(client+1)%len(s.proxied)]
	}
	c, err := dialHTTP(s.HTTPAddr(), e2e.RevalidateHTTP())
	if err != nil {
		t.Fatal(err)
	}
	hangUpAtEnd(t, c)
	return c
}

// freshClient is a client that reads its own writes.
type freshClient struct {
	user   *e2e.Client
	branch branch
	other  grpc.ClientConnInterface

	log *e2e.LogRecorder
}

func (c freshClient) bookAndCancel(ctx context.Context, step int) error {
	seat := c.branch.seats[step%len(c.branch.seats)]
	w := fromNow(2 * time.Hour)
	booked, err := c.user.Reservations.CreateReservation(ctx, w.booking(seat))
	if err != nil {
		return err
	}
	if err := c.sees(ctx, seat, w, false); err != nil {
		return fmt.Errorf("step %d, after the booking: %w", step, err)
	}
	_, err = c.user.Reservations.CancelReservation(
		ctx, &dlsmsv1.CancelReservationRequest{ReservationId: booked.GetReservation().GetId()},
	)
	if err != nil {
		return err
	}
	if err := c.sees(ctx, seat, w, true); err != nil {
		return fmt.Errorf("step %d, after the cancellation: %w", step, err)
	}
	return nil
}

// outOfReach is the log message of a replica that has had no answer from Postgres for some seconds.
// Until Postgres answers, the replica serves reads from memory.
const outOfReach = "can't follow the change log"

// sees makes every kind of read, and fails if one is stale. On a busy machine a replica may lose
// its connection to Postgres and log outOfReach. In this case sees repeats the reads for up to 10
// s.
func (c freshClient) sees(ctx context.Context, seat int64, w window, free bool) error {
	err := c.readAll(ctx, seat, w, free)
	deadline := time.Now().Add(10 * time.Second)
	for err != nil && c.log.Has(outOfReach) && time.Now().Before(deadline) {
		err = c.readAll(ctx, seat, w, free)
	}
	return err
}

// readAll makes every kind of read once. It fails unless the seat is free or taken as expected, and
// all other seats of the branch are free.
func (c freshClient) readAll(ctx context.Context, seat int64, w window, free bool) error {
	reader := c.user.WithConn(c.other)
	total, available := len(c.branch.seats), len(c.branch.seats)
	if !free {
		available--
	}

	// Clients make this call most often. The server caches its answer until a seat changes.
	all, err := reader.Seats.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{AvailableOnly: true})
	if err != nil {
		return err
	}
	if has(all.GetSeats(), seat) != free {
		return fmt.Errorf("GetSeats of all, as of %s: has the seat: %t", all.GetAsOf().AsTime(), !free)
	}
	booked := w.booking(seat)
	ours, err := reader.Seats.GetSeats(
		ctx,
		&dlsmsv1.GetSeatsRequest{Branch: c.branch.code, StartTime: booked.GetStartTime(), EndTime: booked.GetEndTime()},
	)
	if err != nil {
		return err
	}
	if int(ours.GetTotalCount()) != total || int(ours.GetAvailableCount()) != available {
		return fmt.Errorf("GetSeats of the branch in the window: %d of %d are free, want %d",
			ours.GetAvailableCount(), ours.GetTotalCount(), available)
	}
	one, err := reader.Seats.GetSeat(ctx, &dlsmsv1.GetSeatRequest{SeatId: seat})
	if err != nil {
		return err
	}
	if one.GetSeat().GetAvailable() != free || (len(one.GetBusy()) == 0) != free {
		return fmt.Errorf("GetSeat: %v, want it free: %t", one, free)
	}
	branches, err := reader.Seats.GetBranches(ctx, &dlsmsv1.GetBranchesRequest{})
	if err != nil {
		return err
	}
	for _, b := range branches.GetBranches() {
		if b.GetCode() == c.branch.code && int(b.GetAvailableCount()) == available {
			return nil
		}
	}
	return fmt.Errorf("GetBranches: %v, want %d free in %s", branches.GetBranches(), available, c.branch.code)
}
