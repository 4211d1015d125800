package server

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
)

// Page sizes of ListClosures.
const (
	defaultClosures = 100
	maxClosures     = 500
)

func (s *adminService) CreateClosure(
	ctx context.Context, req *dlsmsv1.CreateClosureRequest,
) (*dlsmsv1.CreateClosureResponse, error) {
	var c check
	order := c.order(ctx, "CreateClosure", req)
	spec := library.ClosureSpec{
		Branch: c.text("branch", req.GetBranch(), 1, 64), Area: c.text("area", req.GetArea(), 0, 100),
		SeatIDs: c.ids("seat_ids", req.GetSeatIds()), RequestID: c.requestID(req.GetRequestId()),
		Disruption: c.disruption(req),
	}
	if spec.Area != "" && len(spec.SeatIDs) > 0 {
		c.fault("seat_ids", "must be empty if area is set")
	}
	spec.StartTime, spec.EndTime = c.ordered(
		c.optionalTime("start_time", req.GetStartTime()), c.optionalTime("end_time", req.GetEndTime()))
	if err := c.err(); err != nil {
		return nil, err
	}

	closure, impact, err := s.store.CreateClosure(ctx, order, spec)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return &dlsmsv1.CreateClosureResponse{Closure: closureProto(closure), Impact: impactProto(impact)}, nil
}

func (s *adminService) UpdateClosure(
	ctx context.Context, req *dlsmsv1.UpdateClosureRequest,
) (*dlsmsv1.UpdateClosureResponse, error) {
	var c check
	order := c.order(ctx, "UpdateClosure", req)
	change := library.ClosureChange{
		ID: c.id("closure_id", req.GetClosureId()), NoEnd: req.GetNoEnd(), Lift: req.GetLift(),
		Note: c.languages("note", req.GetNote()), Expected: c.count("expected_reservations", req.GetExpectedReservations()),
	}
	change.StartTime, change.EndTime = c.ordered(
		c.optionalTime("start_time", req.GetStartTime()), c.optionalTime("end_time", req.GetEndTime()))
	if req.GetEndTime() != nil && change.NoEnd {
		c.fault("end_time", "must be unset if no_end is set")
	}
	if change.Lift && (req.GetStartTime() != nil || req.GetEndTime() != nil || change.NoEnd || len(change.Note) > 0) {
		c.fault("lift", "must be the only change")
	}
	if err := c.err(); err != nil {
		return nil, err
	}

	closure, impact, err := s.store.UpdateClosure(ctx, order, change)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return &dlsmsv1.UpdateClosureResponse{Closure: closureProto(closure), Impact: impactProto(impact)}, nil
}

func (s *adminService) ListClosures(
	ctx context.Context, req *dlsmsv1.ListClosuresRequest,
) (*dlsmsv1.ListClosuresResponse, error) {
	var c check
	branch := c.text("branch", req.GetBranch(), 0, 64)
	size, after := c.page(req, defaultClosures, maxClosures)
	if err := c.err(); err != nil {
		return nil, err
	}

	list, err := s.store.ListClosures(ctx, edge.Caller(ctx).Actor(), branch, req.GetIncludePast(), after.ID, size+1)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.ListClosuresResponse{}
	list, resp.NextPageToken = cut(req, list, size, func(c library.ClosureState) cursor { return cursor{ID: c.ID} })
	for _, closure := range list {
		resp.Closures = append(resp.Closures, closureProto(closure))
	}
	return resp, nil
}

func closureProto(c library.ClosureState) *dlsmsv1.Closure {
	out := &dlsmsv1.Closure{
		Id: c.ID, Branch: c.Branch, Area: c.Area, SeatIds: c.SeatIDs,
		StartTime: timestamppb.New(c.StartTime), EndTime: setTimestamp(c.EndTime), Note: c.Note,
		OnBookings: enumValue[dlsmsv1.BookingAction]("BOOKING_ACTION_"+string(c.OnBookings), dlsmsv1.BookingAction_value),
		CreatedAt:  timestamppb.New(c.CreatedAt), LiftedAt: timestamp(c.LiftedAt),
	}
	if p := c.Sweep; p != nil {
		out.Sweep = &dlsmsv1.SweepProgress{Done: p.Done, Ended: count(p.Ended), Left: count(p.Left)}
	}
	return out
}

// maxSeatIDs is the most seats of a closure or of another request of staff.
const maxSeatIDs = 500

// ids checks an optional list of ids.
func (c *check) ids(field string, ids []int64) []int64 {
	if len(ids) > maxSeatIDs {
		c.fault(field, fmt.Sprintf("must be at most %d", maxSeatIDs))
		return nil
	}
	for i, id := range ids {
		c.id(fmt.Sprintf("%s[%d]", field, i), id)
	}
	return ids
}
