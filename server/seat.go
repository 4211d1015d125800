package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/availability"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/presence"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store"
)

// maxSeats is the maximum number of seats in a page, and in a message of a snapshot: about 60 KiB.
const maxSeats = 1000

// maxWindow is the longest window of GetSeat. It is more than twice the default of the setting
// MAX_AHEAD, which is 14 days.
const maxWindow = 31 * 24 * time.Hour

type seatService struct {
	dlsmsv1.UnsafeSeatServiceServer

	seats *availability.Model
	store *store.Store
	codes *presence.Codes
}

func (s *seatService) GetBranches(
	ctx context.Context, _ *dlsmsv1.GetBranchesRequest,
) (*dlsmsv1.GetBranchesResponse, error) {
	branches, asOf, err := s.seats.Branches(ctx)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetBranchesResponse{AsOf: timestamppb.New(asOf)}
	for _, b := range branches {
		resp.Branches = append(resp.Branches, branchProto(b))
	}
	return resp, nil
}

func (s *seatService) GetFloorPlan(
	ctx context.Context, req *dlsmsv1.GetFloorPlanRequest,
) (*dlsmsv1.GetFloorPlanResponse, error) {
	plan, err := s.floorPlan(ctx, req)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetFloorPlanResponse{AsOf: timestamppb.New(plan.AsOf)}
	encoded := plan.Memo(availability.Protobuf, func() any { return encodePlan(plan) })
	resp.ProtoReflect().SetUnknown(encoded.([]byte)) // as in GetSeats
	return resp, nil
}

func (s *seatService) floorPlan(
	ctx context.Context, req *dlsmsv1.GetFloorPlanRequest,
) (availability.FloorPlan, error) {
	var c check
	branch := c.text("branch", req.GetBranch(), 1, 64)
	if err := c.err(); err != nil {
		return availability.FloorPlan{}, err
	}
	return s.seats.FloorPlan(ctx, branch)
}

func (s *seatService) GetSeats(ctx context.Context, req *dlsmsv1.GetSeatsRequest) (*dlsmsv1.GetSeatsResponse, error) {
	page, next, err := s.page(ctx, req)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetSeatsResponse{AsOf: timestamppb.New(page.AsOf), NextPageToken: next}
	// encodePage has encoded the seats and their counts. protobuf writes unknown fields unchanged,
	// so these bytes are set as unknown fields. The client decodes them as seats and counts.
	encoded := page.Memo(availability.Protobuf, func() any { return encodePage(page) })
	resp.ProtoReflect().SetUnknown(encoded.([]byte)) // see Memo
	return resp, nil
}

// getSeatsJSON is GetSeats for clients of HTTP.
func (s *seatService) getSeatsJSON(ctx context.Context, req *dlsmsv1.GetSeatsRequest) (SeatsJSON, error) {
	page, next, err := s.page(ctx, req)
	if err != nil {
		return SeatsJSON{}, err
	}
	encoded := page.Memo(availability.JSON, func() any { return encodePageJSON(page) })
	return SeatsJSON{
		page: encoded.(encodedJSON), // see Memo
		next: next, asOf: page.AsOf, fresh: page.Fresh,
	}, nil
}

// page returns a page of seats and the token of the next page.
func (s *seatService) page(ctx context.Context, req *dlsmsv1.GetSeatsRequest) (availability.Page, string, error) {
	var c check
	query := seatQuery(&c, req)
	query.AvailableOnly = req.GetAvailableOnly()
	size, after := c.page(req, maxSeats, maxSeats)
	query.Limit, query.AfterID = size, after.ID
	if err := c.err(); err != nil {
		return availability.Page{}, "", err
	}

	page, err := s.seats.Seats(ctx, query)
	if err != nil || page.NextAfterID == 0 {
		return page, "", err
	}
	return page, nextPageToken(req, cursor{ID: page.NextAfterID}), nil
}

func (s *seatService) GetSeat(ctx context.Context, req *dlsmsv1.GetSeatRequest) (*dlsmsv1.GetSeatResponse, error) {
	var c check
	id := c.id("seat_id", req.GetSeatId())
	start, end := c.optionalWindow(req.GetStartTime(), req.GetEndTime())
	c.span(start, end, maxWindow)
	if err := c.err(); err != nil {
		return nil, err
	}

	seat, err := s.seats.Seat(ctx, id, start, end)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetSeatResponse{
		Seat: seatProto(seat.SeatView), AsOf: timestamppb.New(seat.AsOf), Closures: noticeProtos(seat.Closures),
	}
	for _, b := range seat.Busy {
		window := &dlsmsv1.Window{StartTime: timestamppb.New(b.Start), EndTime: timestamppb.New(b.End)}
		resp.Busy = append(resp.Busy, window)
	}
	return resp, nil
}

// WatchSeats streams a snapshot and the changes after it. A client that is too slow for single
// changes receives a new snapshot instead: see availability.Watch.
func (s *seatService) WatchSeats(
	req *dlsmsv1.WatchSeatsRequest, stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse],
) error {
	var c check
	query := seatQuery(&c, req)
	if err := c.err(); err != nil {
		return err
	}

	watch, err := s.seats.Watch(stream.Context(), query)
	if err != nil {
		return err
	}
	defer watch.Close()
	encoding := protobufUpdates
	if edge.IsHTTP(stream.Context()) {
		encoding = jsonUpdates
	}
	for {
		if err := sendNext(stream, watch, encoding); err != nil {
			return err
		}
	}
}

