package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
)

func (s *reservationService) GetStanding(
	ctx context.Context, _ *dlsmsv1.GetStandingRequest,
) (*dlsmsv1.GetStandingResponse, error) {
	standing, err := s.store.Standing(ctx, edge.Caller(ctx).UserID)
	if err != nil {
		return nil, err
	}
	return &dlsmsv1.GetStandingResponse{
		Strikes:        strikeProtos(standing.Strikes),
		SuspendedUntil: timestamp(standing.SuspendedUntil),
		AskAtBranch:    standing.AskAtBranch,
	}, nil
}

func strikeProtos(strikes []library.Strike) []*dlsmsv1.Strike {
	var out []*dlsmsv1.Strike
	for _, k := range strikes {
		out = append(out, &dlsmsv1.Strike{
			Id:            k.ID,
			ReservationId: k.ReservationID,
			Branch:        k.Branch,
			At:            timestamppb.New(k.At),
			ExpiresAt:     timestamppb.New(k.ExpiresAt),
			ForgivenAt:    timestamp(k.ForgivenAt),
			Reason:        k.Reason,
			Counts:        k.Counts,
		})
	}
	return out
}
