package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// everyCall makes every call that needs a token, and VerifyToken, with one that is to be refused, and returns what comes of them.
func (s *testServer) everyCall(t *testing.T, token string) map[string]error {
	t.Helper()
	ctx, cancel := context.WithTimeout(bearing(t.Context(), token), within)
	defer cancel()
	got := map[string]error{}
	for method, r := range policy {
		switch {
		case r.who == public:
		case method == dlsmsv1.NotifyService_Subscribe_FullMethodName:
			stream, err := s.notify.Subscribe(ctx, &dlsmsv1.SubscribeRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			got[method] = err
		default:
			got[method] = s.conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
		}
	}
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
	eventually(t, "two subscriptions", func() bool { return s.edge.streams.count() == 2 })

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
	if s.edge.streams.count() != 1 {
		t.Errorf("%d streams are open", s.edge.streams.count())
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

// countedStore counts the look-ups of a store; a test may hold them up.
type countedStore struct {
	*store.Store

	asked atomic.Int64
	hold  atomic.Pointer[chan struct{}]
}

func (c *countedStore) Identities(ctx context.Context, ids ...int64) ([]library.Identity, error) {
	c.asked.Add(1)
	found, err := c.Store.Identities(ctx, ids...)
	if hold := c.hold.Load(); hold != nil {
		<-*hold
	}
	return found, err
}

func testIdentities(s identityStore) *identities {
	return newIdentities(s, newStreams(DefaultStreamLimits), slog.New(slog.DiscardHandler), 2)
}

func callerOf(t *testing.T, db *storetest.DB, id int64) Caller {
	t.Helper()
	return Caller{
		UserID: id, JTI: "a",
		StudentID:  storetest.Value[string](t, db, `SELECT student_id FROM users WHERE id = $1`, id),
		Generation: storetest.Value[int64](t, db, `SELECT token_generation FROM users WHERE id = $1`, id),
	}
}

// TestLookUps: a user is looked up once, for all who ask at the same time, and a bad token once, however often it comes.
func TestLookUps(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := &countedStore{Store: db.Open(t, library.DefaultPolicy())}
	i := testIdentities(s)
	c := callerOf(t, db, db.Users(t, 1)[0])
	all := func(c Caller, want error) {
		t.Helper()
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() {
				if err := i.check(t.Context(), c); !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
			})
		}
		callers.Wait()
	}
	all(c, nil)
	if n := s.asked.Load(); n != 1 {
		t.Errorf("a good token made %d look-ups", n)
	}
	older, newer, another, gone := c, c, c, c
	older.JTI, older.Generation = "older", c.Generation-1
	newer.JTI, newer.Generation = "newer", c.Generation+1
	another.JTI, another.StudentID = "another", "B"
	gone.JTI, gone.UserID = "gone", 1<<40
	for n, bad := range []struct {
		Caller
		want error
	}{{older, library.ErrTokenRevoked}, {newer, library.ErrTokenInvalid}, {another, library.ErrTokenInvalid}, {gone, library.ErrTokenInvalid}} {
		s.asked.Store(0)
		for range 100 {
			if err := i.check(t.Context(), bad.Caller); !errors.Is(err, bad.want) {
				t.Fatalf("bad token %d: %v, want %v", n, err, bad.want)
			}
		}
		if asked := s.asked.Load(); asked != 1 {
			t.Errorf("bad token %d made %d look-ups", n, asked)
		}
	}
	s.asked.Store(0)
	all(c, nil)
	if n := s.asked.Load(); n != 0 {
		t.Errorf("after bad ones, the good token made %d look-ups", n)
	}
	db.Exec(t, `UPDATE users SET token_generation = token_generation + 5`)
	c.JTI, c.Generation = "changed", c.Generation+5
	all(c, nil)
	if n := s.asked.Load(); n > 2 { // one that had begun before may be joined first
		t.Errorf("after a change of the password, the new token made %d look-ups", n)
	}
}

// TestALookUpOfTheDatabaseBefore: what was asked before the database changed is not believed after.
func TestALookUpOfTheDatabaseBefore(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := &countedStore{Store: db.Open(t, library.DefaultPolicy())}
	i := testIdentities(s)
	c := callerOf(t, db, db.Users(t, 1)[0])
	hold := make(chan struct{})
	s.hold.Store(&hold)
	got := make(chan error, 1)
	go func() { got <- i.check(t.Context(), c) }()
	eventually(t, "a look-up", func() bool { return s.asked.Load() == 1 })
	db.Exec(t, `UPDATE users SET token_generation = token_generation + 5`)
	i.forget()
	s.hold.Store(nil)
	close(hold)
	if err := <-got; !errors.Is(err, library.ErrTokenRevoked) {
		t.Errorf("a token of the database before: %v", err)
	}
}

// TestUsersWhileTheDatabaseIsGone: those who are known are let in for as long as revocations are fresh enough; the others must wait.
func TestUsersWhileTheDatabaseIsGone(t *testing.T) {
	t.Parallel()
	db, pg := storetest.NewCluster(t)
	i := testIdentities(db.Open(t, library.DefaultPolicy()))
	users := db.Users(t, 2)
	known, unknown := callerOf(t, db, users[0]), callerOf(t, db, users[1])
	if err := i.check(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := i.check(t.Context(), known); err != nil {
		t.Errorf("a known user: %v", err)
	}
	if err := i.check(t.Context(), unknown); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("another one: %v", err)
	}
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other one is let in", func() bool { return i.check(t.Context(), unknown) == nil })
}

func TestKnownUsersAreBounded(t *testing.T) {
	t.Parallel()
	var r recent[int, int]
	for i := range 1000 {
		r.put(i, i, 100)
		if v, ok := r.get(0, 100); !ok || v != 0 {
			t.Fatalf("after %d, one that is asked for is forgotten", i)
		}
	}
	if n := len(r.young) + len(r.aged); n > 200 || n < 100 {
		t.Errorf("%d are remembered", n)
	}
}
