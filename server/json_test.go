package server

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store/storetest"
)

func TestETagIsThatOfTheAnswer(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Seats(t, 3)
	s := startOn(t, db, nil, nil)
	etag := func(req *dlsmsv1.GetSeatsRequest) string {
		answer, err := s.seatService.getSeatsJSON(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return answer.ETag()
	}
	all := etag(&dlsmsv1.GetSeatsRequest{})
	if again := etag(&dlsmsv1.GetSeatsRequest{}); again != all {
		t.Errorf("the same answer has the tags %s and %s", all, again)
	}
	if !strings.HasPrefix(all, `W/"`) || !strings.HasSuffix(all, `"`) {
		t.Errorf("%s is not a weak entity tag", all)
	}
	if page := etag(&dlsmsv1.GetSeatsRequest{PageSize: 2}); page == all {
		t.Errorf("a page of two seats has the tag %s of all three", page)
	}
	db.Exec(t, `UPDATE seats SET out_of_service = true WHERE id = (SELECT min(id) FROM seats)`)
	if changed := etag(&dlsmsv1.GetSeatsRequest{}); changed == all {
		t.Errorf("the tag is still %s after a change", changed)
	}
}

// TestWatchSeatsJSONMatchesProtojson checks each kind of message that a watch sends over HTTP.
func TestWatchSeatsJSONMatchesProtojson(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	seats := db.Seats(t, 3)
	s := startOn(t, db, nil, nil)
	ctx, cancel := context.WithCancel(edge.WithHTTP(t.Context()))
	defer cancel()
	messages := make(sink, 16)
	done := make(chan error, 1)
	go func() {
		done <- s.InProcess().Stream(dlsmsv1.SeatService_WatchSeats_FullMethodName, &dlsmsv1.WatchSeatsRequest{},
			&collector{ctx: ctx, sink: messages})
	}()
	snapshot := messages.next(t, "snapshot")
	if n := len(snapshot.GetSnapshot().GetSeats()); n != 3 || snapshot.GetAsOf() == nil {
		t.Errorf("a snapshot of %d seats as of %v", n, snapshot.GetAsOf())
	}
	db.Exec(t, `UPDATE seats SET out_of_service = true WHERE id = $1`, seats[0])
	change := messages.next(t, "change")
	if c := change.GetChange(); c.GetId() != seats[0] || !c.GetOutOfService() || c.GetAvailable() {
		t.Errorf("got the change %v", c)
	}
	db.Exec(t, `DELETE FROM seats WHERE id = $1`, seats[1])
	messages.next(t, "change") // a removed seat is no longer available
	if removed := messages.next(t, "removed").GetRemoved(); removed.GetSeatId() != seats[1] {
		t.Errorf("got the removal %v", removed)
	}
	cancel()
	if answer := (*edge.Answer)(nil); !errors.As(<-done, &answer) {
		t.Error("the stream ended without an answer")
	}
}

// sink receives the messages of a stream.
type sink chan EncodedMessage

// next returns the next message, which must have the event and be canonical JSON.
func (s sink) next(t *testing.T, event string) *dlsmsv1.WatchSeatsResponse {
	t.Helper()
	select {
	case m := <-s:
		text := bytes.Join(m.Parts, nil)
		var got dlsmsv1.WatchSeatsResponse
		if err := protojson.Unmarshal(text, &got); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if m.Event != event || !strings.HasPrefix(string(text), `{"`+event+`":`) {
			t.Fatalf("got %s %s, want %s", m.Event, text, event)
		}
		if asOf := got.GetAsOf(); asOf == nil || time.Since(asOf.AsTime()) > time.Hour {
			t.Errorf("as of %v", asOf)
		}
		// removed has a higher number than as_of, so protojson writes it after as_of.
		if canonical := compactJSON(t, &got); event != "removed" && !bytes.Equal(text, canonical) {
			t.Errorf("got  %s\nwant %s", text, canonical)
		}
		return &got
	case <-time.After(within):
		t.Fatalf("no %s arrived", event)
		return nil
	}
}

// collector is the client of a stream.
type collector struct {
	ctx  context.Context // a stream has one
	sink sink
}

func (c *collector) Context() context.Context   { return c.ctx }
func (*collector) SendHeader(metadata.MD) error { return nil }
func (c *collector) SendMsg(m any) error {
	message, ok := m.(EncodedMessage)
	if !ok {
		return errors.New("not encoded: " + string(m.(proto.Message).ProtoReflect().Descriptor().FullName()))
	}
	c.sink <- message
	return nil
}
