package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// load is a set of clients that use a system while a test breaks parts of it. They book and cancel,
// read, log in, watch seats, receive notifications, and record their errors. At the end, load
// compares the messages of each stream with the data of the system.
type load struct {
	t   *testing.T
	s   *system
	ctx context.Context // ends the clients; the streams end later

	clients       sync.WaitGroup
	subscriptions []*reopeningStream[dlsmsv1.SubscribeResponse]
	watches       []*reopeningStream[dlsmsv1.WatchSeatsResponse]
	branch        branch
	calls         atomic.Int64 // successful calls
	retries       atomic.Int64 // calls that were repeated
	reopened      atomic.Int64 // streams that ended with UNAVAILABLE and were opened again

	mu     sync.Mutex
	faults []string
}

// callInterval is the time between two actions of a client. With it, the clients keep the system
// busy without an overload.
const callInterval = 40 * time.Millisecond

// retryDelay is the time that a client waits after UNAVAILABLE, as in the service config of the
// README.
const retryDelay = 100 * time.Millisecond

// startLoad starts the clients. The function end stops them and reports their errors.
func startLoad(t *testing.T, s *system) (l *load, end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	streams, stopStreams := context.WithCancel(t.Context())
	const bookingClients, readClients, visitors = 3, 2, 4
	l = &load{t: t, s: s, ctx: ctx, branch: s.branch(t, bookingClients+visitors)}
	var open sync.WaitGroup
	t.Cleanup(func() { stop(); stopStreams(); l.clients.Wait(); open.Wait() })

	users := s.users(t, bookingClients+visitors)
	for i, u := range users[:bookingClients] {
		l.client(func(round int) error { return l.bookAndCancel(u, l.branch.seats[i], round) })
	}
	for i, u := range users[bookingClients:] {
		l.client(func(round int) error { return l.visit(u, l.branch.seats[bookingClients+i], round) })
		subscription := l.subscription(u)
		l.subscriptions = append(l.subscriptions, subscription)
		open.Go(func() { subscription.run(streams) })
		watch := l.watch(u)
		l.watches = append(l.watches, watch)
		open.Go(func() { watch.run(streams) })
	}
	for range readClients {
		l.client(func(int) error { return l.browse(s.anonymous()) })
	}
	l.client(func(int) error {
		return l.try(func() error {
			_, err := s.anonymous().Login(l.ctx, users[0].User.GetStudentId(), password)
			return err
		})
	})
	return l, func() {
		t.Helper()
		stop()
		l.clients.Wait()
		l.compareStreams(users[bookingClients:])
		stopStreams()
		open.Wait()
		l.report()
	}
}

// compareStreams waits until the messages of the streams show exactly the current data. It reads
// the data repeatedly, because a call that was in flight at the end may still take effect.
func (l *load) compareStreams(users []*e2e.Client) {
	l.t.Helper()
	for i, u := range users {
		var want, got []int64
		var err error
		if !happens(func() bool {
			want, err = allNotificationIDs(l.t.Context(), u)
			got = notificationIDs(l.subscriptions[i].got())
			return err == nil && slices.Equal(got, want)
		}) {
			l.t.Errorf("of the notifications %v, %v arrived (%v)", want, got, err)
		}
	}
	for _, watch := range l.watches {
		var want *dlsmsv1.GetSeatsResponse
		var shown map[int64]*dlsmsv1.Seat
		var err error
		if !happens(func() bool {
			want, err = l.s.anonymous().Seats.GetSeats(l.t.Context(), &dlsmsv1.GetSeatsRequest{Branch: l.branch.code})
			shown = e2e.LatestSeats(watch.current())
			return err == nil && len(shown) == len(want.GetSeats()) &&
				!slices.ContainsFunc(want.GetSeats(), func(s *dlsmsv1.Seat) bool { return !proto.Equal(s, shown[s.GetId()]) })
		}) {
			l.t.Errorf("a watch shows %v, the seats are %v (%v)", shown, want.GetSeats(), err)
		}
	}
}

func (l *load) report() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults[:min(len(l.faults), 20)] {
		l.t.Error(f)
	}
	l.t.Logf("%d calls, %d of them repeated; %d notifications; %d streams were opened again; %d faults",
		l.calls.Load(), l.retries.Load(), l.notificationCount(), l.reopened.Load(), len(l.faults))
}

