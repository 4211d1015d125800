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

// watchers: of 2,000 who watch seats, 1,000 read what others book, 500 read nothing, of a branch that is larger than what lies ready for them on
// the way, and 500 vanish and come again. Neither who books nor who reads sees it; who does not read is cut off, and in the end nothing is left.
// The control is 500 who vanish and come again, and watch the health of the server, which never changes: what others suffer from those, they
// suffer from nginx, which opens a connection to a replica for each, and from the processors.
func watchers(ctx context.Context, l *trialRun) error {
	const (
		readers, nonReading, vanishing, perConn = 1000, 500, 500, 50

		settled = 10 * time.Second
	)
	return l.withSteadyLoad(ctx, loadOptions{users: 2, rest: 500 * time.Millisecond}, func(s *system, load *steady, _ []call) error {
		idle, err := s.total(ctx, "go_goroutines")
		if err != nil {
			return err
		}
		crowd := &watchCrowd{system: s, about: &dlsmsv1.WatchSeatsRequest{
			Branch: load.name, StartTime: timestamppb.New(load.start), EndTime: timestamppb.New(load.start.Add(time.Hour)),
		}}
		defer crowd.close()
		if _, err := s.addBranch(ctx, largeBranch, largeBranchSeats); err != nil {
			return err
		}
		if err := crowd.read(ctx, readers, perConn); err != nil {
			return err
		}
		lasts := l.lasting(2 * time.Minute)
		l.logf("%d read, for %s", readers, lasts)
		from := load.since()
		sleep(ctx, lasts)
		readersOnly := load.since()
		l.logf("%d who watch the health vanish again and again, for %s", vanishing, lasts)
		if _, err := crowd.vanish(ctx, lasts, vanishing, perConn, watchHealth); err != nil {
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
		l.logf("%d more never read, %d vanish again and again, for %s", nonReading, vanishing, lasts)
		vanished, err := crowd.vanish(ctx, lasts, vanishing, perConn, crowd.watchSeats)
		if err != nil {
			return err
		}
		alone, control, among := load.between(from, readersOnly), load.between(readersOnly, until), load.between(until, load.since())
		load.end()

		what := fmt.Sprintf("%d streams are read, %d never, %d vanish (%d in all): ", readers, nonReading, vanishing, vanished)
		const goal = 2
		_, summary := slowdown(control, alone)
		l.row(fmt.Sprintf("%d streams are read, %d of health vanish: P99 of who books, of that among readers only", readers, vanishing), "none: the control", true, "%s, of %d calls", summary, len(control))
		ratio, summary := slowdown(among, alone)
		l.row(what+"P99 of who books, of that among readers only", "≤ 2", ratio <= goal, "%s, of %d calls", summary, len(among))
		l.calls(what+"who books", among)
		listening, _, err := s.waitForTotal(ctx, watchesOpen, readers, settled) // those that vanished last
		if err != nil {
			return err
		}
		cutOff := readers + blocked - listening
		l.row(what+"who read nothing, and were cut off", "all after 75 s", blocked == nonReading && (cutOff == nonReading || lasts < 75*time.Second), "%d of %d", cutOff, blocked)
		wrong, err := crowd.wrong(ctx)
		if err != nil {
			return err
		}
		l.row(what+"readers who were cut off, or don't see what there is", "0", wrong == 0, "%d of %d", wrong, readers)
		crowd.close()
		const leftToo = 30 // connections that nginx keeps, and the like
		left, took, err := s.waitForTotal(ctx, "go_goroutines", idle+leftToo, time.Minute)
		l.row(what+"goroutines of the replicas as before", "≤ 10 s after", left <= idle+leftToo && took <= settled, "%d, of %d, after %s", left, idle, took.Round(100*time.Millisecond))
		return err
	})
}

// The hall is what who doesn't read watches: its seats take several hundred kilobytes.
const (
	largeBranch      = "hall"
	largeBranchSeats = 5000
	watchesOpen      = "dlsms_watches_open"
)

// audience watches the same seats.
type watchCrowd struct {
	system *system
	about  *dlsmsv1.WatchSeatsRequest
	taps   []*e2e.StreamRecorder[dlsmsv1.WatchSeatsResponse]
	conns  []*grpc.ClientConn
}

// join opens n streams, so many a connection.
func (a *watchCrowd) join(n, perConn int, open func(*e2e.Client) error, options ...grpc.DialOption) error {
	for i := range n {
		if i%perConn == 0 {
			conn, err := e2e.Dial(a.system.Addr(), options...)
			if err != nil {
				return err
			}
			a.conns = append(a.conns, conn)
		}
		if err := open(e2e.Anonymous(a.conns[len(a.conns)-1])); err != nil {
			return err
		}
	}
	return nil
}

func (a *watchCrowd) read(ctx context.Context, n, perConn int) error {
	return a.join(n, perConn, func(c *e2e.Client) error {
		tap, err := c.Watch(ctx, a.about)
		if err == nil {
			a.taps = append(a.taps, tap)
		}
		return err
	})
}

// ignore opens streams of the hall that nobody reads, not even their library: unless its window is set, grpc-go makes it so wide that all of the
// hall fits into it, and then who never reads is the same to us as who does.
func (a *watchCrowd) ignore(ctx context.Context, n, perConn int) error {
	return a.join(n, perConn, func(c *e2e.Client) error {
		stream, err := c.Seats.WatchSeats(ctx, &dlsmsv1.WatchSeatsRequest{Branch: largeBranch})
		if err != nil {
			return err
		}
		_, err = stream.Header()
		return err
	}, grpc.WithInitialWindowSize(64<<10))
}

// vanish opens n streams, breaks their connections after some seconds, and so on. It returns how many there were.
func (a *watchCrowd) vanish(ctx context.Context, lasts time.Duration, n, perConn int, watch func(context.Context, *grpc.ClientConn) error) (int64, error) {
	ctx, stop := context.WithTimeout(ctx, lasts)
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

// stays is how long who vanishes watches before.
const watchTime = 5 * time.Second

// watchSeats and watchHealth open a stream and read its first message.
func (a *watchCrowd) watchSeats(ctx context.Context, conn *grpc.ClientConn) error {
	return first(e2e.Anonymous(conn).Seats.WatchSeats(ctx, a.about))
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

// appear opens n streams, and breaks their connection in the midst of them.
func (a *watchCrowd) openAndBreak(ctx context.Context, n int, watch func(context.Context, *grpc.ClientConn) error) error {
	ctx, end := context.WithTimeout(ctx, callTime)
	defer end()
	var tcpConn net.Conn
	conn, err := e2e.Dial(a.system.Addr(), grpc.WithContextDialer(func(ctx context.Context, addr string) (_ net.Conn, err error) {
		tcpConn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		return tcpConn, err
	}))
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
	if err := tcpConn.(*net.TCPConn).SetLinger(0); err != nil { // so that it ends with a reset
		return err
	}
	return tcpConn.Close()
}

// wrong returns how many readers were cut off, or don't see what there is now.
func (a *watchCrowd) wrong(ctx context.Context) (n int, err error) {
	resp, err := e2e.Anonymous(a.conns[0]).Seats.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{Branch: a.about.GetBranch(), StartTime: a.about.GetStartTime(), EndTime: a.about.GetEndTime()})
	if err != nil {
		return 0, err
	}
	ctx, end := context.WithTimeout(ctx, settleTime)
	defer end()
	for _, tap := range a.taps {
		err := tap.Until(ctx, func(got []*dlsmsv1.WatchSeatsResponse) bool { return shows(e2e.LatestSeats(got), resp.GetSeats()) })
		if err != nil || tap.Err() != nil {
			n++
		}
	}
	return n, nil
}

// shows reports whether a screen shows these seats and no others.
func shows(shown map[int64]*dlsmsv1.Seat, seats []*dlsmsv1.Seat) bool {
	return len(shown) == len(seats) && !slices.ContainsFunc(seats, func(seat *dlsmsv1.Seat) bool { return !proto.Equal(seat, shown[seat.GetId()]) })
}

// leave closes all connections that there are.
func (a *watchCrowd) close() {
	for _, conn := range a.conns {
		_ = conn.Close()
	}
	a.conns = nil
}
