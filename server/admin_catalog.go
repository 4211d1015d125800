package server

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
)

// Limits of requests about the catalog.
const (
	maxSeatsOfCall = 500 // of UpsertSeats and RetireSeats
	maxBranchName  = 200 // characters
	maxFloor       = 50  // characters
)

func (s *adminService) ListBranches(
	ctx context.Context, _ *dlsmsv1.ListBranchesRequest,
) (*dlsmsv1.ListBranchesResponse, error) {
	branches, err := s.store.ListBranches(ctx, edge.Caller(ctx).Actor())
	if err != nil {
		return nil, err
	}
	resp := &dlsmsv1.ListBranchesResponse{}
	for _, b := range branches {
		resp.Branches = append(resp.Branches, settingsProto(b))
	}
	return resp, nil
}

func (s *adminService) UpsertBranch(
	ctx context.Context, req *dlsmsv1.UpsertBranchRequest,
) (*dlsmsv1.UpsertBranchResponse, error) {
	var c check
	order := c.order(ctx, "UpsertBranch", req)
	branch := library.Branch{
		Code:     c.branchCode("code", req.GetCode()),
		Name:     c.plain("name", req.GetName(), maxBranchName),
		Timezone: c.zone("timezone", req.GetTimezone()),
	}
	if err := c.err(); err != nil {
		return nil, err
	}

	settings, created, err := s.store.UpsertBranch(ctx, order, branch)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)
	return &dlsmsv1.UpsertBranchResponse{Branch: settingsProto(settings), Created: created}, nil
}

func (s *adminService) UpsertArea(
	ctx context.Context, req *dlsmsv1.UpsertAreaRequest,
) (*dlsmsv1.UpsertAreaResponse, error) {
	var c check
	order := c.order(ctx, "UpsertArea", req)
	branch := c.branchCode("branch", req.GetBranch())
	name := c.plain("name", req.GetName(), library.MaxSeatName)
	newName := c.optionalPlain("new_name", req.GetNewName(), library.MaxSeatName)
	floor := c.optionalPlain("floor", req.GetFloor(), maxFloor)
	if err := c.err(); err != nil {
		return nil, err
	}

	area, err := s.store.UpsertArea(ctx, order, branch, name, newName, floor)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)
	return &dlsmsv1.UpsertAreaResponse{Area: areaProto(area)}, nil
}

func (s *adminService) UpsertSeats(
	ctx context.Context, req *dlsmsv1.UpsertSeatsRequest,
) (*dlsmsv1.UpsertSeatsResponse, error) {
	var c check
	order := c.order(ctx, "UpsertSeats", req)
	branch := c.branchCode("branch", req.GetBranch())
	seats := c.seatSpecs(req.GetSeats())
	disruption := c.disruption(req)
	if err := c.reportable(ctx); err != nil {
		return nil, err
	}

	plan, err := s.store.UpsertSeats(ctx, order, branch, seats, disruption)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)
	return &dlsmsv1.UpsertSeatsResponse{
		Changes: seatChangeProtos(plan.Changes), Impact: impactProto(plan.Impact),
	}, nil
}

func (s *adminService) RetireSeats(
	ctx context.Context, req *dlsmsv1.RetireSeatsRequest,
) (*dlsmsv1.RetireSeatsResponse, error) {
	var c check
	order := c.order(ctx, "RetireSeats", req)
	branch := c.branchCode("branch", req.GetBranch())
	ids := c.seatIDs(req.GetSeatIds())
	expected := c.count("expected_reservations", req.GetExpectedReservations())
	note := c.languages("note", req.GetNote())
	if err := c.reportable(ctx); err != nil {
		return nil, err
	}

	retired, impact, err := s.store.RetireSeats(ctx, order, branch, ids, expected, note)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)
	return &dlsmsv1.RetireSeatsResponse{
		Retired: count(retired), Impact: impactProto(impact),
	}, nil
}

func (s *adminService) SetAnnouncement(
	ctx context.Context, req *dlsmsv1.SetAnnouncementRequest,
) (*dlsmsv1.SetAnnouncementResponse, error) {
	var c check
	order := c.order(ctx, "SetAnnouncement", req)
	branch := c.branchCode("branch", req.GetBranch())
	text := c.languages("text", req.GetText())
	until := c.optionalTime("until", req.GetUntil())
	if err := c.err(); err != nil {
		return nil, err
	}

	settings, err := s.store.SetAnnouncement(ctx, order, branch, text, until)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)
	return &dlsmsv1.SetAnnouncementResponse{Branch: settingsProto(settings)}, nil
}

