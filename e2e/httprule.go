package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	rest "github.com/dlsms/dlsms/proto"
)

// httpRule is the HTTP rule of an RPC.
type httpRule struct {
	verb string // GET or POST
	path string // with the names of fields in braces
	body bool   // the fields that are not in the path are in the body, otherwise in the query
}

// httpRules has the rule of each RPC by full name, "/dlsms.v1.SeatService/GetSeats".
var httpRules = sync.OnceValues(func() (map[string]httpRule, error) {
	var file struct {
		Type          string `yaml:"type"`
		ConfigVersion int    `yaml:"config_version"`
		HTTP          struct {
			Rules []struct{ Selector, Get, Post, Body string }
		}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(rest.Rules))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		return nil, fmt.Errorf("proto/rest.yaml: %w", err)
	}
	rules := map[string]httpRule{}
	for _, r := range file.HTTP.Rules {
		dot := strings.LastIndexByte(r.Selector, '.')
		if dot < 0 || (r.Get == "") == (r.Post == "") || (r.Post != "") != (r.Body == "*") {
			return nil, fmt.Errorf("proto/rest.yaml: the rule %v is neither a GET nor a POST with a body", r)
		}
		rule := httpRule{verb: http.MethodGet, path: r.Get}
		if r.Post != "" {
			rule = httpRule{verb: http.MethodPost, path: r.Post, body: true}
		}
		rules["/"+r.Selector[:dot]+"/"+r.Selector[dot+1:]] = rule
	}
	return rules, nil
})

var pathField = regexp.MustCompile(`\{(\w+)\}`)

// newRequest returns the HTTP request of a call. The outgoing metadata of ctx become headers.
func (r httpRule) newRequest(ctx context.Context, base string, message proto.Message) (*http.Request, error) {
	rest := proto.Clone(message).ProtoReflect() // the fields that are not in the path
	path := pathField.ReplaceAllStringFunc(r.path, func(name string) string {
		f := rest.Descriptor().Fields().ByName(protoreflect.Name(strings.Trim(name, "{}")))
		value := rest.Get(f).String()
		rest.Clear(f)
		return url.PathEscape(value)
	})
	var body io.Reader
	if r.body {
		text, err := protojson.Marshal(rest.Interface())
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	} else if query, err := queryOf(rest); err != nil {
		return nil, err
	} else if len(query) > 0 {
		path += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.verb, base+path, body)
	if err != nil {
		return nil, err
	}
	if r.body {
		req.Header.Set("Content-Type", "application/json")
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	for name, values := range md {
		for _, v := range values {
			req.Header.Add(name, v)
		}
	}
	return req, nil
}

// queryOf returns the fields of a message as the parameters of a query.
func queryOf(m protoreflect.Message) (query url.Values, err error) {
	query = url.Values{}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if !f.IsList() {
			var text string
			text, err = parameter(f, v)
			query.Set(f.JSONName(), text)
			return err == nil
		}
		for i := range v.List().Len() {
			var text string
			if text, err = parameter(f, v.List().Get(i)); err != nil {
				return false
			}
			query.Add(f.JSONName(), text)
		}
		return true
	})
	return query, err
}

// parameter returns a value as the text of a parameter. A message must be one that JSON writes as a
// string, such as a Timestamp.
func parameter(f protoreflect.FieldDescriptor, v protoreflect.Value) (text string, err error) {
	switch {
	case f.Message() != nil:
		var quoted []byte
		if quoted, err = protojson.Marshal(v.Message().Interface()); err == nil {
			err = json.Unmarshal(quoted, &text)
		}
		return text, err
	case f.Enum() != nil:
		if known := f.Enum().Values().ByNumber(v.Enum()); known != nil {
			return string(known.Name()), nil
		}
	}
	return v.String(), nil
}

// created are the RPCs that answer 201.
var created = map[string]bool{
	dlsmsv1.AuthService_Register_FullMethodName:                 true,
	dlsmsv1.ReservationService_CreateReservation_FullMethodName: true,
	dlsmsv1.NotifyService_JoinWaitlist_FullMethodName:           true,
}

// checkSuccess returns nil if the status and headers of an answer are those of the contract.
func checkSuccess(method string, resp *http.Response, reply proto.Message) error {
	want := http.StatusOK
	if created[method] {
		want = http.StatusCreated
	}
	if resp.StatusCode != want {
		return fmt.Errorf("the status is %d, want %d", resp.StatusCode, want)
	}
	location := ""
	switch reply := reply.(type) {
	case *dlsmsv1.CreateReservationResponse:
		location = fmt.Sprintf("/v1/reservations/%d", reply.GetReservation().GetId())
	case *dlsmsv1.LoginResponse:
		if got := resp.Header.Get("Cache-Control"); got != "no-store" {
			return fmt.Errorf("the Cache-Control of a token is %q", got)
		}
	}
	if got := resp.Header.Get("Location"); got != location {
		return fmt.Errorf("the Location is %q, want %q", got, location)
	}
	return nil
}
