package server

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/dlsms/dlsms/availability"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// GetSeats is nearly all of the load, so its seats are encoded here, each once for all that never changes of it, and not by way of a message
// for each seat: for 49 seats 5 µs instead of 25. So are the messages of WatchSeats, each once for all watchers that get it. Tests compare
// them with what protobuf makes of seatProto.

// Numbers of the fields that are written here.
const (
	fieldSeats          = 1 // GetSeatsResponse
	fieldTotalCount     = 2
	fieldAvailableCount = 3

	fieldAvailable       = 6 // Seat
	fieldAvailableUntil  = 7
	fieldNextAvailableAt = 8

	fieldSnapshot = 1 // WatchSeatsResponse
	fieldChange   = 2
	fieldAsOf     = 4
	fieldRemoved  = 5

	fieldMore   = 2 // SeatSnapshot, whose field of seats has the number of that of GetSeatsResponse
	fieldSeatID = 1 // SeatRemoved
)

// encoded is a message that is encoded already, in parts: the codec passes them on as they are, and they may be shared.
type encoded [][]byte

// encodePage returns the fields of a GetSeatsResponse that are the same for all who ask the same: the seats and their counts.
func encodePage(p availability.Page) []byte {
	b := appendSeats(make([]byte, 0, seatSize*len(p.Seats)+16), p.Seats)
	b = appendCount(b, fieldTotalCount, p.Total)
	return appendCount(b, fieldAvailableCount, p.Available)
}

// seatSize is how many bytes a seat takes, about.
const seatSize = 80

// appendSeats appends the seats of a GetSeatsResponse or a SeatSnapshot.
func appendSeats(b []byte, seats []availability.SeatView) []byte {
	var seat []byte
	for _, s := range seats {
		seat = appendSeat(seat[:0], s)
		b = protowire.AppendTag(b, fieldSeats, protowire.BytesType)
		b = protowire.AppendBytes(b, seat)
	}
	return b
}

// encodeSnapshot returns the messages of a snapshot, but for their as_of.
func encodeSnapshot(seats []availability.SeatView) (messages [][]byte) {
	for first := true; first || len(seats) > 0; first = false {
		n := min(len(seats), maxSeats)
		snapshot := appendSeats(make([]byte, 0, seatSize*n), seats[:n])
		if seats = seats[n:]; len(seats) > 0 {
			snapshot = appendVarint(snapshot, fieldMore, 1)
		}
		message := protowire.AppendTag(make([]byte, 0, len(snapshot)+8), fieldSnapshot, protowire.BytesType)
		messages = append(messages, protowire.AppendBytes(message, snapshot))
	}
	return messages
}

// encodeChanges returns the messages of an update: the seats that changed, of which those that are gone come as not available, and then as
// removed.
func encodeChanges(u availability.Update) [][]byte {
	asOf := appendTime(nil, fieldAsOf, u.AsOf)
	messages := make([][]byte, 0, len(u.Seats)+len(u.Removed))
	add := func(field protowire.Number, event []byte) {
		m := protowire.AppendTag(make([]byte, 0, len(event)+len(asOf)+8), field, protowire.BytesType)
		messages = append(messages, append(protowire.AppendBytes(m, event), asOf...))
	}
	for _, s := range u.Seats {
		add(fieldChange, appendSeat(nil, s))
	}
	for _, id := range u.Removed {
		add(fieldRemoved, appendVarint(nil, fieldSeatID, uint64(id))) //nolint:gosec // as protobuf has it, two's complement
	}
	return messages
}

// appendSeat appends the fields of a Seat.
func appendSeat(b []byte, s availability.SeatView) []byte {
	b = append(b, s.Memo(func() any { return encodeFixed(s) }).([]byte)...) //nolint:forcetypeassert // this is the only memo
	if s.Available {
		b = protowire.AppendTag(b, fieldAvailable, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	b = appendTime(b, fieldAvailableUntil, s.AvailableUntil)
	return appendTime(b, fieldNextAvailableAt, s.NextAvailableAt)
}

// encodeFixed returns the fields of a Seat that don't depend on time.
func encodeFixed(s availability.SeatView) []byte {
	b, err := proto.Marshal(&dlsmsv1.Seat{
		Id: s.ID, Branch: s.Branch, Area: s.Area, Label: s.Label, Amenities: amenityProtos(s.Amenities), OutOfService: s.OutOfService,
	})
	if err != nil { // never: the strings come from Postgres, which holds valid UTF-8 only
		panic(err)
	}
	return b
}

// appendTime appends a google.protobuf.Timestamp; nothing, which is unset, for the zero time.
func appendTime(b []byte, field protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	const seconds, nanos = 1, 2
	var stamp [24]byte // two tags, and varints of ten and five bytes at most
	m := stamp[:0]
	m = appendVarint(m, seconds, uint64(t.Unix()))     //nolint:gosec // as protobuf has it, two's complement
	m = appendVarint(m, nanos, uint64(t.Nanosecond())) //nolint:gosec // 0 to 999,999,999
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, m)
}

func appendCount(b []byte, field protowire.Number, n int) []byte {
	return appendVarint(b, field, uint64(n)) //nolint:gosec // a count of seats
}

// appendVarint appends a number; nothing for 0, which is what a field is that isn't there.
func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}
