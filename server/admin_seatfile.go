package server

import (
	"context"
	"crypto/sha256"
	"fmt"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/seatfile"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store"
)

func (s *adminService) ImportSeats(
	ctx context.Context, req *dlsmsv1.ImportSeatsRequest,
) (*dlsmsv1.ImportSeatsResponse, error) {
	var c check
	order := library.Order{
		Actor: edge.Caller(ctx).Actor(), Action: "ImportSeats", RequestID: edge.CallID(ctx),
		Reason: c.text("reason", req.GetReason(), 0, store.MaxReason), ValidateOnly: req.GetDryRun(),
	}
	if !req.GetDryRun() && req.GetFingerprint() == "" {
		c.fault("fingerprint", "is missing: a dry run returns it")
	}
	in := library.SeatImport{
		RetireMissing: req.GetRetireMissing(), Fingerprint: req.GetFingerprint(),
		OnBookings: c.bookingAction(req.GetOnBookings()), Note: c.languages("note", req.GetNote()),
	}
	c.seatFile(req.GetContent(), &in)
	if in.Faults = c.faults; len(in.File.Rows) == 0 { // the store could find no more faults
		if err := c.reportable(ctx); err != nil {
			return nil, err
		}
	}

	plan, err := s.store.ImportSeats(ctx, order, in)
	if err != nil {
		return nil, reportable(ctx, err)
	}
	s.hints.Send(HintReservations)
	return importProto(plan), nil
}

func (s *adminService) ExportSeats(
	ctx context.Context, req *dlsmsv1.ExportSeatsRequest,
) (*dlsmsv1.ExportSeatsResponse, error) {
	var c check
	branch := req.GetBranch()
	if branch != "" {
		c.branchCode("branch", branch)
	}
	if err := c.err(); err != nil {
		return nil, err
	}

	rows, err := s.store.ExportSeats(ctx, edge.Caller(ctx).Actor(), branch)
	if err != nil {
		return nil, err
	}
	content, err := seatfile.Write(rows)
	return &dlsmsv1.ExportSeatsResponse{Content: content}, err
}

// seatFile reads a seat file.
func (c *check) seatFile(content []byte, in *library.SeatImport) {
	switch {
	case len(content) == 0:
		c.fault("content", "is missing")
		return
	case len(content) > seatfile.MaxSize:
		c.fault("content", fmt.Sprintf("must have at most %d bytes", seatfile.MaxSize))
		return
	}
	file, faults := seatfile.Read(content)
	c.faults = append(c.faults, faults...)
	in.File, in.Hash = file, sha256.Sum256(content)
}

func importProto(p library.SeatPlan) *dlsmsv1.ImportSeatsResponse {
	return &dlsmsv1.ImportSeatsResponse{
		Changes: seatChangeProtos(p.Changes),
		Created: count(p.Count(library.CreateSeat)), Updated: count(p.Count(library.UpdateSeat)),
		Same: count(p.Count(library.SameSeat)), Retired: count(p.Count(library.RetireSeat)),
		Impact: impactProto(p.Impact), Fingerprint: p.Fingerprint,
	}
}
