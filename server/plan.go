package server

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dlsms/dlsms/availability"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// planProto returns a floor plan without its as_of.
func planProto(p availability.FloorPlan) *dlsmsv1.GetFloorPlanResponse {
	resp := &dlsmsv1.GetFloorPlanResponse{}
	for _, s := range p.Places {
		resp.Seats = append(resp.Seats, &dlsmsv1.SeatPlace{
			SeatId: s.SeatID, XCm: s.XCm, YCm: s.YCm, Angle: s.Angle, Desk: s.Desk,
		})
	}
	for _, a := range p.Areas {
		resp.Areas = append(resp.Areas, &dlsmsv1.PlanArea{Name: a.Name, Floor: a.Floor})
	}
	return resp
}

// encodePlan returns the fields of a GetFloorPlanResponse except as_of.
func encodePlan(p availability.FloorPlan) []byte {
	b, err := proto.Marshal(planProto(p))
	if err != nil { // impossible: the store returns valid UTF-8 only
		panic(err)
	}
	return b
}

// PlanJSON is the answer to a GetFloorPlan call in JSON.
type PlanJSON struct {
	plan  encodedJSON
	asOf  time.Time
	fresh bool
}

// ETag is the weak entity tag of the answer: see SeatsJSON.
func (p PlanJSON) ETag() string { return p.plan.etag }

// Fresh says that the answer includes every change that was committed before the call: see SeatsJSON.
func (p PlanJSON) Fresh() bool { return p.fresh }

// AppendTo appends the answer to b.
func (p PlanJSON) AppendTo(b []byte) []byte {
	return append(appendAsOf(append(b, p.plan.json...), p.asOf), '}')
}

// GetFloorPlanJSON is a grpc.UnaryHandler for GetFloorPlan that returns PlanJSON.
func (s *Server) GetFloorPlanJSON(ctx context.Context, req any) (any, error) {
	plan, err := s.seatService.floorPlan(ctx, req.(*dlsmsv1.GetFloorPlanRequest))
	if err != nil {
		return nil, err
	}
	encoded := plan.Memo(availability.JSON, func() any { return encodePlanJSON(plan) })
	return PlanJSON{encoded.(encodedJSON), plan.AsOf, plan.Fresh}, nil // see Memo
}

func encodePlanJSON(p availability.FloorPlan) encodedJSON {
	b := marshalJSON(planProto(p))
	b = slices.Clip(b[:len(b)-1]) // without the bracket, so that AppendTo can append as_of
	hash := sha256.New()
	hash.Write(b)
	return encodedJSON{b, etagOf(hash)}
}
