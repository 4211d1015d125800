package store

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/dlsms/dlsms/library"
)

func TestBatchHasEachUserOnce(t *testing.T) {
	t.Parallel()
	q := &reserveQueue{workers: 1}
	for i := range int64(2*maxBatch + 2) { // two bookings of each user
		q.waiting = append(q.waiting, &pending{Booking: library.Booking{UserID: i / 2, SeatID: i}})
	}
	var seats []int64
	for len(q.waiting) > 0 {
		users := map[int64]bool{}
		batch := q.take()
		if len(batch) == 0 || len(batch) > maxBatch {
			t.Fatalf("a batch has %d bookings", len(batch))
		}
		for _, p := range batch {
			if users[p.UserID] {
				t.Fatalf("user %d has two bookings in a batch", p.UserID)
			}
			users[p.UserID] = true
			seats = append(seats, p.SeatID)
		}
	}
	slices.Sort(seats)
	if len(slices.Compact(seats)) != 2*maxBatch+2 {
		t.Errorf("%d of %d bookings were taken", len(seats), 2*maxBatch+2)
	}
	if q.take() != nil || q.workers != 0 {
		t.Error("the queue is empty, but take returned a batch or did not unregister the worker")
	}
}

func TestCancelledBookingLeavesTheQueue(t *testing.T) {
	t.Parallel()
	q := &reserveQueue{workers: reserveWorkers} // all workers count as busy, so the booking waits
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan error)
	go func() {
		returned <- q.reserve(ctx, library.Booking{UserID: 1}).err
	}()
	for waits := false; !waits; {
		q.mu.Lock()
		waits = len(q.waiting) == 1
		q.mu.Unlock()
	}
	cancel()
	if err := <-returned; !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if q.take() != nil {
		t.Error("the cancelled booking is still in the queue")
	}
}
