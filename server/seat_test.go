package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/storetest"
)

// tuesday is noon in London on a Tuesday.
var tuesday = time.Date(2027, 3, 2, 12, 0, 0, 0, time.UTC)

func stamp(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(tuesday.Add(d)) }

func TestGetBranchesReturnsHoursAndCounts(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, tuesday)
	seats := db.Seats(t, 3)
	db.Exec(t, `UPDATE branches SET timezone = 'Europe/London'`)
	db.Exec(t, `UPDATE seats SET out_of_service = true WHERE id = $1`, seats[1])
	db.Exec(t, `INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes)
		SELECT 1, id, d, o::time, c::time FROM branches,
			(VALUES (7, '10:00', '24:00'), (1, '20:30:15', '02:00'), (2, '08:00', '17:45')) h (d, o, c)`)
	s := startOn(t, db, nil, nil)

	branches, err := s.seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&dlsmsv1.GetBranchesResponse{AsOf: stamp(0), Branches: []*dlsmsv1.Branch{{
		Code: "branch-0", Name: "Branch", Timezone: "Europe/London", Areas: []string{"Area"},
		SeatCount: 3, AvailableCount: 2,
		Hours: []*dlsmsv1.OpeningHours{
			{Weekday: 1, Opens: "20:30:15", Closes: "02:00"},
			{Weekday: 2, Opens: "08:00", Closes: "17:45"},
			{Weekday: 7, Opens: "10:00", Closes: "24:00"},
		},
		Open: true, ClosesAt: stamp(5*time.Hour + 45*time.Minute),
	}}}, branches, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	for i, id := range seats {
		one, err := s.seats.GetSeat(t.Context(), &dlsmsv1.GetSeatRequest{SeatId: id})
		if err != nil || !one.GetAsOf().AsTime().Equal(tuesday) || one.GetSeat().GetOutOfService() != (i == 1) {
			t.Errorf("GetSeat of seat %d: %v, %v", i, one, err)
		}
	}
	all, err := s.seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{})
	if err != nil || !all.GetSeats()[1].GetOutOfService() || all.GetSeats()[0].GetOutOfService() {
		t.Errorf("GetSeats: %v, %v", all, err)
	}

	db.FreezeClock(t, tuesday.Add(7*time.Hour))
	closed, err := s.seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	b := closed.GetBranches()[0]
	if b.GetOpen() || b.GetClosesAt() != nil ||
		!b.GetOpensAt().AsTime().Equal(tuesday.Add(5*24*time.Hour-2*time.Hour)) {
		t.Errorf("the closed branch is %v", b)
	}
}

// TestSeatReadsRefusePastWindows tests windows by the clock of the database. A window that ended at
// least a minute ago (the tolerance) is refused. Any later window is answered, even far in the
// future.
func TestSeatReadsRefusePastWindows(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, tuesday)
	seat := db.Seats(t, 1)[0]
	s := startOn(t, db, nil, nil)
	calls := map[string]func(start, end *timestamppb.Timestamp) error{
		"GetSeats": func(start, end *timestamppb.Timestamp) error {
			_, err := s.seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{StartTime: start, EndTime: end})
			return err
		},
		"GetSeat": func(start, end *timestamppb.Timestamp) error {
			_, err := s.seats.GetSeat(t.Context(), &dlsmsv1.GetSeatRequest{
				SeatId: seat, StartTime: start, EndTime: end,
			})
			return err
		},
		"WatchSeats": func(start, end *timestamppb.Timestamp) error {
			watch, err := s.seats.WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{StartTime: start, EndTime: end})
			if err == nil {
				_, err = watch.Recv()
			}
			return err
		},
	}
	for name, do := range calls {
		for _, w := range []struct{ start, end time.Duration }{
			{-24 * time.Hour, -23 * time.Hour},
			{-time.Hour, -time.Minute},
		} {
			err := do(stamp(w.start), stamp(w.end))
			if reasonOf(err) != "WINDOW_NOT_ALLOWED" || fmt.Sprint(fieldsOf(err)) != "[end_time]" ||
				detail[*errdetails.ErrorInfo](err).GetMetadata()["now"] != tuesday.Format(time.RFC3339) {
				t.Errorf("%s from %v to %v: %v", name, w.start, w.end, err)
			}
			want(t, err, codes.InvalidArgument, "WINDOW_NOT_ALLOWED")
		}
		for _, w := range []struct{ start, end time.Duration }{
			{-time.Hour, -time.Minute + time.Microsecond},
			{-time.Hour, time.Hour},
			{20 * 24 * time.Hour, 20*24*time.Hour + time.Hour},
		} {
			if err := do(stamp(w.start), stamp(w.end)); err != nil {
				t.Errorf("%s from %v to %v: %v", name, w.start, w.end, err)
			}
		}
	}
}

