package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// api makes the calls of the comparison over one of the protocols. It is safe for concurrent use.
type api interface {
	// getSeats asks for all seats that are available now, and reads the answer without decoding it,
	// as ghz and hey do not decode the same.
	getSeats(ctx context.Context) error
	// available returns the seats of a branch that are available now.
	available(ctx context.Context, branch string) (map[int64]bool, error)
	book(ctx context.Context, token *metadata.MD, r *dlsmsv1.CreateReservationRequest) (id int64, err error)
	cancel(ctx context.Context, token *metadata.MD, reservation int64) error
	// login logs a demo student in. If the server refuses it, or does not answer in time, it returns
	// the time to wait.
	login(ctx context.Context, r *dlsmsv1.LoginRequest) (wait time.Duration, err error)
	close()
}

// grpcAPI makes calls over gRPC, on several connections in turn, so that all nginx workers have
// work.
type grpcAPI struct {
	conns []*grpc.ClientConn
	next  atomic.Int64
}

func dialGRPC(addr string, connections int) (*grpcAPI, error) {
	a := &grpcAPI{}
	for range connections {
		conn, err := e2e.Dial(addr)
		if err != nil {
			return nil, err
		}
		a.conns = append(a.conns, conn)
	}
	return a, nil
}

func (a *grpcAPI) close() {
	for _, c := range a.conns {
		_ = c.Close()
	}
}

func (a *grpcAPI) conn() *grpc.ClientConn { return a.conns[a.next.Add(1)%int64(len(a.conns))] }

// encoded is a codec that leaves messages encoded.
type encoded struct{}

// Name implements encoding.CodecV2.
func (encoded) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (encoded) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("%T is not an encoded message", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(message)}, nil
}

// Unmarshal implements encoding.CodecV2. It drops the message.
func (encoded) Unmarshal(mem.BufferSlice, any) error { return nil }

var encodedRequest = func() []byte {
	b, err := proto.Marshal(availableNow)
	if err != nil { // impossible: the message is valid
		panic(err)
	}
	return b
}()

func (a *grpcAPI) getSeats(ctx context.Context) error {
	return a.conn().Invoke(ctx, getSeats, encodedRequest, nil, grpc.ForceCodecV2(encoded{}))
}

func (a *grpcAPI) available(ctx context.Context, branch string) (map[int64]bool, error) {
	resp, err := dlsmsv1.NewSeatServiceClient(a.conn()).GetSeats(ctx, &dlsmsv1.GetSeatsRequest{
		Branch: branch, AvailableOnly: true,
	})
	if err != nil {
		return nil, err
	}
	ids := map[int64]bool{}
	for _, s := range resp.GetSeats() {
		ids[s.GetId()] = true
	}
	return ids, nil
}

func (a *grpcAPI) book(
	ctx context.Context, token *metadata.MD, r *dlsmsv1.CreateReservationRequest,
) (int64, error) {
	ctx = metadata.NewOutgoingContext(ctx, *token)
	resp, err := dlsmsv1.NewReservationServiceClient(a.conn()).CreateReservation(ctx, r)
	return resp.GetReservation().GetId(), err
}

func (a *grpcAPI) cancel(ctx context.Context, token *metadata.MD, reservation int64) error {
	ctx = metadata.NewOutgoingContext(ctx, *token)
	_, err := dlsmsv1.NewReservationServiceClient(a.conn()).CancelReservation(ctx, &dlsmsv1.CancelReservationRequest{
		ReservationId: reservation,
	})
	return err
}

func (a *grpcAPI) login(ctx context.Context, r *dlsmsv1.LoginRequest) (time.Duration, error) {
	_, err := dlsmsv1.NewAuthServiceClient(a.conn()).Login(ctx, r)
	if status.Code(err) == codes.ResourceExhausted {
		return cmp.Or(e2e.RefusalOf(err).RetryAfter, time.Second), err
	}
	return 0, err
}

// httpAPI makes calls over HTTP/1.1 with JSON.
type httpAPI struct {
	client *http.Client
	base   string // http://host:port
	// conditional sends If-None-Match with the last ETag of the same URL: see tags.
	conditional bool
	tags        tags
}

// dialHTTP returns an httpAPI that connects from the local address ip, or from any if ip is empty.
func dialHTTP(addr, ip string, conditional bool) *httpAPI {
	transport := &http.Transport{MaxIdleConnsPerHost: maxInFlight, DisableCompression: true}
	if ip != "" {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		transport.DialContext = dialer.DialContext
	}
	return &httpAPI{client: &http.Client{Transport: transport}, base: "http://" + addr, conditional: conditional}
}

func (a *httpAPI) close() { a.client.CloseIdleConnections() }

const (
	availableNowPath = "/v1/seats?availableOnly=true"
	reservationsPath = "/v1/reservations"
)

func (a *httpAPI) request(
	ctx context.Context, method, path string, token *metadata.MD, body []byte, etag string,
) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if token != nil {
		req.Header["Authorization"] = token.Get("authorization")
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	return req, nil
}