// sendNext sends the next update of a watch. If there is no update within heartbeat, it sends a
// Heartbeat.
func sendNext(
	stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse], watch *availability.Watch, encoding updateEncoding,
) error {
	ctx := stream.Context()
	waiting, cancel := context.WithTimeout(ctx, heartbeat)
	update, err := watch.Next(waiting)
	// waiting.Err tells whether the heartbeat is due. Read it here, because cancel sets it, too.
	// err does not tell: watch.Next may return the error of another deadline.
	timedOut := waiting.Err() != nil
	cancel()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case timedOut && err != nil:
		return stream.Send(&dlsmsv1.WatchSeatsResponse{
			Event: &dlsmsv1.WatchSeatsResponse_Heartbeat{Heartbeat: &dlsmsv1.Heartbeat{}},
			AsOf:  setTimestamp(watch.AsOf()),
		})
	case err != nil:
		return err
	}
	for _, message := range encoding.encode(update) {
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
	return nil
}

// seatFilter is a request that selects seats and an optional window.
type seatFilter interface {
	GetBranch() string
	GetArea() string
	GetAmenities() []dlsmsv1.Amenity
	GetStartTime() *timestamppb.Timestamp
	GetEndTime() *timestamppb.Timestamp
}

func seatQuery(c *check, req seatFilter) availability.Query {
	q := availability.Query{
		Branch: c.text("branch", req.GetBranch(), 0, 64),
		Area:   c.text("area", req.GetArea(), 0, 100),

		Amenities: c.amenities(req.GetAmenities()),
	}
	q.Start, q.End = c.optionalWindow(req.GetStartTime(), req.GetEndTime())
	return q
}

func branchProto(b availability.BranchView) *dlsmsv1.Branch {
	return &dlsmsv1.Branch{
		Code:           b.Code,
		Name:           b.Name,
		Timezone:       b.Timezone,
		Areas:          b.Areas,
		SeatCount:      count(b.SeatCount),
		AvailableCount: count(b.AvailableCount),
		Hours:          hoursProtos(b.Hours),
		Open:           b.Open,
		ClosesAt:       setTimestamp(b.ClosesAt),
		OpensAt:        setTimestamp(b.OpensAt),
		SpecialDays:    specialDayProtos(b.Days),
		Closures:       noticeProtos(b.Closures),
		Announcement:   b.Announcement,
	}
}

// specialDayProtos converts exceptional days. The weekday of each span is that of its date.
func specialDayProtos(days []library.DayHours) (out []*dlsmsv1.SpecialDay) {
	for _, d := range days {
		date := dateOf(d.Day)
		special := &dlsmsv1.SpecialDay{Day: date.Format(time.DateOnly)}
		for _, h := range d.Open {
			h.Weekday = date.Weekday()
			special.Hours = append(special.Hours, hoursProto(h))
		}
		out = append(out, special)
	}
	return out
}

// dateOf returns midnight UTC of a date that is given as a number of days since 1 January 1970.
func dateOf(day int) time.Time { return time.Unix(0, 0).UTC().AddDate(0, 0, day) }

func noticeProtos(closures []library.Closure) (out []*dlsmsv1.ClosureNotice) {
	for _, c := range closures {
		out = append(out, &dlsmsv1.ClosureNotice{
			Id: c.ID, Area: c.Area, SeatIds: c.SeatIDs, StartTime: timestamppb.New(c.StartTime),
			EndTime: setTimestamp(c.EndTime), Note: c.Note,
		})
	}
	return out
}

func seatProto(s availability.SeatView) *dlsmsv1.Seat {
	return &dlsmsv1.Seat{
		Id:              s.ID,
		Branch:          s.Branch,
		Area:            s.Area,
		Label:           s.Label,
		Amenities:       amenityProtos(s.Amenities),
		Available:       s.Available,
		OutOfService:    s.OutOfService,
		AvailableUntil:  setTimestamp(s.AvailableUntil),
		NextAvailableAt: setTimestamp(s.NextAvailableAt),
	}
}

func amenityProtos(amenities []int16) (out []dlsmsv1.Amenity) {
	for _, a := range amenities {
		out = append(out, dlsmsv1.Amenity(a))
	}
	return out
}

// hoursProtos converts opening hours and sorts them by weekday, Monday (1) to Sunday (7).
func hoursProtos(hours []library.OpenHours) (out []*dlsmsv1.OpeningHours) {
	for _, h := range hours {
		out = append(out, hoursProto(h))
	}
	slices.SortStableFunc(out, func(a, b *dlsmsv1.OpeningHours) int {
		return cmp.Compare(a.GetWeekday(), b.GetWeekday())
	})
	return out
}

// isoWeekday returns the number of a weekday: Monday is 1, and Sunday is 7.
func isoWeekday(d time.Weekday) int32 { return int32(d+6)%7 + 1 } //nolint:gosec // 1 to 7

func hoursProto(h library.OpenHours) *dlsmsv1.OpeningHours {
	return &dlsmsv1.OpeningHours{Weekday: isoWeekday(h.Weekday), Opens: timeOfDay(h.Opens), Closes: timeOfDay(h.Closes)}
}

// timeOfDay formats a time of day as "HH:MM", or as "HH:MM:SS" if the seconds are not 0.
func timeOfDay(sinceMidnight time.Duration) string {
	seconds := int(sinceMidnight / time.Second)
	out := fmt.Sprintf("%02d:%02d", seconds/3600, seconds/60%60)
	if seconds%60 != 0 {
		out += fmt.Sprintf(":%02d", seconds%60)
	}
	return out
}
