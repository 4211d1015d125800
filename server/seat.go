package server

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/availability"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
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
	branches, _, err := s.seats.Branches(ctx)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetBranchesResponse{}
	for _, b := range branches {
		resp.Branches = append(resp.Branches, &dlsmsv1.Branch{
			Code: b.Code, Name: b.Name, Timezone: b.Timezone, Areas: b.Areas,
			SeatCount: int32(b.SeatCount), AvailableCount: int32(b.AvailableCount), //nolint:gosec // a library has not two billion seats
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

	seat, busy, _, err := s.seats.Seat(ctx, id, start, end)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetSeatResponse{Seat: seatProto(seat)}
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
func sendSnapshot(stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse], u availability.Update) error {
	seats := u.Memo(func() any { return seatProtos(u.Seats) }).([]*dlsmsv1.Seat) //nolint:forcetypeassert // this is the only memo
	for first := true; first || len(seats) > 0; first = false {
		n := min(len(seats), maxSeats)
		err := stream.Send(&dlsmsv1.WatchSeatsResponse{
			Event: &dlsmsv1.WatchSeatsResponse_Snapshot{Snapshot: &dlsmsv1.SeatSnapshot{Seats: seats[:n], More: len(seats) > n}},
			AsOf:  timestamppb.New(u.AsOf),
		})
		if err != nil {
			return err
		}
		seats = seats[n:]
	}
	return nil
}

// sendChanges sends a message a seat that changed.
func sendChanges(stream grpc.ServerStreamingServer[dlsmsv1.WatchSeatsResponse], u availability.Update) error {
	changes := u.Memo(func() any { return changeProtos(u) }).([]*dlsmsv1.WatchSeatsResponse) //nolint:forcetypeassert // this is the only memo
	for _, change := range changes {
		if err := stream.Send(change); err != nil {
			return err
		}
	}
	return nil
}

func changeProtos(u availability.Update) []*dlsmsv1.WatchSeatsResponse {
	asOf := timestamppb.New(u.AsOf)
	out := make([]*dlsmsv1.WatchSeatsResponse, len(u.Seats))
	for i, s := range u.Seats {
		out[i] = &dlsmsv1.WatchSeatsResponse{Event: &dlsmsv1.WatchSeatsResponse_Change{Change: seatProto(s)}, AsOf: asOf}
	}
	return out
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

func seatProtos(seats []availability.SeatView) []*dlsmsv1.Seat {
	out := make([]*dlsmsv1.Seat, len(seats))
	for i, s := range seats {
		out[i] = seatProto(s)
	}
	return out
}

func seatProto(s availability.SeatView) *dlsmsv1.Seat {
	return &dlsmsv1.Seat{
		Id: s.ID, Branch: s.Branch, Area: s.Area, Label: s.Label, Amenities: amenityProtos(s.Amenities), Available: s.Available,
		AvailableUntil: setTimestamp(s.AvailableUntil), NextAvailableAt: setTimestamp(s.NextAvailableAt),
	}
}

func amenityProtos(amenities []int16) (out []dlsmsv1.Amenity) {
	for _, a := range amenities {
		out = append(out, dlsmsv1.Amenity(a))
	}
	return out
}
