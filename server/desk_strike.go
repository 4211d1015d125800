package server

import (
	"context"
	"time"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
)

// maxForgiven is the longest span of ForgiveStrikes.
const maxForgiven = 31 * 24 * time.Hour

func (s *deskService) ForgiveStrikes(
	ctx context.Context, req *dlsmsv1.ForgiveStrikesRequest,
) (*dlsmsv1.ForgiveStrikesResponse, error) {
	var c check
	order := c.deskOrder(ctx, "ForgiveStrikes", req)
	which := c.strikes(req)
	if err := c.err(); err != nil {
		return nil, err
	}

	done, err := s.store.ForgiveStrikes(ctx, order, which)
	if err != nil {
		return nil, err
	}
	if done.Suspensions > 0 {
		s.hints.Send(HintReservations) // the users may have got offers
	}

	return &dlsmsv1.ForgiveStrikesResponse{
		Forgiven: count(done.Strikes), Lifted: count(done.Suspensions),
	}, nil
}

// strikes checks that a request names one strike, or a branch and a span.
func (c *check) strikes(req *dlsmsv1.ForgiveStrikesRequest) library.StrikeSelection {
	if req.GetStrikeId() == 0 {
		which := library.StrikeSelection{Branch: c.text("branch", req.GetBranch(), 1, 50)}
		which.StartTime, which.EndTime = c.window(req.GetStartTime(), req.GetEndTime())
		c.span(which.StartTime, which.EndTime, maxForgiven)
		return which
	}
	for _, other := range []struct {
		field string
		set   bool
	}{
		{"branch", req.GetBranch() != ""}, {"start_time", req.GetStartTime() != nil}, {"end_time", req.GetEndTime() != nil},
	} {
		if other.set {
			c.fault(other.field, "must not be set together with strike_id")
		}
	}
	return library.StrikeSelection{StrikeID: c.id("strike_id", req.GetStrikeId())}
}

func (s *deskService) SetSuspension(
	ctx context.Context, req *dlsmsv1.SetSuspensionRequest,
) (*dlsmsv1.SetSuspensionResponse, error) {
	var c check
	order := c.deskOrder(ctx, "SetSuspension", req)
	id := c.id("user_id", req.GetUserId())
	until := c.optionalTime("until", req.GetUntil())
	if err := c.err(); err != nil {
		return nil, err
	}

	p, err := s.store.SetSuspension(ctx, order, id, until)
	if err != nil {
		return nil, err
	}
	if until.IsZero() {
		s.hints.Send(HintReservations) // the user may have got offers
	}

	return &dlsmsv1.SetSuspensionResponse{User: personProto(p)}, nil
}
