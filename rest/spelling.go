package rest

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
)

// The services name fields as the protos do, and JSON names them in lowerCamelCase. A client of HTTP
// gets the names of JSON in the pointers and texts of a problem. The keys of its metadata are the
// same over gRPC and HTTP, because programs read them.

// jsonNames has the name in JSON of every field of the contract whose name has an underscore.
var jsonNames = sync.OnceValue(func() map[string]string {
	names := map[string]string{}
	var add func(protoreflect.MessageDescriptors)
	add = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			fields := messages.Get(i).Fields()
			for j := range fields.Len() {
				if f := fields.Get(j); strings.Contains(string(f.Name()), "_") {
					names[string(f.Name())] = f.JSONName()
				}
			}
			add(messages.Get(i).Messages())
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("dlsms.v1", func(file protoreflect.FileDescriptor) bool {
		add(file.Messages())
		return true
	})
	return names
})

// quotedOrName matches a text in quotation marks, or a word that may be the name of a field.
var quotedOrName = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|[a-z0-9]+(?:_[a-z0-9]+)+`)

// inJSON returns a text with the names of fields as JSON has them. It leaves a text in quotation
// marks as it is: it was in the request.
func inJSON(text string) string {
	if !strings.Contains(text, "_") {
		return text
	}
	return quotedOrName.ReplaceAllStringFunc(text, func(word string) string {
		if name, ok := jsonNames()[word]; ok {
			return name
		}
		return word
	})
}

// spelled returns a violation as a client of HTTP gets it. In a seat file, the names of the columns
// are the same everywhere.
func spelled(field, description string) invalidField {
	if library.FileLine(field) > 0 {
		return invalidField{field, description}
	}
	return invalidField{pointer(field), inJSON(description)}
}

// pointer returns the JSON pointer of a field: "hours[2].opens_at" becomes "#/hours/2/opensAt". The
// field "request" is the request as a whole. A name that is no field of the contract stays as it is.
func pointer(field string) string {
	if field == "request" {
		return "#"
	}
	parts := strings.FieldsFunc(field, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
	for i, part := range parts {
		parts[i] = inJSON(part)
	}
	return "#/" + strings.Join(parts, "/")
}

// spellBroken writes the names of JSON into the texts of CheckReservation.
func spellBroken(_ context.Context, _ http.ResponseWriter, m proto.Message) error {
	if check, ok := m.ProtoReflect().Interface().(*dlsmsv1.CheckReservationResponse); ok {
		for _, b := range check.GetBroken() {
			b.Message = inJSON(b.GetMessage())
		}
	}
	return nil
}