var branchCode = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// branchCode checks the code of a branch.
func (c *check) branchCode(field, v string) string {
	switch {
	case v == "":
		c.fault(field, "is missing")
	case !branchCode.MatchString(v):
		c.fault(field, `must be 1 to 32 lower-case ASCII letters, digits and "-", and not begin with "-"`)
	}
	return v
}

// plain checks a required name of the catalog: see library.PlainFault.
func (c *check) plain(field, v string, most int) string {
	if message := library.PlainFault(v, most); message != "" {
		c.fault(field, message)
	}
	return v
}

// optionalPlain is plain for a name that may be empty.
func (c *check) optionalPlain(field, v string, most int) string {
	if v == "" {
		return ""
	}
	return c.plain(field, v, most)
}

// zone checks that Go knows a time zone. The store checks that Postgres does.
func (c *check) zone(field, v string) string {
	if v == "" {
		c.fault(field, "is missing")
	} else if _, err := library.LoadZone(v); err != nil {
		c.fault(field, "is not a known time zone")
	}
	return v
}

// seatSpecs checks the seats of UpsertSeats.
func (c *check) seatSpecs(seats []*dlsmsv1.SeatSpec) []library.SeatSpec {
	if len(seats) == 0 || len(seats) > maxSeatsOfCall {
		c.fault("seats", fmt.Sprintf("must be 1 to %d", maxSeatsOfCall))
		return nil
	}
	specs := make([]library.SeatSpec, len(seats))
	seen := map[string]bool{}
	for i, seat := range seats {
		at := "seats[" + strconv.Itoa(i) + "]."
		spec := library.SeatSpec{
			Area: seat.GetArea(), Label: seat.GetLabel(), Desk: seat.GetDesk(), OutOfService: seat.GetOutOfService(),
			XCm: intOf(seat.XCm), YCm: intOf(seat.YCm), Angle: intOf(seat.Angle),
		}
		spec.Faults(func(field, message string) { c.fault(at+field, message) })
		if seen[spec.Label] {
			c.fault(at+"label", "is there twice")
		}
		seen[spec.Label] = true
		var own check
		spec.Amenities = own.amenities(seat.GetAmenities())
		for _, f := range own.faults {
			c.fault(at+f.Field, f.Message)
		}
		specs[i] = spec
	}
	return specs
}

func intOf(v *int32) *int {
	if v == nil {
		return nil
	}
	n := int(*v)
	return &n
}

// seatIDs checks a list of seats.
func (c *check) seatIDs(ids []int64) []int64 {
	if len(ids) == 0 || len(ids) > maxSeatsOfCall {
		c.fault("seat_ids", fmt.Sprintf("must be 1 to %d", maxSeatsOfCall))
		return nil
	}
	for i, id := range ids {
		c.id("seat_ids["+strconv.Itoa(i)+"]", id)
	}
	return ids
}

func settingsProto(b library.BranchSettings) *dlsmsv1.BranchSettings {
	settings := &dlsmsv1.BranchSettings{
		Code: b.Code, Name: b.Name, Timezone: b.Timezone, Hours: hoursProtos(b.Hours),
		SeatCount:         count(b.SeatCount),
		OutOfServiceCount: count(b.OutOfServiceCount),
		Announcement:      b.Announcement,
		AnnouncedUntil:    setTimestamp(b.AnnouncedUntil),
	}
	for _, d := range b.Days {
		settings.Days = append(settings.Days, dayHoursProto(d))
	}
	for _, a := range b.Areas {
		settings.Areas = append(settings.Areas, areaProto(a))
	}
	return settings
}

func areaProto(a library.Area) *dlsmsv1.Area {
	return &dlsmsv1.Area{Name: a.Name, Floor: a.Floor, SeatCount: count(a.SeatCount)}
}

func seatChangeProtos(changes []library.SeatChange) []*dlsmsv1.SeatChange {
	protos := make([]*dlsmsv1.SeatChange, len(changes))
	for i, c := range changes {
		protos[i] = &dlsmsv1.SeatChange{
			Label: c.Label, SeatId: c.SeatID, Action: string(c.Action), Branch: c.Branch,
			Line: count(c.Line),
		}
		for _, f := range c.Fields {
			protos[i].Changes = append(protos[i].Changes, &dlsmsv1.FieldChange{Field: string(f.Field), From: f.From, To: f.To})
		}
	}
	return protos
}
