// Command openapi writes the OpenAPI 3 document of the API. It converts the Swagger 2 document that
// protoc-gen-openapiv2 generates from the protos and proto/rest.yaml, and adds the facts that only
// package rest knows: statuses, headers, problems, streams and tokens.
//
//	openapi IN OUT
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/getkin/kin-openapi/openapi3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/dlsms/dlsms/server/edge"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: openapi IN OUT")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var swagger openapi2.T
	if err := json.Unmarshal(text, &swagger); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	doc, err := openapi2conv.ToV3(&swagger)
	if err != nil {
		return fmt.Errorf("convert %s: %w", args[0], err)
	}
	complete(doc)
	if err := doc.Validate(context.Background()); err != nil {
		return fmt.Errorf("the document is not valid: %w", err)
	}
	out, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(args[1], append(out, '\n'), 0o644)
}

const description = `The same services as over gRPC.

Log in with POST /v1/auth/login and send the token as "Authorization: Bearer <token>".
Times are RFC 3339; int64 values are strings. Errors are problem+json (RFC 9457): clients branch on
"reason", never on texts. Unknown fields and parameters are errors.`

// complete adds to the document the facts that the protos do not contain.
func complete(doc *openapi3.T) {
	doc.OpenAPI = "3.0.3"
	doc.Info = &openapi3.Info{Title: "DL-SMS", Version: "v1", Description: description,
		License: &openapi3.License{Name: "Apache-2.0", Identifier: ""}}
	doc.Servers = openapi3.Servers{{URL: "/"}}
	doc.Components.SecuritySchemes = openapi3.SecuritySchemes{"token": {Value: &openapi3.SecurityScheme{
		Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "The accessToken of a login.",
	}}, "session": {Value: &openapi3.SecurityScheme{
		Type: "apiKey", In: "cookie", Name: "__Host-dlsms", Description: "The cookie of StartSession.",
	}}}
	doc.Components.Schemas["Problem"] = openapi3.NewSchemaRef("", problemSchema())
	for name := range doc.Components.Schemas {
		if strings.HasPrefix(name, "rpc") || strings.HasPrefix(name, "protobufAny") || name == "Status" || name == "Any" {
			delete(doc.Components.Schemas, name)
		}
	}
	sent := sentSchemas(doc.Components.Schemas)
	for name, schema := range doc.Components.Schemas {
		completeSchema(name, schema.Value, doc.Components.Schemas, sent)
	}
	for path, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			completeOperation(path, op)
		}
	}
	doc.Paths.Set("/v1/openapi.json", &openapi3.PathItem{Get: &openapi3.Operation{
		OperationID: "OpenAPI", Summary: "OpenAPI returns this document.", Tags: []string{"Operation"},
		Responses: openapi3.NewResponses(openapi3.WithStatus(http.StatusOK, &openapi3.ResponseRef{
			Value: openapi3.NewResponse().WithDescription("The document.").WithContent(openapi3.NewContentWithSchema(
				openapi3.NewObjectSchema(), []string{"application/json"})),
		})),
	}})
	addSessions(doc)
	doc.Paths.Set("/healthz", &openapi3.PathItem{Get: &openapi3.Operation{
		OperationID: "Health", Summary: "Health reports whether the replica serves calls.", Tags: []string{"Operation"},
		Responses: openapi3.NewResponses(
			openapi3.WithStatus(http.StatusOK, &openapi3.ResponseRef{Value: openapi3.NewResponse().
				WithDescription("It serves calls.").WithContent(openapi3.NewContentWithSchema(
				openapi3.NewStringSchema(), []string{"text/plain"}))}),
			openapi3.WithName("default", problemResponse().Value),
		),
	}})
}