// watching opens a WatchSeats stream and returns it after it has received the snapshot.
func (s *testServer) watching(t *testing.T, req *dlsmsv1.WatchSeatsRequest) (
	stream grpc.ServerStreamingClient[dlsmsv1.WatchSeatsResponse], snapshot []*dlsmsv1.Seat,
) {
	t.Helper()
	stream, err := s.seats.WatchSeats(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		snapshot = append(snapshot, m.GetSnapshot().GetSeats()...)
		if !m.GetSnapshot().GetMore() {
			return stream, snapshot
		}
	}
}

// TestWatchReportsRemovedSeats tests seats that no longer match a watch. The watch first reports
// such a seat as not available, for clients that do not know the event SeatRemoved. Then it reports
// the seat as removed.
func TestWatchReportsRemovedSeats(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	seats := db.Seats(t, 4)
	db.Seats(t, 1)
	db.Exec(t, `UPDATE seats SET amenities = '{1}' WHERE id = ANY($1)`, seats)
	s := startOn(t, db, nil, nil)
	stream, _ := s.watching(t, &dlsmsv1.WatchSeatsRequest{
		Branch: "branch-0", Area: "Area", Amenities: []dlsmsv1.Amenity{1},
	})
	for i, sql := range []string{
		`DELETE FROM seats WHERE id = $1`,
		`UPDATE seats SET branch_id = (SELECT id FROM branches WHERE code = 'branch-1'), label = 'moved' WHERE id = $1`,
		`UPDATE seats SET area = 'Elsewhere' WHERE id = $1`,
		`UPDATE seats SET amenities = '{}' WHERE id = $1`,
	} {
		db.Exec(t, sql, seats[i])
		// GetSeats reads the change log, so the watch learns of the change.
		if _, err := s.seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{}); err != nil {
			t.Fatal(err)
		}
		change, err := stream.Recv()
		if err != nil || change.GetChange().GetId() != seats[i] || change.GetChange().GetAvailable() ||
			change.GetAsOf() == nil {
			t.Fatalf("after %s, the change is %v, %v", sql, change, err)
		}
		removed, err := stream.Recv()
		if err != nil || removed.GetRemoved().GetSeatId() != seats[i] ||
			!removed.GetAsOf().AsTime().Equal(change.GetAsOf().AsTime()) {
			t.Fatalf("after %s, the removal is %v, %v", sql, removed, err)
		}
	}
	db.Exec(t, `UPDATE seats SET amenities = '{1,2}' WHERE id = $1`, seats[3])
	if _, err := s.seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{}); err != nil {
		t.Fatal(err)
	}
	back, err := stream.Recv()
	if err != nil || back.GetChange().GetId() != seats[3] || !back.GetChange().GetAvailable() {
		t.Errorf("a seat that matches again: %v, %v", back, err)
	}
}

