package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// methods returns the descriptors of all RPCs, by full name.
func methods(t *testing.T) map[string]protoreflect.MethodDescriptor {
	t.Helper()
	found := map[string]protoreflect.MethodDescriptor{}
	protoregistry.GlobalFiles.RangeFilesByPackage("dlsms.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				found[fmt.Sprintf("/%s/%s", service.FullName(), m.Name())] = m
			}
		}
		return true
	})
	if len(found) < 22 {
		t.Fatalf("the descriptors have %d methods", len(found))
	}
	return found
}

// TestAccess makes every call of the services for students with every kind of token. A call is about
// an object of the caller, an object of another user, or an object that does not exist. An RPC
// without a row in accessTable fails the test.
func TestAccess(t *testing.T) {
	t.Parallel()
	everywhere(t, checkAccess)
}

func checkAccess(t *testing.T, s *system) {
	t.Helper()
	all := methods(t)
	for name := range accessTable {
		if all[name] == nil {
			t.Errorf("the table has %s, which is not in the API", name)
		}
	}
	for name, m := range all {
		if _, ok := staffTable[name]; ok {
			continue // see TestAccessOfStaff
		}
		t.Run(name[strings.LastIndex(name, "/")+1:], func(t *testing.T) {
			t.Parallel()
			row, ok := accessTable[name]
			if !ok {
				t.Fatalf("the table has no row for %s", name)
			}
			checkRow(t, s, name, m, row)
		})
	}
}

// object is the kind of object that a call is about: the caller's own, another user's, or none that
// exists.
type object int

const (
	own object = iota
	others
	missing
)

func (o object) String() string { return [...]string{"own", "another's", "missing"}[o] }

// noSuchID is an id that no object has.
const noSuchID = 1 << 40

// access is a row of accessTable: how to make a call, and the results to expect.
type access struct {
	// public reports that the RPC ignores the token.
	public bool
	// want has the expected reason, or ok, for each object: own, others and missing. It has one
	// entry if the RPC is not about an object.
	want []string
	// seats is the number of seats of the branch. 0 means 3: one for each user.
	seats int
	// prepare makes the objects, one for each user.
	prepare func(c *fixture)
	// request returns a request about the object target. user is the index of the caller.
	request func(c *fixture, user int, target object) proto.Message
	// check checks the answer to a call about the caller's own object.
	check func(c *fixture, user int, answer proto.Message) error
}

const ok = ""

// fixture has a branch and three users. The arrays have an object of each user, by the index of the
// user.
type fixture struct {
	t      *testing.T
	s      *system
	users  [3]student // the owner, another user, a librarian
	branch branch

	reservations [3]int64
	entries      [3]int64
	seats        [3]int64
	screen       int64
}

// pick returns the id of the object target. ids has the id of one object for each user.
func pick(ids [3]int64, user int, target object) int64 {
	switch target {
	case own:
		return ids[user]
	case others:
		return ids[(user+1)%len(ids)]
	case missing:
	}
	return noSuchID
}

// caller is a client with one kind of token, valid or not.
type caller struct {
	name    string
	token   string
	user    int    // the index of the user that the token names
	refusal string // the expected reason for the token, empty for a valid one
}