// addSessions adds the paths of rest/session.go, which are no RPCs.
func addSessions(doc *openapi3.T) {
	text := func(description string) *openapi3.Schema {
		s := openapi3.NewStringSchema()
		s.Description = description
		return s
	}
	flag := openapi3.NewBoolSchema()
	flag.Description = "True for the service key of a screen, and absent for a user. A key has no fields of a user."
	role := openapi3.NewSchemaRef("#/components/schemas/Role", doc.Components.Schemas["Role"].Value)
	session := openapi3.NewObjectSchema().
		WithProperty("accessToken", text("The token, or the service key: the page sends it as \"Authorization: Bearer\".")).
		WithProperty("expiresAt", openapi3.NewDateTimeSchema()).
		WithProperty("userId", openapi3.NewStringSchema().WithFormat("int64")).
		WithProperty("studentId", openapi3.NewStringSchema()).
		WithPropertyRef("role", role).
		WithProperty("key", flag)
	session.Description = "A user or a screen that stays signed in."
	session.Required = []string{"accessToken"}
	doc.Components.Schemas["Session"] = openapi3.NewSchemaRef("", session)
	answer := func() *openapi3.Response {
		return openapi3.NewResponse().WithDescription("The session.").WithContent(openapi3.NewContentWithSchemaRef(
			openapi3.NewSchemaRef("#/components/schemas/Session", session), []string{"application/json"}))
	}
	const origin = "The header Origin must be the origin of this server, and HTTPS unless the host is this machine."
	for path, op := range map[string]struct {
		id, summary string
		status      int
		response    *openapi3.Response
		security    openapi3.SecurityRequirement
	}{
		"/v1/auth/session": {
			"StartSession", "StartSession stores the token of the request in a cookie that scripts can't read.",
			http.StatusOK, answer(), openapi3.SecurityRequirement{"token": {}},
		},
		"/v1/auth/session:resume": {
			"ResumeSession", "ResumeSession returns the token in the cookie.",
			http.StatusOK, answer(), openapi3.SecurityRequirement{"session": {}},
		},
		"/v1/auth/session:end": {
			"EndSession", "EndSession deletes the cookie. The token stays valid until Logout.",
			http.StatusNoContent, openapi3.NewResponse().WithDescription("The cookie is deleted, if there was one."), nil,
		},
	} {
		operation := &openapi3.Operation{
			OperationID: op.id, Summary: op.summary, Description: origin, Tags: []string{"Session"},
			Responses: openapi3.NewResponses(
				openapi3.WithStatus(op.status, &openapi3.ResponseRef{Value: op.response}),
				openapi3.WithName("default", problemResponse().Value),
			),
		}
		if op.security != nil {
			operation.Security = &openapi3.SecurityRequirements{op.security}
		}
		doc.Paths.Set(path, &openapi3.PathItem{Post: operation})
	}
}

// sentSchemas returns the names of the schemas of requests, and of all schemas in them.
func sentSchemas(all openapi3.Schemas) map[string]bool {
	sent := map[string]bool{}
	var add func(name string)
	refer := func(ref *openapi3.SchemaRef) {
		if target, ok := strings.CutPrefix(ref.Ref, "#/components/schemas/"); ok {
			add(target)
		}
	}
	add = func(name string) {
		if sent[name] || all[name] == nil {
			return
		}
		sent[name] = true
		for _, ref := range all[name].Value.Properties {
			refer(ref)
			if ref.Value != nil && ref.Value.Items != nil {
				refer(ref.Value.Items)
			}
		}
	}
	for name := range all {
		if strings.HasSuffix(name, "Request") || strings.HasSuffix(name, "Body") {
			add(name)
		}
	}
	return sent
}

// completeSchema marks fields of an answer as required if every answer has them. Messages, times
// and the fields of a oneof are not required, because they may be unset. all contains the schemas
// to which fields refer, and sent the names of those that a client may send.
func completeSchema(name string, schema *openapi3.Schema, all openapi3.Schemas, sent map[string]bool) {
	schema.Description = jsonNames(schema.Description)
	oneof := name == "WatchSeatsResponse" || name == "SubscribeResponse"
	for field, ref := range schema.Properties {
		property := ref.Value
		property.Description = jsonNames(property.Description)
		if target, ok := strings.CutPrefix(ref.Ref, "#/components/schemas/"); ok {
			property = all[target].Value
		}
		unset := mayBeUnset(name, field) || property.Type.Is("object") || property.Format == "date-time"
		if !sent[name] && !oneof && name != "Problem" && !unset {
			schema.Required = append(schema.Required, field)
		}
	}
	slices.Sort(schema.Required)
}

