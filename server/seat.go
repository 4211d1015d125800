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
	"github.com/dlsms/dlsms/store"
)

// maxSeats is the size of a page of seats, and of a message of a snapshot: some 60 KiB.
const maxSeats = 1000

// maxWindow is the longest window of GetSeat: twice as far as anybody may book, and then some.
const maxWindow = 31 * 24 * time.Hour

type seatService struct {
	dlsmsv1.UnsafeSeatServiceServer

	seats *availability.Model
}

func (s *seatService) GetBranches(ctx context.Context, _ *dlsmsv1.GetBranchesRequest) (*dlsmsv1.GetBranchesResponse, error) {
	branches, asOf, err := s.seats.Branches(ctx)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetBranchesResponse{AsOf: timestamppb.New(asOf)}
	for _, b := range branches {
		resp.Branches = append(resp.Branches, &dlsmsv1.Branch{
			Code: b.Code, Name: b.Name, Timezone: b.Timezone, Areas: b.Areas,
			SeatCount: int32(b.SeatCount), AvailableCount: int32(b.AvailableCount), //nolint:gosec // a library has not two billion seats
			Hours: hoursProtos(b.Hours), Open: b.Open, ClosesAt: setTimestamp(b.ClosesAt), OpensAt: setTimestamp(b.OpensAt),
		})
	}
	return resp, nil
}

func (s *seatService) GetSeats(ctx context.Context, req *dlsmsv1.GetSeatsRequest) (*dlsmsv1.GetSeatsResponse, error) {
	var c check
	query := seatQuery(&c, req)
	query.AvailableOnly = req.GetAvailableOnly()
	size, after := c.page(req, maxSeats, maxSeats)
	query.Limit, query.AfterID = size, after.ID
	if err := c.err(); err != nil {
		return nil, err
	}

	page, err := s.seats.Seats(ctx, query)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetSeatsResponse{AsOf: timestamppb.New(page.AsOf)}
	// Encoded already: protobuf passes on as it is what it doesn't know, and to the client it is fields like others.
	resp.ProtoReflect().SetUnknown(page.Memo(func() any { return encodePage(page) }).([]byte)) //nolint:forcetypeassert // this is the only memo
	if page.NextAfterID != 0 {
		resp.NextPageToken = nextPageToken(req, cursor{ID: page.NextAfterID})
	}
	return resp, nil
}

func (s *seatService) GetSeat(ctx context.Context, req *dlsmsv1.GetSeatRequest) (*dlsmsv1.GetSeatResponse, error) {
	var c check
	id := c.id("seat_id", req.GetSeatId())
	start, end := c.optionalWindow(req.GetStartTime(), req.GetEndTime())
	c.span(start, end, maxWindow)
	if err := c.err(); err != nil {
		return nil, err
	}

	seat, busy, asOf, err := s.seats.Seat(ctx, id, start, end)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetSeatResponse{Seat: seatProto(seat), AsOf: timestamppb.New(asOf)}
	for _, b := range busy {
		resp.Busy = append(resp.Busy, &dlsmsv1.Window{StartTime: timestamppb.New(b.Start), EndTime: timestamppb.New(b.End)})
	}
	return resp, nil
}

// WatchSeats passes on what its watch says. The watch gives a new snapshot to a client that is too slow for single changes.
func (s *seatService) WatchSeats(req *dlsmsv1.WatchSeatsRequest, stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse]) error {
	var c check
	query := seatQuery(&c, req)
	if err := c.err(); err != nil {
		return err
	}

	ctx := stream.Context()
	watch, err := s.seats.Watch(ctx, query)
	if err != nil {
		return err
	}
	defer watch.Close()
	for {
		beat, cancel := context.WithTimeout(ctx, heartbeat)
		update, err := watch.Next(beat)
		silent := beat.Err() != nil // asked before the cancel; the error itself may be about some other deadline
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case silent && err != nil:
			err = stream.Send(&dlsmsv1.WatchSeatsResponse{
				Event: &dlsmsv1.WatchSeatsResponse_Heartbeat{Heartbeat: &dlsmsv1.Heartbeat{}},
				AsOf:  setTimestamp(watch.AsOf()),
			})
		case err == nil && update.Snapshot:
			err = sendSnapshot(stream, update)
		case err == nil:
			err = sendChanges(stream, update)
		}
		if err != nil {
			return err
		}
	}
}

