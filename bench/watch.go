package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// streamsPerAddress is the number of streams from one client address. It is below the default of
// MAX_STREAMS_PER_ADDRESS (1,000).
const streamsPerAddress = 100

// watcher measures the time from a change to its messages on many streams.
type watcher struct {
	mu        sync.Mutex
	seat      int64 // the expected change: this seat becomes available or not
	available bool
	sent      time.Time // when the changing call was sent
	latencies []time.Duration
	all       chan struct{} // closed when every stream has received the change
	missing   int

	ready  atomic.Int64 // number of streams that have received a snapshot
	ending atomic.Bool
	fault  chan error
}

// watch opens streams on all replicas, and then books and cancels seats. The latency of a change is
// the time from the start of the call to the message at a client. It includes the time until the
// commit.
func (b *bench) watch(ctx context.Context) error {
	students, err := b.ours.addUsers(ctx, "watched-", 49)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &watcher{fault: make(chan error, 1)}
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	defer w.ending.Store(true)
	for i := range b.streams / streamsPerAddress {
		conn, err := e2e.DialFrom(b.ours.Addr(), fmt.Sprintf("127.0.1.%d", i+1))
		if err != nil {
			return err
		}
		defer conn.Close()
		for range streamsPerAddress {
			stream, err := dlsmsv1.NewSeatServiceClient(conn).WatchSeats(ctx, &dlsmsv1.WatchSeatsRequest{})
			if err != nil {
				return fmt.Errorf("open a stream: %w", err)
			}
			readers.Go(func() { w.read(stream) })
		}
	}
	if err := w.untilReady(ctx, b.streams); err != nil {
		return err
	}
	b.progress("WatchSeats: %d streams are open", b.streams)

	before, err := cpuOf(b.ours)
	if err != nil {
		return err
	}
	began := time.Now()
	seats, err := b.ours.seats(ctx)
	if err != nil {
		return err
	}
	a := &grpcAPI{conns: []*grpc.ClientConn{b.ours.conn}}
	changes, err := w.change(ctx, a, b.streams, seats, students, (b.warm+b.measure)*time.Duration(b.rounds))
	if err != nil {
		return fmt.Errorf("WatchSeats: %w", err)
	}
	after, err := cpuOf(b.ours)
	if err != nil {
		return err
	}
	slices.Sort(w.latencies)
	s := sample{
		calls:     len(w.latencies),
		seconds:   time.Since(began).Seconds(),
		latencies: w.latencies,
		cpu:       after.minus(before),
	}
	b.report.add(summary("WatchSeats, change to client", b.streams, b.ours, []sample{s}))
	b.progress(
		"WatchSeats: %d changes to %d streams, P50 %s, P99 %s", changes, b.streams, millis(s.percentile(50)),
		millis(s.percentile(99)),
	)
	b.report.goal(
		fmt.Sprintf("WatchSeats, %d streams, %d changes: P99 from the call to the client", b.streams, changes), "≤ 100 ms",
		millis(s.percentile(99)), s.percentile(99) <= 100*time.Millisecond,
	)
	return nil
}

// untilReady waits until a number of streams have their snapshot.
func (w *watcher) untilReady(ctx context.Context, streams int) error {
	for w.ready.Load() < int64(streams) {
		select {
		case err := <-w.fault:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// ended reports the end of a stream, which is a fault before ending is set.
func (w *watcher) ended(err error) {
	if w.ending.Load() {
		return
	}
	select {
	case w.fault <- fmt.Errorf("a stream ended: %w", err):
	default:
	}
}

func (w *watcher) read(stream grpc.ServerStreamingClient[dlsmsv1.WatchSeatsResponse]) {
	for first := true; ; {
		m, err := stream.Recv()
		if err != nil {
			w.ended(err)
			return
		}
		now := time.Now()
		if m.GetSnapshot() != nil && !m.GetSnapshot().GetMore() && first {
			first = false
			w.ready.Add(1)
		}
		if change := m.GetChange(); change != nil {
			w.received(change.GetId(), change.GetAvailable(), now)
		}
	}
}

// received records that a stream has received the new state of a seat.
func (w *watcher) received(seat int64, available bool, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if seat != w.seat || available != w.available || w.missing == 0 {
		return
	}
	w.latencies = append(w.latencies, at.Sub(w.sent))
	if w.missing--; w.missing == 0 {
		close(w.all)
	}
}

// changesPerSecond is the rate of bookings and cancellations.
const changesPerSecond = 5

// change books and cancels one seat after the other for the duration d. After each change, it waits
// until every stream has received it.
func (w *watcher) change(
	ctx context.Context, a api, streams int, seats []int64, students users, d time.Duration,
) (changes int, err error) {
	pace := time.NewTicker(time.Second / changesPerSecond)
	defer pace.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		i := changes / 2 % len(students.ids)
		var booked int64
		for _, available := range []bool{false, true} {
			all := w.expect(seats[i], available, streams)
			if available {
				err = a.cancel(ctx, students.signed[i], booked)
			} else {
				booked, err = a.book(ctx, students.signed[i], &dlsmsv1.CreateReservationRequest{
					SeatId: seats[i], EndTime: timestamppb.New(time.Now().Add(time.Hour)),
				})
			}
			if err != nil {
				return changes, err
			}
			select {
			case <-all:
			case err := <-w.fault:
				return changes, err
			case <-time.After(5 * time.Second):
				return changes, errors.New("a change did not reach every stream within 5 s")
			case <-ctx.Done():
				return changes, ctx.Err()
			}
			changes++
			<-pace.C
		}
	}
	return changes, nil
}

// expect sets the expected change, and the number of streams that must receive it. The returned
// channel is closed when all have received it.
func (w *watcher) expect(seat int64, available bool, streams int) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seat, w.available, w.missing, w.sent = seat, available, streams, time.Now()
	w.all = make(chan struct{})
	return w.all
}