// TestWatchEncodingMatchesProtobuf compares the hand-written encoding of WatchSeats with GetSeat,
// which protobuf encodes: a snapshot of several messages, and changes.
func TestWatchEncodingMatchesProtobuf(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, tuesday)
	seats := db.Seats(t, maxSeats+1)
	db.Exec(t, `UPDATE seats SET amenities = '{1,4}', out_of_service = id % 4 = 0 WHERE id % 2 = 0`)
	s := startOn(t, db, nil, nil)
	from, to := stamp(time.Hour), stamp(2*time.Hour)
	getSeat := func(id int64) *dlsmsv1.Seat {
		one, err := s.seats.GetSeat(t.Context(), &dlsmsv1.GetSeatRequest{SeatId: id, StartTime: from, EndTime: to})
		if err != nil {
			t.Fatal(err)
		}
		return one.GetSeat()
	}
	stream, snapshot := s.watching(t, &dlsmsv1.WatchSeatsRequest{StartTime: from, EndTime: to})
	if len(snapshot) != len(seats) {
		t.Fatalf("%d seats in the snapshot", len(snapshot))
	}
	for _, i := range []int{0, 1, 2, 3, maxSeats - 1, maxSeats} {
		if diff := cmp.Diff(getSeat(seats[i]), snapshot[i], protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
	student := s.student(t)
	free := slices.IndexFunc(snapshot, func(s *dlsmsv1.Seat) bool { return s.GetAvailable() })
	// The first reservation is after the window, the second is across its start.
	for _, offset := range []time.Duration{2 * time.Hour, 0} {
		_, err := s.reservation.CreateReservation(student, &dlsmsv1.CreateReservationRequest{
			SeatId: seats[free], StartTime: stamp(time.Minute + offset), EndTime: stamp(90*time.Minute + offset)})
		if err != nil {
			t.Fatal(err)
		}
		change, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		wanted := &dlsmsv1.WatchSeatsResponse{
			Event: &dlsmsv1.WatchSeatsResponse_Change{Change: getSeat(seats[free])}, AsOf: stamp(0),
		}
		if diff := cmp.Diff(wanted, change, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestGetFloorPlan(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, tuesday)
	seats := db.Seats(t, 3)
	db.Exec(t, `UPDATE seats SET x_cm = 0, y_cm = 340, angle = 0, desk = 'D-1' WHERE id = $1`, seats[0])
	db.Exec(t, `UPDATE seats SET x_cm = 120, y_cm = 340, area = 'Attic' WHERE id = $1`, seats[1])
	db.Exec(t, `INSERT INTO areas (library_id, branch_id, name, floor) SELECT 1, id, 'Attic', '5' FROM branches`)
	s := startOn(t, db, nil, nil)
	number := func(n int32) *int32 { return &n }
	expected := &dlsmsv1.GetFloorPlanResponse{
		Seats: []*dlsmsv1.SeatPlace{
			{SeatId: seats[0], XCm: number(0), YCm: number(340), Angle: number(0), Desk: "D-1"},
			{SeatId: seats[1], XCm: number(120), YCm: number(340)},
			{SeatId: seats[2]},
		},
		Areas: []*dlsmsv1.PlanArea{{Name: "Area"}, {Name: "Attic", Floor: "5"}},
		AsOf:  stamp(0),
	}
	sort := protocmp.SortRepeated(func(a, b *dlsmsv1.PlanArea) bool { return a.GetName() < b.GetName() })
	for range 2 {
		got, err := s.seats.GetFloorPlan(t.Context(), &dlsmsv1.GetFloorPlanRequest{Branch: "branch-0"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(expected, got, protocmp.Transform(), sort); diff != "" {
			t.Error(diff)
		}
		answer, err := s.GetFloorPlanJSON(t.Context(), &dlsmsv1.GetFloorPlanRequest{Branch: "branch-0"})
		if err != nil {
			t.Fatal(err)
		}
		var decoded dlsmsv1.GetFloorPlanResponse
		if err := protojson.Unmarshal(answer.(PlanJSON).AppendTo(nil), &decoded); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, &decoded, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
	for branch, reason := range map[string]string{
		"": "INVALID_FIELDS", strings.Repeat("x", 65): "INVALID_FIELDS", "none": "BRANCH_NOT_FOUND",
	} {
		_, err := s.seats.GetFloorPlan(t.Context(), &dlsmsv1.GetFloorPlanRequest{Branch: branch})
		if reasonOf(err) != reason {
			t.Errorf("branch %q: %v, want %s", branch, err, reason)
		}
	}
}
