package main

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestArrivalsHaveRateAndRandomGaps(t *testing.T) {
	t.Parallel()
	const rate, seconds = 1000, 20
	due := arrivals(rate, seconds*time.Second)
	// The number of arrivals of a Poisson process has the standard deviation √n.
	if got, want := float64(len(due)), float64(rate*seconds); math.Abs(got-want) > 4*math.Sqrt(want) {
		t.Errorf("%g arrivals in %d s at %d a second", got, seconds, rate)
	}
	short := 0
	for i := 1; i < len(due); i++ {
		if due[i] < due[i-1] {
			t.Fatalf("arrival %d is before arrival %d", i, i-1)
		}
		if due[i]-due[i-1] < time.Second/rate/10 {
			short++
		}
	}
	if share := float64(short) / float64(len(due)); share < 0.07 || share > 0.12 { // 1-e^-0.1
		t.Errorf("%.2f of the gaps are shorter than a tenth of the mean, want 0.095", share)
	}
	again := arrivals(rate, seconds*time.Second)
	if len(again) != len(due) || again[len(again)-1] != due[len(due)-1] {
		t.Error("two systems get different arrivals")
	}
}

func TestOpenLoopDoesNotWaitForAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		due := []time.Duration{0, 10 * time.Millisecond, 20 * time.Millisecond}
		began := time.Now()
		starts := make([]time.Duration, len(due))
		outcomes, err := openLoop(t.Context(), due, 10, func(ctx context.Context, n int) error {
			starts[n] = time.Since(began)
			return until(ctx, time.Now().Add(time.Second))
		})
		if err != nil {
			t.Fatal(err)
		}
		for n, at := range due {
			if starts[n] != at || outcomes[n].latency != time.Second {
				t.Errorf("call %d began at %s and took %s, want %s and 1s", n, starts[n], outcomes[n].latency, at)
			}
		}
	})
}

// TestPauseDelaysAllCallsThatWereDue checks that there is no coordinated omission: a system that
// pauses for a second delays each call that was due in this second.
func TestPauseDelaysAllCallsThatWereDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		due := make([]time.Duration, 20)
		for n := range due {
			due[n] = time.Duration(n) * 100 * time.Millisecond
		}
		pause := time.Now().Add(time.Second)
		var system sync.Mutex // it serves one call at a time
		outcomes, err := openLoop(t.Context(), due, 1, func(ctx context.Context, _ int) error {
			system.Lock()
			defer system.Unlock()
			return until(ctx, pause)
		})
		if err != nil {
			t.Fatal(err)
		}
		for n, o := range outcomes {
			if want := max(0, time.Second-due[n]); o.latency != want {
				t.Errorf("the call that was due at %s took %s, want %s", due[n], o.latency, want)
			}
		}
	})
}

func TestClosedLoopWaitsForAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outcomes, err := closedLoop(t.Context(), 3, time.Second, func(ctx context.Context, n int64) error {
			if err := until(ctx, time.Now().Add(100*time.Millisecond)); err != nil || n != 5 {
				return err
			}
			return errors.New("refused")
		})
		if err != nil || len(outcomes) != 30 {
			t.Fatalf("3 clients made %d calls of 100 ms in a second, %v", len(outcomes), err)
		}
		s := sampleOf(outcomes, 400*time.Millisecond, 900*time.Millisecond)
		if s.calls != 15 || s.failed != 1 || s.failures["refused"] != 1 {
			t.Errorf("%d calls in the measured time, %d failed", s.calls, s.failed)
		}
		if s.rps() != 30 || s.percentile(99) != 100*time.Millisecond {
			t.Errorf("%g a second, P99 %s; want 30 and 100ms", s.rps(), s.percentile(99))
		}
	})
}
