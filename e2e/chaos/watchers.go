package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// watchers is a trial with 2,000 streams:
//
//   - 1,000 readers follow the bookings of two users.
//   - 500 clients never read their streams. These show a branch that is larger than all buffers
//     between the server and the client.
//   - 500 clients break their connections and open new ones.
//
// The bookings must stay fast, and the readers must show the current seats. The server must end the
// streams that are never read. After the trial it must have no more goroutines than before.
//
// For comparison, the trial first measures a control: 500 clients that break their connections and
// watch the health of the server, which never changes. The control slows down users too, because
// nginx opens a connection to a replica for each stream, and because the processors are busy.
func watchers(ctx context.Context, l *trialRun) error {
	const (
		readers, nonReading, vanishing, perConn = 1000, 500, 500, 50

		settled = 10 * time.Second
	)
	options := loadOptions{users: 2, rest: 500 * time.Millisecond}
	return l.withSteadyLoad(ctx, options, func(s *system, load *steady, _ []call) error {
		idle, err := s.total(ctx, "go_goroutines")
		if err != nil {
			return err
		}
		crowd := &watchCrowd{system: s, req: &dlsmsv1.WatchSeatsRequest{
			Branch: load.name, StartTime: timestamppb.New(load.start), EndTime: timestamppb.New(load.start.Add(time.Hour)),
		}}
		defer crowd.close()
		if _, err := s.addBranch(ctx, largeBranch, largeBranchSeats); err != nil {
			return err
		}
		if err := crowd.read(ctx, readers, perConn); err != nil {
			return err
		}
		duration := l.scaled(2 * time.Minute)
		l.logf("%d streams are read, for %s", readers, duration)
		from := load.since()
		sleep(ctx, duration)
		readersOnly := load.since()
		l.logf("the control: %d more watch the health and break their connections, for %s", vanishing, duration)
		if _, err := crowd.vanish(ctx, duration, vanishing, perConn, watchHealth); err != nil {
			return err
		}
		until := load.since()
		if err := crowd.ignore(ctx, nonReading, perConn); err != nil {
			return err
		}
		blocked, err := s.total(ctx, watchesOpen)
		if err != nil {
			return err
		}
		blocked -= readers
		l.logf("%d more are never read, %d break their connections, for %s", nonReading, vanishing, duration)
		vanished, err := crowd.vanish(ctx, duration, vanishing, perConn, crowd.watchSeats)
		if err != nil {
			return err
		}
		alone := load.between(from, readersOnly)
		control := load.between(readersOnly, until)
		among := load.between(until, load.since())
		load.end()

		title := fmt.Sprintf("%d streams are read, %d never, %d break their connections (%d in all): ",
			readers, nonReading, vanishing, vanished)
		const goal = 2
		_, summary := slowdown(control, alone)
		l.row(fmt.Sprintf("%d streams are read, %d of health break their connections: "+
			"P99 of bookings, relative to that with readers only", readers, vanishing),
			"none: the control", true, "%s, of %d calls", summary, len(control))
		ratio, summary := slowdown(among, alone)
		l.row(title+"P99 of bookings, relative to that with readers only", "≤ 2",
			ratio <= goal, "%s, of %d calls", summary, len(among))
		l.failedCalls(title+"bookings", among)
		// Wait until the replicas have closed the broken streams.
		open, _, err := s.waitForTotal(ctx, watchesOpen, readers, settled)
		if err != nil {
			return err
		}
		cutOff := readers + blocked - open
		l.row(title+"streams that are never read, and were cut off", "all after 75 s",
			blocked == nonReading && (cutOff == nonReading || duration < 75*time.Second), "%d of %d", cutOff, blocked)
		wrong, err := crowd.wrong(ctx)
		if err != nil {
			return err
		}
		l.row(title+"readers that were cut off, or do not show the current seats", "0",
			wrong == 0, "%d of %d", wrong, readers)
		crowd.close()
		const tolerance = 30 // such as connections that nginx keeps
		left, took, err := s.waitForTotal(ctx, "go_goroutines", idle+tolerance, time.Minute)
		l.row(title+"goroutines of the replicas as before", "≤ 10 s after",
			left <= idle+tolerance && took <= settled,
			"%d, %d before, after %s", left, idle, took.Round(100*time.Millisecond))
		return err
	})
}

// The clients that never read watch largeBranch. Its seats take several hundred kilobytes.
const (
	largeBranch      = "hall"
	largeBranchSeats = 5000
	watchesOpen      = "dlsms_watches_open"
)

// watchCrowd has the streams of the trial. Its readers watch the same seats.
type watchCrowd struct {
	system    *system
	req       *dlsmsv1.WatchSeatsRequest
	recorders []*e2e.StreamRecorder[dlsmsv1.WatchSeatsResponse]
	conns     []*grpc.ClientConn
}

