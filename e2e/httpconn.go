package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// HTTPConn is a connection for the generated clients that speaks HTTP by the rules of
// proto/rest.yaml. A problem becomes the status that gRPC would return, with its details. A failure
// of the connection is UNAVAILABLE, as in gRPC.
//
// The header of a call has the status of HTTP as StatusHeader.
//
// It is strict. If an answer breaks the contract of HTTP, for example with an unknown field, the
// wrong status or without a header, the call fails with UNKNOWN, and Err returns the breach.
type HTTPConn struct {
	base     string // http://host:port
	client   *http.Client
	attempts int
	tags     *tagCache // nil: the connection sends no If-None-Match
	check    AnswerCheck

	mu       sync.Mutex
	breaches []error
}

// HTTPOption is an option of DialHTTP.
type HTTPOption func(*HTTPConn)

// RetryHTTP makes a call up to 4 times while it fails with UNAVAILABLE, as the service config of
// the README does.
func RetryHTTP() HTTPOption { return func(c *HTTPConn) { c.attempts = 4 } }

// HTTPFrom connects from the local address ip, such as 127.0.1.1. An empty ip is any address.
func HTTPFrom(ip string) HTTPOption {
	return func(c *HTTPConn) {
		if ip == "" {
			return
		}
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c.client.Transport.(*http.Transport).DialContext = dialer.DialContext
	}
}

// RevalidateHTTP keeps the last answer of each URL that has an ETag, and asks with If-None-Match
// whether it still holds.
func RevalidateHTTP() HTTPOption {
	return func(c *HTTPConn) { c.tags = &tagCache{byURL: map[string]tagged{}} }
}

// AnswerCheck checks an answer to a request of this method and path, which is that of the rule, such
// as /v1/seats/{seat_id}. data is the body of the answer or, of a stream, the data of an event.
type AnswerCheck func(method, path string, resp *http.Response, data []byte) error

// CheckHTTP calls check with each answer and each event. The error of check is a breach of the
// contract.
func CheckHTTP(check AnswerCheck) HTTPOption { return func(c *HTTPConn) { c.check = check } }

// DialHTTP returns a connection to a proxy or a replica. It connects at the first call, and keeps
// idle connections open.
func DialHTTP(addr string, options ...HTTPOption) *HTTPConn {
	c := &HTTPConn{base: "http://" + addr, attempts: 1, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}}
	for _, set := range options {
		set(c)
	}
	return c
}

// Close closes the idle connections.
func (c *HTTPConn) Close() error {
	c.client.CloseIdleConnections()
	return nil
}

// maxBreaches bounds the breaches that a connection keeps.
const maxBreaches = 10

// Err returns the breaches of the contract so far, nil if there were none.
func (c *HTTPConn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.breaches...)
}

// breach records a breach of the contract and returns it as an error.
func (c *HTTPConn) breach(req *http.Request, resp *http.Response, body []byte, why error) error {
	err := fmt.Errorf("%s %s: the answer breaks the contract: %w\n%s\n%v\n%.1000s",
		req.Method, req.URL.RequestURI(), why, resp.Status, resp.Header, body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.breaches) < maxBreaches {
		c.breaches = append(c.breaches, err)
	}
	return err
}

// Invoke implements grpc.ClientConnInterface.
func (c *HTTPConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	in, isMessage := args.(proto.Message)
	out, isReply := reply.(proto.Message)
	if !isMessage || !isReply {
		return status.Errorf(codes.Internal, "%T or %T is not a message", args, reply)
	}
	rule, err := ruleOf(method)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		header, err := c.call(ctx, method, rule, in, out)
		for _, o := range opts {
			if h, ok := o.(grpc.HeaderCallOption); ok {
				*h.HeaderAddr = header
			}
		}
		if status.Code(err) != codes.Unavailable || attempt >= c.attempts || !retryPause(ctx, attempt) {
			return err
		}
	}
}

func ruleOf(method string) (httpRule, error) {
	rules, err := httpRules()
	if err != nil {
		return httpRule{}, status.Error(codes.Internal, err.Error())
	}
	rule, ok := rules[method]
	if !ok {
		return rule, status.Errorf(codes.Unimplemented, "%s has no HTTP rule", method)
	}
	return rule, nil
}

// retryPause waits before the next attempt, as the service config of the README asks. It returns
// false if ctx ends first.
func retryPause(ctx context.Context, attempt int) bool {
	longest := min(100*time.Millisecond<<(attempt-1), time.Second)
	timer := time.NewTimer(rand.N(longest))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// call makes one attempt.
func (c *HTTPConn) call(
	ctx context.Context, method string, rule httpRule, in, out proto.Message,
) (header metadata.MD, err error) {
	req, err := rule.newRequest(ctx, c.base, in)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	known := c.tags.ask(req)
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, connectionError(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	header = metadataOf(resp)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return header, connectionError(ctx, err)
	}
	if err := c.checkData(rule, resp, body); err != nil {
		return header, c.breach(req, resp, body, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return header, c.refusal(req, resp, body, in)
	}
	if resp.StatusCode == http.StatusNotModified && known.etag != "" {
		if len(body) > 0 || resp.Header.Get("Etag") != known.etag {
			return header, c.breach(req, resp, body, fmt.Errorf("a 304 without the tag %s, or with a body", known.etag))
		}
		return header, protojson.Unmarshal(known.body, out)
	}
	if err := wantContent(resp, "application/json"); err != nil {
		return header, c.breach(req, resp, body, err)
	}
	if err := protojson.Unmarshal(body, out); err != nil {
		return header, c.breach(req, resp, body, err)
	}
	if err := checkSuccess(method, resp, out); err != nil {
		return header, c.breach(req, resp, body, err)
	}
	c.tags.keep(req, resp, body)
	return header, nil
}

func (c *HTTPConn) checkData(rule httpRule, resp *http.Response, data []byte) error {
	if c.check == nil {
		return nil
	}
	return c.check(rule.verb, rule.path, resp, data)
}

// connectionError returns the status of a call that got no complete answer.
func connectionError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return status.Errorf(codes.Unavailable, "the connection failed: %v", err)
}

func wantContent(resp *http.Response, want string) error {
	if got := resp.Header.Values("Content-Type"); !slices.Equal(got, []string{want}) {
		return fmt.Errorf("the Content-Type is %q, want %s", got, want)
	}
	return nil
}

// StatusHeader is the name of the header that has the status of HTTP, as in HTTP/2.
const StatusHeader = ":status"

func metadataOf(resp *http.Response) metadata.MD {
	md := metadata.Pairs(StatusHeader, strconv.Itoa(resp.StatusCode))
	for name, values := range resp.Header {
		md.Append(strings.ToLower(name), values...)
	}
	return md
}

// tagCache has the last answer of each URL that has an ETag. A nil cache is empty.
type tagCache struct {
	mu    sync.Mutex
	byURL map[string]tagged
}

type tagged struct {
	etag string
	body []byte
}

// ask adds If-None-Match to a request whose last answer is known, and returns that answer.
func (c *tagCache) ask(req *http.Request) tagged {
	if c == nil {
		return tagged{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.byURL[req.URL.String()]
	if known.etag != "" {
		req.Header.Set("If-None-Match", known.etag)
	}
	return known
}

func (c *tagCache) keep(req *http.Request, resp *http.Response, body []byte) {
	etag := resp.Header.Get("Etag")
	if c == nil || etag == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byURL[req.URL.String()] = tagged{etag, body}
}