// sendSnapshot sends a snapshot in messages of at most maxSeats seats, one at least.
func sendSnapshot(stream grpc.ServerStream, u availability.Update) error {
	asOf := appendTime(nil, fieldAsOf, u.AsOf)                                              // which is not the same for all that get the same seats
	for _, part := range u.Memo(func() any { return encodeSnapshot(u.Seats) }).([][]byte) { //nolint:forcetypeassert // this is the only memo
		if err := stream.SendMsg(encoded{part, asOf}); err != nil {
			return err
		}
	}
	return nil
}

// sendChanges sends a message for each seat that changed, and one for each that is gone.
func sendChanges(stream grpc.ServerStream, u availability.Update) error {
	for _, message := range u.Memo(func() any { return encodeChanges(u) }).([][]byte) { //nolint:forcetypeassert // this is the only memo
		if err := stream.SendMsg(encoded{message}); err != nil {
			return err
		}
	}
	return nil
}

// seatFilter is a request that says which seats, and when.
type seatFilter interface {
	GetBranch() string
	GetArea() string
	GetAmenities() []dlsmsv1.Amenity
	GetStartTime() *timestamppb.Timestamp
	GetEndTime() *timestamppb.Timestamp
}

func seatQuery(c *check, req seatFilter) availability.Query {
	q := availability.Query{Branch: c.text("branch", req.GetBranch(), 0, 64), Area: c.text("area", req.GetArea(), 0, 100)}
	for _, a := range c.amenities(req.GetAmenities()) {
		q.Amenities = append(q.Amenities, int16(a)) //nolint:gosec // the check lets known ones pass only
	}
	q.Start, q.End = c.optionalWindow(req.GetStartTime(), req.GetEndTime())
	return q
}

func seatProto(s availability.SeatView) *dlsmsv1.Seat {
	return &dlsmsv1.Seat{
		Id: s.ID, Branch: s.Branch, Area: s.Area, Label: s.Label, Amenities: amenityProtos(s.Amenities), Available: s.Available,
		OutOfService: s.OutOfService, AvailableUntil: setTimestamp(s.AvailableUntil), NextAvailableAt: setTimestamp(s.NextAvailableAt),
	}
}

func amenityProtos(amenities []int16) (out []dlsmsv1.Amenity) {
	for _, a := range amenities {
		out = append(out, dlsmsv1.Amenity(a))
	}
	return out
}

func hoursProtos(hours []store.OpenHours) (out []*dlsmsv1.OpeningHours) {
	for _, h := range hours {
		weekday := int32(h.Weekday) //nolint:gosec // 0 to 6
		if h.Weekday == time.Sunday {
			weekday = 7
		}
		out = append(out, &dlsmsv1.OpeningHours{Weekday: weekday, Opens: timeOfDay(h.Opens), Closes: timeOfDay(h.Closes)})
	}
	slices.SortStableFunc(out, func(a, b *dlsmsv1.OpeningHours) int { return cmp.Compare(a.GetWeekday(), b.GetWeekday()) })
	return out
}

// timeOfDay is "HH:MM", or "HH:MM:SS" where there are seconds.
func timeOfDay(sinceMidnight time.Duration) string {
	seconds := int(sinceMidnight / time.Second)
	out := fmt.Sprintf("%02d:%02d", seconds/3600, seconds/60%60)
	if seconds%60 != 0 {
		out += fmt.Sprintf(":%02d", seconds%60)
	}
	return out
}
