package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// StreamRecorder reads a server stream as it comes and keeps all of it. Its methods may be called from any goroutine.
type StreamRecorder[M any] struct {
	cancel context.CancelFunc
	ended  chan struct{}

	mu   sync.Mutex
	got  []*M
	err  error
	more chan struct{} // closed, and made anew, with each message; closed for good at the end
}

// Record opens a stream and reads it until it ends, or ctx does, or Close. It returns when the server has answered with its headers.
func Record[M any](ctx context.Context, open func(context.Context) (grpc.ServerStreamingClient[M], error)) (*StreamRecorder[M], error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := open(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	t := &StreamRecorder[M]{cancel: cancel, ended: make(chan struct{}), more: make(chan struct{})}
	header := make(chan struct{})
	go func() {
		_, _ = stream.Header() // why there is none, Recv tells
		close(header)
		t.read(stream)
	}()
	<-header
	return t, nil
}

func (t *StreamRecorder[M]) read(stream grpc.ServerStreamingClient[M]) {
	for {
		m, err := stream.Recv()
		t.mu.Lock()
		if err != nil {
			t.err = err
			close(t.more)
			close(t.ended)
			t.mu.Unlock()
			return
		}
		t.got = append(t.got, m)
		close(t.more)
		t.more = make(chan struct{})
		t.mu.Unlock()
	}
}

// Got returns what has come until now.
func (t *StreamRecorder[M]) Messages() []*M {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.got)
}

// Until waits until enough of what has come says so. It fails when the stream ends before, or ctx does.
func (t *StreamRecorder[M]) Until(ctx context.Context, enough func(got []*M) bool) error {
	for {
		t.mu.Lock()
		got, more, ended := slices.Clone(t.got), t.more, t.err
		t.mu.Unlock()
		switch {
		case enough(got):
			return nil
		case ended != nil:
			return fmt.Errorf("the stream ended after %d messages: %w", len(got), ended)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("not after %d messages, the last of which was %v: %w", len(got), last(got), ctx.Err())
		}
	}
}

func last[M any](list []*M) *M {
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1]
}

// Ended is closed when the stream has ended.
func (t *StreamRecorder[M]) Ended() <-chan struct{} { return t.ended }

// Err returns why the stream has ended, nil while it goes on.
func (t *StreamRecorder[M]) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// End waits until the stream has ended and returns why, or fails with ctx's error.
func (t *StreamRecorder[M]) End(ctx context.Context) (why error, err error) { //nolint:revive // why is the result, not a failure
	select {
	case <-t.ended:
		return t.err, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the stream goes on: %w", ctx.Err())
	}
}

// Close ends the stream from this side.
func (t *StreamRecorder[M]) Close() {
	t.cancel()
	<-t.ended
}

// Subscribe listens to the user's notifications after an id.
func (c *Client) Subscribe(ctx context.Context, afterID int64) (*StreamRecorder[dlsmsv1.SubscribeResponse], error) {
	return Record(ctx, func(ctx context.Context) (grpc.ServerStreamingClient[dlsmsv1.SubscribeResponse], error) {
		return c.Notify.Subscribe(ctx, &dlsmsv1.SubscribeRequest{AfterId: afterID})
	})
}

// Watch listens to changes of seats.
func (c *Client) Watch(ctx context.Context, req *dlsmsv1.WatchSeatsRequest) (*StreamRecorder[dlsmsv1.WatchSeatsResponse], error) {
	return Record(ctx, func(ctx context.Context) (grpc.ServerStreamingClient[dlsmsv1.WatchSeatsResponse], error) {
		return c.Seats.WatchSeats(ctx, req)
	})
}

// Notifications are those of what a subscription has sent.
func Notifications(got []*dlsmsv1.SubscribeResponse) []*dlsmsv1.Notification {
	var out []*dlsmsv1.Notification
	for _, m := range got {
		if n := m.GetNotification(); n != nil {
			out = append(out, n)
		}
	}
	return out
}

// Screen is what a client of WatchSeats shows after these messages: each seat as it was told of last.
func LatestSeats(got []*dlsmsv1.WatchSeatsResponse) map[int64]*dlsmsv1.Seat {
	shown := map[int64]*dlsmsv1.Seat{}
	more := false // the next snapshot goes on with the one before
	for _, m := range got {
		if s := m.GetSnapshot(); s != nil {
			if !more {
				clear(shown)
			}
			for _, seat := range s.GetSeats() {
				shown[seat.GetId()] = seat
			}
			more = s.GetMore()
		}
		if seat := m.GetChange(); seat != nil {
			shown[seat.GetId()] = seat
		}
	}
	return shown
}
