package edge

import "google.golang.org/protobuf/proto"

// malformedMark replaces the unknown fields of a malformed message. It differs from all real
// unknown fields: a zero byte would be field number 0, which protobuf does not allow.
const malformedMark = 0

// MarkMalformed clears a message whose bytes could not be parsed, and marks it. The edge refuses
// the call.
func MarkMalformed(m proto.Message) {
	proto.Reset(m)
	m.ProtoReflect().SetUnknown([]byte{malformedMark})
}

// IsMalformed reports whether MarkMalformed has marked a message.
func IsMalformed(m any) bool {
	msg, ok := m.(proto.Message)
	if !ok {
		return false
	}
	unknown := msg.ProtoReflect().GetUnknown()
	return len(unknown) == 1 && unknown[0] == malformedMark
}
