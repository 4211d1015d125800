package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/dlsms/dlsms/library"
)

// This file says what is wrong with a request that does not have the form of its message. The
// errors of protojson and of the gateway stop at the first fault, and name neither the field nor
// the form that it must have.

// maxFormFaults bounds the faults that are reported: a list of 64 KiB can have tens of thousands.
const maxFormFaults = 100

// formError is the error of parameters that do not have the form of their fields.
type formError struct{ faults []library.FieldViolation }

func (e *formError) Error() string { return e.faults[0].Field + " " + e.faults[0].Message }

// formFaults returns what is wrong with a request that the gateway has refused with a text. It is
// called after the edge has admitted the call, because it takes up to 50 ms for a long list.
func formFaults(r *http.Request, method, text string) []library.FieldViolation {
	req, message := requestOf(r.Context()), requestType(method)
	c := formCheck{}
	switch {
	case req.body != nil && len(req.body.malformed) > 0:
		c.body(req.body.malformed, message.Descriptor())
	case r.Method == http.MethodGet:
		c.query(message, r.URL.Query(), req.inPath)
	}
	if len(c.faults) > 0 {
		return c.faults
	}
	return []library.FieldViolation{violation(text, message.Descriptor())}
}

// requestType returns the type of the requests of a method, such as /dlsms.v1.SeatService/GetSeat.
func requestType(method string) protoreflect.MessageType {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil { // impossible: the gateway calls methods of the contract only
		panic(err)
	}
	return typeOf(found.(protoreflect.MethodDescriptor).Input())
}

func typeOf(d protoreflect.MessageDescriptor) protoreflect.MessageType {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil { // impossible: the messages of the contract are linked
		panic(err)
	}
	return t
}

var fieldInPath = regexp.MustCompile(`\{(\w+)\}`)

// pathFields returns the fields that the path of a route sets.
func pathFields(route string) *utilities.DoubleArray {
	var names [][]string
	for _, m := range fieldInPath.FindAllStringSubmatch(route, -1) {
		names = append(names, []string{m[1]})
	}
	return utilities.NewDoubleArray(names)
}

// fieldInText finds the name of the field that a text of the gateway or of protojson is about.
var fieldInText = regexp.MustCompile(`duplicate field "([^"]+)"|parameter: (\w+)`)

// violation returns the violation that a text of the gateway or of protojson describes: a syntax
// error, a field that is there twice, or a parameter of the path.
func violation(text string, d protoreflect.MessageDescriptor) library.FieldViolation {
	text = strings.ReplaceAll(text, "\u00a0", " ") // protojson puts it in at random
	text = strings.TrimSpace(strings.TrimPrefix(text, "proto:"))
	v := library.FieldViolation{Field: "request", Message: "is not valid: " + text}
	if m := fieldInText.FindStringSubmatch(text); m != nil {
		v.Field = m[1] + m[2]
		if f := d.Fields().ByName(protoreflect.Name(m[2])); f != nil {
			v.Message = formOf(f)
		}
	}
	return v
}

// formCheck collects the faults of a request.
type formCheck struct{ faults []library.FieldViolation }

func (c *formCheck) full() bool { return len(c.faults) >= maxFormFaults }

func (c *formCheck) fault(field, message string) {
	if !c.full() {
		c.faults = append(c.faults, library.FieldViolation{Field: field, Message: message})
	}
}

// body checks the JSON of a message. It finds nothing if the text is no JSON: protojson then tells
// the line and the column.
func (c *formCheck) body(data []byte, d protoreflect.MessageDescriptor) {
	if json.Valid(data) {
		c.object("", data, d)
	}
}

// object checks a message at a path, which is empty for the request.
func (c *formCheck) object(path string, data []byte, d protoreflect.MessageDescriptor) {
	members, ok := membersOf(data)
	if !ok && path == "" {
		c.fault("request", "must be an object in curly brackets")
		return
	}
	if !ok {
		c.fault(path, "must be an object in curly brackets")
		return
	}
	if path != "" {
		path += "."
	}
	for _, m := range members {
		f := fieldOf(d, m.name)
		switch {
		case c.full():
			return
		case f == nil:
			c.fault(path+m.name, unknownField(d, noPathFields))
		case !reads(d, f, m.value):
			c.field(path+string(f.Name()), m.value, d, f)
		}
	}
}

// field checks a field that protojson does not read.
func (c *formCheck) field(path string, data []byte, d protoreflect.MessageDescriptor, f protoreflect.FieldDescriptor) {
	var items []json.RawMessage
	switch {
	case f.IsList() && json.Unmarshal(data, &items) != nil:
		c.fault(path, "must be a list in square brackets")
	case f.IsList():
		for i, item := range items {
			if c.full() {
				return
			}
			if !reads(d, f, slices.Concat([]byte("["), item, []byte("]"))) {
				c.value(path+"["+strconv.Itoa(i)+"]", item, f)
			}
		}
	case f.IsMap():
		members, ok := membersOf(data)
		if !ok {
			c.fault(path, "must be an object in curly brackets")
		}
		for _, m := range members {
			if !reads(d, f, fmt.Appendf(nil, "{%q: %s}", m.name, m.value)) {
				c.value(path+"["+m.name+"]", m.value, f.MapValue())
			}
		}
	default:
		c.value(path, data, f)
	}
}

