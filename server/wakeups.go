package server

import (
	"sync"

	"github.com/dlsms/dlsms/library"
)

// Wakeups wakes the Subscribe streams of users that have new events. A wakeup carries no data: it
// only means that there may be something to read. One wakeup therefore stands for any number of
// events, and a slow subscriber does not delay other subscribers. The zero value is ready to use.
type Wakeups struct {
	mu     sync.Mutex
	byUser map[int64]map[chan struct{}]struct{}
}

// Subscribe returns a channel that receives a value after each event of the user's reservations.
// The subscriber calls stop when it no longer reads the channel.
func (w *Wakeups) Subscribe(userID int64) (wakeups <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byUser == nil {
		w.byUser = map[int64]map[chan struct{}]struct{}{}
	}
	if w.byUser[userID] == nil {
		w.byUser[userID] = map[chan struct{}]struct{}{}
	}
	w.byUser[userID][ch] = struct{}{}
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.byUser[userID], ch)
		if len(w.byUser[userID]) == 0 {
			delete(w.byUser, userID)
		}
	}
}

// Notify wakes the subscribers of the users that the events belong to. If events is empty, the feed
// has loaded the whole state instead of single events, so Notify wakes all subscribers.
func (w *Wakeups) Notify(events []library.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(events) == 0 {
		for _, subscribers := range w.byUser {
			wakeAll(subscribers)
		}
	}
	for _, e := range events {
		wakeAll(w.byUser[e.UserID])
	}
}

func wakeAll(subscribers map[chan struct{}]struct{}) {
	for ch := range subscribers {
		select {
		case ch <- struct{}{}:
		default: // a wakeup is pending already
		}
	}
}
