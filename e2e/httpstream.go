package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// NewStream implements grpc.ClientConnInterface, for streams from the server.
func (c *HTTPConn) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, _ ...grpc.CallOption,
) (grpc.ClientStream, error) {
	rule, err := ruleOf(method)
	if err == nil && (desc.ClientStreams || rule.body) {
		err = status.Errorf(codes.Unimplemented, "%s is not a GET of a stream", method)
	}
	if err != nil {
		return nil, err
	}
	return &httpStream{
		ctx: ctx, conn: c, rule: rule, opened: make(chan struct{}),
		document: method == dlsmsv1.AuthService_ExportMyData_FullMethodName,
	}, nil
}

// httpStream reads the messages of a stream from server-sent events, or from a document. RecvMsg must not be called
// concurrently, as in gRPC.
type httpStream struct {
	ctx  context.Context // grpc.ClientStream has it
	conn *HTTPConn
	rule httpRule
	in   proto.Message

	opened chan struct{} // closed when the fields below are set
	req    *http.Request
	resp   *http.Response
	events *EventReader
	err    error // ended the stream; RecvMsg sets it too

	document bool // the answer is a document, and not events
}

// SendMsg opens the stream. It does not wait for an answer.
func (s *httpStream) SendMsg(m any) error {
	in, ok := m.(proto.Message)
	if !ok || s.in != nil {
		return status.Errorf(codes.Internal, "%T is not the one request", m)
	}
	s.in = in
	go func() {
		defer close(s.opened)
		s.err = s.open()
	}()
	return nil
}

func (s *httpStream) open() (err error) {
	if s.req, err = s.rule.newRequest(s.ctx, s.conn.base, s.in); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	content := "text/event-stream"
	if s.document {
		content = "application/json"
	}
	s.req.Header.Set("Accept", content)
	if s.resp, err = s.conn.client.Do(s.req); err != nil { //nolint:bodyclose // next and breach close it
		return connectionError(s.ctx, err)
	}
	if s.resp.StatusCode >= http.StatusBadRequest {
		defer func() { _ = s.resp.Body.Close() }()
		body, err := io.ReadAll(s.resp.Body)
		if err != nil {
			return connectionError(s.ctx, err)
		}
		if err := s.conn.checkData(s.rule, s.resp, body); err != nil {
			return s.conn.breach(s.req, s.resp, body, err)
		}
		return s.conn.refusal(s.req, s.resp, body, s.in)
	}
	s.events = NewEventReader(s.resp.Body)
	err = wantContent(s.resp, content)
	if s.resp.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New("the status is not 200"))
	}
	if got := s.resp.Header.Get("Cache-Control"); got != "no-store" {
		err = errors.Join(err, fmt.Errorf("the Cache-Control of a stream is %q", got))
	}
	if err != nil {
		return s.breach(nil, err)
	}
	return nil
}

func (s *httpStream) breach(data []byte, why error) error {
	_ = s.resp.Body.Close()
	return s.conn.breach(s.req, s.resp, data, why)
}

// RecvMsg returns the message of the next server-sent event. It skips heartbeats: over HTTP they are
// comment lines of the stream, not events.
func (s *httpStream) RecvMsg(m any) error {
	<-s.opened
	if s.err != nil {
		return s.err
	}
	if s.document {
		err := s.whole(m.(proto.Message))
		s.err = cmp.Or(err, io.EOF)
		return err
	}
	s.err = s.next(m.(proto.Message))
	return s.err
}

// whole reads the document as the one message of the stream.
func (s *httpStream) whole(out proto.Message) error {
	defer func() { _ = s.resp.Body.Close() }()
	text, err := io.ReadAll(s.resp.Body)
	if err != nil {
		return connectionError(s.ctx, err)
	}
	if err := s.conn.checkData(s.rule, s.resp, text); err != nil {
		return s.breach(text, err)
	}
	out.(*dlsmsv1.ExportMyDataResponse).Content = text
	return nil
}

func (s *httpStream) next(out proto.Message) error {
	event, err := s.events.Next()
	switch {
	case errors.Is(err, io.EOF):
		_ = s.resp.Body.Close()
		return io.EOF
	case err != nil:
		_ = s.resp.Body.Close()
		return connectionError(s.ctx, err)
	case s.events.Retry == 0:
		return s.breach([]byte(event.Data), errors.New("the first event comes before the delay of reconnections"))
	case event.Type == "error":
		return s.end(event)
	}
	if err := protojson.Unmarshal([]byte(event.Data), out); err != nil {
		return s.breach([]byte(event.Data), err)
	}
	err = checkEvent(event, out)
	if err == nil {
		err = s.conn.checkData(s.rule, s.resp, []byte(event.Data))
	}
	if err != nil {
		return s.breach([]byte(event.Data), err)
	}
	return nil
}

// end returns the status of the problem that ended the stream.
func (s *httpStream) end(event Event) error {
	p, err := readProblem([]byte(event.Data))
	if err != nil {
		return s.breach([]byte(event.Data), err)
	}
	if more, err := s.events.Next(); err == nil {
		return s.breach([]byte(event.Data), fmt.Errorf("the stream goes on after an error: %v", more))
	}
	var wait time.Duration // a client opens the stream again after this time
	if Retryable(dlsmsv1.ErrorReason(dlsmsv1.ErrorReason_value["ERROR_REASON_"+p.Reason])) {
		wait = s.events.Retry
	}
	st, err := p.status(s.in, wait)
	if err != nil {
		return s.breach([]byte(event.Data), err)
	}
	_ = s.resp.Body.Close()
	return st.Err()
}

// checkEvent returns nil if the type and the id of an event are those of its message.
func checkEvent(event Event, message proto.Message) error {
	m := message.ProtoReflect()
	oneof := m.Descriptor().Oneofs().ByName("event")
	if oneof == nil {
		return fmt.Errorf("%s has no oneof named event", m.Descriptor().FullName())
	}
	f := m.WhichOneof(oneof)
	if f == nil || event.Type != f.JSONName() {
		return fmt.Errorf("the event %q has another message", event.Type)
	}
	if n, ok := m.Get(f).Message().Interface().(*dlsmsv1.Notification); ok {
		if event.ID != strconv.FormatInt(n.GetId(), 10) {
			return fmt.Errorf("the event of notification %d has the id %q", n.GetId(), event.ID)
		}
	} else if event.ID != "" {
		return fmt.Errorf("the event has the id %q", event.ID)
	}
	return nil
}

// Header waits for the headers of the answer and returns them.
func (s *httpStream) Header() (metadata.MD, error) {
	<-s.opened
	if s.resp == nil {
		return nil, s.err
	}
	return metadataOf(s.resp), nil
}

// Trailer returns nil: HTTP has none.
func (s *httpStream) Trailer() metadata.MD { return nil }

// CloseSend does nothing: the one request was sent.
func (s *httpStream) CloseSend() error { return nil }

// Context returns the context of the stream.
func (s *httpStream) Context() context.Context { return s.ctx }