// mayBeUnset reports whether a field of a message has presence: it is a message, or is declared as
// optional.
func mayBeUnset(message, field string) bool {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("dlsms.v1." + message))
	if err != nil {
		return false // a schema of its own, such as Problem
	}
	m, ok := d.(protoreflect.MessageDescriptor)
	if !ok {
		return false
	}
	f := m.Fields().ByJSONName(field)
	return f != nil && f.HasPresence()
}

// snakeCase matches a name of several words in the style of the protos, such as seat_id.
var snakeCase = regexp.MustCompile(`\b[a-z]+(_[a-z]+)+\b`)

// jsonNames replaces each such name in a text with its name in JSON, such as seatId.
func jsonNames(text string) string {
	return snakeCase.ReplaceAllStringFunc(text, func(name string) string {
		words := strings.Split(name, "_")
		for i, w := range words[1:] {
			words[i+1] = strings.ToUpper(w[:1]) + w[1:]
		}
		return strings.Join(words, "")
	})
}

// created are the operations that answer 201.
var created = map[string]bool{
	"AuthService_Register": true, "ReservationService_CreateReservation": true, "NotifyService_JoinWaitlist": true,
}

func completeOperation(path string, op *openapi3.Operation) {
	service, method, _ := strings.Cut(op.OperationID, "_")
	if !edge.Public("/dlsms.v1." + service + "/" + method) {
		op.Security = &openapi3.SecurityRequirements{{"token": {}}}
	}
	op.Description = jsonNames(op.Description)
	for _, p := range op.Parameters {
		p.Value.Description = jsonNames(p.Value.Description)
	}
	if op.RequestBody != nil {
		op.RequestBody.Value.Required = false // an empty body is an empty message
		op.RequestBody.Value.Description = ""
		delete(op.RequestBody.Value.Extensions, "x-originalParamName")
	}
	ok := op.Responses.Status(http.StatusOK)
	ok.Value.Description = ptr("Success.")
	switch {
	case created[op.OperationID]:
		op.Responses.Set("201", ok)
		if op.OperationID == "AuthService_Register" {
			op.Responses.Delete("200")
			break
		}
		only := *ok.Value
		only.Description = ptr("The request has validateOnly: nothing was changed.")
		op.Responses.Set("200", &openapi3.ResponseRef{Value: &only})
	case strings.HasSuffix(path, ":watch") || strings.HasSuffix(path, ":subscribe"):
		ok.Value.Description = ptr("Server-sent events. The event is the name of the field that is set, the data is the " +
			"message in JSON. Comments keep the stream open. If the stream fails, the event \"error\" has a Problem.")
		schema := ok.Value.Content.Get("application/json").Schema
		if result := schema.Value.Properties["result"]; result != nil {
			schema = result
		}
		ok.Value.Content = openapi3.Content{"text/event-stream": openapi3.NewMediaType().WithSchemaRef(schema)}
	}
	switch op.OperationID {
	case "AdminService_ImportSeats":
		completeImport(op)
	case "AuthService_ExportMyData":
		ok.Value.Description = ptr("The document.")
		ok.Value.Content = openapi3.NewContentWithJSONSchema(openapi3.NewObjectSchema())
	case "AdminService_ExportSeats", "ReportService_ExportReservations":
		ok.Value.Description = ptr("The file.")
		ok.Value.Content = csvContent()
	case "AdminService_MakeLabels":
		ok.Value.Description = ptr("The page. With itemsOnly, the labels in JSON.")
		ok.Value.Content["text/html"] = openapi3.NewMediaType().WithSchema(openapi3.NewStringSchema())
	case "ReservationService_CreateReservation", "NotifyService_JoinWaitlist":
		op.Parameters = append(op.Parameters, header("Idempotency-Key",
			"Makes the request safe to repeat: the same as requestId in the body."))
	case "SeatService_GetSeats", "SeatService_GetFloorPlan":
		op.Parameters = append(op.Parameters, header("If-None-Match",
			"The ETag of an earlier answer: if it is still right, the answer is 304."))
		ok.Value.Headers = openapi3.Headers{"ETag": responseHeader("Tag of the answer, without asOf.")}
		op.Responses.Set("304", &openapi3.ResponseRef{Value: openapi3.NewResponse().
			WithDescription("The answer has not changed. It is as fresh as any other.")})
	case "NotifyService_Subscribe":
		op.Parameters = append(op.Parameters, header("Last-Event-ID",
			"The id of the last event that was received: the stream goes on after it."))
	}
	if op.OperationID == "ReservationService_CreateReservation" {
		ok.Value.Headers = openapi3.Headers{"Location": responseHeader("Path of the reservation.")}
	}
	op.Responses.Set("default", problemResponse())
}

