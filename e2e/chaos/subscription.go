package main

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/metadata"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// subscription is the subscription of a client to its notifications. When the stream ends for any
// reason, the client opens a new stream, which continues after the last notification that it
// received. Over HTTP, the client names this notification in the header Last-Event-ID.
type subscription struct {
	client *client

	mu     sync.Mutex
	ids    []int64
	opened atomic.Int64
}

// read receives notifications until ctx ends.
func (m *subscription) read(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		api := m.client.WithConn(m.client.conns[(m.client.number+n)%len(m.client.conns)])
		req, opening := &dlsmsv1.SubscribeRequest{}, ctx
		switch last := m.last(); {
		case m.client.http == nil:
			req.AfterId = last
		case last > 0:
			opening = metadata.AppendToOutgoingContext(ctx, "last-event-id", strconv.FormatInt(last, 10))
		}
		stream, err := api.Notify.Subscribe(opening, req)
		for err == nil {
			var got *dlsmsv1.SubscribeResponse
			if got, err = stream.Recv(); err == nil && got.GetNotification() != nil {
				m.mu.Lock()
				m.ids = append(m.ids, got.GetNotification().GetId())
				m.mu.Unlock()
			}
		}
		sleep(ctx, retryAfter)
	}
}

func (m *subscription) last() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened.Add(1)
	if len(m.ids) == 0 {
		return 0
	}
	return m.ids[len(m.ids)-1]
}

func (m *subscription) got() []int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.ids)
}

// compare returns the ids of the received notifications, and of the notifications in the database.
// The worker may still add notifications.
func (m *subscription) compare(ctx context.Context, s *system) (got, want []int64, err error) {
	rows, err := s.db.Query(ctx,
		`SELECT id FROM reservation_events WHERE notifies AND user_id = $1 ORDER BY id`, m.client.User.GetId())
	if err != nil {
		return nil, nil, err
	}
	want, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	return m.got(), want, err
}

// watcher is the watch of a client on the visits branch. When the stream ends for any reason, the
// client opens it again. Each stream begins with a snapshot.
type watcher struct {
	client *client

	mu       sync.Mutex
	recorder *e2e.StreamRecorder[dlsmsv1.WatchSeatsResponse]
	opened   atomic.Int64
}

func (w *watcher) watch(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		conn := w.client.conns[(w.client.number+n)%len(w.client.conns)]
		req := &dlsmsv1.WatchSeatsRequest{Branch: visitsBranch}
		recorder, err := w.client.WithConn(conn).Watch(ctx, req)
		if err == nil {
			w.mu.Lock()
			w.recorder = recorder
			w.opened.Add(1)
			w.mu.Unlock()
			<-recorder.Ended()
		}
		sleep(ctx, retryAfter)
	}
}

// shows returns the current seats, by id, as the messages of the watch describe them.
func (w *watcher) shows() map[int64]*dlsmsv1.Seat {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.recorder == nil {
		return nil
	}
	return e2e.LatestSeats(w.recorder.Messages())
}

// streams are the open streams of the clients.
type streams struct {
	subscriptions []*subscription
	watchers      []*watcher

	stop context.CancelFunc
	all  sync.WaitGroup
}

// watcherCount is the number of clients that watch the visits branch.
const watcherCount = 6

func openStreams(ctx context.Context, clients []*client) *streams {
	s := &streams{}
	ctx, s.stop = context.WithCancel(ctx)
	for i, c := range clients {
		m := &subscription{client: c}
		s.subscriptions = append(s.subscriptions, m)
		s.all.Go(func() { m.read(ctx) })
		if i < watcherCount {
			w := &watcher{client: c}
			s.watchers = append(s.watchers, w)
			s.all.Go(func() { w.watch(ctx) })
		}
	}
	return s
}

func (s *streams) end() {
	s.stop()
	s.all.Wait()
}

// catchUp waits until each stream has delivered exactly what is in the database, in order. A stream
// that is still incomplete or wrong after settleTime is a violation.
func (r *result) catchUp(ctx context.Context, sys *system, s *streams) error {
	due := time.Now().Add(settleTime)
	for _, m := range s.subscriptions {
		got, want, err := m.compare(ctx, sys)
		for err == nil && !slices.Equal(got, want) && time.Now().Before(due) {
			sleep(ctx, retryAfter)
			got, want, err = m.compare(ctx, sys)
		}
		if err != nil {
			return err
		}
		r.notifications += int64(len(got))
		r.addOpened(m.client, m.opened.Load())
		if !slices.Equal(got, want) {
			r.wrongStreams++
			r.found.add(checkStreams, "user %d received %d of %d notifications, or in the wrong order; the last are %v",
				m.client.User.GetId(), len(got), len(want), got[max(0, len(got)-10):])
		}
	}
	for _, w := range s.watchers {
		same := false
		for !same && time.Now().Before(due) {
			resp, err := w.client.Seats.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{Branch: visitsBranch})
			same = err == nil && shows(w.shows(), resp.GetSeats())
			if !same {
				sleep(ctx, retryAfter)
			}
		}
		r.addOpened(w.client, w.opened.Load())
		if !same {
			r.wrongStreams++
			r.found.add(checkStreams, "the watch of user %d does not show the current seats", w.client.User.GetId())
		}
	}
	return nil
}

// addOpened counts the streams that a client has opened.
func (r *result) addOpened(c *client, n int64) {
	r.opened += n
	if c.http != nil {
		r.openedHTTP += n
	}
}