// answer is the status and the headers of a response.
type answer struct {
	status int
	header http.Header
}

// call makes a request and reads the body of its response into v, or drops it if v is nil. It
// returns the problem of a response that is not a success as an error. The answer is valid if there
// was a response.
func (a *httpAPI) call(
	ctx context.Context, method, path string, token *metadata.MD, body []byte, etag string, v any,
) (answer, error) {
	req, err := a.request(ctx, method, path, token, body, etag)
	if err != nil {
		return answer{}, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	return answer{resp.StatusCode, resp.Header}, read(resp, v)
}

// read reads the body of a response into v, or drops it if v is nil. It returns the problem of a
// response that is not a success.
func read(resp *http.Response, v any) error {
	if resp.StatusCode/100 != 2 && resp.StatusCode != http.StatusNotModified {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %.200s", resp.Status, text)
	}
	if v == nil || resp.StatusCode == http.StatusNotModified {
		_, err := io.Copy(io.Discard, resp.Body)
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// watch opens a stream of server-sent events about all seats. The caller must close it.
func (a *httpAPI) watch(ctx context.Context) (io.ReadCloser, error) {
	req, err := a.request(ctx, http.MethodGet, "/v1/seats:watch", nil, nil, "")
	if err != nil {
		return nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(errors.New(resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

// list asks for a list of seats. A conditional api sends the ETag of the last answer that it kept
// for the path. It returns that answer, too.
func (a *httpAPI) list(ctx context.Context, path string, v any) (last tagged, got answer, err error) {
	if a.conditional {
		last = a.tags.of(path)
	}
	got, err = a.call(ctx, http.MethodGet, path, nil, nil, last.etag, v)
	return last, got, err
}

func (a *httpAPI) getSeats(ctx context.Context) error {
	_, got, err := a.list(ctx, availableNowPath, nil)
	if a.conditional && got.status == http.StatusOK {
		a.tags.keep(availableNowPath, tagged{etag: got.header.Get("ETag")})
	}
	return err
}

// seatIDs is the part of the answer of GetSeats that the comparison reads.
type seatIDs struct {
	Seats []struct {
		ID int64 `json:"id,string"`
	} `json:"seats"`
}

func (a *httpAPI) available(ctx context.Context, branch string) (map[int64]bool, error) {
	path := availableNowPath + "&branch=" + url.QueryEscape(branch)
	var list seatIDs
	last, got, err := a.list(ctx, path, &list)
	if err != nil {
		return nil, err
	}
	if got.status == http.StatusNotModified {
		return last.seats, nil
	}
	ids := make(map[int64]bool, len(list.Seats))
	for _, s := range list.Seats {
		ids[s.ID] = true
	}
	if a.conditional {
		a.tags.keep(path, tagged{got.header.Get("ETag"), ids})
	}
	return ids, nil
}

func (a *httpAPI) book(
	ctx context.Context, token *metadata.MD, r *dlsmsv1.CreateReservationRequest,
) (int64, error) {
	var made struct {
		Reservation struct {
			ID int64 `json:"id,string"`
		} `json:"reservation"`
	}
	if _, err := a.call(ctx, http.MethodPost, reservationsPath, token, bookingJSON(r), "", &made); err != nil {
		return 0, err
	}
	if made.Reservation.ID == 0 {
		return 0, errors.New("the answer to a booking has no reservation")
	}
	return made.Reservation.ID, nil
}

// bookingJSON returns a request in JSON. protojson would take longer than the server does.
func bookingJSON(r *dlsmsv1.CreateReservationRequest) []byte {
	b := fmt.Appendf(nil, `{"seatId":"%d","endTime":%q`, r.GetSeatId(), r.GetEndTime().AsTime().Format(time.RFC3339Nano))
	if r.GetStartTime() != nil {
		b = fmt.Appendf(b, `,"startTime":%q`, r.GetStartTime().AsTime().Format(time.RFC3339Nano))
	}
	if r.GetRequestId() != "" {
		b = fmt.Appendf(b, `,"requestId":%q`, r.GetRequestId())
	}
	return append(b, '}')
}

func (a *httpAPI) cancel(ctx context.Context, token *metadata.MD, reservation int64) error {
	path := reservationsPath + "/" + strconv.FormatInt(reservation, 10) + ":cancel"
	_, err := a.call(ctx, http.MethodPost, path, token, []byte("{}"), "", nil)
	return err
}

func (a *httpAPI) login(ctx context.Context, r *dlsmsv1.LoginRequest) (time.Duration, error) {
	body := fmt.Appendf(nil, `{"studentId":%q,"password":%q}`, r.GetStudentId(), r.GetPassword())
	got, err := a.call(ctx, http.MethodPost, "/v1/auth/login", nil, body, "", nil)
	seconds, _ := strconv.Atoi(got.header.Get("Retry-After")) // 0 without the header
	if got.status == http.StatusGatewayTimeout {
		seconds = 1
	}
	return time.Duration(seconds) * time.Second, err
}
