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

// load is what goes on while something is done to a system: clients that book and cancel, look, log in, watch, and read their mail. Each
// notes what it does and what went wrong, and what is known at the end is compared with what it saw.
type load struct {
	t   *testing.T
	s   *system
	ctx context.Context // of the clients; the streams go on for a while after them

	clients  sync.WaitGroup
	inboxes  []*reopening[dlsmsv1.SubscribeResponse]
	screens  []*reopening[dlsmsv1.WatchSeatsResponse]
	branch   branch
	calls    atomic.Int64 // that succeeded
	retries  atomic.Int64 // calls that had to be made twice
	reopened atomic.Int64 // streams that ended with UNAVAILABLE and were opened again

	mu     sync.Mutex
	faults []string
}

// pace is how often each client does something: together they keep the system busy, and leave it room to breathe.
const pace = 40 * time.Millisecond

// retryAfter is how long a client waits that was told UNAVAILABLE, as in the service config of the README.
const retryAfter = 100 * time.Millisecond

// startLoad sets the clients going. They stop at end, which reports what went wrong.
func startLoad(t *testing.T, s *system) (l *load, end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	streams, stopStreams := context.WithCancel(t.Context())
	const bookers, readers, visitors = 3, 2, 4
	l = &load{t: t, s: s, ctx: ctx, branch: s.branch(t, bookers+visitors)}
	var open sync.WaitGroup
	t.Cleanup(func() { stop(); stopStreams(); l.clients.Wait(); open.Wait() })

	users := s.users(t, bookers+visitors)
	for i, u := range users[:bookers] {
		l.client(func(round int) error { return l.bookAndCancel(u, l.branch.seats[i], round) })
	}
	for i, u := range users[bookers:] {
		l.client(func(round int) error { return l.visit(u, l.branch.seats[bookers+i], round) })
		mail := l.mail(u)
		l.inboxes = append(l.inboxes, mail)
		open.Go(func() { mail.run(streams) })
		screen := l.screen(u)
		l.screens = append(l.screens, screen)
		open.Go(func() { screen.run(streams) })
	}
	for range readers {
		l.client(func(int) error { return l.look(s.anonymous()) })
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
		l.compare(users[bookers:])
		stopStreams()
		open.Wait()
		l.report()
	}
}

// compare waits until the streams have brought what there is, neither less nor more. A call that was under way at the end may still do
// something, so what exists is asked for again and again.
func (l *load) compare(users []*e2e.Client) {
	l.t.Helper()
	for i, u := range users {
		var there, came []int64
		var err error
		if !happens(func() bool {
			there, err = allMail(l.t.Context(), u)
			came = notificationIDs(l.inboxes[i].got())
			return err == nil && slices.Equal(came, there)
		}) {
			l.t.Errorf("of the notifications %v, %v came (%v)", there, came, err)
		}
	}
	for _, screen := range l.screens {
		var there *dlsmsv1.GetSeatsResponse
		var shown map[int64]*dlsmsv1.Seat
		var err error
		if !happens(func() bool {
			there, err = l.s.anonymous().Seats.GetSeats(l.t.Context(), &dlsmsv1.GetSeatsRequest{Branch: l.branch.code})
			shown = e2e.LatestSeats(screen.current())
			return err == nil && len(shown) == len(there.GetSeats()) &&
				!slices.ContainsFunc(there.GetSeats(), func(s *dlsmsv1.Seat) bool { return !proto.Equal(s, shown[s.GetId()]) })
		}) {
			l.t.Errorf("a screen shows %v, the seats are %v (%v)", shown, there.GetSeats(), err)
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
	l.t.Logf("%d calls, of which %d had to be made twice; %d notifications; %d streams were opened again; %d faults",
		l.calls.Load(), l.retries.Load(), l.mailCount(), l.reopened.Load(), len(l.faults))
}

// client does something again and again, until the load ends.
func (l *load) client(do func(round int) error) {
	l.clients.Go(func() {
		beat := time.NewTicker(pace)
		defer beat.Stop()
		for round := 0; ; round++ {
			select {
			case <-l.ctx.Done():
				return
			case <-beat.C:
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

// try makes a call, and once more if it gets UNAVAILABLE: no client should have to do more.
func (l *load) try(call func() error) error {
	err := call()
	if e2e.RefusalOf(err).Code == codes.Unavailable {
		l.retries.Add(1)
		again := time.NewTimer(retryAfter)
		defer again.Stop()
		select {
		case <-again.C:
			err = call()
		case <-l.ctx.Done():
		}
	}
	if err == nil {
		l.calls.Add(1)
	}
	return err
}

// progress waits until the load has gone on by so many calls and notifications.
func (l *load) progress(calls, mails int64) {
	l.t.Helper()
	calls, mails = calls+l.calls.Load(), mails+l.mailCount()
	eventually(l.t, "the load goes on", func() bool { return l.calls.Load() >= calls && l.mailCount() >= mails })
}

// bookAndCancel books a seat for later and cancels, and each time looks whether everybody sees it.
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
		_, err := u.Reservations.CancelReservation(l.ctx, &dlsmsv1.CancelReservationRequest{ReservationId: booked.GetReservation().GetId()})
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

// visit books a seat from now on, sits down and leaves, which makes a notification.
func (l *load) visit(u *e2e.Client, seat int64, round int) error {
	req := &dlsmsv1.CreateReservationRequest{
		SeatId: seat, EndTime: timestamppb.New(time.Now().Add(time.Hour)), RequestId: fmt.Sprintf("visit-%d-%d", u.User.GetId(), round),
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

// look does what a screen does, and a user's page.
func (l *load) look(c *e2e.Client) error {
	return l.try(func() error {
		_, err := c.Seats.GetSeats(l.ctx, &dlsmsv1.GetSeatsRequest{AvailableOnly: true})
		if err != nil {
			return err
		}
		_, err = c.Seats.GetBranches(l.ctx, &dlsmsv1.GetBranchesRequest{})
		return err
	})
}
