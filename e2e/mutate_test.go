package e2e_test

import (
	"math"
	"math/rand/v2"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// mutator makes random requests. Most of them are partly invalid.
type mutator struct{ *rand.Rand }

// validValues has valid values of fields, by the name of the field.
type validValues map[protoreflect.Name][]any

// request returns the bytes of a request of this type. It chooses 1, 0.9 or 0.3 as the probability
// with which each field is valid. Then up to three random changes damage the bytes. One request in
// 12 is random bytes.
func (m mutator) request(kind protoreflect.MessageDescriptor, known validValues) []byte {
	if m.IntN(12) == 0 {
		return m.bytes(m.IntN(200))
	}
	msg := dynamicpb.NewMessage(kind)
	m.fill(msg, known, []float64{1, 0.9, 0.3}[m.IntN(3)])
	raw, err := proto.MarshalOptions{AllowPartial: true}.Marshal(msg)
	if err != nil { // text that is not UTF-8: proto refuses to encode it
		raw = m.field(raw, kind)
	}
	for range m.IntN(6) - 2 {
		raw = m.damage(raw, kind)
	}
	return raw
}

// fill sets the fields of a message. Each field is valid with the probability right.
func (m mutator) fill(msg protoreflect.Message, known validValues, right float64) {
	fields := msg.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		values := known[f.Name()]
		if len(values) > 0 && m.Float64() < right {
			m.set(msg, f, values[m.IntN(len(values))])
			continue
		}
		switch {
		case m.IntN(6) == 0: // left out
		case f.IsMap():
			entries := msg.Mutable(f).Map()
			for range m.IntN(4) {
				entries.Set(m.value(f.MapKey()).MapKey(), m.value(f.MapValue()))
			}
		case f.IsList() && f.Message() != nil:
			list := msg.Mutable(f).List()
			for range m.IntN(4) {
				m.fill(list.AppendMutable().Message(), known, right)
			}
		case f.IsList():
			list := msg.Mutable(f).List()
			for range m.IntN(4) {
				list.Append(m.value(f))
			}
		case f.Message() != nil:
			m.fill(msg.Mutable(f).Message(), known.of(f.Message()), right)
		default:
			msg.Set(f, m.value(f))
		}
	}
}

// of returns the valid values for the fields of a message in a request. Those of a time have no names
// of their own.
func (k validValues) of(message protoreflect.MessageDescriptor) validValues {
	if message.ParentFile().Package() == "google.protobuf" {
		return nil
	}
	return k
}

// set sets a field to v. If v is nil, the field stays unset.
func (m mutator) set(msg protoreflect.Message, f protoreflect.FieldDescriptor, v any) {
	switch v := v.(type) {
	case nil:
	case proto.Message:
		// The parts of a dynamic message must be dynamic messages too.
		raw, err := proto.Marshal(v)
		if err == nil {
			err = proto.Unmarshal(raw, msg.Mutable(f).Message().Interface())
		}
		if err != nil {
			panic(err)
		}
	case protoreflect.EnumNumber:
		if f.IsList() {
			msg.Mutable(f).List().Append(protoreflect.ValueOfEnum(v))
			return
		}
		msg.Set(f, protoreflect.ValueOfEnum(v))
	default:
		if f.IsList() {
			msg.Mutable(f).List().Append(protoreflect.ValueOf(v))
			return
		}
		msg.Set(f, protoreflect.ValueOf(v))
	}
}

// value returns a random value of the field's type.
func (m mutator) value(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(m.text())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(m.text()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(m.IntN(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(m.number()))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(m.number()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(m.number())
	default:
		panic("no request has a field of kind " + f.Kind().String())
	}
}

func (m mutator) number() int64 {
	if m.IntN(2) == 0 {
		return m.Int64N(12)
	}
	edges := []int64{
		-1,
		math.MinInt64,
		math.MaxInt64,
		math.MinInt32,
		math.MaxInt32,
		math.MaxInt32 + 1,
		253402300799, // the last second of a Timestamp: the end of the year 9999
		253402300800,
		-62135596801, // one second before the first Timestamp: the year 1
		1e9,
		-1e9,
		999999999,
	}
	return edges[m.IntN(len(edges))]
}

func (m mutator) text() string {
	texts := []string{
		"", "x", "a\x00b", "\xff\xfe", "\u202e\u0000", "'; DROP TABLE users; --", "%s%n", "🪑", "\u2028", "../../etc",
		strings.Repeat("é", 300), strings.Repeat("x", 70_000),
	}
	return texts[m.IntN(len(texts))]
}

// damage makes one random change to the bytes of a message.
func (m mutator) damage(raw []byte, kind protoreflect.MessageDescriptor) []byte {
	at := func() int { return m.IntN(len(raw) + 1) }
	switch m.IntN(6) {
	case 0: // a flipped bit
		if len(raw) > 0 {
			raw[m.IntN(len(raw))] ^= 1 << m.IntN(8)
		}
	case 1: // cut short
		raw = raw[:at()]
	case 2: // inserted bytes
		i := at()
		raw = append(raw[:i:i], append(m.bytes(m.IntN(12)), raw[i:]...)...)
	case 3: // the message twice
		raw = append(raw, raw...)
	case 4: // a field of another type
		raw = m.field(raw, kind)
	case 5: // an unknown field
		raw = protowire.AppendTag(raw, protowire.Number(100+m.IntN(1<<20)), protowire.BytesType)
		raw = protowire.AppendBytes(raw, m.bytes(m.IntN(50)))
	}
	return raw
}

// field appends one field of the message, with a value of a random wire type.
func (m mutator) field(raw []byte, kind protoreflect.MessageDescriptor) []byte {
	if kind.Fields().Len() == 0 {
		return raw
	}
	number := kind.Fields().Get(m.IntN(kind.Fields().Len())).Number()
	switch m.IntN(5) {
	case 0:
		return protowire.AppendVarint(protowire.AppendTag(raw, number, protowire.VarintType), m.Uint64())
	case 1:
		return protowire.AppendFixed64(protowire.AppendTag(raw, number, protowire.Fixed64Type), m.Uint64())
	case 2:
		return protowire.AppendTag(raw, number, protowire.StartGroupType)
	case 3:
		return protowire.AppendString(protowire.AppendTag(raw, number, protowire.BytesType), "\xc3\x28 not UTF-8")
	default:
		return protowire.AppendBytes(protowire.AppendTag(raw, number, protowire.BytesType), m.bytes(m.IntN(40)))
	}
}

func (m mutator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.Uint32())
	}
	return b
}
