package rest

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/server/edge"
)

const (
	// reconnectDelay is how long a client waits before it opens a stream again, in milliseconds.
	reconnectDelay = 2000
	// writeTimeout ends a write to a client that does not read. It is above the 75 s after which the
	// edge ends the stream, which unlike this timeout tells the reason.
	writeTimeout = 80 * time.Second
)

// stream returns a handler that answers with a stream. The query has the fields of the request, which
// is of the type of like.
func (h *Handler) stream(method string, like proto.Message) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		req := like.ProtoReflect().New().Interface()
		if err := parseQuery(r, req); err != nil {
			h.refuse(w, r, method, err)
			return
		}
		h.serveStream(w, r, method, req)
	}
}

func (h *Handler) serveSubscribe(w http.ResponseWriter, r *http.Request) {
	const method = dlsmsv1.NotifyService_Subscribe_FullMethodName
	req := &dlsmsv1.SubscribeRequest{}
	err := parseQuery(r, req)
	// A client that opens the stream again sends the id of the last event that it received, and
	// still the afterId of its first request.
	if last := r.Header.Get("Last-Event-ID"); last != "" && err == nil {
		if req.AfterId, err = strconv.ParseInt(last, 10, 64); err != nil {
			err = &formError{[]library.FieldViolation{{
				Field: "after_id", Message: "must be a whole number: the header Last-Event-ID is none",
			}}}
		}
	}
	if err != nil {
		h.refuse(w, r, method, err)
		return
	}
	h.serveStream(w, r, method, req)
}

// serveStream answers with the messages of a stream as server-sent events.
func (h *Handler) serveStream(w http.ResponseWriter, r *http.Request, method string, req proto.Message) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	events := &eventStream{ctx: ctx, w: w, control: http.NewResponseController(w)}
	if requestOf(ctx).head {
		events.onOpen = cancel // the headers are the whole answer
	}
	err := h.caller.Stream(method, req, events) //nolint:contextcheck // events has the context
	if err == nil {
		return
	}
	p := problemOf(err)
	if !events.open {
		writeProblem(w, r, p)
		return
	}
	p.complete(requestOf(ctx))
	_ = events.write("error", "", p.json()) // a client that disconnected needs no answer
}

// eventStream sends the messages of a stream as server-sent events: the event is the name of the
// field of the oneof that is set, the data is the message, and the id is that of a notification.
// Heartbeats become comments.
type eventStream struct {
	ctx     context.Context // grpc.ServerStream has one, too
	w       http.ResponseWriter
	control *http.ResponseController
	open    bool
	onOpen  func() // nil: nothing
	buffer  []byte
}

// Context implements edge.Sender.
func (s *eventStream) Context() context.Context { return s.ctx }

// SendHeader sends the headers and opens the stream.
func (s *eventStream) SendHeader(metadata.MD) error {
	if s.open {
		return nil
	}
	s.open = true
	requestOf(s.ctx).streamed = true
	header := s.w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // for nginx
	header.Set("X-Request-Id", requestOf(s.ctx).id)
	s.w.WriteHeader(http.StatusOK)
	err := s.flush(fmt.Appendf(s.buffer[:0], "retry: %d\n\n", reconnectDelay))
	if s.onOpen != nil {
		s.onOpen()
	}
	return err
}

// SendMsg sends a message as an event.
func (s *eventStream) SendMsg(m any) error {
	if err := s.SendHeader(nil); err != nil {
		return err
	}
	if encoded, ok := m.(server.EncodedMessage); ok {
		return s.write(encoded.Event, "", encoded.Parts...)
	}
	message := m.(proto.Message)
	event, id := eventOf(message.ProtoReflect())
	if event == heartbeatEvent {
		return s.flush(append(s.buffer[:0], ": heartbeat\n\n"...))
	}
	data, err := server.JSONOptions.Marshal(message)
	if err != nil {
		return err
	}
	return s.write(event, id, data)
}

// heartbeatEvent is the field of a message that keeps a silent stream open.
const heartbeatEvent = "heartbeat"

// eventOf returns the event and the id of a message.
func eventOf(m protoreflect.Message) (event, id string) {
	f := m.WhichOneof(m.Descriptor().Oneofs().ByName("event"))
	if f == nil {
		return "", ""
	}
	if n, ok := m.Get(f).Message().Interface().(*dlsmsv1.Notification); ok {
		id = strconv.FormatInt(n.GetId(), 10)
	}
	return f.JSONName(), id
}

// write sends an event. parts are its data, which have no line breaks.
func (s *eventStream) write(event, id string, parts ...[]byte) error {
	b := append(append(append(s.buffer[:0], "event: "...), event...), '\n')
	if id != "" {
		b = append(append(append(b, "id: "...), id...), '\n')
	}
	b = append(b, "data: "...)
	for _, part := range parts {
		b = append(b, part...)
	}
	return s.flush(append(b, "\n\n"...))
}

func (s *eventStream) flush(b []byte) error {
	s.buffer = b
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // every connection of net/http has one
	if _, err := s.w.Write(b); err != nil {
		return edge.Disconnected(err)
	}
	if err := s.control.Flush(); err != nil {
		return edge.Disconnected(err)
	}
	return nil
}
