package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// A call that is half sent must end: the server gives each unary call halfSentTime from its headers
// on. askEvery is how often the sender asks whether the replica runs, since only the time in which
// it does counts. It asks with settings, which the replica has to acknowledge: pings that come more
// often than every 10 s are refused.
const (
	halfSentTime   = 5 * time.Second
	halfSentMargin = 3 * time.Second
	askEvery       = 250 * time.Millisecond
	mostAnswers    = int((halfSentTime + halfSentMargin) / askEvery)
)

// halfSender is a connection to a replica on which calls are begun and never sent to their end. It
// does not go when it is told to, so a replica that waits for such calls would not drain.
type halfSender struct {
	conn   net.Conn
	frames *http2.Framer

	next  uint32         // stream
	open  map[uint32]int // how often the replica answered since it began, by stream
	asked bool           // the replica has not answered yet
}

// sendHalf keeps calls half sent at a replica until ctx ends, and reports those that stay open.
func (s *system) sendHalf(ctx context.Context, replica int, found *violations) {
	for ctx.Err() == nil {
		h, err := newHalfSender(ctx, s.ReplicaAddr(replica))
		if err == nil {
			stop := context.AfterFunc(ctx, func() { _ = h.conn.Close() })
			h.run(ctx, found)
			stop()
			_ = h.conn.Close()
		}
		sleep(ctx, retryAfter) // the replica may be down
	}
}

func newHalfSender(ctx context.Context, addr string) (*halfSender, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	h := &halfSender{conn: conn, frames: http2.NewFramer(conn, conn), next: 1, open: map[uint32]int{}}
	if _, err = conn.Write([]byte(http2.ClientPreface)); err == nil {
		err = h.frames.WriteSettings()
	}
	if err != nil {
		_ = conn.Close()
	}
	return h, err
}

// run begins calls, one of each kind, and the next one of a kind when it ended, until the
// connection or ctx ends.
func (h *halfSender) run(ctx context.Context, found *violations) {
	incoming := make(chan http2.Frame)
	go func() {
		defer close(incoming)
		for {
			f, err := h.frames.ReadFrame()
			if err != nil {
				return
			}
			select {
			case incoming <- f:
			case <-ctx.Done():
				return
			}
			// The payload of a frame is good until the next one is read, so nothing but its header
			// is looked at.
		}
	}()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	draining := false
	for {
		if !draining && h.begin() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// One question at a time: a replica that was frozen would answer all that were asked meanwhile.
			if !h.asked && h.frames.WriteSettings() != nil {
				return
			}
			h.asked = true
		case f, ok := <-incoming:
			if !ok {
				return
			}
			switch f := f.(type) {
			case *http2.GoAwayFrame:
				draining = true
			default:
				if h.handle(f) != nil {
					return
				}
			}
		}
		for _, answers := range h.open {
			if answers > mostAnswers {
				found.add(checkLiveness, "a call of which half was sent is open after %s in which the replica ran",
					time.Duration(answers)*askEvery)
				return
			}
		}
	}
}

// handle notes what a frame says. It runs on the goroutine of run, between two reads.
func (h *halfSender) handle(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return h.frames.WriteSettingsAck()
		}
		h.asked = false
		for id := range h.open {
			h.open[id]++
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return h.frames.WritePing(true, f.Data)
		}
	case *http2.HeadersFrame:
		if f.StreamEnded() {
			delete(h.open, f.StreamID)
		}
	case *http2.RSTStreamFrame:
		delete(h.open, f.StreamID)
	}
	return nil
}

// halfSentCalls is how many are open at a time: one with headers only, one with a part of its
// message, one with the length of a message that does not come.
const halfSentCalls = 3

// begin begins calls until there are enough.
func (h *halfSender) begin() error {
	for ; len(h.open) < halfSentCalls; h.next += 2 {
		var fields bytes.Buffer
		encoder := hpack.NewEncoder(&fields)
		encoder.SetMaxDynamicTableSize(0) // each has its own encoder
		for _, f := range []hpack.HeaderField{
			{Name: ":method", Value: "POST"},
			{Name: ":scheme", Value: "http"},
			{Name: ":path", Value: dlsmsv1.SeatService_GetSeats_FullMethodName},
			{Name: ":authority", Value: h.conn.RemoteAddr().String()},
			{Name: "content-type", Value: "application/grpc"},
			{Name: "te", Value: "trailers"},
		} {
			if err := encoder.WriteField(f); err != nil {
				return err
			}
		}
		headers := http2.HeadersFrameParam{StreamID: h.next, BlockFragment: fields.Bytes(), EndHeaders: true}
		if err := h.frames.WriteHeaders(headers); err != nil {
			return err
		}
		message, err := proto.Marshal(&dlsmsv1.GetSeatsRequest{
			Branch: plansBranch, StartTime: timestamppb.Now(), EndTime: timestamppb.Now(),
		})
		if err != nil {
			return err
		}
		whole := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) //nolint:gosec // some dozen bytes
		whole = append(whole, message...)
		part := [halfSentCalls]int{0, len(whole) - 1, prefix}[int(h.next/2)%halfSentCalls]
		if part > 0 {
			if err := h.frames.WriteData(h.next, false, whole[:part]); err != nil {
				return err
			}
		}
		h.open[h.next] = 0
	}
	return nil
}
