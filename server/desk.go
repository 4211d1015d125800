package server

import (
	"cmp"
	"context"
	"time"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store"
)

// Page sizes of DeskService.
const (
	defaultFound    = 20
	maxFound        = 100
	defaultArrivals = 200
	maxArrivals     = 500
)

// longestBookFor is the longest window of BookFor.
const longestBookFor = 7 * 24 * time.Hour

// deskService acts for users, at the desk of a branch.
type deskService struct {
	dlsmsv1.UnsafeDeskServiceServer

	store    *store.Store
	hints    *Hints
	arrivals *Arrivals
}

// deskOrder returns the order of a call of DeskService, whose reason is required. action is the name
// of the RPC.
func (c *check) deskOrder(ctx context.Context, action string, req change) library.Order {
	if req.GetReason() == "" {
		c.fault("reason", "is missing")
	}
	return c.order(ctx, action, req)
}

func (s *deskService) FindUsers(
	ctx context.Context, req *dlsmsv1.FindUsersRequest,
) (*dlsmsv1.FindUsersResponse, error) {
	var c check
	query := c.personQuery(req)
	size := c.pageSize(req.GetPageSize(), defaultFound, maxFound)
	if err := c.err(); err != nil {
		return nil, err
	}

	people, err := s.store.FindPeople(ctx, edge.Caller(ctx).Actor(), query, size)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.FindUsersResponse{}
	for _, p := range people {
		resp.Users = append(resp.Users, personProto(p))
	}
	return resp, nil
}

// personQuery checks that exactly one field of the search is set.
func (c *check) personQuery(req *dlsmsv1.FindUsersRequest) library.PersonQuery {
	q := library.PersonQuery{
		StudentID: req.GetStudentId(), Card: req.GetCard(), Email: req.GetEmail(), Name: req.GetName(),
	}
	set := 0
	for _, v := range []string{q.StudentID, q.Card, q.Email, q.Name} {
		if v != "" {
			set++
		}
	}
	if set != 1 {
		c.fault("student_id", "is not alone: exactly one of student_id, card, email and name must be set")
	}
	c.text("student_id", q.StudentID, 0, 32)
	c.text("card", q.Card, 0, maxCard)
	c.text("email", q.Email, 0, 254)
	if q.Name != "" {
		c.text("name", q.Name, 2, 100)
	}
	return q
}

func (s *deskService) GetUserOverview(
	ctx context.Context, req *dlsmsv1.GetUserOverviewRequest,
) (*dlsmsv1.GetUserOverviewResponse, error) {
	var c check
	userID := c.id("user_id", req.GetUserId())
	if err := c.err(); err != nil {
		return nil, err
	}

	o, err := s.store.Overview(ctx, edge.Caller(ctx).Actor(), userID)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetUserOverviewResponse{
		User: personProto(o.Person), Reservations: reservationProtos(o.Reservations), Strikes: strikeProtos(o.Strikes),
	}
	for _, e := range o.Entries {
		resp.Entries = append(resp.Entries, entryProto(e))
	}
	return resp, nil
}

func (s *deskService) ListArrivals(
	ctx context.Context, req *dlsmsv1.ListArrivalsRequest,
) (*dlsmsv1.ListArrivalsResponse, error) {
	var c check
	branch := c.text("branch", req.GetBranch(), 1, 32)
	day := c.optionalDay("day", req.GetDay())
	size, after := c.page(req, defaultArrivals, maxArrivals)
	if err := c.err(); err != nil {
		return nil, err
	}

	from := store.ReservationCursor{StartTime: after.Time, ID: after.ID}
	list, err := s.store.Arrivals(ctx, edge.Caller(ctx).Actor(), branch, day, from, size+1)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.ListArrivalsResponse{}
	list, resp.NextPageToken = cut(req, list, size, func(a library.AffectedReservation) cursor {
		return cursor{Time: a.StartTime, ID: a.ID}
	})
	for _, a := range list {
		resp.Reservations = append(resp.Reservations, affectedProto(a))
	}
	return resp, nil
}

// day checks a required date.
func (c *check) day(field, v string) time.Time {
	if v == "" {
		c.fault(field, "is missing")
		return time.Time{}
	}
	return c.optionalDay(field, v)
}

// optionalDay checks a date. It returns midnight UTC of the date, and the zero time for no date.
func (c *check) optionalDay(field, v string) time.Time {
	if v == "" {
		return time.Time{}
	}
	day, err := time.Parse(time.DateOnly, v)
	if err != nil || day.Before(minTime) || !day.Before(maxTime) {
		c.fault(field, "must be a date such as 2026-03-02, in the years 2000 to 2199")
	}
	return day
}

