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

// cancelClient is a connection whose calls are cancelled within milliseconds. It writes HTTP/2
// frames itself to save processor time, because it shares the processors with DL-SMS. A grpc-go
// client needs more processor time for a call than nginx.
type cancelClient struct {
	conn   net.Conn
	frames *http2.Framer // reads from conn, and writes to out

	fields  bytes.Buffer
	encoder *hpack.Encoder // writes to fields

	mu    sync.Mutex
	out   bytes.Buffer
	spare []byte
	next  uint32          // id of the next stream
	open  map[uint32]bool // by stream id: whether a message has arrived
	done  int             // calls that were answered before they were cancelled
	err   error           // why the connection ended
}

// receiveWindow is the flow-control window of a connection, in bytes. In a run a connection
// receives less than that, so it never has to enlarge the window.
const receiveWindow = 1 << 30

func newCancelClient(ctx context.Context, addr string) (*cancelClient, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &cancelClient{conn: conn, next: 1, open: map[uint32]bool{}}
	c.frames = http2.NewFramer(&c.out, conn)
	c.encoder = hpack.NewEncoder(&c.fields)
	c.out.WriteString(http2.ClientPreface)
	if err := errors.Join(c.frames.WriteSettings(), c.frames.WriteWindowUpdate(0, receiveWindow)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go c.listen()
	return c, nil
}

// listen handles received frames until the connection is closed.
func (c *cancelClient) listen() {
	for {
		f, err := c.frames.ReadFrame()
		if err == nil {
			err = c.handleFrame(f)
		}
		if err != nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			return
		}
	}
}

func (c *cancelClient) handleFrame(f http2.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.frames.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.frames.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		return fmt.Errorf("nginx closes the connection: %s", f.ErrCode)
	case *http2.DataFrame:
		if _, ok := c.open[id]; ok {
			c.open[id] = true
		}
	case *http2.HeadersFrame:
		if f.StreamEnded() {
			if c.open[id] { // an answer with a message is no refusal
				c.done++
			}
			delete(c.open, id)
		}
	case *http2.RSTStreamFrame:
		delete(c.open, id)
	}
	return nil
}

// request is a call to make.
type request struct {
	method, token string
	message       proto.Message
}

// prefix is the length of the header of a gRPC message: one byte for compression, and four bytes
// for the length of the message.
const prefix = 5

// call buffers the frames of a call, and returns the id of its stream. The next flush sends the
// frames.
func (c *cancelClient) call(r request) (id uint32, err error) {
	message, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, prefix), r.message)
	if err != nil {
		return 0, err
	}
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-prefix)) //nolint:gosec // some dozen bytes
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fields.Reset()
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: r.method},
		{Name: ":authority", Value: c.conn.RemoteAddr().String()},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
		{Name: "authorization", Value: "Bearer " + r.token, Sensitive: true}, // not indexed: each token is sent once
	} {
		if err := c.encoder.WriteField(f); err != nil {
			return 0, err
		}
	}
	id = c.next
	c.next += 2
	c.open[id] = false
	return id, errors.Join(
		c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.fields.Bytes(), EndHeaders: true}),
		c.frames.WriteData(id, true, message))
}

// cancel buffers the frame that cancels a call, unless the call was answered. The next flush sends
// the frame.
func (c *cancelClient) cancel(id uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.open[id]; !ok {
		return nil
	}
	delete(c.open, id)
	return c.frames.WriteRSTStream(id, http2.ErrCodeCancel)
}

// flush sends the buffered frames.
func (c *cancelClient) flush() error {
	c.mu.Lock()
	err := c.err
	c.spare = append(c.spare[:0], c.out.Bytes()...)
	c.out.Reset()
	c.mu.Unlock()
	if err != nil || len(c.spare) == 0 {
		return err
	}
	_, err = c.conn.Write(c.spare)
	return err
}

// cancelClients are connections whose calls are cancelled.
type cancelClients []*cancelClient

func newCancelClients(ctx context.Context, addr string, n int) (all cancelClients, err error) {
	for range n {
		c, err := newCancelClient(ctx, addr)
		if err != nil {
			all.close()
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (all cancelClients) close() {
	for _, c := range all {
		_ = c.conn.Close()
	}
}

// done returns the number of calls that were answered before they were cancelled.
func (all cancelClients) done() (n int) {
	for _, c := range all {
		c.mu.Lock()
		n += c.done
		c.mu.Unlock()
	}
	return n
}

// pendingCancel is a call, and the time at which it is to be cancelled.
type pendingCancel struct {
	at time.Duration
	c  *cancelClient
	id uint32
}

// run makes calls at this rate (calls a second) until ctx ends. The function next returns the
// request of call n. run cancels each call after the time that the function cancelAfter returns, to
// within one millisecond. It returns the number of calls. It fails if a connection fails.
func (all cancelClients) run(
	ctx context.Context, rate float64, next func(n int) request, cancelAfter func() time.Duration,
) (sent int, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	began := time.Now()
	var pending []pendingCancel
	every(ctx, time.Millisecond, func() {
		now := time.Since(began)
		var errs []error
		pending = slices.DeleteFunc(pending, func(d pendingCancel) bool {
			if d.at > now {
				return false
			}
			errs = append(errs, d.c.cancel(d.id))
			return true
		})
		for due := int(now.Seconds() * rate); sent < due; sent++ {
			c := all[sent%len(all)]
			id, err := c.call(next(sent))
			errs = append(errs, err)
			pending = append(pending, pendingCancel{now + cancelAfter(), c, id})
		}
		for _, c := range all {
			errs = append(errs, c.flush())
		}
		if err = errors.Join(errs...); err != nil {
			stop()
		}
	})
	return sent, err
}
