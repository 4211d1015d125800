package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/presence"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store"
)

// Page sizes of GetReservations.
const (
	defaultReservations = 50
	maxReservations     = 500
)

type reservationService struct {
	dlsmsv1.UnsafeReservationServiceServer

	store  *store.Store
	hints  *Hints
	codes  *presence.Codes
	limits *edge.Limits
}

func (s *reservationService) CreateReservation(
	ctx context.Context, req *dlsmsv1.CreateReservationRequest,
) (*dlsmsv1.CreateReservationResponse, error) {
	var c check
	booking := library.Booking{
		UserID:    edge.Caller(ctx).UserID,
		SeatID:    c.id("seat_id", req.GetSeatId()),
		RequestID: c.requestID(req.GetRequestId()),
		Token:     edge.Caller(ctx).Identity(),
	}
	booking.StartTime, booking.EndTime = c.windowFromNow(req.GetStartTime(), req.GetEndTime())
	if err := c.err(); err != nil {
		return nil, err
	}

	reserve := s.store.Reserve
	if req.GetValidateOnly() {
		reserve = s.store.ValidateReservation
	}
	r, err := reserve(ctx, booking)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return &dlsmsv1.CreateReservationResponse{Reservation: reservationProto(r)}, nil
}

func (s *reservationService) CheckReservation(
	ctx context.Context, req *dlsmsv1.CheckReservationRequest,
) (*dlsmsv1.CheckReservationResponse, error) {
	var c check
	booking := library.Booking{UserID: edge.Caller(ctx).UserID, SeatID: c.id("seat_id", req.GetSeatId())}
	booking.StartTime, booking.EndTime = c.windowFromNow(req.GetStartTime(), req.GetEndTime())
	if err := c.err(); err != nil {
		return nil, err
	}

	found, err := s.store.CheckReservation(ctx, booking)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.CheckReservationResponse{}
	for _, b := range found.Broken {
		resp.Broken = append(resp.Broken, &dlsmsv1.BrokenRule{Reason: b.Reason, Message: b.Message, Metadata: b.Metadata})
	}
	for _, a := range found.Alternatives {
		resp.Alternatives = append(resp.Alternatives, &dlsmsv1.Alternative{
			Seat: seatRefProto(a.SeatRef), StartTime: timestamppb.New(a.StartTime), EndTime: timestamppb.New(a.EndTime),
		})
	}
	return resp, nil
}

func (s *reservationService) GetReservation(
	ctx context.Context, req *dlsmsv1.GetReservationRequest,
) (*dlsmsv1.GetReservationResponse, error) {
	var c check
	id := c.id("reservation_id", req.GetReservationId())
	if err := c.err(); err != nil {
		return nil, err
	}

	r, err := s.store.Reservation(ctx, edge.Caller(ctx).UserID, id)
	if err != nil {
		return nil, err
	}

	return &dlsmsv1.GetReservationResponse{Reservation: reservationProto(r)}, nil
}

func (s *reservationService) GetReservations(
	ctx context.Context, req *dlsmsv1.GetReservationsRequest,
) (*dlsmsv1.GetReservationsResponse, error) {
	var c check
	view := viewOf(enum(&c, "view", req.GetView()))
	size, after := c.page(req, defaultReservations, maxReservations)
	if err := c.err(); err != nil {
		return nil, err
	}

	from := store.ReservationCursor{StartTime: after.Time, ID: after.ID}
	list, err := s.store.Reservations(ctx, edge.Caller(ctx).UserID, view, from, size+1)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetReservationsResponse{}
	list, resp.NextPageToken = cut(req, list, size, func(r library.Reservation) cursor {
		return cursor{Time: r.StartTime, ID: r.ID}
	})
	for _, r := range list {
		resp.Reservations = append(resp.Reservations, reservationProto(r))
	}
	return resp, nil
}

func viewOf(v dlsmsv1.ReservationView) store.View {
	switch v {
	case dlsmsv1.ReservationView_RESERVATION_VIEW_HISTORY:
		return store.ViewHistory
	case dlsmsv1.ReservationView_RESERVATION_VIEW_ALL:
		return store.ViewAll
	case dlsmsv1.ReservationView_RESERVATION_VIEW_UNSPECIFIED, dlsmsv1.ReservationView_RESERVATION_VIEW_UPCOMING:
	}
	return store.ViewUpcoming
}

func (s *reservationService) CancelReservation(
	ctx context.Context, req *dlsmsv1.CancelReservationRequest,
) (*dlsmsv1.CancelReservationResponse, error) {
	r, err := s.transition(ctx, req.GetReservationId(), s.store.Cancel)
	if err != nil {
		return nil, err
	}
	return &dlsmsv1.CancelReservationResponse{Reservation: r}, nil
}

func (s *reservationService) CheckOut(
	ctx context.Context, req *dlsmsv1.CheckOutRequest,
) (*dlsmsv1.CheckOutResponse, error) {
	r, err := s.transition(ctx, req.GetReservationId(), s.store.CheckOut)
	if err != nil {
		return nil, err
	}
	return &dlsmsv1.CheckOutResponse{Reservation: r}, nil
}

// transition handles CancelReservation and CheckOut. Each of them has a reservation id as
// its only argument, and changes the status of this reservation. move is the method of the store
// that changes it.
func (s *reservationService) transition(
	ctx context.Context, reservationID int64,
	move func(ctx context.Context, userID, id int64) (library.Reservation, error),
) (*dlsmsv1.Reservation, error) {
	var c check
	id := c.id("reservation_id", reservationID)
	if err := c.err(); err != nil {
		return nil, err
	}

	r, err := move(ctx, edge.Caller(ctx).UserID, id)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return reservationProto(r), nil
}

func (s *reservationService) ExtendReservation(
	ctx context.Context, req *dlsmsv1.ExtendReservationRequest,
) (*dlsmsv1.ExtendReservationResponse, error) {
	var c check
	id := c.id("reservation_id", req.GetReservationId())
	end := c.time("end_time", req.GetEndTime())
	if err := c.err(); err != nil {
		return nil, err
	}

	extend := s.store.Extend
	if req.GetValidateOnly() {
		extend = s.store.ValidateExtension
	}
	r, err := extend(ctx, edge.Caller(ctx).UserID, id, end)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return &dlsmsv1.ExtendReservationResponse{Reservation: reservationProto(r)}, nil
}
