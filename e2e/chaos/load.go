package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// The clients use several branches. In the plans branch they book days ahead. Only the clients change
// reservations there, so every answer can be checked against a model. In the visits branch they
// book from now on, so the worker and the waitlist change reservations too. There, the final state
// must satisfy the invariants of the database. They also make visits in the branches that require
// codes at check-in: see place.
const (
	plansBranch  = "plans"
	visitsBranch = "visits"
	planSeats    = 6
	visitSeats   = 10
	firstDay     = 3 // of the bookings, in days after the start of the run
	planDays     = 10
	opens        = 8  // first hour of a day that clients book, UTC
	slots        = 12 // hours of a day that clients book
	plansOfEach  = 4  // most bookings of one client at a time
)

// load has all clients and their streams.
type load struct {
	system  *system
	history *history
	clients []*client
	plans   []int64 // seats of the plans branch
	visits  []int64 // seats of the visits branch
	places  []*place
	// placeSeats are the seats of all places. placeOf and labels have the place of each of them, and
	// the code of its label.
	placeSeats []int64
	placeOf    map[int64]*place
	labels     map[int64]string

	days    []time.Time
	latest  atomic.Pointer[owned] // the last reservation of any client
	streams *streams
	rest    time.Duration // longest pause between two operations

	stop context.CancelFunc
	all  sync.WaitGroup
}

// startLoad registers the clients and starts them. It adds violations that they see to found.
func startLoad(ctx context.Context, s *system, p *plan, found *violations) (*load, error) {
	l := &load{system: s, history: newHistory(clients, found), rest: p.rest}
	var err error
	if l.plans, err = s.addBranch(ctx, plansBranch, planSeats); err != nil {
		return nil, err
	}
	if l.visits, err = s.addBranch(ctx, visitsBranch, visitSeats); err != nil {
		return nil, err
	}
	today := s.clock.At(time.Now()).UTC().Truncate(24 * time.Hour)
	for d := range planDays {
		l.days = append(l.days, today.AddDate(0, 0, firstDay+d))
	}
	grpcConns, err := s.connect(2*edges, 0)
	if err != nil {
		return nil, err
	}
	overHTTP := &httpConns{
		plain:        s.connectHTTP(2*edges, e2e.RetryHTTP()),
		revalidating: s.connectHTTP(2*edges, e2e.RetryHTTP(), e2e.RevalidateHTTP()),
	}
	for i := range clients {
		c := &client{
			number: i, system: s, history: l.history, conns: grpcConns,
			rng: rand.New(rand.NewPCG(p.seed, uint64(i))),
		}
		if i%2 == 1 { // half of all clients, and of those with a watch
			c.conns, c.http = overHTTP.plain, overHTTP
		}
		if c.Client, err = signUp(ctx, c.conns, fmt.Sprintf("chaos-%d", i)); err != nil {
			return nil, err
		}
		l.clients = append(l.clients, c)
	}
	if s.librarian, err = l.newLibrarian(ctx, p.seed, slices.Concat(grpcConns, overHTTP.plain)); err != nil {
		return nil, err
	}
	if err := l.addPlaces(ctx, s.librarian); err != nil {
		return nil, err
	}
	if s.operator, err = s.newOperator(ctx, l.history, slices.Concat(grpcConns, overHTTP.plain)); err != nil {
		return nil, err
	}
	l.streams = openStreams(ctx, l.clients)
	ctx, l.stop = context.WithCancel(ctx)
	l.runClients(ctx)
	l.all.Go(func() { s.librarian.work(ctx) })
	for i := range s.Replicas {
		l.all.Go(func() { s.sendHalf(ctx, i, found) })
		for _, part := range halfRequests {
			l.all.Go(func() { s.sendHalfHTTP(ctx, i, part, found) })
		}
	}
	return l, nil
}

const password = "correct horse battery"

// signUp registers a user and logs in.
func signUp(ctx context.Context, conns []grpc.ClientConnInterface, studentID string) (*e2e.Client, error) {
	anonymous := e2e.Anonymous(conns[0])
	_, err := anonymous.Auth.Register(ctx, &dlsmsv1.RegisterRequest{
		StudentId: studentID, Name: "Student", Email: studentID + "@university.example", Password: password,
	})
	if err != nil {
		return nil, fmt.Errorf("register %s: %w", studentID, err)
	}
	return anonymous.Login(ctx, studentID, password)
}