// client repeats an action until the load ends.
func (l *load) client(do func(round int) error) {
	l.clients.Go(func() {
		ticker := time.NewTicker(callInterval)
		defer ticker.Stop()
		for round := 0; ; round++ {
			select {
			case <-l.ctx.Done():
				return
			case <-ticker.C:
			}
			if err := do(round); err != nil && l.ctx.Err() == nil {
				l.fault("round %d: %v", round, err)
			}
		}
	})
}

func (l *load) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, fmt.Sprintf("%s: ", time.Now().Format(time.StampMilli))+fmt.Sprintf(format, args...))
}

// try makes a call, and repeats it once after UNAVAILABLE. One repetition must be enough in each
// test that uses load.
func (l *load) try(call func() error) error {
	err := call()
	if e2e.RefusalOf(err).Code == codes.Unavailable {
		l.retries.Add(1)
		timer := time.NewTimer(retryDelay)
		defer timer.Stop()
		select {
		case <-timer.C:
			err = call()
		case <-l.ctx.Done():
		}
	}
	if err == nil {
		l.calls.Add(1)
	}
	return err
}

// progress waits until the clients have made this many more successful calls, and have received
// this many more notifications.
func (l *load) progress(calls, notifications int64) {
	l.t.Helper()
	calls, notifications = calls+l.calls.Load(), notifications+l.notificationCount()
	eventually(
		l.t, "the load makes progress",
		func() bool { return l.calls.Load() >= calls && l.notificationCount() >= notifications },
	)
}

// bookAndCancel books a seat for tomorrow and cancels the booking. It checks that a read after each
// call shows the change, on any replica.
func (l *load) bookAndCancel(u *e2e.Client, seat int64, round int) error {
	w := tomorrow(0, 1)
	req := w.booking(seat)
	req.RequestId = fmt.Sprintf("load-%d-%d", u.User.GetId(), round)
	var booked *dlsmsv1.CreateReservationResponse
	err := l.try(func() (err error) {
		booked, err = u.Reservations.CreateReservation(l.ctx, req)
		return err
	})
	if err != nil {
		return fmt.Errorf("booking: %w", err)
	}
	if err := l.sees(w, seat, false); err != nil {
		return err
	}
	err = l.try(func() error {
		_, err := u.Reservations.CancelReservation(
			l.ctx, &dlsmsv1.CancelReservationRequest{ReservationId: booked.GetReservation().GetId()},
		)
		return err
	})
	if err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	return l.sees(w, seat, true)
}

func (l *load) sees(w window, seat int64, free bool) error {
	return l.try(func() error {
		resp, err := l.s.anonymous().Seats.GetSeats(l.ctx, &dlsmsv1.GetSeatsRequest{
			Branch: l.branch.code, StartTime: timestamppb.New(w.start), EndTime: timestamppb.New(w.end), AvailableOnly: true,
		})
		if err != nil {
			return fmt.Errorf("seats: %w", err)
		}
		if has(resp.GetSeats(), seat) != free {
			return fmt.Errorf("a stale read as of %s: the seat is free: %t", resp.GetAsOf().AsTime(), !free)
		}
		return nil
	})
}

// visit books a seat from now on, checks in and checks out. The check-out makes a notification.
func (l *load) visit(u *e2e.Client, seat int64, round int) error {
	req := &dlsmsv1.CreateReservationRequest{
		SeatId:    seat,
		EndTime:   timestamppb.New(time.Now().Add(time.Hour)),
		RequestId: fmt.Sprintf("visit-%d-%d", u.User.GetId(), round),
	}
	var id int64
	err := l.try(func() error {
		resp, err := u.Reservations.CreateReservation(l.ctx, req)
		id = resp.GetReservation().GetId()
		return err
	})
	if err != nil {
		return fmt.Errorf("visit: %w", err)
	}
	err = l.try(func() error {
		_, err := u.Reservations.CheckIn(l.ctx, &dlsmsv1.CheckInRequest{ReservationId: id})
		return err
	})
	if err != nil {
		return fmt.Errorf("check-in: %w", err)
	}
	err = l.try(func() error {
		_, err := u.Reservations.CheckOut(l.ctx, &dlsmsv1.CheckOutRequest{ReservationId: id})
		return err
	})
	if err != nil {
		return fmt.Errorf("check-out: %w", err)
	}
	return nil
}

// browse makes the calls of a client's start page.
func (l *load) browse(c *e2e.Client) error {
	return l.try(func() error {
		_, err := c.Seats.GetSeats(l.ctx, &dlsmsv1.GetSeatsRequest{AvailableOnly: true})
		if err != nil {
			return err
		}
		_, err = c.Seats.GetBranches(l.ctx, &dlsmsv1.GetBranchesRequest{})
		return err
	})
}
