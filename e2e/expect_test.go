package e2e_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// eventually waits for a condition, and stops the test if it is still false after waitTimeout.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	if !happens(condition) {
		t.Fatalf("not within %s: %s", waitTimeout, what)
	}
}

// happens waits for a condition and reports whether it became true within waitTimeout.
func happens(condition func() bool) bool {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(waitTimeout)
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline:
			return false
		}
	}
	return true
}

// within returns a context that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// inParallel calls f with the numbers from 0 to n-1. At most atOnce calls run at the same time. If
// one returns an error, inParallel stops the test.
func inParallel(t *testing.T, n, atOnce int, f func(i int) error) {
	t.Helper()
	var all sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, n)
	for range min(n, atOnce) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				errs[i] = f(int(i))
			}
		})
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("%d of %d: %v", i, n, err)
		}
	}
}

// refused checks that err matches the contract for this reason.
func refused(t *testing.T, err error, reason string) {
	t.Helper()
	if err := e2e.CheckRefusal(err, reason); err != nil {
		t.Error(err)
	}
}

// window is the window of a request.
type window struct{ start, end time.Time }

// tomorrow returns a window between two hours of a day. The day begins 24 hours from now, rounded
// down to the hour.
func tomorrow(from, to float64) window {
	day := time.Now().Add(24 * time.Hour).Truncate(time.Hour)
	at := func(hours float64) time.Time { return day.Add(time.Duration(hours * float64(time.Hour))) }
	return window{at(from), at(to)}
}

// fromNow returns a window of length d that begins now.
func fromNow(d time.Duration) window {
	now := time.Now().Truncate(time.Microsecond)
	return window{now, now.Add(d)}
}

func (w window) booking(seatID int64) *dlsmsv1.CreateReservationRequest {
	return &dlsmsv1.CreateReservationRequest{
		SeatId:    seatID,
		StartTime: timestamppb.New(w.start),
		EndTime:   timestamppb.New(w.end),
	}
}

func (w window) waiting(seatID int64) *dlsmsv1.JoinWaitlistRequest {
	return &dlsmsv1.JoinWaitlistRequest{
		SeatId:    seatID,
		StartTime: timestamppb.New(w.start),
		EndTime:   timestamppb.New(w.end),
	}
}
