package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

var (
	fuzzSeed = flag.Uint64("fuzzseed", 0, "seed of the random messages; 0: the current time")
	fuzzTime = flag.Duration("fuzzfor", 10*time.Second, "time to send random messages")
)

// forbidden has the codes that no random message may get. Each means that the server failed, and
// not that the message was invalid.
var forbidden = []codes.Code{
	codes.Internal,
	codes.Unknown,
	codes.DataLoss,
	codes.Unimplemented,
	codes.Unavailable,
	codes.Aborted,
}

// TestRandomMessages sends random messages, most of them partly invalid, to every RPC for students.
// The calls go through nginx and have valid tokens. No answer may have a forbidden code, no replica
// may panic or end, and each answer with the code OK must be a message of the right type.
func TestRandomMessages(t *testing.T) {
	t.Parallel()
	s := shared(t)
	const senders = 8
	var users []student
	for _, u := range s.users(t, senders) {
		users = append(users, student{u, t})
	}
	sendRandom(t, s, users, func(name string) bool { return !forStaff(name) })
}

// TestRandomMessagesOfStaff does the same with every RPC for staff, as an admin. It has a system of
// its own, because some messages change the whole library.
func TestRandomMessagesOfStaff(t *testing.T) {
	t.Parallel()
	s := start(t, stack.Config{Env: e2e.NoRateLimits()})
	const senders = 4
	var users []student
	for range senders {
		users = append(users, s.withRole(t, adminRole))
	}
	sendRandom(t, s, users, func(name string) bool {
		return forStaff(name) && name != dlsmsv1.DeskService_RecordArrival_FullMethodName && // for programs only
			name != dlsmsv1.ScreenService_WatchScreen_FullMethodName
	})
}

func forStaff(name string) bool {
	return strings.HasPrefix(name, "/dlsms.v1.AdminService/") || strings.HasPrefix(name, "/dlsms.v1.DeskService/") ||
		strings.HasPrefix(name, "/dlsms.v1.ReportService/") ||
		strings.HasPrefix(name, "/dlsms.v1.ScreenService/")
}

// sendRandom sends random messages to the selected RPCs.
func sendRandom(t *testing.T, s *system, users []student, selects func(name string) bool) {
	t.Helper()
	seed := *fuzzSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("go test ./e2e -run %s -fuzzseed=%d", t.Name(), seed)
	pids := [3]int{}
	for i, r := range s.Replicas {
		pids[i] = r.PID()
	}

	all := methods(t)
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(name string) bool { return !selects(name) })
	got := callStats{start: time.Now(), names: names}
	var sending sync.WaitGroup
	for i, u := range users {
		random := mutator{rand.New(rand.NewPCG(seed, uint64(i)))}
		sender := &sender{mutator: random, s: s, user: u.Client, branch: s.branch(t, 2), all: all, names: names, got: &got}
		sender.prepare(t)
		sending.Go(func() { sender.run(t.Context()) })
	}
	sending.Wait()
	got.check(t, names)

	for i, r := range s.Replicas {
		if r.PID() != pids[i] || r.Ready(t.Context()) != nil {
			t.Errorf("replica %d restarted or is not ready: pid %d, was %d (%v)", i, r.PID(), pids[i], r.Ready(t.Context()))
		}
	}
	if err := s.log.Err(); err != nil {
		t.Error(err)
	}
}

// The test runs for fuzzTime. It continues for at most maxExtraTime while it has made fewer than
// minCalls calls, as on a busy machine, or while some method had only invalid messages. It fails if
// it has made less than half of minCalls.
const (
	minCalls     = 2000
	maxExtraTime = time.Minute
)

// callStats counts calls by method and code.
type callStats struct {
	start time.Time
	names []string // of all methods

	mu     sync.Mutex
	calls  int
	codes  map[string]map[codes.Code]int // by method
	faults []string
}

func (g *callStats) add(name string, request []byte, code codes.Code, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.codes == nil {
		g.codes = map[string]map[codes.Code]int{}
	}
	if g.codes[name] == nil {
		g.codes[name] = map[codes.Code]int{}
	}
	g.codes[name][code]++
	g.calls++
	if err != nil {
		g.faults = append(g.faults, fmt.Sprintf("%s(%x): %v", name, request[:min(len(request), 200)], err))
	}
}

// done reports whether enough calls were made, for long enough.
func (g *callStats) done() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	took := time.Since(g.start)
	return took > *fuzzTime && g.calls >= minCalls && g.everyMethodReached() || took > *fuzzTime+maxExtraTime
}

