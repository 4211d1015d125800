package e2e_test

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// reopening is a stream as a good client reads it: when the server ends it with UNAVAILABLE, it is opened again where it ended.
type reopening[M any] struct {
	l    *load
	what string
	open func(ctx context.Context, before []*M) (*e2e.StreamRecorder[M], error)

	mu     sync.Mutex
	before []*M // of the streams that have ended
	tap    *e2e.StreamRecorder[M]
}

// got returns everything that came.
func (r *reopening[M]) got() []*M {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tap == nil {
		return slices.Clone(r.before)
	}
	return append(slices.Clone(r.before), r.tap.Messages()...)
}

// current returns what came by the stream that is open now.
func (r *reopening[M]) current() []*M {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tap == nil {
		return nil
	}
	return r.tap.Messages()
}

// run reads until ctx ends.
func (r *reopening[M]) run(ctx context.Context) {
	for ctx.Err() == nil {
		tap, err := r.open(ctx, r.got())
		if err != nil {
			if ctx.Err() == nil {
				r.l.fault("a %s could not be opened: %v", r.what, err)
			}
			return
		}
		r.mu.Lock()
		r.tap = tap
		r.mu.Unlock()
		<-tap.Ended()
		r.mu.Lock()
		r.before, r.tap = append(r.before, tap.Messages()...), nil
		r.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if err := e2e.CheckRefusal(tap.Err(), "UNAVAILABLE"); err != nil {
			r.l.fault("a %s ended: %v", r.what, err)
			return
		}
		r.l.reopened.Add(1)
		again := time.NewTimer(retryAfter)
		select {
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
}

// mail is a user's subscription, opened again after the last id that came.
func (l *load) mail(u *e2e.Client) *reopening[dlsmsv1.SubscribeResponse] {
	return &reopening[dlsmsv1.SubscribeResponse]{l: l, what: "subscription",
		open: func(ctx context.Context, before []*dlsmsv1.SubscribeResponse) (*e2e.StreamRecorder[dlsmsv1.SubscribeResponse], error) {
			var after int64
			if ids := notificationIDs(before); len(ids) > 0 {
				after = ids[len(ids)-1]
			}
			return u.Subscribe(ctx, after)
		},
	}
}

// screen is a user's watch of the branch, which begins anew with a snapshot.
func (l *load) screen(u *e2e.Client) *reopening[dlsmsv1.WatchSeatsResponse] {
	return &reopening[dlsmsv1.WatchSeatsResponse]{l: l, what: "watch",
		open: func(ctx context.Context, _ []*dlsmsv1.WatchSeatsResponse) (*e2e.StreamRecorder[dlsmsv1.WatchSeatsResponse], error) {
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

// allMail returns the ids of all notifications of a user.
func allMail(ctx context.Context, u *e2e.Client) ([]int64, error) {
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

// mailCount is how many notifications have come in all.
func (l *load) mailCount() (n int64) {
	for _, i := range l.inboxes {
		n += int64(len(notificationIDs(i.got())))
	}
	return n
}
