package server

import (
	"context"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/storetest"
)

// everyCall makes every call that needs a token, and VerifyToken, with one that is to be refused, and returns what comes of them.
func (s *testServer) everyCall(t *testing.T, token string) map[string]error {
	t.Helper()
	ctx, cancel := context.WithTimeout(bearing(t.Context(), token), within)
	defer cancel()
	got := map[string]error{}
	ours(func(method string, _ protoreflect.MethodDescriptor) {
		switch {
		case publicMethods[method]:
		case method == dlsmsv1.NotifyService_Subscribe_FullMethodName:
			stream, err := s.notify.Subscribe(ctx, &dlsmsv1.SubscribeRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			got[method] = err
		default:
			got[method] = s.conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
		}
	})
	_, got["VerifyToken"] = s.auth.VerifyToken(ctx, &dlsmsv1.VerifyTokenRequest{Token: token})
	if len(got) < 15 {
		t.Fatalf("only %d calls need a token", len(got))
	}
	return got
}

// TestATokenIsOfOneDatabase: user ids begin anew in a fresh database, and go on from the backup after a restore. A token of the time before must
// not become the token of whoever has the id then.
func TestATokenIsOfOneDatabase(t *testing.T) {
	t.Parallel()
	before, restored := startOn(t, storetest.NewDB(t), nil, nil), startOn(t, storetest.NewDB(t), nil, nil)
	a := before.register(t, "S2021001")
	token := before.login(t, "S2021001", testPassword)
	for method, err := range restored.everyCall(t, token) { // nobody has the id yet
		if reasonOf(err) != "TOKEN_INVALID" {
			t.Errorf("%s by nobody: %v", method, err)
		}
	}
	b := restored.register(t, "S2021002")
	if a.GetId() != b.GetId() {
		t.Fatalf("A has id %d, B %d", a.GetId(), b.GetId())
	}
	another := restored.login(t, "S2021002", testPassword)
	if _, err := restored.notify.GetWaitlist(bearing(t.Context(), another), &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Errorf("B: %v", err)
	}
	for method, err := range restored.everyCall(t, token) {
		if status.Code(err) != codes.Unauthenticated || reasonOf(err) != "TOKEN_INVALID" {
			t.Errorf("%s by A, with the id of B: %v", method, err)
		}
	}
	if _, err := restored.notify.GetWaitlist(bearing(t.Context(), another), &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Errorf("B, after A's tries: %v", err)
	}

	// The same person registers again and gets the same id: a token of before is still none of the present account.
	again := startOn(t, storetest.NewDB(t), nil, nil)
	if c := again.register(t, "S2021001"); c.GetId() != a.GetId() {
		t.Fatalf("A has id %d, and then %d", a.GetId(), c.GetId())
	}
	for method, err := range again.everyCall(t, token) {
		if reason := reasonOf(err); reason != "TOKEN_INVALID" && reason != "TOKEN_REVOKED" {
			t.Errorf("%s with a token of the account before: %v", method, err)
		}
	}
}

// TestARestoreUnderAReplicaThatRuns: it finds out by its connection, ends the streams of those who are gone, and forgets whom it knew.
func TestARestoreUnderAReplicaThatRuns(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	stays, goes := s.student(t), s.student(t)
	a := storetest.Value[int64](t, db, `SELECT max(id) FROM users`)
	subscribe(t, s, stays)
	ending := subscribe(t, s, goes)
	eventually(t, "two subscriptions", func() bool { return s.edge.Stats().Streams == 2 })

	db.Exec(t, `DELETE FROM users WHERE id = $1`, a)
	db.Exec(t, `SELECT setval(pg_get_serial_sequence('users', 'id'), $1, false)`, a)
	db.Exec(t, `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	want(t, ended(t, ending), codes.Unauthenticated, "TOKEN_INVALID")
	eventually(t, "B", func() bool {
		_, err := s.auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
			StudentId: "another", Name: "B", Email: "b@university.example", Password: testPassword})
		return err == nil
	})
	if b := storetest.Value[int64](t, db, `SELECT max(id) FROM users`); a != b {
		t.Fatalf("A had id %d, B has %d", a, b)
	}
	_, err := s.notify.GetWaitlist(goes, &dlsmsv1.GetWaitlistRequest{})
	want(t, err, codes.Unauthenticated, "TOKEN_INVALID")
	if _, err := s.notify.GetWaitlist(stays, &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Errorf("a user of before and after: %v", err)
	}
	if s.edge.Stats().Streams != 1 {
		t.Errorf("%d streams are open", s.edge.Stats().Streams)
	}
}

// TestTokensOfTheVersionBefore: rows of before have generation 0, and so have their tokens, which stay good.
func TestTokensOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	u := s.register(t, "S2021001")
	db.Exec(t, `UPDATE users SET token_generation = 0`)
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"user_id": u.GetId(), "student_id": "S2021001", "role": "STUDENT", "gen": 0, "jti": "x", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	token.Header["kid"] = "test"
	signed, err := token.SignedString([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.notify.GetWaitlist(bearing(t.Context(), signed), &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Error(err)
	}
}

// TestANewTokenOnAnotherReplica, which has known its user by an older one a moment ago: it is good at once.
func TestANewTokenOnAnotherReplica(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	one, two := startOn(t, db, nil, nil), startOn(t, db, nil, nil)
	one.register(t, "S2021001")
	me := bearing(t.Context(), one.login(t, "S2021001", testPassword))
	for round := range 5 {
		passwords := []string{testPassword, "battery staple"}
		if _, err := two.notify.GetWaitlist(me, &dlsmsv1.GetWaitlistRequest{}); err != nil {
			t.Fatal(err)
		}
		next := passwords[(round+1)%2]
		_, err := one.auth.ChangePassword(me, &dlsmsv1.ChangePasswordRequest{CurrentPassword: passwords[round%2], NewPassword: next})
		if err != nil {
			t.Fatal(err)
		}
		me = bearing(t.Context(), one.login(t, "S2021001", next))
	}
}
