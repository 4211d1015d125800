package server

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server/edge"
)

// rawCodec sends and receives bytes unchanged.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func TestMalformedMessagesAreInvalidArgument(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	ctx := s.student(t)
	raw := grpc.ForceCodecV2(rawCodec{})
	for name, b := range map[string][]byte{
		"field number 0": {0x00},
		"cut short":      {0x0a, 0x05, 'a'},
		"bad wire type":  {0x0f},
		"not UTF-8":      {0x0a, 0x01, 0xff},
		"endless varint": {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		var out []byte
		err := s.conn.Invoke(ctx, "/dlsms.v1.ReservationService/GetReservations", b, &out, raw)
		// These bytes are field 1 as a string. Field 1 of GetReservations is not a string, so
		// protobuf would accept them as an unknown field. Field 1 of Login is a string.
		if name == "not UTF-8" {
			err = s.conn.Invoke(ctx, "/dlsms.v1.AuthService/Login", b, &out, raw)
		}
		if status.Code(err) != codes.InvalidArgument || reasonOf(err) != "INVALID_FIELDS" ||
			fmt.Sprint(fieldsOf(err)) != "[request]" {
			t.Errorf("%s: %v", name, err)
		}
		err = watchWith(t.Context(), t, s, b)
		if status.Code(err) != codes.InvalidArgument || reasonOf(err) != "INVALID_FIELDS" {
			t.Errorf("%s, to a stream: %v", name, err)
		}
	}
	// The caller is authenticated before its request is checked.
	var out []byte
	err := s.conn.Invoke(t.Context(), "/dlsms.v1.ReservationService/GetReservations", []byte{0}, &out, raw)
	want(t, err, codes.Unauthenticated, "TOKEN_MISSING")
	// Unknown fields are accepted: a later version may send them.
	unknown := []byte{0xf8, 0x07, 0x01} // field 127, a varint
	if err := s.conn.Invoke(t.Context(), "/dlsms.v1.SeatService/GetBranches", unknown, &out, raw); err != nil {
		t.Error(err)
	}
	err = s.conn.Invoke(t.Context(), "/dlsms.v1.SeatService/GetBranches", make([]byte, maxMessage+1), &out, raw)
	want(t, err, codes.ResourceExhausted, "")
	err = s.conn.Invoke(t.Context(), "/dlsms.v1.SeatService/Sit", []byte{}, &out, raw)
	want(t, err, codes.Unimplemented, "")
	err = s.conn.Invoke(t.Context(), "/dlsms.v2.SeatService/GetBranches", []byte{}, &out, raw)
	want(t, err, codes.Unimplemented, "")
}

// TestStreamsWithoutARequestAreLogged tests streams with a request that grpc itself refuses. The
// edge logs such a stream as an error of the client, not of the server.
func TestStreamsWithoutARequestAreLogged(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for name, test := range map[string]struct {
		messages         [][]byte
		answered, logged codes.Code
	}{
		"toolarge": {[][]byte{make([]byte, maxMessage+1)}, codes.ResourceExhausted, codes.ResourceExhausted},
		"none":     {nil, codes.Internal, codes.InvalidArgument},
	} {
		err := watchWith(metadata.AppendToOutgoingContext(t.Context(), "x-request-id", name), t, s, test.messages...)
		line := s.log.RPC(t, name)
		if status.Code(err) != test.answered || line["code"] != test.logged.String() || line["level"] != "INFO" {
			t.Errorf("%s: %v, the log has %v", name, err, line)
		}
	}
}

// watchWith calls WatchSeats with raw messages, and returns the result of the first receive.
func watchWith(ctx context.Context, t *testing.T, s *testServer, messages ...[]byte) error {
	t.Helper()
	stream, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		"/dlsms.v1.SeatService/WatchSeats", grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := stream.SendMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var out []byte
	return stream.RecvMsg(&out)
}

// FuzzMalformed tests that the codec marks a message as malformed if and only if protobuf cannot
// parse it.
func FuzzMalformed(f *testing.F) {
	f.Add([]byte{0x00})
	f.Add([]byte{0xf8, 0x07, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		plain := proto.Unmarshal(b, &dlsmsv1.GetSeatsRequest{})
		var m dlsmsv1.GetSeatsRequest
		if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, &m); err != nil {
			t.Fatal(err)
		}
		if edge.IsMalformed(&m) != (plain != nil) {
			t.Errorf("%x: malformed %v, but protobuf says %v", b, edge.IsMalformed(&m), plain)
		}
	})
}
