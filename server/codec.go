package server

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
	_ "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// lenientCodec is the protobuf codec of grpc, but for bytes that are no message: grpc answers those INTERNAL by itself, before any
// interceptor is asked, though the client is at fault. This codec lets them through, marked, and the edge refuses them as it refuses all
// else that is wrong with a request: with INVALID_ARGUMENT, and after it has asked who is calling.
type lenientCodec struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return lenientCodec{encoding.GetCodecV2("proto")} }

// Marshal passes on what is encoded.
func (c lenientCodec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(encoded)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	out := make(mem.BufferSlice, len(message))
	for i, part := range message {
		out[i] = mem.SliceBuffer(part)
	}
	return out, nil
}

func (c lenientCodec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	if m, ok := v.(proto.Message); ok && err != nil {
		proto.Reset(m)
		m.ProtoReflect().SetUnknown([]byte{malformedMark})
		return nil //nolint:nilerr // the mark says it
	}
	return err
}

// malformedMark stands where unknown fields stand. No message that was parsed begins them with a zero: that would be field number 0,
// which is malformed itself.
const malformedMark = 0

// malformed reports whether lenientCodec has marked a message.
func malformed(m any) bool {
	msg, ok := m.(proto.Message)
	if !ok {
		return false
	}
	unknown := msg.ProtoReflect().GetUnknown()
	return len(unknown) == 1 && unknown[0] == malformedMark
}