// everyMethodReached reports whether each method has had a message that was not invalid.
func (g *callStats) everyMethodReached() bool {
	return !slices.ContainsFunc(g.names, func(name string) bool { return len(g.codes[name]) < 2 })
}

func (g *callStats) sum(name string) (n int) {
	for _, calls := range g.codes[name] {
		n += calls
	}
	return n
}

func (g *callStats) check(t *testing.T, names []string) {
	t.Helper()
	for _, f := range g.faults[:min(len(g.faults), 20)] {
		t.Error(f)
	}
	for _, name := range names {
		t.Logf("%s: %v", name, g.codes[name])
		if g.codes[name][codes.InvalidArgument] == 0 {
			t.Errorf("no message for %s was invalid", name)
		}
		if g.codes[name][codes.Unauthenticated] > g.sum(name)/2 {
			t.Errorf("most messages for %s had no valid token", name)
		}
		if len(g.codes[name]) < 2 {
			t.Errorf("every message for %s was invalid", name)
		}
	}
	t.Logf("%d calls, %d faults", g.calls, len(g.faults))
	if g.calls < minCalls/2 {
		t.Errorf("only %d calls", g.calls)
	}
}

// sender is one client that sends random messages.
type sender struct {
	mutator

	s      *system
	user   *e2e.Client
	leaver *e2e.Client // closes the account, so that user keeps its objects
	branch branch
	all    map[string]protoreflect.MethodDescriptor
	names  []string
	got    *callStats

	known    validValues
	password string
}

// prepare makes the objects that messages refer to.
func (f *sender) prepare(t *testing.T) {
	t.Helper()
	f.password = password
	f.leaver = f.s.student(t).Client
	owner, u := f.s.student(t), student{f.user, t}
	w := tomorrow(0, 2)
	owner.book(f.branch.seats[0], w)
	entry := u.wait(f.branch.seats[0], w)
	booked := u.book(f.branch.seats[1], tomorrow(3, 5))
	var starts, ends []any
	for i := range 12 { // in about half of the pairs the end is after the start
		starts = append(starts, timestamppb.New(w.start.Add(time.Duration(i)*30*time.Minute)))
		ends = append(ends, timestamppb.New(w.start.Add(time.Duration(i+1)*30*time.Minute)))
	}
	f.known = validValues{
		"seat_id":          {f.branch.seats[0], f.branch.seats[1], int64(noSuchID)},
		"reservation_id":   {booked.GetId(), booked.GetId(), int64(noSuchID)},
		"entry_id":         {entry.GetId(), entry.GetId(), int64(noSuchID)},
		"after_id":         {int64(0)},
		"student_id":       {u.User.GetStudentId(), "unknown"},
		"name":             {"New Student"},
		"email":            {"new.student@university.example"},
		"password":         {password},
		"current_password": {password},
		"new_password":     {password},
		"token":            {u.Token},
		"branch":           {"", f.branch.code},
		"area":             {"", "Area"},
		"amenities":        {protoreflect.EnumNumber(1), protoreflect.EnumNumber(5)},
		"view":             {protoreflect.EnumNumber(0), protoreflect.EnumNumber(3)},
		"page_size":        {int32(0), int32(1)},
		"page_token":       {""},
		"request_id":       {"", "a-request", "another-request"},
		"start_time":       starts,
		"end_time":         ends,

		"code":         {f.branch.code},
		"timezone":     {"Europe/Berlin"},
		"label":        {"A-1", "A-2", "B-1"},
		"seat_ids":     {f.branch.seats[1], f.branch.seats[0]},
		"user_id":      {owner.id(), int64(noSuchID)},
		"closure_id":   {int64(1), int64(2)},
		"key_id":       {int64(1), int64(2)},
		"strike_id":    {int64(noSuchID)},
		"first_day":    {w.start.Format(time.DateOnly)},
		"last_day":     {"", w.start.AddDate(0, 0, 9).Format(time.DateOnly)},
		"from":         {w.start.Format(time.DateOnly)},
		"to":           {w.start.Format(time.DateOnly)},
		"day":          {"", w.start.Format(time.DateOnly)},
		"weekday":      {int32(1), int32(7)},
		"weekdays":     {int32(2)},
		"opens":        {"08:00", "22:00"},
		"closes":       {"12:00", "24:00", "02:00"},
		"on_bookings":  {protoreflect.EnumNumber(0), protoreflect.EnumNumber(2)},
		"role":         {protoreflect.EnumNumber(1), protoreflect.EnumNumber(3)},
		"scopes":       {protoreflect.EnumNumber(2)},
		"reason":       {"a reason"},
		"content":      {[]byte("branch,area,label\n" + f.branch.code + ",Area,C-1\n")},
		"dry_run":      {true},
		"opens_at":     {"07:00"},
		"card":         {""},
		"group":        {"", "first-year"},
		"may_book":     {true, false},
		"strike_limit": {int32(0), int32(2)},

		"expected_reservations": {int32(0), int32(1)},
	}
}

