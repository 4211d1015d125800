package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// StreamRecorder reads a server stream and keeps all of its messages. Its methods are safe for
// concurrent use.
type StreamRecorder[M any] struct {
	cancel context.CancelFunc
	ended  chan struct{}

	mu       sync.Mutex
	messages []*M
	err      error
	more     chan struct{} // closed and replaced at each message; closed at the end
}

// Record opens a stream and reads it until it ends, ctx ends, or Close is called. It returns when
// the server has sent its headers.
func Record[M any](
	ctx context.Context, open func(context.Context) (grpc.ServerStreamingClient[M], error),
) (*StreamRecorder[M], error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := open(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	t := &StreamRecorder[M]{cancel: cancel, ended: make(chan struct{}), more: make(chan struct{})}
	header := make(chan struct{})
	go func() {
		_, _ = stream.Header() // Recv returns the error
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
		t.messages = append(t.messages, m)
		close(t.more)
		t.more = make(chan struct{})
		t.mu.Unlock()
	}
}

// Messages returns the messages so far.
func (t *StreamRecorder[M]) Messages() []*M {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.messages)
}

// Until waits until done is true of the messages so far. It fails if the stream or ctx ends first.
func (t *StreamRecorder[M]) Until(ctx context.Context, done func(messages []*M) bool) error {
	for {
		t.mu.Lock()
		messages, more, ended := slices.Clone(t.messages), t.more, t.err
		t.mu.Unlock()
		switch {
		case done(messages):
			return nil
		case ended != nil:
			return fmt.Errorf("the stream ended after %d messages: %w", len(messages), ended)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("condition not met after %d messages, last %v: %w", len(messages), last(messages), ctx.Err())
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

// Err returns the error that ended the stream, nil while the stream is open.
func (t *StreamRecorder[M]) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// End waits until the stream has ended. Then why is the error that ended the stream, and err is
// nil. If ctx ends first, err is the error of ctx.
func (t *StreamRecorder[M]) End(ctx context.Context) (why error, err error) { // why is no failure
	select {
	case <-t.ended:
		return t.err, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the stream is still open: %w", ctx.Err())
	}
}

// Close cancels the stream and waits for its end.
func (t *StreamRecorder[M]) Close() {
	t.cancel()
	<-t.ended
}

// Subscribe records the user's notifications with ids above afterID.
func (c *Client) Subscribe(ctx context.Context, afterID int64) (*StreamRecorder[dlsmsv1.SubscribeResponse], error) {
	return Record(ctx, func(ctx context.Context) (grpc.ServerStreamingClient[dlsmsv1.SubscribeResponse], error) {
		return c.Notify.Subscribe(ctx, &dlsmsv1.SubscribeRequest{AfterId: afterID})
	})
}

// Watch records the changes of the seats that req selects.
func (c *Client) Watch(
	ctx context.Context, req *dlsmsv1.WatchSeatsRequest,
) (*StreamRecorder[dlsmsv1.WatchSeatsResponse], error) {
	return Record(ctx, func(ctx context.Context) (grpc.ServerStreamingClient[dlsmsv1.WatchSeatsResponse], error) {
		return c.Seats.WatchSeats(ctx, req)
	})
}

// Notifications returns the notifications among the messages of a subscription.
func Notifications(messages []*dlsmsv1.SubscribeResponse) []*dlsmsv1.Notification {
	var out []*dlsmsv1.Notification
	for _, m := range messages {
		if n := m.GetNotification(); n != nil {
			out = append(out, n)
		}
	}
	return out
}

// LatestSeats returns the last state of each seat after these messages, as a client of WatchSeats
// shows it.
func LatestSeats(messages []*dlsmsv1.WatchSeatsResponse) map[int64]*dlsmsv1.Seat {
	shown := map[int64]*dlsmsv1.Seat{}
	more := false // the next snapshot message continues the last one
	for _, m := range messages {
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
		if seat := m.GetRemoved(); seat != nil {
			delete(shown, seat.GetSeatId())
		}
	}
	return shown
}