// open opens n streams, perConn on each connection.
func (a *watchCrowd) open(n, perConn int, watch func(*e2e.Client) error, options ...grpc.DialOption) error {
	for i := range n {
		if i%perConn == 0 {
			conn, err := e2e.Dial(a.system.Addr(), options...)
			if err != nil {
				return err
			}
			a.conns = append(a.conns, conn)
		}
		if err := watch(e2e.Anonymous(a.conns[len(a.conns)-1])); err != nil {
			return err
		}
	}
	return nil
}

func (a *watchCrowd) read(ctx context.Context, n, perConn int) error {
	return a.open(n, perConn, func(c *e2e.Client) error {
		recorder, err := c.Watch(ctx, a.req)
		if err == nil {
			a.recorders = append(a.recorders, recorder)
		}
		return err
	})
}

// ignore opens n streams of largeBranch, perConn on each connection. The client never reads them. A
// fixed flow-control window stops grpc-go from receiving the whole branch. By default grpc-go
// enlarges the window until the whole branch fits, and then the server cannot tell such a client
// from a reader.
func (a *watchCrowd) ignore(ctx context.Context, n, perConn int) error {
	return a.open(n, perConn, func(c *e2e.Client) error {
		stream, err := c.Seats.WatchSeats(ctx, &dlsmsv1.WatchSeatsRequest{Branch: largeBranch})
		if err != nil {
			return err
		}
		_, err = stream.Header()
		return err
	}, grpc.WithInitialWindowSize(64<<10))
}

// vanish opens n streams, breaks their connections after watchTime, and does the same again until
// duration is over. It returns the number of streams that it opened.
func (a *watchCrowd) vanish(
	ctx context.Context, duration time.Duration, n, perConn int, watch func(context.Context, *grpc.ClientConn) error,
) (int64, error) {
	ctx, stop := context.WithTimeout(ctx, duration)
	defer stop()
	var all sync.WaitGroup
	var vanished atomic.Int64
	errs := make([]error, n/perConn)
	for i := range errs {
		all.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				errs[i] = a.openAndBreak(context.WithoutCancel(ctx), perConn, watch)
				vanished.Add(int64(perConn))
			}
		})
	}
	all.Wait()
	return vanished.Load(), errors.Join(errs...)
}

// watchTime is the time from the start of a stream until its connection is broken.
const watchTime = 5 * time.Second

// watchSeats and watchHealth open a stream and read its first message.
func (a *watchCrowd) watchSeats(ctx context.Context, conn *grpc.ClientConn) error {
	return first(e2e.Anonymous(conn).Seats.WatchSeats(ctx, a.req))
}

func watchHealth(ctx context.Context, conn *grpc.ClientConn) error {
	return first(healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{}))
}

func first[T any](stream grpc.ServerStreamingClient[T], err error) error {
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

// openAndBreak opens n streams and breaks their connection with a reset.
func (a *watchCrowd) openAndBreak(
	ctx context.Context, n int, watch func(context.Context, *grpc.ClientConn) error,
) error {
	ctx, end := context.WithTimeout(ctx, callTime)
	defer end()
	var tcpConn net.Conn
	dial := func(ctx context.Context, addr string) (_ net.Conn, err error) {
		tcpConn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		return tcpConn, err
	}
	conn, err := e2e.Dial(a.system.Addr(), grpc.WithContextDialer(dial))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for range n {
		if err := watch(ctx, conn); err != nil {
			return err
		}
	}
	sleep(ctx, watchTime)
	if err := tcpConn.(*net.TCPConn).SetLinger(0); err != nil { // Close then sends a reset
		return err
	}
	return tcpConn.Close()
}

// wrong returns the number of readers that were cut off or do not show the current seats.
func (a *watchCrowd) wrong(ctx context.Context) (n int, err error) {
	resp, err := e2e.Anonymous(a.conns[0]).Seats.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{
		Branch: a.req.GetBranch(), StartTime: a.req.GetStartTime(), EndTime: a.req.GetEndTime(),
	})
	if err != nil {
		return 0, err
	}
	ctx, end := context.WithTimeout(ctx, settleTime)
	defer end()
	for _, recorder := range a.recorders {
		err := recorder.Until(ctx, func(got []*dlsmsv1.WatchSeatsResponse) bool {
			return shows(e2e.LatestSeats(got), resp.GetSeats())
		})
		if err != nil || recorder.Err() != nil {
			n++
		}
	}
	return n, nil
}

// shows reports whether a client shows exactly these seats.
func shows(shown map[int64]*dlsmsv1.Seat, seats []*dlsmsv1.Seat) bool {
	return len(shown) == len(seats) && !slices.ContainsFunc(seats, func(seat *dlsmsv1.Seat) bool {
		return !proto.Equal(seat, shown[seat.GetId()])
	})
}

// close closes all connections.
func (a *watchCrowd) close() {
	for _, conn := range a.conns {
		_ = conn.Close()
	}
	a.conns = nil
}
