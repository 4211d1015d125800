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

// If the request of a unary call stays incomplete, the server must end the call halfSentTime after
// its headers. The time in which a fault stops the replica must not be included. So the client does
// not measure seconds. It sends an HTTP/2 SETTINGS frame each pollInterval, and counts the
// acknowledgements of the replica, which come only while the replica runs. A call must end within
// maxAcks acknowledgements. PING frames cannot be used, because the server refuses more than one in
// 10 s.
const (
	halfSentTime   = 5 * time.Second
	halfSentMargin = 3 * time.Second
	pollInterval   = 250 * time.Millisecond
	maxAcks        = int((halfSentTime + halfSentMargin) / pollInterval)
)

// halfSender is a connection over gRPC to a replica, with calls whose requests are never completed.
// When the replica stops, it sends GOAWAY. The client then keeps the connection and its calls open,
// so a replica that waited for the end of these calls could not stop.
type halfSender struct {
	conn   net.Conn
	frames *http2.Framer

	next  uint32         // id of the next stream
	open  map[uint32]int // by stream id: acknowledgements since the call began
	asked bool           // the last SETTINGS frame is not acknowledged yet
}

// sendHalf keeps incomplete calls open at a replica until ctx ends. A call that the replica does
// not end in time is a violation.
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

// run keeps halfSentCalls calls open until the connection or ctx ends.
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
			// The payload of a frame is valid only until the next ReadFrame. So run uses only the
			// headers of frames.
		}
	}()
	tick := time.NewTicker(pollInterval)
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
			// Send the next SETTINGS frame only after the acknowledgement of the last. Otherwise a
			// replica that was frozen would acknowledge several frames at once.
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
				if h.handleFrame(f) != nil {
					return
				}
			}
		}
		for _, acks := range h.open {
			if acks > maxAcks {
				found.add(checkLiveness, "a call with an incomplete request is still open after %s in which the replica ran",
					time.Duration(acks)*pollInterval)
				return
			}
		}
	}
}

// handleFrame records what a frame says about the open calls. Only run calls it.
func (h *halfSender) handleFrame(f http2.Frame) error {
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

// halfSentCalls is the number of open calls. One has only headers. One has headers and a part of
// its message. One has headers and the length of a message, and the message does not follow.
const halfSentCalls = 3

// begin begins calls until halfSentCalls are open.
func (h *halfSender) begin() error {
	for ; len(h.open) < halfSentCalls; h.next += 2 {
		var fields bytes.Buffer
		encoder := hpack.NewEncoder(&fields)
		encoder.SetMaxDynamicTableSize(0) // no table, because each call has a new encoder
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
