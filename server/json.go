package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"hash"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/dlsms/dlsms/availability"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// This file encodes the seats of GetSeats and WatchSeats as JSON by hand, because protojson takes
// 120 µs for 49 seats. encode.go does the same for protobuf. Tests compare the result with
// protojson.

// JSONOptions are the options of all JSON of the API. A field with its default value, such as 0, is
// present. A field with a message is absent if it is not set.
var JSONOptions = protojson.MarshalOptions{EmitDefaultValues: true}

// SeatsJSON is the answer to a GetSeats call in JSON.
type SeatsJSON struct {
	page  encodedJSON
	next  string
	asOf  time.Time
	fresh bool
}

// encodedJSON is the part of an answer that is equal for all callers of the same query.
type encodedJSON struct {
	json []byte // an object without its end
	etag string
}

// ETag is the weak entity tag of the answer. It is equal on all replicas, and does not depend on
// as_of.
func (s SeatsJSON) ETag() string { return s.page.etag }

// Fresh says that the answer includes every change that was committed before the call. It is false
// while Postgres does not answer.
func (s SeatsJSON) Fresh() bool { return s.fresh }

// AppendTo appends the answer to b.
func (s SeatsJSON) AppendTo(b []byte) []byte {
	b = append(append(b, s.page.json...), `,"nextPageToken":"`...)
	b = append(append(b, s.next...), '"') // base64url needs no escape
	return append(appendAsOf(b, s.asOf), '}')
}

// GetSeatsJSON is a grpc.UnaryHandler for GetSeats that returns SeatsJSON.
func (s *Server) GetSeatsJSON(ctx context.Context, req any) (any, error) {
	return s.seatService.getSeatsJSON(ctx, req.(*dlsmsv1.GetSeatsRequest))
}

func encodePageJSON(p availability.Page) encodedJSON {
	b := make([]byte, 0, seatSizeJSON*len(p.Seats)+64)
	b = appendSeatsJSON(append(b, '{'), p.Seats)
	b = strconv.AppendInt(append(b, `,"totalCount":`...), int64(p.Total), 10)
	b = strconv.AppendInt(append(b, `,"availableCount":`...), int64(p.Available), 10)
	hash := sha256.New()
	hash.Write(b)
	hash.Write(strconv.AppendInt(nil, p.NextAfterID, 10)) // nextPageToken depends on it
	return encodedJSON{b, etagOf(hash)}
}

// etagOf returns the weak entity tag of an answer with this SHA-256 hash.
func etagOf(h hash.Hash) string {
	return `W/"` + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:15]) + `"`
}

// seatSizeJSON is the approximate size of an encoded seat in bytes.
const seatSizeJSON = 200

// jsonUpdates is the encoding for HTTP.
var jsonUpdates = updateEncoding{
	memo:          availability.JSON,
	snapshotEvent: "snapshot",
	snapshot:      encodeSnapshotJSON,
	end:           endOfJSON,
	changes:       encodeChangesJSON,
}

// endOfJSON returns the end of a message: as_of and a bracket.
func endOfJSON(asOf time.Time) []byte { return append(appendAsOf(nil, asOf), '}') }

// encodeSnapshotJSON returns the messages of a snapshot without their as_of and their end.
func encodeSnapshotJSON(seats []availability.SeatView) (messages [][]byte) {
	for first := true; first || len(seats) > 0; first = false {
		n := min(len(seats), maxSeats)
		b := append(make([]byte, 0, seatSizeJSON*n+64), `{"snapshot":{`...)
		b = appendSeatsJSON(b, seats[:n])
		seats = seats[n:]
		b = strconv.AppendBool(append(b, `,"more":`...), len(seats) > 0)
		messages = append(messages, append(b, '}'))
	}
	return messages
}

func encodeChangesJSON(u availability.Update) []EncodedMessage {
	end := endOfJSON(u.AsOf)
	messages := make([]EncodedMessage, 0, len(u.Seats)+len(u.Removed))
	for _, s := range u.Seats {
		b := append(make([]byte, 0, seatSizeJSON+64), `{"change":`...)
		b = append(appendSeatJSON(b, s), end...)
		messages = append(messages, EncodedMessage{"change", [][]byte{b}})
	}
	for _, id := range u.Removed {
		b := append(make([]byte, 0, 96), `{"removed":{"seatId":`...)
		b = append(appendInt64JSON(b, id), '}')
		messages = append(messages, EncodedMessage{"removed", [][]byte{append(b, end...)}})
	}
	return messages
}

func appendSeatsJSON(b []byte, seats []availability.SeatView) []byte {
	b = append(b, `"seats":[`...)
	for i, s := range seats {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendSeatJSON(b, s)
	}
	return append(b, ']')
}

// fixedJSON is the JSON of a Seat before and after the fields that depend on time.
type fixedJSON struct{ before, after []byte }

func appendSeatJSON(b []byte, s availability.SeatView) []byte {
	memo := s.Memo(availability.JSON, func() any { return encodeFixedJSON(s) })
	fixed := memo.(fixedJSON) // see Memo
	b = strconv.AppendBool(append(b, fixed.before...), s.Available)
	b = appendTimeJSON(b, "availableUntil", s.AvailableUntil)
	b = appendTimeJSON(b, "nextAvailableAt", s.NextAvailableAt)
	return append(b, fixed.after...)
}

// encodeFixedJSON cuts the JSON of a Seat at the value of available. A string in it can't contain
// the name in quotes, because JSON escapes quotes.
func encodeFixedJSON(s availability.SeatView) fixedJSON {
	s.Available, s.AvailableUntil, s.NextAvailableAt = false, time.Time{}, time.Time{}
	before, after, _ := bytes.Cut(marshalJSON(seatProto(s)), []byte(`"available":false`))
	return fixedJSON{append(before, `"available":`...), after}
}

// marshalJSON returns the JSON of a message without the random spaces of protojson.
func marshalJSON(m proto.Message) []byte {
	spaced, err := JSONOptions.Marshal(m)
	if err != nil { // impossible: the store returns valid UTF-8 only
		panic(err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, spaced); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func appendAsOf(b []byte, t time.Time) []byte { return appendTimeJSON(b, "asOf", t) }

// appendTimeJSON appends a field with a google.protobuf.Timestamp, and a comma before it. It
// appends nothing, which means unset, for the zero time. The seconds have 0, 3, 6 or 9 decimals, as
// protobuf prescribes.
func appendTimeJSON(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":"`...)
	layout := "2006-01-02T15:04:05.000000000Z"
	switch nanos := t.Nanosecond(); {
	case nanos == 0:
		layout = "2006-01-02T15:04:05Z"
	case nanos%1e6 == 0:
		layout = "2006-01-02T15:04:05.000Z"
	case nanos%1e3 == 0:
		layout = "2006-01-02T15:04:05.000000Z"
	}
	return append(t.UTC().AppendFormat(b, layout), '"')
}

// appendInt64JSON appends a number as a string, because a number in JSON may lose digits above 2⁵³.
func appendInt64JSON(b []byte, n int64) []byte {
	return append(strconv.AppendInt(append(b, '"'), n, 10), '"')
}