func (s *deskService) BookFor(ctx context.Context, req *dlsmsv1.BookForRequest) (*dlsmsv1.BookForResponse, error) {
	var c check
	order := c.deskOrder(ctx, "BookFor", req)
	booking := library.Booking{
		UserID:    c.id("user_id", req.GetUserId()),
		SeatID:    c.id("seat_id", req.GetSeatId()),
		RequestID: c.requestID(req.GetRequestId()),
	}
	booking.StartTime, booking.EndTime = c.windowFromNow(req.GetStartTime(), req.GetEndTime())
	c.span(booking.StartTime, booking.EndTime, longestBookFor)
	if err := c.err(); err != nil {
		return nil, err
	}

	order.RequestID = cmp.Or(booking.RequestID, order.RequestID)
	r, err := s.store.BookFor(ctx, order, booking)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return &dlsmsv1.BookForResponse{Reservation: reservationProto(r)}, nil
}

func (s *deskService) CancelFor(
	ctx context.Context, req *dlsmsv1.CancelForRequest,
) (*dlsmsv1.CancelForResponse, error) {
	cancel := func(ctx context.Context, order library.Order, id int64) (library.Reservation, error) {
		r, _, err := s.store.CancelFor(ctx, order, id)
		return r, err
	}
	r, err := s.act(ctx, "CancelFor", req, cancel)
	if err != nil {
		return nil, err
	}
	return &dlsmsv1.CancelForResponse{Reservation: reservationProto(r)}, nil
}

func (s *deskService) CheckInFor(
	ctx context.Context, req *dlsmsv1.CheckInForRequest,
) (*dlsmsv1.CheckInForResponse, error) {
	r, err := s.act(ctx, "CheckInFor", req, s.store.CheckInFor)
	if err != nil {
		return nil, err
	}
	return &dlsmsv1.CheckInForResponse{Reservation: reservationProto(r)}, nil
}

func (s *deskService) CheckOutFor(
	ctx context.Context, req *dlsmsv1.CheckOutForRequest,
) (*dlsmsv1.CheckOutForResponse, error) {
	r, err := s.act(ctx, "CheckOutFor", req, s.store.CheckOutFor)
	if err != nil {
		return nil, err
	}
	return &dlsmsv1.CheckOutForResponse{Reservation: reservationProto(r)}, nil
}

// deskRequest is a request about one reservation.
type deskRequest interface {
	change
	GetReservationId() int64
}

// act checks a request about one reservation and makes a transition of it.
func (s *deskService) act(
	ctx context.Context, action string, req deskRequest,
	transition func(context.Context, library.Order, int64) (library.Reservation, error),
) (library.Reservation, error) {
	var c check
	order := c.deskOrder(ctx, action, req)
	id := c.id("reservation_id", req.GetReservationId())
	if err := c.err(); err != nil {
		return library.Reservation{}, err
	}
	r, err := transition(ctx, order, id)
	if err == nil {
		s.hints.Send(HintReservations)
	}
	return r, err
}

func (s *deskService) RecordArrival(
	ctx context.Context, req *dlsmsv1.RecordArrivalRequest,
) (*dlsmsv1.RecordArrivalResponse, error) {
	var c check
	if (req.GetCard() == "") == (req.GetStudentId() == "") {
		c.fault("card", "or student_id must be set, and not both")
	}
	card, studentID := c.text("card", req.GetCard(), 0, maxCard), c.text("student_id", req.GetStudentId(), 0, 32)
	if err := c.err(); err != nil {
		return nil, err
	}

	order := library.Order{
		Actor: edge.Caller(ctx).Actor(), Action: "RecordArrival", RequestID: edge.CallID(ctx),
		ValidateOnly: req.GetValidateOnly(),
	}
	visits, err := s.store.RecordArrival(ctx, order, card, studentID)
	if err != nil {
		return nil, err
	}
	if len(visits) > 0 {
		s.hints.Send(HintReservations)
	}

	return &dlsmsv1.RecordArrivalResponse{Reservations: reservationProtos(visits)}, nil
}

func (s *deskService) CloseUser(
	ctx context.Context, req *dlsmsv1.CloseUserRequest,
) (*dlsmsv1.CloseUserResponse, error) {
	var c check
	order := c.deskOrder(ctx, "CloseUser", req)
	userID := c.id("user_id", req.GetUserId())
	if err := c.err(); err != nil {
		return nil, err
	}

	closed, err := s.store.CloseUser(ctx, order, userID)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintTokens | HintReservations)

	return &dlsmsv1.CloseUserResponse{
		Reservations: count(closed.Reservations), Entries: count(closed.Entries),
	}, nil
}

func reservationProtos(list []library.Reservation) []*dlsmsv1.Reservation {
	out := make([]*dlsmsv1.Reservation, 0, len(list))
	for _, r := range list {
		out = append(out, reservationProto(r))
	}
	return out
}

func personProto(p library.Person) *dlsmsv1.Person {
	return &dlsmsv1.Person{
		Id: p.ID, StudentId: p.StudentID, Name: p.Name, Email: p.Email, Card: p.Card, Group: p.Group,
		Role: roleProto(p.Role), SuspendedUntil: timestamp(p.SuspendedUntil), ClosedAt: timestamp(p.ClosedAt),
	}
}

func affectedProto(a library.AffectedReservation) *dlsmsv1.AffectedReservation {
	return &dlsmsv1.AffectedReservation{
		Reservation: reservationProto(a.Reservation), StudentId: a.StudentID, Name: a.Name,
	}
}
