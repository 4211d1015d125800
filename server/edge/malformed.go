package edge

import "google.golang.org/protobuf/proto"

// malformedMark stands where unknown fields stand. No message that was parsed begins them with a zero: that would be field number 0,
// which is malformed itself.
const malformedMark = 0

// MarkMalformed empties a message whose bytes could not be parsed, and marks it for the edge to refuse.
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
