package server

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestGetSeatsEncodingMatchesProtobuf compares the hand-written encodings of GetSeats with GetSeat,
// which protobuf encodes, and with protojson. The windows are before, between, over and after the
// reservations of each seat.
func TestGetSeatsEncodingMatchesProtobuf(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	seats := db.Seats(t, 6)
	db.Exec(t, `UPDATE seats SET amenities = '{1,4}' WHERE id % 2 = 0`)
	s := startOn(t, db, nil, nil)
	random := rand.New(rand.NewPCG(3, 4))
	day := time.Now().Add(24 * time.Hour).Truncate(time.Microsecond)
	student := s.student(t)
	for i := range 8 {
		from := day.Add(time.Duration(i) * 90 * time.Minute)
		_, err := s.reservation.CreateReservation(student, &dlsmsv1.CreateReservationRequest{
			SeatId: seats[i%4], StartTime: timestamppb.New(from), EndTime: timestamppb.New(from.Add(time.Hour)),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		from := day.Add(time.Duration(random.IntN(14*60)-60) * time.Minute)
		start := timestamppb.New(from)
		end := timestamppb.New(from.Add(time.Duration(1+random.IntN(180)) * time.Minute))
		list, err := s.seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{StartTime: start, EndTime: end})
		if err != nil {
			t.Fatal(err)
		}
		available := int32(0)
		for _, got := range list.GetSeats() {
			one, err := s.seats.GetSeat(t.Context(), &dlsmsv1.GetSeatRequest{
				SeatId: got.GetId(), StartTime: start, EndTime: end,
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(one.GetSeat(), got, protocmp.Transform()); diff != "" {
				t.Fatal(diff)
			}
			if got.GetAvailable() {
				available++
			}
		}
		n := int32(len(list.GetSeats()))
		if n == 0 || list.GetTotalCount() != n || list.GetAvailableCount() != available {
			t.Fatalf("%d seats, %d available; the counts are %d and %d",
				n, available, list.GetTotalCount(), list.GetAvailableCount())
		}
		if len(list.ProtoReflect().GetUnknown()) > 0 {
			t.Fatal("the response has unknown fields")
		}
		inJSON, err := s.seatService.getSeatsJSON(t.Context(), &dlsmsv1.GetSeatsRequest{StartTime: start, EndTime: end})
		if err != nil {
			t.Fatal(err)
		}
		checkJSON(t, inJSON, list)
	}
}

// checkJSON fails unless answer is the JSON that protojson writes for want. Only as_of may differ.
func checkJSON(t *testing.T, answer SeatsJSON, want *dlsmsv1.GetSeatsResponse) {
	t.Helper()
	text := answer.AppendTo(nil)
	var got dlsmsv1.GetSeatsResponse
	if err := protojson.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if diff := cmp.Diff(want, &got, protocmp.Transform(),
		protocmp.IgnoreFields(want, "as_of")); diff != "" || got.GetAsOf() == nil {
		t.Fatal(diff, got.GetAsOf())
	}
	if canonical := compactJSON(t, &got); !bytes.Equal(text, canonical) {
		t.Fatalf("got  %s\nwant %s", text, canonical)
	}
}

// compactJSON returns the JSON of a message without spaces.
func compactJSON(t *testing.T, m proto.Message) []byte {
	t.Helper()
	spaced, err := JSONOptions.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, spaced); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
