package server

import (
	"context"
	"fmt"
	"slices"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/labels"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store"
)

func (s *adminService) UpsertScreen(
	ctx context.Context, req *dlsmsv1.UpsertScreenRequest,
) (*dlsmsv1.UpsertScreenResponse, error) {
	var c check
	order := c.order(ctx, "UpsertScreen", req)
	change := library.ScreenChange{
		Branch: c.text("branch", req.GetBranch(), 1, 32), Name: c.name("name", req.GetName()), Off: req.Off,
	}
	if v := req.GetNewName(); v != "" {
		change.NewName = c.name("new_name", v)
	}
	if err := c.err(); err != nil {
		return nil, err
	}

	screen, err := s.store.UpsertScreen(ctx, order, change)
	if err != nil {
		return nil, err
	}

	return &dlsmsv1.UpsertScreenResponse{Screen: screenProto(screen)}, nil
}

func (s *adminService) ListScreens(
	ctx context.Context, req *dlsmsv1.ListScreensRequest,
) (*dlsmsv1.ListScreensResponse, error) {
	var c check
	branch := c.text("branch", req.GetBranch(), 1, 32)
	if err := c.err(); err != nil {
		return nil, err
	}

	screens, err := s.store.Screens(ctx, edge.Caller(ctx).Actor(), branch)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.ListScreensResponse{}
	for _, screen := range screens {
		resp.Screens = append(resp.Screens, screenProto(screen))
	}
	return resp, nil
}

func screenProto(s library.Screen) *dlsmsv1.Screen {
	return &dlsmsv1.Screen{Id: s.ID, Branch: s.Branch, Name: s.Name, Off: s.Off}
}

func (s *adminService) MakeLabels(
	ctx context.Context, req *dlsmsv1.MakeLabelsRequest,
) (*dlsmsv1.MakeLabelsResponse, error) {
	var c check
	branch, area := c.text("branch", req.GetBranch(), 1, 32), c.text("area", req.GetArea(), 0, 100)
	ids := c.labelSeats("seat_ids", req.GetSeatIds())
	link := c.link("link", req.GetLink())
	if err := c.err(); err != nil {
		return nil, err
	}
	if !s.codes.Enabled() {
		return nil, library.ErrPresenceOff
	}

	seats, err := s.store.SeatsToLabel(ctx, edge.Caller(ctx).Actor(), branch, area, ids)
	if err != nil {
		return nil, err
	}

	if req.GetItemsOnly() {
		items, err := s.labelProtos(link, seats)
		return &dlsmsv1.MakeLabelsResponse{Items: items, Labels: count(len(items))}, err
	}
	all := make([]labels.Label, len(seats))
	for i, seat := range seats {
		all[i] = labels.Label{Seat: seat.Label, Area: seat.Area, Branch: seat.Branch, Code: s.codes.Label(seat.SeatID)}
	}
	page, err := labels.Sheet(link, all)
	if err != nil {
		return nil, err
	}
	return &dlsmsv1.MakeLabelsResponse{Content: page, Labels: count(len(all))}, nil
}

// labelProtos returns the labels of seats.
func (s *adminService) labelProtos(link string, seats []library.LabelSeat) ([]*dlsmsv1.SeatLabel, error) {
	items := make([]*dlsmsv1.SeatLabel, len(seats))
	for i, seat := range seats {
		code := s.codes.Label(seat.SeatID)
		qr, err := labels.Encode(link + code)
		if err != nil {
			return nil, err
		}
		items[i] = &dlsmsv1.SeatLabel{
			SeatId: seat.SeatID, Label: seat.Label, Area: seat.Area, BranchName: seat.BranchName,
			Code: code, QrPath: qr.Path, QrSize: count(qr.Size),
		}
	}
	return items, nil
}

// link checks the address that is put before a code.
func (c *check) link(field, link string) string {
	if err := labels.CheckLink(link); err != nil {
		c.fault(field, err.Error())
	}
	return link
}

// labelSeats checks the ids of seats. It returns each id once.
func (c *check) labelSeats(field string, ids []int64) []int64 {
	if len(ids) > store.MaxLabels {
		c.fault(field, fmt.Sprintf("must be at most %d", store.MaxLabels))
		return nil
	}
	for i, id := range ids {
		c.id(fmt.Sprintf("%s[%d]", field, i), id)
	}
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return slices.Compact(ids)
}
