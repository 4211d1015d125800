package main

import (
	"maps"
	"sync"
	"time"
)

// freshness judges whether answers show every change that was acknowledged before the read began.
// It is safe for concurrent use.
type freshness struct {
	mu    sync.Mutex
	seats map[int64]seatState

	checked, stale int
	greatest       time.Duration // the greatest age of a stale answer
}

// seatState is the state of a seat as its last acknowledged change left it.
type seatState struct {
	available bool
	since     time.Time
	// changes counts the starts and the ends of changes. While it is odd, a change is in flight, and
	// both states of the seat are right.
	changes int
}

// newFreshness returns a freshness for seats that are available.
func newFreshness(seats []int64) *freshness {
	f := &freshness{seats: map[int64]seatState{}}
	for _, id := range seats {
		f.seats[id] = seatState{available: true}
	}
	return f
}

// change says that a request is sent that changes the seat.
func (f *freshness) change(seat int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.seats[seat]
	s.changes++
	f.seats[seat] = s
}

// acknowledge says that the request was answered at a time.
func (f *freshness) acknowledge(seat int64, available bool, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seats[seat] = seatState{available, at, f.seats[seat].changes + 1}
}

// look returns the states that a read, which begins now, must show.
func (f *freshness) look() map[int64]seatState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.seats)
}

// judge compares an answer with the states before its read. A seat that changed since then does
// not count. The age of a stale answer is the time from the acknowledgement that it does not show
// to the start of the read. counted includes the answer in the totals.
func (f *freshness) judge(
	before map[int64]seatState, available map[int64]bool, sent time.Time, counted bool,
) (stale bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, s := range before {
		if s.changes%2 != 0 || f.seats[id].changes != s.changes || available[id] == s.available {
			continue
		}
		stale = true
		f.greatest = max(f.greatest, sent.Sub(s.since))
	}
	if counted {
		f.checked++
		if stale {
			f.stale++
		}
	}
	return stale
}
