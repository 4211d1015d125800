package server

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
	_ "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/dlsms/dlsms/server/edge"
)

// lenientCodec is grpc's protobuf codec, except that it accepts bytes that are not a message. grpc
// itself answers such bytes with INTERNAL before it calls any interceptor, although the client is
// at fault. lenientCodec instead marks the message as malformed. The edge authenticates the caller,
// and then refuses the marked message with INVALID_ARGUMENT, like every invalid request.
type lenientCodec struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return lenientCodec{encoding.GetCodecV2("proto")} }

// Marshal passes an EncodedMessage on unchanged and encodes every other message.
func (c lenientCodec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(EncodedMessage)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	out := make(mem.BufferSlice, len(message.Parts))
	for i, part := range message.Parts {
		out[i] = mem.SliceBuffer(part)
	}
	return out, nil
}

// Unmarshal decodes a message. It marks the message as malformed instead of returning an error.
func (c lenientCodec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	if m, ok := v.(proto.Message); ok && err != nil {
		edge.MarkMalformed(m)
		return nil //nolint:nilerr // the mark replaces the error
	}
	return err
}