// callers returns a caller for each kind of token. All invalid tokens name user 0, the owner.
func (c *fixture) callers() []caller {
	t, owner := c.t, c.users[0]
	h, p := header(t, owner.Token), claims(t, owner.Token)

	loggedOut := c.s.login(t, owner.User.GetStudentId(), owner.Password)
	if _, err := loggedOut.Auth.Logout(t.Context(), &dlsmsv1.LogoutRequest{}); err != nil {
		t.Fatal(err)
	}
	passwordChanged := owner.Token
	_, err := owner.Auth.ChangePassword(
		t.Context(), &dlsmsv1.ChangePasswordRequest{CurrentPassword: owner.Password, NewPassword: "new " + owner.Password},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{loggedOut.Token, passwordChanged} {
		waitUntilRevoked(t, c.s, owner.WithToken(old))
	}
	c.users[0] = c.s.login(t, owner.User.GetStudentId(), "new "+owner.Password)
	fresh := c.users[0].Token
	fh, fp := header(t, fresh), claims(t, fresh)

	list := []caller{
		{"no token", "", 0, "TOKEN_MISSING"},
		{"a forged signature", sign(t, fh, fp, "x"+c.s.secret[1:]), 0, "TOKEN_INVALID"},
		{"a changed payload", tampered(t, fresh, map[string]any{"role": "LIBRARIAN"}), 0, "TOKEN_INVALID"},
		{"an expired token", c.s.expired(t, fresh), 0, "TOKEN_EXPIRED"},
		{"a logged-out token", loggedOut.Token, 0, "TOKEN_REVOKED"},
		{"a token of the old password", passwordChanged, 0, "TOKEN_REVOKED"},
		{
			"a token of the old password, with a new jti",
			sign(t, h, changed(p, map[string]any{"jti": "another"}), c.s.secret),
			0,
			"TOKEN_REVOKED",
		},
		{"alg none", sign(t, changed(fh, map[string]any{"alg": "none"}), fp, ""), 0, "TOKEN_INVALID"},
		{
			"alg None, signed",
			sign(t, changed(fh, map[string]any{"alg": "None"}), fp, "") + fresh[strings.LastIndex(fresh, ".")+1:],
			0,
			"TOKEN_INVALID",
		},
		{"another algorithm", sign(t, changed(fh, map[string]any{"alg": "HS512"}), fp, c.s.secret), 0, "TOKEN_INVALID"},
		{"another key", sign(t, changed(fh, map[string]any{"kid": "other"}), fp, c.s.secret), 0, "TOKEN_INVALID"},
		{"no expiry", sign(t, fh, changed(fp, map[string]any{"exp": nil}), c.s.secret), 0, "TOKEN_INVALID"},
		{"garbage", "garbage", 0, "TOKEN_INVALID"},
		{"long garbage", strings.Repeat("eyJ.", 1500), 0, "TOKEN_INVALID"},
	}
	return append(list,
		caller{"the owner", fresh, 0, ""},
		caller{"another user", c.users[1].Token, 1, ""},
		caller{"a librarian", c.users[2].Token, 2, ""},
	)
}

// accessCall is one call of a row of accessTable.
type accessCall struct {
	caller caller
	target object
	want   string
}

// checkRow makes all calls of a row of accessTable. First it makes the calls that must be refused:
// they must not change any data. Then it makes the other calls: they must not change data of users
// other than the caller.
func checkRow(t *testing.T, s *system, name string, m protoreflect.MethodDescriptor, row access) {
	t.Helper()
	c := &fixture{
		t:      t,
		s:      s,
		users:  [3]student{s.student(t), s.student(t), s.librarian(t)},
		branch: s.branch(t, max(3, row.seats)),
	}
	if row.prepare != nil {
		row.prepare(c)
	}
	var refusals, successes []accessCall
	for _, caller := range c.callers() {
		for target, want := range row.want {
			call := accessCall{caller, object(target), want}
			if caller.refusal != "" && !row.public {
				call.want = caller.refusal
			}
			if call.want == ok {
				successes = append(successes, call)
			} else {
				refusals = append(refusals, call)
			}
		}
	}
	everyUser := []int{0, 1, 2}
	before := c.holdings(everyUser...)
	for _, call := range refusals {
		req := row.request(c, call.caller.user, call.target)
		_, err := invoke(t, c.users[0].WithToken(call.caller.token).Conn(), name, m, req)
		if err := e2e.CheckRefusal(err, call.want); err != nil {
			t.Errorf("%s, %s: %v", call.caller.name, call.target, err)
		}
	}
	if after := c.holdings(everyUser...); after != before {
		t.Errorf("refused calls changed\n%s\nto\n%s", before, after)
	}
	for _, call := range successes {
		rest := slices.DeleteFunc(slices.Clone(everyUser), func(i int) bool { return i == call.caller.user })
		before := c.holdings(rest...)
		req := row.request(c, call.caller.user, call.target)
		answer, err := invoke(t, c.users[0].WithToken(call.caller.token).Conn(), name, m, req)
		if err == nil && row.check != nil && call.target == own {
			err = row.check(c, call.caller.user, answer)
		}
		if err != nil {
			t.Errorf("%s, %s: %v", call.caller.name, call.target, err)
		}
		if after := c.holdings(rest...); after != before {
			t.Errorf("%s, %s: the call changed data of another user:\n%s\nto\n%s", call.caller.name, call.target, before, after)
		}
	}
	t.Logf("%d calls were refused, %d succeeded", len(refusals), len(successes))
}

// TestVerifyTokenRefusesInvalidTokens checks that VerifyToken refuses an invalid token with the
// same reason as all other calls.
func TestVerifyTokenRefusesInvalidTokens(t *testing.T) {
	t.Parallel()
	overBoth(t, verifyTokenReportsEachFault)
}

func verifyTokenReportsEachFault(t *testing.T, s *system) {
	t.Helper()
	c := &fixture{t: t, s: s, users: [3]student{s.student(t), s.student(t), s.librarian(t)}}
	for _, caller := range c.callers() {
		if caller.token == "" {
			continue
		}
		resp, err := s.anonymous().Auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{Token: caller.token})
		if caller.refusal != "" {
			if err := e2e.CheckRefusal(err, caller.refusal); err != nil {
				t.Errorf("%s: %v", caller.name, err)
			}
			continue
		}
		u := c.users[caller.user].User
		if err != nil || resp.GetUserId() != u.GetId() || resp.GetStudentId() != u.GetStudentId() ||
			resp.GetRole() != u.GetRole() ||
			resp.GetExpiresAt().AsTime().Sub(resp.GetIssuedAt().AsTime()) != 24*time.Hour {
			t.Errorf("%s: %v (%v)", caller.name, resp, err)
		}
	}
}

