package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// quitter is a connection whose calls are cancelled soon. It writes the frames itself, since the processors that it runs on are those of DL-SMS
// too, and a client of grpc takes more of them for a call than nginx does.
type cancelClient struct {
	conn   net.Conn
	frames *http2.Framer // reads from conn, and writes to out

	fields  bytes.Buffer
	encoder *hpack.Encoder // to fields

	mu    sync.Mutex
	out   bytes.Buffer
	spare []byte
	next  uint32          // stream
	open  map[uint32]bool // whether an answer has begun, by stream
	done  int             // calls that were answered before they were cancelled
	err   error           // why the connection ended
}

// plenty is how much may come back in the life of a connection, so that it never has to say that it has read.
const receiveWindow = 1 << 30

func newCancelClient(ctx context.Context, addr string) (*cancelClient, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	q := &cancelClient{conn: conn, next: 1, open: map[uint32]bool{}}
	q.frames = http2.NewFramer(&q.out, conn)
	q.encoder = hpack.NewEncoder(&q.fields)
	q.out.WriteString(http2.ClientPreface)
	if err := errors.Join(q.frames.WriteSettings(), q.frames.WriteWindowUpdate(0, receiveWindow)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go q.listen()
	return q, nil
}

// listen reads what comes back, until the connection is closed.
func (q *cancelClient) listen() {
	for {
		f, err := q.frames.ReadFrame()
		if err == nil {
			err = q.handleFrame(f)
		}
		if err != nil {
			q.mu.Lock()
			q.err = err
			q.mu.Unlock()
			return
		}
	}
}

func (q *cancelClient) handleFrame(f http2.Frame) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return q.frames.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return q.frames.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		return fmt.Errorf("nginx turns us away: %s", f.ErrCode)
	case *http2.DataFrame:
		if _, ok := q.open[id]; ok {
			q.open[id] = true
		}
	case *http2.HeadersFrame:
		if f.StreamEnded() {
			if q.open[id] { // a refusal has no message
				q.done++
			}
			delete(q.open, id)
		}
	case *http2.RSTStreamFrame:
		delete(q.open, id)
	}
	return nil
}

// request is a call to be made.
type request struct {
	method, token string
	message       proto.Message
}

// prefix is what gRPC has before a message: whether it is compressed, in one byte, and its length.
const prefix = 5

// call begins a call, at the next flush, and returns its stream.
func (q *cancelClient) call(r request) (id uint32, err error) {
	message, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, prefix), r.message)
	if err != nil {
		return 0, err
	}
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-prefix)) //nolint:gosec // some dozen bytes
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fields.Reset()
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: r.method},
		{Name: ":authority", Value: q.conn.RemoteAddr().String()},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
		{Name: "authorization", Value: "Bearer " + r.token, Sensitive: true}, // each once: not worth remembering
	} {
		if err := q.encoder.WriteField(f); err != nil {
			return 0, err
		}
	}
	id = q.next
	q.next += 2
	q.open[id] = false
	return id, errors.Join(
		q.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: q.fields.Bytes(), EndHeaders: true}),
		q.frames.WriteData(id, true, message))
}

// cancel ends a call, at the next flush, unless it has been answered.
func (q *cancelClient) cancel(id uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.open[id]; !ok {
		return nil
	}
	delete(q.open, id)
	return q.frames.WriteRSTStream(id, http2.ErrCodeCancel)
}

// flush sends what there is to send.
func (q *cancelClient) flush() error {
	q.mu.Lock()
	err := q.err
	q.spare = append(q.spare[:0], q.out.Bytes()...)
	q.out.Reset()
	q.mu.Unlock()
	if err != nil || len(q.spare) == 0 {
		return err
	}
	_, err = q.conn.Write(q.spare)
	return err
}

// quitters are connections whose calls are cancelled.
type cancelClients []*cancelClient

func newCancelClients(ctx context.Context, addr string, n int) (all cancelClients, err error) {
	for range n {
		q, err := newCancelClient(ctx, addr)
		if err != nil {
			all.close()
			return nil, err
		}
		all = append(all, q)
	}
	return all, nil
}

func (all cancelClients) close() {
	for _, q := range all {
		_ = q.conn.Close()
	}
}

// done returns how many calls were answered before they were cancelled.
func (all cancelClients) done() (n int) {
	for _, q := range all {
		q.mu.Lock()
		n += q.done
		q.mu.Unlock()
	}
	return n
}

// departure is when a call is to be cancelled.
type pendingCancel struct {
	at time.Duration
	q  *cancelClient
	id uint32
}

// run makes calls at a rate until ctx ends, and cancels each after as long as leaves says; it looks each millisecond. It returns how many
// there were, and fails when a connection does.
func (all cancelClients) run(ctx context.Context, rate float64, next func(n int) request, leaves func() time.Duration) (sent int, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	began := time.Now()
	var pendingCancels []pendingCancel
	every(ctx, time.Millisecond, func() {
		now := time.Since(began)
		var errs []error
		pendingCancels = slices.DeleteFunc(pendingCancels, func(d pendingCancel) bool {
			if d.at > now {
				return false
			}
			errs = append(errs, d.q.cancel(d.id))
			return true
		})
		for due := int(now.Seconds() * rate); sent < due; sent++ {
			q := all[sent%len(all)]
			id, err := q.call(next(sent))
			errs = append(errs, err)
			pendingCancels = append(pendingCancels, pendingCancel{now + leaves(), q, id})
		}
		for _, q := range all {
			errs = append(errs, q.flush())
		}
		if err = errors.Join(errs...); err != nil {
			stop()
		}
	})
	return sent, err
}
