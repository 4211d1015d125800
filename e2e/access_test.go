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

// methods are all RPCs of the API, found in the descriptors, by full name.
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

// TestAccess makes every call of the API with every kind of token, about what is the caller's own, what is another's and what doesn't exist.
// An RPC without a row in the table fails it.
func TestAccess(t *testing.T) {
	t.Parallel()
	s := shared(t)
	all := methods(t)
	for name := range accessTable {
		if all[name] == nil {
			t.Errorf("the table has %s, which the API doesn't", name)
		}
	}
	for name, m := range all {
		t.Run(name[strings.LastIndex(name, "/")+1:], func(t *testing.T) {
			t.Parallel()
			row, ok := accessTable[name]
			if !ok {
				t.Fatalf("who may call %s, and what they are told, is missing from the table", name)
			}
			play(t, s, name, m, row)
		})
	}
}

// object is what a call is about.
type object int

const (
	own object = iota
	others
	missing
)

func (o object) String() string { return [...]string{"own", "another's", "missing"}[o] }

// noSuchID is an id that nothing has.
const noSuchID = 1 << 40

// access is a row of the table: what it takes to make a call, and what comes of it.
type access struct {
	// public calls don't look at the token.
	public bool
	// want says what whoever may call is told about their own, another's and a missing object, or about the one thing there is to ask:
	// a reason, or ok.
	want []string
	// seats is how many it takes; 0: one for each of the cast.
	seats int
	// prepare brings about the objects: one for each of the cast.
	prepare func(c *cast)
	// request asks about an object, as the one of the cast with that index.
	request func(c *cast, who int, what object) proto.Message
	// check looks at the answer to a call about the caller's own.
	check func(c *cast, who int, answer proto.Message) error
}

const ok = ""

// cast are three users, each with an object of the same kind, and a branch to themselves.
type cast struct {
	t      *testing.T
	s      *system
	users  [3]student // the owner, another user, a librarian
	branch branch

	reservations [3]int64
	entries      [3]int64
	seats        [3]int64
}

// pick returns the id of an object from a list that has one for each of the cast.
func pick(ids [3]int64, who int, what object) int64 {
	switch what {
	case own:
		return ids[who]
	case others:
		return ids[(who+1)%len(ids)]
	case missing:
	}
	return noSuchID
}

// caller is somebody with a token.
type caller struct {
	name    string
	token   string
	who     int    // of the cast, whose name the token bears
	refusal string // why the token is no good; empty: it is
}