func (f *sender) run(ctx context.Context) {
	for ctx.Err() == nil && !f.got.done() {
		name := f.names[f.IntN(len(f.names))]
		m := f.all[name]
		raw := f.request(m.Input(), f.known)
		answer, err := f.send(ctx, name, m, raw)
		code := e2e.RefusalOf(err).Code
		var fault error
		switch {
		case slices.Contains(forbidden, code):
			fault = err
		case code == codes.OK:
			fault = proto.Unmarshal(answer, dynamicpb.NewMessage(m.Output()))
		case e2e.RefusalOf(err).Reason == "" && code != codes.ResourceExhausted && code != codes.Canceled:
			// Two errors come from gRPC and have no reason: RESOURCE_EXHAUSTED for a message that
			// is too large, and CANCELED for a stream that send ends.
			fault = fmt.Errorf("the error has no reason: %w", err)
		}
		f.got.add(name, raw, code, fault)
		if code == codes.OK {
			switch name {
			case dlsmsv1.AuthService_ChangePassword_FullMethodName:
				f.updatePassword(raw)
			case dlsmsv1.AuthService_CloseMyAccount_FullMethodName:
				f.replaceLeaver(ctx)
			}
		}
		if code == codes.Unauthenticated || f.IntN(200) == 0 {
			f.logIn(ctx)
		}
	}
}

// updatePassword keeps the new password of a successful ChangePassword. The sender needs it to log
// in again.
func (f *sender) updatePassword(raw []byte) {
	var req dlsmsv1.ChangePasswordRequest
	if proto.Unmarshal(raw, &req) == nil {
		f.password = req.GetNewPassword()
		f.known["current_password"] = []any{f.password}
	}
}

// replaceLeaver creates an account with the student id of the closed one. If a call fails, callStats
// finds that most messages for CloseMyAccount had no valid token.
func (f *sender) replaceLeaver(ctx context.Context) {
	id := f.leaver.User.GetStudentId()
	_ = retryOverloaded(ctx, func() error {
		_, err := f.s.anonymous().Auth.Register(ctx, &dlsmsv1.RegisterRequest{
			StudentId: id, Name: "Student", Email: "student@university.example", Password: password,
		})
		return err
	})
	_ = retryOverloaded(ctx, func() error {
		u, err := f.s.anonymous().Login(ctx, id, password)
		if err == nil {
			f.leaver = u
		}
		return err
	})
}

// logIn gets a new token, because a random Logout or ChangePassword may have revoked the last one.
func (f *sender) logIn(ctx context.Context) {
	if u, err := f.s.anonymous().Login(ctx, f.user.User.GetStudentId(), f.password); err == nil {
		f.user = u
		f.known["token"] = []any{u.Token}
	}
}

// send makes a call with these bytes, and returns the bytes of the answer. For a stream it returns
// the bytes of the first message.
func (f *sender) send(
	ctx context.Context, name string, m protoreflect.MethodDescriptor, raw []byte,
) (answer []byte, err error) {
	conn := f.user.Conn()
	if name == dlsmsv1.AuthService_CloseMyAccount_FullMethodName {
		conn = f.leaver.Conn()
	}
	if !m.IsStreamingServer() {
		err := conn.Invoke(ctx, name, &raw, &answer, grpc.ForceCodec(rawCodec{}))
		return answer, err
	}
	// A subscription without notifications sends no message before its heartbeat. So send cancels
	// each stream after 100 ms. A deadline of 100 ms cannot be used instead, because at a deadline
	// the replica resets the stream too. If this reset arrived before the client's own deadline,
	// the client would get INTERNAL, which is a forbidden code.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(100*time.Millisecond, cancel).Stop()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name, grpc.ForceCodec(rawCodec{}))
	if err == nil {
		err = stream.SendMsg(&raw)
	}
	if err == nil || errors.Is(err, io.EOF) {
		_ = stream.CloseSend()
		err = stream.RecvMsg(&answer)
	}
	return answer, err
}

// rawCodec sends and receives bytes unchanged, so that a message may be invalid.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = slices.Clone(data)
	return nil
}
