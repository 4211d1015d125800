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

// callEveryMethod calls VerifyToken and each method that needs a token, with a token that the
// replica must refuse. It returns the error of each call.
func (s *testServer) callEveryMethod(t *testing.T, token string) map[string]error {
	t.Helper()
	ctx, cancel := context.WithTimeout(bearing(t.Context(), token), within)
	defer cancel()
	got := map[string]error{}
	everyMethod(func(method string, _ protoreflect.MethodDescriptor) {
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

// TestTokenIsInvalidInAnotherDatabase tests a token of user A in a database in which user B has the
// same id. A new database assigns ids from 1 again, and a restored database from the last id of its
// backup. The token of A must not be valid for B.
func TestTokenIsInvalidInAnotherDatabase(t *testing.T) {
	t.Parallel()
	before, restored := startOn(t, storetest.NewDB(t), nil, nil), startOn(t, storetest.NewDB(t), nil, nil)
	a := before.register(t, "S2021001")
	token := before.login(t, "S2021001", testPassword)
	for method, err := range restored.callEveryMethod(t, token) { // no user has the id yet
		if reasonOf(err) != "TOKEN_INVALID" {
			t.Errorf("%s, before a user has the id: %v", method, err)
		}
	}
	b := restored.register(t, "S2021002")
	if a.GetId() != b.GetId() {
		t.Fatalf("user A has id %d, user B has id %d: this test needs equal ids", a.GetId(), b.GetId())
	}
	another := restored.login(t, "S2021002", testPassword)
	if _, err := restored.notify.GetWaitlist(bearing(t.Context(), another), &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Errorf("user B: %v", err)
	}
	for method, err := range restored.callEveryMethod(t, token) {
		if status.Code(err) != codes.Unauthenticated || reasonOf(err) != "TOKEN_INVALID" {
			t.Errorf("%s with the token of user A, when user B has the same id: %v", method, err)
		}
	}
	if _, err := restored.notify.GetWaitlist(bearing(t.Context(), another), &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Errorf("user B, after calls with the token of user A: %v", err)
	}

	// If the same student registers again and gets the same id, the old token is still not valid.
	again := startOn(t, storetest.NewDB(t), nil, nil)
	if c := again.register(t, "S2021001"); c.GetId() != a.GetId() {
		t.Fatalf("user A has id %d, and then %d: this test needs equal ids", a.GetId(), c.GetId())
	}
	for method, err := range again.callEveryMethod(t, token) {
		if reason := reasonOf(err); reason != "TOKEN_INVALID" && reason != "TOKEN_REVOKED" {
			t.Errorf("%s with a token of the old account: %v", method, err)
		}
	}
}

// TestRestoreEndsStreamsOfDeletedUsers imitates a restore: it deletes a user and ends the
// connections of the replica to Postgres. The replica looks up all users again, and ends the
// streams of users that no longer exist.
func TestRestoreEndsStreamsOfDeletedUsers(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	kept, deleted := s.student(t), s.student(t)
	a := storetest.Value[int64](t, db, `SELECT max(id) FROM users`)
	subscribe(t, s, kept)
	ending := subscribe(t, s, deleted)
	// This test breaks the connections to Postgres. If that made the first read of a subscription
	// fail, the stream would end with UNAVAILABLE. So wait until both first reads are done: only
	// then does a subscription take its wakeup.
	s.config.Wakeups.Notify(nil)
	eventually(t, "both subscriptions have taken their wakeups", func() bool {
		return s.edge.Stats().Streams == 2 && !s.config.Wakeups.pending()
	})

	db.Exec(t, `DELETE FROM users WHERE id = $1`, a)
	db.Exec(t, `SELECT setval(pg_get_serial_sequence('users', 'id'), $1, false)`, a)
	db.Exec(t, `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	want(t, ended(t, ending), codes.Unauthenticated, "TOKEN_INVALID")
	eventually(t, "user B is registered", func() bool {
		_, err := s.auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
			StudentId: "another", Name: "B", Email: "b@university.example", Password: testPassword})
		return err == nil
	})
	if b := storetest.Value[int64](t, db, `SELECT max(id) FROM users`); a != b {
		t.Fatalf("user A had id %d, user B has id %d: this test needs equal ids", a, b)
	}
	// The pool detects the end of a connection only when a call uses the connection. This call ends
	// with UNAVAILABLE.
	getWaitlist := func(ctx context.Context) (err error) {
		eventually(t, "a call has an answer other than UNAVAILABLE", func() bool {
			_, err = s.notify.GetWaitlist(ctx, &dlsmsv1.GetWaitlistRequest{})
			return status.Code(err) != codes.Unavailable
		})
		return err
	}
	want(t, getWaitlist(deleted), codes.Unauthenticated, "TOKEN_INVALID")
	if err := getWaitlist(kept); err != nil {
		t.Errorf("a user from before the restore: %v", err)
	}
	if s.edge.Stats().Streams != 1 {
		t.Errorf("%d streams are open", s.edge.Stats().Streams)
	}
}

// pending reports whether a subscriber has not taken its wakeup yet.
func (w *Wakeups) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, subscribers := range w.byUser {
		for ch := range subscribers {
			if len(ch) > 0 {
				return true
			}
		}
	}
	return false
}

// TestTokenOfGeneration0IsValid tests a token of the previous version, in which every user had
// generation 0.
func TestTokenOfGeneration0IsValid(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	u := s.register(t, "S2021001")
	db.Exec(t, `UPDATE users SET token_generation = 0`)
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"user_id": u.GetId(), "student_id": "S2021001", "role": "STUDENT", "gen": 0, "jti": "x",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
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

// TestNewTokenIsValidOnAnotherReplica changes a password on one replica. The new token is valid at
// once on another replica, which still knows the old generation of the user.
func TestNewTokenIsValidOnAnotherReplica(t *testing.T) {
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
		_, err := one.auth.ChangePassword(me, &dlsmsv1.ChangePasswordRequest{
			CurrentPassword: passwords[round%2], NewPassword: next,
		})
		if err != nil {
			t.Fatal(err)
		}
		me = bearing(t.Context(), one.login(t, "S2021001", next))
	}
}