// callers are all kinds of them. The bad tokens would all be the owner's, if they were any good.
func (c *cast) callers() []caller {
	t, owner := c.t, c.users[0]
	h, p := header(t, owner.Token), claims(t, owner.Token)

	loggedOut := c.s.login(t, owner.User.GetStudentId(), owner.Password)
	if _, err := loggedOut.Auth.Logout(t.Context(), &dlsmsv1.LogoutRequest{}); err != nil {
		t.Fatal(err)
	}
	passwordChanged := owner.Token
	_, err := owner.Auth.ChangePassword(t.Context(), &dlsmsv1.ChangePasswordRequest{CurrentPassword: owner.Password, NewPassword: "new " + owner.Password})
	if err != nil {
		t.Fatal(err)
	}
	c.users[0] = c.s.login(t, owner.User.GetStudentId(), "new "+owner.Password)
	fresh := c.users[0].Token
	fh, fp := header(t, fresh), claims(t, fresh)

	list := []caller{
		{"no token", "", 0, "TOKEN_MISSING"},
		{"a forged signature", sign(t, fh, fp, "x"+c.s.secret[1:]), 0, "TOKEN_INVALID"},
		{"a changed payload", tampered(t, fresh, map[string]any{"role": "LIBRARIAN"}), 0, "TOKEN_INVALID"},
		{"an expired token", c.s.expired(t, fresh), 0, "TOKEN_EXPIRED"},
		{"a token that was logged out", loggedOut.Token, 0, "TOKEN_REVOKED"},
		{"a token of the old password", passwordChanged, 0, "TOKEN_REVOKED"},
		{"that one, as if it was new", sign(t, h, changed(p, map[string]any{"jti": "another"}), c.s.secret), 0, "TOKEN_REVOKED"},
		{"alg none", sign(t, changed(fh, map[string]any{"alg": "none"}), fp, ""), 0, "TOKEN_INVALID"},
		{"alg None, signed", sign(t, changed(fh, map[string]any{"alg": "None"}), fp, "") + fresh[strings.LastIndex(fresh, ".")+1:], 0, "TOKEN_INVALID"},
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

// cell is one call of a row.
type cell struct {
	caller caller
	what   object
	want   string
}

// play makes all calls of a row: first those that must be refused, none of which may change anything, and then the others, none of which
// may change what is another's.
func play(t *testing.T, s *system, name string, m protoreflect.MethodDescriptor, row access) {
	t.Helper()
	c := &cast{t: t, s: s, users: [3]student{s.student(t), s.student(t), s.librarian(t)}, branch: s.branch(t, max(3, row.seats))}
	if row.prepare != nil {
		row.prepare(c)
	}
	var refusals, successes []cell
	for _, who := range c.callers() {
		for what, want := range row.want {
			cell := cell{who, object(what), want}
			if who.refusal != "" && !row.public {
				cell.want = who.refusal
			}
			if cell.want == ok {
				successes = append(successes, cell)
			} else {
				refusals = append(refusals, cell)
			}
		}
	}
	everybody := []int{0, 1, 2}
	before := c.holdings(everybody...)
	for _, cell := range refusals {
		req := row.request(c, cell.caller.who, cell.what)
		_, err := invoke(t, c.users[0].WithToken(cell.caller.token).Conn(), name, m, req)
		if err := e2e.CheckRefusal(err, cell.want); err != nil {
			t.Errorf("%s, %s: %v", cell.caller.name, cell.what, err)
		}
	}
	if after := c.holdings(everybody...); after != before {
		t.Errorf("calls that were refused changed\n%s\nto\n%s", before, after)
	}
	for _, cell := range successes {
		rest := slices.DeleteFunc(slices.Clone(everybody), func(i int) bool { return i == cell.caller.who })
		before := c.holdings(rest...)
		req := row.request(c, cell.caller.who, cell.what)
		answer, err := invoke(t, c.users[0].WithToken(cell.caller.token).Conn(), name, m, req)
		if err == nil && row.check != nil && cell.what == own {
			err = row.check(c, cell.caller.who, answer)
		}
		if err != nil {
			t.Errorf("%s, %s: %v", cell.caller.name, cell.what, err)
		}
		if after := c.holdings(rest...); after != before {
			t.Errorf("%s, %s: the call changed what is another's:\n%s\nto\n%s", cell.caller.name, cell.what, before, after)
		}
	}
	t.Logf("%d calls were refused, %d not", len(refusals), len(successes))
}

// TestVerifyToken tells of each bad token what a call with it tells.
func TestVerifyToken(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := &cast{t: t, s: s, users: [3]student{s.student(t), s.student(t), s.librarian(t)}}
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
		u := c.users[caller.who].User
		if err != nil || resp.GetUserId() != u.GetId() || resp.GetStudentId() != u.GetStudentId() || resp.GetRole() != u.GetRole() ||
			resp.GetExpiresAt().AsTime().Sub(resp.GetIssuedAt().AsTime()) != 24*time.Hour {
			t.Errorf("%s: %v (%v)", caller.name, resp, err)
		}
	}
}

// holdings returns all that some of the cast have, as text.
func (c *cast) holdings(who ...int) string {
	c.t.Helper()
	var ids []int64
	for _, i := range who {
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

// invoke makes a call of which only the descriptor is known, and returns its answer: of a stream, the first one.
func invoke(t *testing.T, conn grpc.ClientConnInterface, name string, m protoreflect.MethodDescriptor, req proto.Message) (proto.Message, error) {
	t.Helper()
	if got, want := req.ProtoReflect().Descriptor().FullName(), m.Input().FullName(); got != want {
		t.Fatalf("%s takes a %s, and the table makes a %s", name, want, got)
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
	if err == nil || errors.Is(err, io.EOF) { // of which RecvMsg tells the reason
		_ = stream.CloseSend()
		err = stream.RecvMsg(answer)
	}
	return answer, err
}
