package edge

import "google.golang.org/protobuf/proto"

// malformedMark is stored in place of a message's unknown fields. The unknown fields of a parsed
// message never begin with a zero byte: it would be field number 0, which is malformed itself.
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
