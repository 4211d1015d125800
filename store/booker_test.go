package store

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/dlsms/dlsms/library"
)

func TestBookerTakesNoUserTwice(t *testing.T) {
	t.Parallel()
	k := &booker{busy: 1}
	for i := range int64(2*mostTogether + 2) {
		k.waiting = append(k.waiting, &wish{Booking: library.Booking{UserID: i / 2, SeatID: i}}) // each user wants two seats
	}
	var seats []int64
	for len(k.waiting) > 0 {
		users := map[int64]bool{}
		together := k.next()
		if len(together) == 0 || len(together) > mostTogether {
			t.Fatalf("%d book together", len(together))
		}
		for _, w := range together {
			if users[w.UserID] {
				t.Fatalf("user %d books twice at once", w.UserID)
			}
			users[w.UserID] = true
			seats = append(seats, w.SeatID)
		}
	}
	slices.Sort(seats)
	if len(slices.Compact(seats)) != 2*mostTogether+2 {
		t.Errorf("%d of %d wishes came to their turn", len(seats), 2*mostTogether+2)
	}
	if k.next() != nil || k.busy != 0 {
		t.Error("with nobody waiting, the lane is not free")
	}
}

func TestBookerForgetsWhoLeaves(t *testing.T) {
	t.Parallel()
	k := &booker{busy: bookerLanes} // all lanes are busy, for ever
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := k.book(ctx, library.Booking{UserID: 1})
		left <- err
	}()
	for waits := false; !waits; {
		k.mu.Lock()
		waits = len(k.waiting) == 1
		k.mu.Unlock()
	}
	leave()
	if err := <-left; !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if k.next() != nil {
		t.Error("who left is booked for")
	}
}