// holdings returns all rows of the database that belong to these users, as text.
func (c *fixture) holdings(users ...int) string {
	c.t.Helper()
	var ids []int64
	for _, i := range users {
		ids = append(ids, c.users[i].id())
	}
	return value[string](c.t, c.s, `
		SELECT COALESCE(string_agg(line, E'\n' ORDER BY line), '') FROM (
			SELECT to_json(u)::text AS line FROM users u WHERE id = ANY($1)
			UNION ALL SELECT to_json(r)::text FROM reservations r WHERE user_id = ANY($1)
			UNION ALL SELECT to_json(w)::text FROM waitlist_entries w WHERE user_id = ANY($1)
			UNION ALL SELECT to_json(v)::text FROM revocations v WHERE user_id = ANY($1)
		) holdings`, ids)
}

// invoke makes the call that m describes and returns the answer. For a stream it returns the first
// message.
func invoke(
	t *testing.T, conn grpc.ClientConnInterface, name string, m protoreflect.MethodDescriptor, req proto.Message,
) (proto.Message, error) {
	t.Helper()
	if got, want := req.ProtoReflect().Descriptor().FullName(), m.Input().FullName(); got != want {
		t.Fatalf("%s takes a %s, the table has a %s", name, want, got)
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		t.Fatal(err)
	}
	answer := kind.New().Interface()
	if !m.IsStreamingServer() {
		return answer, conn.Invoke(t.Context(), name, req, answer)
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err == nil {
		err = stream.SendMsg(req)
	}
	if err == nil || errors.Is(err, io.EOF) { // after io.EOF, RecvMsg returns the error
		_ = stream.CloseSend()
		err = stream.RecvMsg(answer)
	}
	return answer, err
}