// end stops the clients after their current operations.
func (l *load) end() {
	l.stop()
	l.all.Wait()
}

// runClients starts the clients and the displays, which run until ctx ends.
func (l *load) runClients(ctx context.Context) {
	for _, c := range l.clients {
		l.all.Go(func() { l.runClient(ctx, c) })
	}
	for _, at := range l.places {
		if at.display.key != "" {
			l.all.Go(func() { l.watchScreen(ctx, at.display) })
		}
	}
}

// runClient makes random operations until ctx ends. It finishes the last operation.
func (l *load) runClient(ctx context.Context, c *client) {
	calls := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		if l.rest > 0 {
			sleep(ctx, time.Duration(c.rng.Int64N(int64(l.rest))))
		}
		switch n := c.rng.IntN(100); {
		case n < 1:
			c.probe(calls, l.reservationOfOther(c))
		case n < 25:
			l.visitOnce(calls, c)
		case n < 60:
			l.readSeats(calls, c)
		default:
			l.planOnce(calls, c)
		}
	}
}

// owned is a reservation and its user.
type owned struct{ reservation, user int64 }

// reservationOfOther returns a reservation of another user, 0 if there is none.
func (l *load) reservationOfOther(c *client) int64 {
	if o := l.latest.Load(); o != nil && o.user != c.User.GetId() {
		return o.reservation
	}
	return 0
}

// booking is a reservation of a client in the plans branch.
type booking struct {
	id, seat   int64
	start, end time.Time
}

// window chooses a window of one to three hours on one day.
func (l *load) window(c *client) (start, end time.Time) {
	day := l.days[c.rng.IntN(len(l.days))]
	from := c.rng.IntN(slots)
	until := min(from+1+c.rng.IntN(3), slots)
	return day.Add(time.Duration(opens+from) * time.Hour), day.Add(time.Duration(opens+until) * time.Hour)
}

// planOnce books, cancels or extends.
func (l *load) planOnce(ctx context.Context, c *client) {
	switch n := c.rng.IntN(10); {
	case len(c.bookings) > 0 && n == 0:
		l.extendPlan(ctx, c, c.rng.IntN(len(c.bookings)))
	case len(c.bookings) == plansOfEach || len(c.bookings) > 0 && n < 4:
		l.cancelPlan(ctx, c, c.rng.IntN(len(c.bookings)))
	default:
		l.bookPlan(ctx, c)
	}
}

func (l *load) bookPlan(ctx context.Context, c *client) {
	o := op{Kind: book, Seat: l.plans[c.rng.IntN(len(l.plans))], RequestID: c.requestID()}
	o.Start, o.End = l.window(c)
	create := func(ctx context.Context, api *e2e.Client, o *op) error {
		resp, err := api.Reservations.CreateReservation(ctx, &dlsmsv1.CreateReservationRequest{
			SeatId: o.Seat, StartTime: timestamppb.New(o.Start), EndTime: timestamppb.New(o.End), RequestId: o.RequestID,
		})
		o.Reservation = resp.GetReservation().GetId()
		return err
	}
	o, done := c.attempt(ctx, o, create)
	if !done {
		return
	}
	c.bookings = append(c.bookings, booking{o.Reservation, o.Seat, o.Start, o.End})
	l.latest.Store(&owned{o.Reservation, o.User})
	if c.rng.IntN(20) == 0 { // repeat the request
		again := o
		c.try(ctx, c.conns, &again, create)
		switch {
		case again.Unknown, again.Reason == "OVERLOADED":
		case again.Reason != "":
			c.history.found.add(checkAnswers,
				"request %s of user %d was done and then refused: %s", o.RequestID, o.User, again.Reason)
		case again.Reservation != o.Reservation:
			c.history.found.add(checkAnswers, "request %s of user %d made reservation %d and then %d",
				o.RequestID, o.User, o.Reservation, again.Reservation)
		}
	}
}

