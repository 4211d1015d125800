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
func watchers(ctx context.Context, l *lab) error {
	const (
		readers, deaf, fleeting, perConn = 1000, 500, 500, 50

		settled = 10 * time.Second
	)
	return l.steadily(ctx, loadOptions{users: 2, rest: 500 * time.Millisecond}, func(s *site, load *steady, _ []call) error {
		idle, err := s.total(ctx, "go_goroutines")
		if err != nil {
			return err
		}
		crowd := &audience{site: s, about: &dlsmsv1.WatchSeatsRequest{
			Branch: load.name, StartTime: timestamppb.New(load.start), EndTime: timestamppb.New(load.start.Add(time.Hour)),
		}}
		defer crowd.leave()
		if _, err := s.furnish(ctx, hall, hallSeats); err != nil {
			return err
		}
		if err := crowd.read(ctx, readers, perConn); err != nil {
			return err
		}
		lasts := l.lasting(2 * time.Minute)
		l.say("%d read, for %s", readers, lasts)
		from := load.since()
		pause(ctx, lasts)
		readersOnly := load.since()
		l.say("%d who watch the health vanish again and again, for %s", fleeting, lasts)
		if _, err := crowd.vanish(ctx, lasts, fleeting, perConn, watchHealth); err != nil {
			return err
		}
		until := load.since()
		if err := crowd.ignore(ctx, deaf, perConn); err != nil {
			return err
		}
		blocked, err := s.total(ctx, watchesOpen)
		if err != nil {
			return err
		}
		blocked -= readers
		l.say("%d more never read, %d vanish again and again, for %s", deaf, fleeting, lasts)
		vanished, err := crowd.vanish(ctx, lasts, fleeting, perConn, crowd.watchSeats)
		if err != nil {
			return err
		}
		alone, control, among := load.between(from, readersOnly), load.between(readersOnly, until), load.between(until, load.since())
		load.end()

		what := fmt.Sprintf("%d streams are read, %d never, %d vanish (%d in all): ", readers, deaf, fleeting, vanished)
		const goal = 2
		_, told := slowdown(control, alone)
		l.figure(fmt.Sprintf("%d streams are read, %d of health vanish: P99 of who books, of that among readers only", readers, fleeting), "none: the control", true, "%s, of %d calls", told, len(control))
		ratio, told := slowdown(among, alone)
		l.figure(what+"P99 of who books, of that among readers only", "≤ 2", ratio <= goal, "%s, of %d calls", told, len(among))
		l.calls(what+"who books", among)
		listening, _, err := s.falls(ctx, watchesOpen, readers, settled) // those that vanished last
		if err != nil {
			return err
		}
		cutOff := readers + blocked - listening
		l.figure(what+"who read nothing, and were cut off", "all after 75 s", blocked == deaf && (cutOff == deaf || lasts < 75*time.Second), "%d of %d", cutOff, blocked)
		wrong, err := crowd.wrong(ctx)
		if err != nil {
			return err
		}
		l.figure(what+"readers who were cut off, or don't see what there is", "0", wrong == 0, "%d of %d", wrong, readers)
		crowd.leave()
		const leftToo = 30 // connections that nginx keeps, and the like
		left, took, err := s.falls(ctx, "go_goroutines", idle+leftToo, time.Minute)
		l.figure(what+"goroutines of the replicas as before", "≤ 10 s after", left <= idle+leftToo && took <= settled, "%d, of %d, after %s", left, idle, took.Round(100*time.Millisecond))
		return err
	})
}

// The hall is what who doesn't read watches: its seats take several hundred kilobytes.
const (
	hall        = "hall"
	hallSeats   = 5000
	watchesOpen = "dlsms_watches_open"
)

// audience watches the same seats.
type audience struct {
	site  *site
	about *dlsmsv1.WatchSeatsRequest
	taps  []*e2e.StreamRecorder[dlsmsv1.WatchSeatsResponse]
	conns []*grpc.ClientConn
}

// join opens n streams, so many a connection.
func (a *audience) join(n, perConn int, open func(*e2e.Client) error, options ...grpc.DialOption) error {
	for i := range n {
		if i%perConn == 0 {
			conn, err := e2e.Dial(a.site.Addr(), options...)
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

func (a *audience) read(ctx context.Context, n, perConn int) error {
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
func (a *audience) ignore(ctx context.Context, n, perConn int) error {
	return a.join(n, perConn, func(c *e2e.Client) error {
		stream, err := c.Seats.WatchSeats(ctx, &dlsmsv1.WatchSeatsRequest{Branch: hall})
		if err != nil {
			return err
		}
		_, err = stream.Header()
		return err
	}, grpc.WithInitialWindowSize(64<<10))
}

// vanish opens n streams, breaks their connections after some seconds, and so on. It returns how many there were.
func (a *audience) vanish(ctx context.Context, lasts time.Duration, n, perConn int, watch func(context.Context, *grpc.ClientConn) error) (int64, error) {
	ctx, stop := context.WithTimeout(ctx, lasts)
	defer stop()
	var all sync.WaitGroup
	var vanished atomic.Int64
	errs := make([]error, n/perConn)
	for i := range errs {
		all.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				errs[i] = a.appear(context.WithoutCancel(ctx), perConn, watch)
				vanished.Add(int64(perConn))
			}
		})
	}
	all.Wait()
	return vanished.Load(), errors.Join(errs...)
}

// stays is how long who vanishes watches before.
const stays = 5 * time.Second

// watchSeats and watchHealth open a stream and read its first message.
func (a *audience) watchSeats(ctx context.Context, conn *grpc.ClientConn) error {
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
func (a *audience) appear(ctx context.Context, n int, watch func(context.Context, *grpc.ClientConn) error) error {
	ctx, end := context.WithTimeout(ctx, callTime)
	defer end()
	var line net.Conn
	conn, err := e2e.Dial(a.site.Addr(), grpc.WithContextDialer(func(ctx context.Context, addr string) (_ net.Conn, err error) {
		line, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		return line, err
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
	pause(ctx, stays)
	if err := line.(*net.TCPConn).SetLinger(0); err != nil { // so that it ends with a reset
		return err
	}
	return line.Close()
}

// wrong returns how many readers were cut off, or don't see what there is now.
func (a *audience) wrong(ctx context.Context) (n int, err error) {
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
func shows(screen map[int64]*dlsmsv1.Seat, seats []*dlsmsv1.Seat) bool {
	return len(screen) == len(seats) && !slices.ContainsFunc(seats, func(seat *dlsmsv1.Seat) bool { return !proto.Equal(seat, screen[seat.GetId()]) })
}

// leave closes all connections that there are.
func (a *audience) leave() {
	for _, conn := range a.conns {
		_ = conn.Close()
	}
	a.conns = nil
}