// value checks a single value that protojson does not read.
func (c *formCheck) value(path string, data []byte, f protoreflect.FieldDescriptor) {
	if m := f.Message(); m != nil && m.ParentFile().Package() != "google.protobuf" {
		c.object(path, data, m)
		return
	}
	c.fault(path, formOf(f))
}

// reads reports whether protojson reads a value of a field.
func reads(d protoreflect.MessageDescriptor, f protoreflect.FieldDescriptor, value []byte) bool {
	text := fmt.Appendf(nil, "{%q: %s}", f.JSONName(), value)
	return protojson.Unmarshal(text, typeOf(d).New().Interface()) == nil
}

// member is a member of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// membersOf returns the members of valid JSON in their order. ok is false if it is not an object.
func membersOf(data []byte) (members []member, ok bool) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	for d.More() {
		t, err := d.Token()
		m := member{}
		m.name, _ = t.(string)
		if err != nil || d.Decode(&m.value) != nil {
			return nil, false
		}
		members = append(members, m)
	}
	return members, true
}

// query checks the parameters of a URL. filter has the fields that the path sets.
func (c *formCheck) query(t protoreflect.MessageType, values url.Values, filter *utilities.DoubleArray) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		f, texts := parameterOf(t.Descriptor(), name, filter), values[name]
		switch {
		case f == nil:
			c.fault(name, unknownField(t.Descriptor(), filter))
		case !f.IsList() && len(texts) > 1:
			c.fault(string(f.Name()), "must be there once")
		default:
			c.texts(t, f, texts)
		}
	}
}

// texts checks the values of a parameter.
func (c *formCheck) texts(t protoreflect.MessageType, f protoreflect.FieldDescriptor, texts []string) {
	for i, text := range texts {
		m, one := t.New(), []string{text}
		if setEnum(m, f, one) {
			continue
		}
		err := new(runtime.DefaultQueryParser).
			Parse(m.Interface(), url.Values{string(f.Name()): one}, noPathFields)
		if err == nil {
			continue
		}
		path, message := string(f.Name()), formOf(f)
		if f.IsList() {
			path += "[" + strconv.Itoa(i) + "]"
		}
		if f.Message() != nil && strings.Contains(text, " ") {
			message += `; in a URL, "+" is written "%2B"`
		}
		c.fault(path, message)
	}
}

// parameterOf returns the field that a parameter of the URL sets, or nil. filter has the fields that
// the path sets.
func parameterOf(
	d protoreflect.MessageDescriptor, name string, filter *utilities.DoubleArray,
) protoreflect.FieldDescriptor {
	f := fieldOf(d, name)
	if f == nil || filter.HasCommonPrefix([]string{string(f.Name())}) {
		return nil
	}
	return f
}

// fieldOf returns the field with a name in JSON or in the proto, or nil.
func fieldOf(d protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := d.Fields().ByJSONName(name); f != nil {
		return f
	}
	return d.Fields().ByName(protoreflect.Name(name))
}

// unknownField returns the message for the name of a field that does not exist. filter has the
// fields that the client cannot set.
func unknownField(d protoreflect.MessageDescriptor, filter *utilities.DoubleArray) string {
	var names []string
	for i := range d.Fields().Len() {
		if f := d.Fields().Get(i); !filter.HasCommonPrefix([]string{string(f.Name())}) {
			names = append(names, f.JSONName())
		}
	}
	if len(names) == 0 {
		return "is not known: there are no fields"
	}
	return "is not known: the fields are " + strings.Join(names, ", ")
}

// formOf returns the form that a value of a field must have.
func formOf(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return "must be true or false"
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return "must be a whole number of at most 32 bits"
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return "must be a whole number of at most 64 bits"
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return "must be a whole number from 0 on"
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return "must be a number"
	case protoreflect.StringKind:
		return "must be text of UTF-8 in quotation marks"
	case protoreflect.BytesKind:
		return "must be in Base64"
	case protoreflect.EnumKind:
		return "must be one of " + strings.Join(wordsOf(f.Enum()), ", ")
	case protoreflect.MessageKind, protoreflect.GroupKind:
	}
	switch f.Message().FullName() {
	case "google.protobuf.Timestamp":
		return `must be a time in RFC 3339, such as "2026-12-07T08:00:00+01:00"`
	case "google.protobuf.Duration":
		return `must be a number of seconds, such as "7200s"`
	}
	return "must be an object in curly brackets"
}

// wordsOf returns the names of an enum that a request may have.
func wordsOf(e protoreflect.EnumDescriptor) (words []string) {
	for i := range e.Values().Len() {
		if v := e.Values().Get(i); v.Number() != 0 || !strings.HasSuffix(string(v.Name()), "_UNSPECIFIED") {
			words = append(words, string(v.Name()))
		}
	}
	return words
}
