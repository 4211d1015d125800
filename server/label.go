package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
)

func (s *seatService) GetSeatByLabel(
	ctx context.Context, req *dlsmsv1.GetSeatByLabelRequest,
) (*dlsmsv1.GetSeatByLabelResponse, error) {
	var c check
	code := c.text("code", req.GetCode(), 1, maxCode)
	if err := c.err(); err != nil {
		return nil, err
	}
	id, ok := s.codes.Seat(code)
	if !ok {
		return nil, library.ErrPresenceInvalid
	}

	seat, err := s.seats.Seat(ctx, id, time.Time{}, time.Time{})
	if err != nil {
		return nil, err
	}
	resp := &dlsmsv1.GetSeatByLabelResponse{Seat: seatProto(seat.SeatView), AsOf: timestamppb.New(seat.AsOf)}
	visit, reserved, err := s.visitAt(ctx, id)
	if err != nil {
		return nil, err
	}
	resp.Action = actionAt(visit, reserved, seat.Available, seat.AsOf)
	switch resp.GetAction() {
	case dlsmsv1.SeatAction_SEAT_ACTION_COME_BACK:
		resp.CheckInOpensAt = timestamppb.New(visit.CheckInOpensAt)
		resp.ReservationId = visit.ID
	case dlsmsv1.SeatAction_SEAT_ACTION_CHECK_IN, dlsmsv1.SeatAction_SEAT_ACTION_STAY:
		resp.ReservationId = visit.ID
	case dlsmsv1.SeatAction_SEAT_ACTION_UNSPECIFIED, dlsmsv1.SeatAction_SEAT_ACTION_SIT_DOWN,
		dlsmsv1.SeatAction_SEAT_ACTION_CHOOSE_ANOTHER:
	}
	return resp, nil
}

// visitAt returns the present or next reservation of the caller at a seat. reserved is false if there
// is none, or the client sent no valid token.
func (s *seatService) visitAt(
	ctx context.Context, seatID int64,
) (r library.Reservation, reserved bool, err error) {
	user := edge.Watcher(ctx)
	if user == 0 {
		return r, false, nil
	}
	return s.store.VisitAt(ctx, user, seatID)
}

// soon is how long before a reservation a user who opens the label has come for it, although the seat
// is free until then.
const soon = time.Hour

// actionAt returns what a user can do at a seat. visit is the present or next reservation of the
// user there, if reserved is true. free says that the seat is free now.
func actionAt(visit library.Reservation, reserved, free bool, now time.Time) dlsmsv1.SeatAction {
	switch {
	case reserved && visit.Status == library.CheckedIn:
		return dlsmsv1.SeatAction_SEAT_ACTION_STAY
	case reserved && !now.Before(visit.CheckInOpensAt) && now.Before(*visit.CheckInDeadline):
		return dlsmsv1.SeatAction_SEAT_ACTION_CHECK_IN
	case reserved && now.Before(visit.CheckInOpensAt) && (!free || visit.StartTime.Sub(now) <= soon):
		return dlsmsv1.SeatAction_SEAT_ACTION_COME_BACK
	case free:
		return dlsmsv1.SeatAction_SEAT_ACTION_SIT_DOWN
	}
	return dlsmsv1.SeatAction_SEAT_ACTION_CHOOSE_ANOTHER
}
