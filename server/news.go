package server

import (
	"sync"

	"github.com/dlsms/dlsms/store"
)

// News wakes the open subscriptions of the users whom events concern. It says only that there is something to read, so one wake stands for
// any number of events and a slow subscriber holds up nobody. Its zero value is ready.
type News struct {
	mu     sync.Mutex
	byUser map[int64]map[chan struct{}]struct{}
}

// Of returns a channel that gets a value after each event of the user's reservations, and what to call when nobody listens any more.
func (n *News) Of(userID int64) (news <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byUser == nil {
		n.byUser = map[int64]map[chan struct{}]struct{}{}
	}
	if n.byUser[userID] == nil {
		n.byUser[userID] = map[chan struct{}]struct{}{}
	}
	n.byUser[userID][ch] = struct{}{}
	return ch, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.byUser[userID], ch)
		if len(n.byUser[userID]) == 0 {
			delete(n.byUser, userID)
		}
	}
}

// Tell wakes those whom the events concern; without events, everybody: something may have been missed.
func (n *News) Tell(events []store.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(events) == 0 {
		for _, subscriptions := range n.byUser {
			wake(subscriptions)
		}
	}
	for _, e := range events {
		wake(n.byUser[e.UserID])
	}
}

func wake(subscriptions map[chan struct{}]struct{}) {
	for ch := range subscriptions {
		select {
		case ch <- struct{}{}:
		default: // it is awake already
		}
	}
}
