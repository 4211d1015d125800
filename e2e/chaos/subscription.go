package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// mail is a client's subscription, which is opened again after the last notification that came, whatever ended it.
type subscription struct {
	client *client

	mu     sync.Mutex
	ids    []int64
	opened atomic.Int64
}

// read goes on until ctx ends.
func (m *subscription) read(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		api := m.client.WithConn(m.client.conns[(m.client.number+n)%len(m.client.conns)])
		stream, err := api.Notify.Subscribe(ctx, &dlsmsv1.SubscribeRequest{AfterId: m.last()})
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

// compare returns the notifications that came, and those that there are: the worker may still add some.
func (m *subscription) compare(ctx context.Context, at *system) (got, want []int64, err error) {
	rows, err := at.db.Query(ctx, `SELECT id FROM reservation_events WHERE notifies AND user_id = $1 ORDER BY id`, m.client.User.GetId())
	if err != nil {
		return nil, nil, err
	}
	want, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	return m.got(), want, err
}

// screen is what a client shows of the visits' branch, and watches; it is opened again, with a snapshot, whatever ended it.
type watcher struct {
	client *client

	mu     sync.Mutex
	tap    *e2e.StreamRecorder[dlsmsv1.WatchSeatsResponse]
	opened atomic.Int64
}

func (s *watcher) watch(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		tap, err := s.client.WithConn(s.client.conns[(s.client.number+n)%len(s.client.conns)]).Watch(ctx, &dlsmsv1.WatchSeatsRequest{Branch: visitsBranch})
		if err == nil {
			s.mu.Lock()
			s.tap = tap
			s.opened.Add(1)
			s.mu.Unlock()
			<-tap.Ended()
		}
		sleep(ctx, retryAfter)
	}
}

func (s *watcher) shows() map[int64]*dlsmsv1.Seat {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tap == nil {
		return nil
	}
	return e2e.LatestSeats(s.tap.Messages())
}

// streams are those that the clients have open.
type streams struct {
	subscriptions []*subscription
	watchersOpen  []*watcher

	stop context.CancelFunc
	all  sync.WaitGroup
}

const watchersOpen = 6

func openStreams(ctx context.Context, clients []*client) *streams {
	s := &streams{}
	ctx, s.stop = context.WithCancel(ctx)
	for i, c := range clients {
		m := &subscription{client: c}
		s.subscriptions = append(s.subscriptions, m)
		s.all.Go(func() { m.read(ctx) })
		if i < watchersOpen {
			w := &watcher{client: c}
			s.watchersOpen = append(s.watchersOpen, w)
			s.all.Go(func() { w.watch(ctx) })
		}
	}
	return s
}

func (s *streams) end() {
	s.stop()
	s.all.Wait()
}

// catchUp waits until the streams have brought what there is, no more, nothing twice and in order, and says what they have not.
func (r *result) catchUp(ctx context.Context, at *system, s *streams) error {
	due := time.Now().Add(settleTime)
	for _, m := range s.subscriptions {
		got, want, err := m.compare(ctx, at)
		for ; err == nil && !slices.Equal(got, want) && time.Now().Before(due); got, want, err = m.compare(ctx, at) {
			sleep(ctx, retryAfter)
		}
		if err != nil {
			return err
		}
		r.notifications += int64(len(got))
		r.opened += m.opened.Load()
		if !slices.Equal(got, want) {
			r.wrongStreams++
			r.found.add(checkStreams, "user %d was told of %d events, of %d there are, in this order: %v", m.client.User.GetId(), len(got), len(want), got[max(0, len(got)-10):])
		}
	}
	for _, w := range s.watchersOpen {
		same := false
		for !same && time.Now().Before(due) {
			resp, err := w.client.Seats.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{Branch: visitsBranch})
			same = err == nil && shows(w.shows(), resp.GetSeats())
			if !same {
				sleep(ctx, retryAfter)
			}
		}
		r.opened += w.opened.Load()
		if !same {
			r.wrongStreams++
			r.found.add(checkStreams, "the screen of user %d does not show what there is", w.client.User.GetId())
		}
	}
	return nil
}
