package e2e_test

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// reopeningStream is the stream of a client that follows the contract. When the server ends the
// stream with UNAVAILABLE, the client opens it again and continues after the last message.
type reopeningStream[M any] struct {
	l    *load
	kind string
	open func(ctx context.Context, before []*M) (*e2e.StreamRecorder[M], error)

	mu       sync.Mutex
	before   []*M // messages of the streams that have ended
	recorder *e2e.StreamRecorder[M]
}

// got returns all messages so far.
func (r *reopeningStream[M]) got() []*M {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recorder == nil {
		return slices.Clone(r.before)
	}
	return append(slices.Clone(r.before), r.recorder.Messages()...)
}

// current returns the messages of the stream that is open now.
func (r *reopeningStream[M]) current() []*M {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recorder == nil {
		return nil
	}
	return r.recorder.Messages()
}

// run reads the stream, and opens it again, until ctx ends.
func (r *reopeningStream[M]) run(ctx context.Context) {
	for ctx.Err() == nil {
		recorder, err := r.open(ctx, r.got())
		if err != nil {
			if ctx.Err() == nil {
				r.l.fault("a %s could not be opened: %v", r.kind, err)
			}
			return
		}
		r.mu.Lock()
		r.recorder = recorder
		r.mu.Unlock()
		<-recorder.Ended()
		r.mu.Lock()
		r.before, r.recorder = append(r.before, recorder.Messages()...), nil
		r.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if err := e2e.CheckRefusal(recorder.Err(), "UNAVAILABLE"); err != nil {
			r.l.fault("a %s ended: %v", r.kind, err)
			return
		}
		r.l.reopened.Add(1)
		timer := time.NewTimer(retryDelay)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// subscription returns the subscription of a user. Each new stream continues after the last
// notification that arrived.
func (l *load) subscription(u *e2e.Client) *reopeningStream[dlsmsv1.SubscribeResponse] {
	return &reopeningStream[dlsmsv1.SubscribeResponse]{
		l:    l,
		kind: "subscription",
		open: func(ctx context.Context, before []*dlsmsv1.SubscribeResponse) (
			*e2e.StreamRecorder[dlsmsv1.SubscribeResponse], error,
		) {
			var after int64
			if ids := notificationIDs(before); len(ids) > 0 {
				after = ids[len(ids)-1]
			}
			return u.Subscribe(ctx, after)
		},
	}
}

// watch returns a user's watch of the branch. Each new stream begins with a snapshot.
func (l *load) watch(u *e2e.Client) *reopeningStream[dlsmsv1.WatchSeatsResponse] {
	return &reopeningStream[dlsmsv1.WatchSeatsResponse]{
		l:    l,
		kind: "watch",
		open: func(ctx context.Context, _ []*dlsmsv1.WatchSeatsResponse) (
			*e2e.StreamRecorder[dlsmsv1.WatchSeatsResponse], error,
		) {
			return u.Watch(ctx, &dlsmsv1.WatchSeatsRequest{Branch: l.branch.code})
		},
	}
}

func notificationIDs(got []*dlsmsv1.SubscribeResponse) []int64 {
	var ids []int64
	for _, n := range e2e.Notifications(got) {
		ids = append(ids, n.GetId())
	}
	return ids
}

// allNotificationIDs returns the ids of all notifications of a user.
func allNotificationIDs(ctx context.Context, u *e2e.Client) ([]int64, error) {
	const page = 500
	var ids []int64
	for after := int64(0); ; after = ids[len(ids)-1] {
		resp, err := u.Notify.GetNotifications(ctx, &dlsmsv1.GetNotificationsRequest{AfterId: after, PageSize: page})
		if err != nil {
			return nil, err
		}
		for _, n := range resp.GetNotifications() {
			ids = append(ids, n.GetId())
		}
		if len(resp.GetNotifications()) < page {
			return ids, nil
		}
	}
}

// notificationCount is the number of notifications received by all users.
func (l *load) notificationCount() (n int64) {
	for _, i := range l.subscriptions {
		n += int64(len(notificationIDs(i.got())))
	}
	return n
}