func (l *load) cancelPlan(ctx context.Context, c *client, i int) {
	b := c.bookings[i]
	o, done := c.attempt(ctx, op{Kind: cancel, Seat: b.seat, Reservation: b.id, Start: b.start, End: b.end}, cancelCall)
	if o.Reason == "OVERLOADED" && !o.Unsure {
		return
	}
	// Forget the booking, even if the cancel had no answer. In that case result.verify looks up in
	// the database whether the booking was cancelled.
	c.bookings = append(c.bookings[:i], c.bookings[i+1:]...)
	swept := o.Reason == "NOT_CONFIRMED" && l.system.librarian.mayHaveEnded(b)
	if !done && !o.Unknown && o.Reason != "OVERLOADED" && !swept {
		c.history.found.add(checkAnswers, "reservation %d could not be cancelled by its user: %s", b.id, o.Reason)
	}
}

func cancelCall(ctx context.Context, api *e2e.Client, o *op) error {
	_, err := api.Reservations.CancelReservation(ctx, &dlsmsv1.CancelReservationRequest{ReservationId: o.Reservation})
	return err
}

func extendCall(ctx context.Context, api *e2e.Client, o *op) error {
	_, err := api.Reservations.ExtendReservation(ctx, &dlsmsv1.ExtendReservationRequest{
		ReservationId: o.Reservation, EndTime: timestamppb.New(o.End),
	})
	return err
}

func (l *load) extendPlan(ctx context.Context, c *client, i int) {
	b := &c.bookings[i]
	longer := b.end.Add(time.Hour)
	if longer.Sub(b.start.Truncate(24*time.Hour)) > (opens+slots)*time.Hour {
		return
	}
	o, done := c.attempt(ctx, op{Kind: extend, Seat: b.seat, Reservation: b.id, Start: b.start, End: longer}, extendCall)
	switch {
	case done:
		b.end = longer
	case o.Unknown, o.Reason == "NOT_CONFIRMED": // forget the booking: result.verify looks up its end
		c.bookings = append(c.bookings[:i], c.bookings[i+1:]...)
	}
}

// readSeats reads the seats in a window. A client over HTTP makes half of its reads with
// If-None-Match. It repeats half of these at once, because a booking may soon change the answer.
func (l *load) readSeats(ctx context.Context, c *client) {
	start, end := l.window(c)
	if c.http == nil || c.rng.IntN(2) == 0 {
		l.readWindow(ctx, c, c.conns, start, end)
		return
	}
	for range 1 + c.rng.IntN(2)*repeatedReads {
		l.readWindow(ctx, c, c.http.revalidating, start, end)
	}
}

// repeatedReads is how often a client repeats a read with If-None-Match.
const repeatedReads = 2

// readWindow asks which seats of the plans branch are free in a window, and records a read of each.
func (l *load) readWindow(
	ctx context.Context, c *client, conns []grpc.ClientConnInterface, start, end time.Time,
) {
	o := op{Kind: read, Start: start, End: end}
	var seats []*dlsmsv1.Seat
	o, done := c.attemptOver(ctx, conns, o, func(ctx context.Context, api *e2e.Client, o *op) error {
		var header metadata.MD
		resp, err := api.Seats.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{
			Branch: plansBranch, StartTime: timestamppb.New(o.Start), EndTime: timestamppb.New(o.End),
		}, grpc.Header(&header))
		if err == nil {
			seats, o.AsOf = resp.GetSeats(), l.system.clock.Real(resp.GetAsOf().AsTime()).Sub(l.history.began)
			o.NotModified = slices.Equal(header.Get(e2e.StatusHeader), notModified)
		}
		return err
	})
	if !done {
		return
	}
	if len(seats) != len(l.plans) {
		c.history.found.add(checkAnswers, "GetSeats returned %d seats of %d", len(seats), len(l.plans))
		return
	}
	for _, s := range seats {
		o.Seat, o.Free = s.GetId(), s.GetAvailable()
		c.history.parts[c.number].ops = append(c.history.parts[c.number].ops, o)
		c.history.reads.Add(1)
	}
}

var notModified = []string{strconv.Itoa(http.StatusNotModified)}