// csvContent is a body that is a CSV file.
func csvContent() openapi3.Content {
	return openapi3.NewContentWithSchema(openapi3.NewStringSchema(), []string{"text/csv"})
}

// completeImport makes the body of an import a file, and its other fields parameters of the query.
func completeImport(op *openapi3.Operation) {
	op.RequestBody.Value.Required = true
	op.RequestBody.Value.Content = csvContent()
	text, flag := openapi3.NewStringSchema, openapi3.NewBoolSchema
	for _, p := range []struct {
		name, description string
		schema            *openapi3.Schema
	}{
		{"dryRun", "Make no change, and return a fingerprint.", flag()},
		{"fingerprint", "Required unless dryRun is set: that of the dry run.", text()},
		{"retireMissing", "Retire the seats that the file lacks, in the branches that it names.", flag()},
		{"onBookings", "BOOKING_ACTION_KEEP or BOOKING_ACTION_CANCEL, for seats that go out of service.", text()},
		{"note[en]", "Text in English for the users of cancelled reservations. Other languages have their own.", text()},
		{"reason", "Reason for the audit log, at most 500 characters.", text()},
	} {
		op.Parameters = append(op.Parameters, &openapi3.ParameterRef{
			Value: openapi3.NewQueryParameter(p.name).WithDescription(p.description).WithSchema(p.schema),
		})
	}
}

func ptr(s string) *string { return &s }

func header(name, description string) *openapi3.ParameterRef {
	return &openapi3.ParameterRef{Value: openapi3.NewHeaderParameter(name).
		WithDescription(description).WithSchema(openapi3.NewStringSchema())}
}

func responseHeader(description string) *openapi3.HeaderRef {
	return &openapi3.HeaderRef{Value: &openapi3.Header{Parameter: openapi3.Parameter{
		Description: description, Schema: openapi3.NewSchemaRef("", openapi3.NewStringSchema()),
	}}}
}

func problemResponse() *openapi3.ResponseRef {
	return &openapi3.ResponseRef{Value: openapi3.NewResponse().WithDescription("The request failed.").
		WithContent(openapi3.Content{"application/problem+json": openapi3.NewMediaType().
			WithSchemaRef(openapi3.NewSchemaRef("#/components/schemas/Problem", problemSchema()))})}
}

// problemSchema returns the schema of the type problem in package rest.
func problemSchema() *openapi3.Schema {
	text := func(description string) *openapi3.Schema {
		s := openapi3.NewStringSchema()
		s.Description = description
		return s
	}
	field := openapi3.NewObjectSchema().
		WithProperty("pointer", text("JSON pointer to the field, or the name of the parameter after #/.")).
		WithProperty("detail", text("What is wrong with it."))
	field.Required = []string{"pointer", "detail"}
	metadata := openapi3.NewObjectSchema().WithAdditionalProperties(openapi3.NewStringSchema())
	metadata.Description = "Facts for programs. docs/reference/errors.md lists them by reason."
	p := openapi3.NewObjectSchema().
		WithProperty("type", text("urn:dlsms:error:REASON, or about:blank.")).
		WithProperty("title", text("The reason or the status in words.")).
		WithProperty("status", openapi3.NewIntegerSchema()).
		WithProperty("detail", text("One sentence for people.")).
		WithProperty("instance", text("urn:request: and the request id, which the log has, too.")).
		WithProperty("reason", text("A name of the enum dlsms.v1.ErrorReason without its prefix.")).
		WithProperty("metadata", metadata).
		WithProperty("errors", openapi3.NewArraySchema().WithItems(field))
	p.Description = "An error, as in RFC 9457."
	p.Required = []string{"type", "title", "status", "instance"}
	return p
}
