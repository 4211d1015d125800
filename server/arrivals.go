package server

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
)

// arrivalPause is the shortest time between two reads of a watch. It bounds the load that an open
// desk causes while many users book at once.
const arrivalPause = 250 * time.Millisecond

// Arrivals tells the streams of WatchArrivals which reservations have changed. The zero value is
// ready to use.
type Arrivals struct {
	mu      sync.Mutex
	watches map[*arrivalWatch]struct{}
}

// arrivalWatch collects the ids of changed reservations that start in the window [from, until). The
// start of a reservation never changes.
type arrivalWatch struct {
	hub         *Arrivals
	from, until time.Time
	woken       chan struct{} // receives a value after a change

	// The lock of hub guards these.
	changed map[int64]struct{} // ids, at most maxArrivals
	restart bool               // the client must read the list
}

// watch begins a watch. The caller calls stop at its end.
func (a *Arrivals) watch(from, until time.Time) (w *arrivalWatch, stop func()) {
	w = &arrivalWatch{
		hub: a, from: from, until: until, woken: make(chan struct{}, 1), changed: map[int64]struct{}{}, restart: true,
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watches == nil {
		a.watches = map[*arrivalWatch]struct{}{}
	}
	a.watches[w] = struct{}{}
	return w, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watches, w)
	}
}

// Notify adds the reservations of the events to the watches.
func (a *Arrivals) Notify(events []library.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.watches {
		for _, e := range events {
			if !e.StartTime.Before(w.from) && e.StartTime.Before(w.until) {
				w.add(e.ReservationID)
			}
		}
	}
}

// Restart tells all watches that changes may be missing.
func (a *Arrivals) Restart() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.watches {
		w.begin()
	}
}

func (w *arrivalWatch) add(id int64) {
	w.changed[id] = struct{}{}
	if len(w.changed) > maxArrivals {
		w.begin()
		return
	}
	w.wake()
}

func (w *arrivalWatch) begin() {
	clear(w.changed)
	w.restart = true
	w.wake()
}

func (w *arrivalWatch) wake() {
	select {
	case w.woken <- struct{}{}:
	default: // a value is pending already
	}
}

// take returns what has changed since the last call. If restart is true, changes before the call may
// be missing in ids.
func (w *arrivalWatch) take() (ids []int64, restart bool) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	for id := range w.changed {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	restart = w.restart
	clear(w.changed)
	w.restart = false
	return ids, restart
}

// WatchArrivals streams the changes of a day. It begins to collect changes before it sends
// ArrivalsStarted, so no change after that message is missing.
func (s *deskService) WatchArrivals(
	req *dlsmsv1.WatchArrivalsRequest, stream grpc.ServerStreamingServer[dlsmsv1.WatchArrivalsResponse],
) error {
	var c check
	branch, day := c.text("branch", req.GetBranch(), 1, 32), c.optionalDay("day", req.GetDay())
	if err := c.err(); err != nil {
		return err
	}

	ctx := stream.Context()
	from, until, err := s.store.ArrivalDay(ctx, edge.Caller(ctx).Actor(), branch, day)
	if err != nil {
		return err
	}
	w, stop := s.arrivals.watch(from, until)
	defer stop()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		messages, err := s.changes(ctx, branch, w)
		if err != nil {
			return err
		}
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				return err
			}
			beat.Reset(heartbeat)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(arrivalPause): // also after changes of other branches only
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.woken:
		case <-beat.C:
			event := &dlsmsv1.WatchArrivalsResponse_Heartbeat{Heartbeat: &dlsmsv1.Heartbeat{}}
			if err := stream.Send(&dlsmsv1.WatchArrivalsResponse{Event: event}); err != nil {
				return err
			}
		}
	}
}

// changes returns the messages about what has changed. It reads the scope of the caller again, who may
// have lost the branch.
func (s *deskService) changes(
	ctx context.Context, branch string, w *arrivalWatch,
) (messages []*dlsmsv1.WatchArrivalsResponse, err error) {
	ids, restart := w.take()
	if restart {
		event := &dlsmsv1.WatchArrivalsResponse_Started{Started: &dlsmsv1.ArrivalsStarted{}}
		messages = append(messages, &dlsmsv1.WatchArrivalsResponse{Event: event})
	}
	if len(ids) == 0 {
		return messages, nil
	}
	list, err := s.store.ChangedArrivals(ctx, edge.Caller(ctx).Actor(), branch, ids)
	if err != nil || len(list) == 0 {
		return messages, err
	}
	change := &dlsmsv1.ArrivalsChange{}
	for _, a := range list {
		change.Reservations = append(change.Reservations, affectedProto(a))
	}
	event := &dlsmsv1.WatchArrivalsResponse_Change{Change: change}
	return append(messages, &dlsmsv1.WatchArrivalsResponse{Event: event}), nil
}
