package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store/storetest"
)

func TestRegisterAndLogin(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	began := time.Now()
	user := s.register(t, "S2021.a-1")
	if user.GetId() <= 0 || user.GetStudentId() != "S2021.a-1" || user.GetName() != "Ada Lovelace" ||
		user.GetEmail() != "ada@university.example" ||
		user.GetRole() != dlsmsv1.Role_ROLE_STUDENT || user.GetCreatedAt().AsTime().Before(began.Add(-time.Minute)) {
		t.Errorf("registered %v", user)
	}
	resp, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: "s2021.A-1", Password: testPassword})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(user, resp.GetUser(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	life := resp.GetExpiresAt().AsTime().Sub(began)
	if life < 24*time.Hour-time.Minute || life > 24*time.Hour+time.Minute {
		t.Errorf("the token lives for %v", life)
	}
	verify := &dlsmsv1.VerifyTokenRequest{Token: resp.GetAccessToken()}
	claims, err := s.auth.VerifyToken(t.Context(), verify)
	if err != nil {
		t.Fatal(err)
	}
	issued, expires := claims.GetIssuedAt().AsTime(), claims.GetExpiresAt().AsTime()
	if claims.GetUserId() != user.GetId() || claims.GetStudentId() != "S2021.a-1" ||
		claims.GetRole() != dlsmsv1.Role_ROLE_STUDENT ||
		!expires.Equal(resp.GetExpiresAt().AsTime()) || expires.Sub(issued) != 24*time.Hour {
		t.Errorf("the token has the claims %v", claims)
	}

	_, err = s.auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
		StudentId: "s2021.A-1", Name: "Eve", Email: "eve@university.example", Password: testPassword,
	})
	want(t, err, codes.AlreadyExists, "STUDENT_ID_TAKEN")
	for _, login := range []*dlsmsv1.LoginRequest{
		{StudentId: "S2021.a-1", Password: "wrong password"},
		{StudentId: "S2021.a-2", Password: testPassword},
	} {
		_, err := s.auth.Login(t.Context(), login)
		want(t, err, codes.Unauthenticated, "BAD_CREDENTIALS")
		if got := status.Convert(err).Message(); got != "wrong student id or password" {
			t.Errorf("the client gets the message %q", got)
		}
	}
}

func TestAuthRequestsReportInvalidFields(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	me := s.student(t)
	for name, test := range map[string]struct {
		call func() error
		want string
	}{
		"register without fields": {func() error {
			_, err := s.auth.Register(t.Context(), &dlsmsv1.RegisterRequest{})
			return err
		}, "[student_id name email password]"},
		"register with a long password": {func() error {
			_, err := s.auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
				StudentId: "S2021", Name: "A", Email: "a@b.example", Password: strings.Repeat("x", 73),
			})
			return err
		}, "[password]"},
		"login without fields": {func() error {
			_, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{})
			return err
		}, "[student_id password]"},
		"login with a short password": {func() error {
			_, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: "S2021", Password: "1234567"})
			return err
		}, "[password]"},
		"verify without a token": {func() error {
			_, err := s.auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{})
			return err
		}, "[token]"},
		"change to a short password": {func() error {
			_, err := s.auth.ChangePassword(me, &dlsmsv1.ChangePasswordRequest{CurrentPassword: "x", NewPassword: "y"})
			return err
		}, "[current_password new_password]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.call()
			want(t, err, codes.InvalidArgument, "INVALID_FIELDS")
			if got := fmt.Sprint(fieldsOf(err)); got != test.want {
				t.Errorf("got the invalid fields %s, want %s", got, test.want)
			}
		})
	}
}

func TestPasswordOf72BytesIsComparedInFull(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	long := strings.Repeat("ü", 36) // 72 bytes
	_, err := s.auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
		StudentId: "S2021", Name: "A", Email: "a@b.example", Password: long,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.login(t, "S2021", long)
	_, err = s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: "S2021", Password: long[:70] + "xx"})
	want(t, err, codes.Unauthenticated, "BAD_CREDENTIALS")
}

// TestPasswordsMatchInNFCAndNFD tests that a password matches in composed form (NFC) and in
// decomposed form (NFD). Earlier versions hashed a password as typed. Such a password still matches
// as typed.
func TestPasswordsMatchInNFCAndNFD(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	const composed, decomposed = "pässwörd é", "pa\u0308sswo\u0308rd e\u0301"
	for id, registered := range map[string]string{"S2021001": composed, "S2021002": decomposed} {
		if _, err := s.auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
			StudentId: id, Name: "A", Email: "a@b.example", Password: registered}); err != nil {
			t.Fatal(err)
		}
		s.login(t, id, composed)
		me := bearing(t.Context(), s.login(t, id, decomposed))
		_, err := s.auth.ChangePassword(me, &dlsmsv1.ChangePasswordRequest{
			CurrentPassword: decomposed, NewPassword: decomposed + "2",
		})
		if err != nil {
			t.Fatal(err)
		}
		s.login(t, id, composed+"2")
	}

	s.register(t, "S2021003")
	for _, typed := range []string{decomposed, "tab\tulated"} {
		hash, err := bcrypt.GenerateFromPassword([]byte(typed), 4)
		if err != nil {
			t.Fatal(err)
		}
		db.Exec(t, `UPDATE users SET password_hash = $1 WHERE student_id = 'S2021003'`, string(hash))
		me := bearing(t.Context(), s.login(t, "S2021003", typed))
		_, err = s.auth.ChangePassword(me, &dlsmsv1.ChangePasswordRequest{
			CurrentPassword: typed, NewPassword: composed,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.login(t, "S2021003", decomposed)
	}
	_, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{
		StudentId: "S2021003", Password: "pa\u0308ssword e\u0301",
	})
	want(t, err, codes.Unauthenticated, "BAD_CREDENTIALS")
}

func TestPasswordsAreStoredAsBcryptHashes(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, func(c *Config) { c.BcryptCost = 5 }, nil)
	s.register(t, "S2021")
	hash := storetest.Value[string](t, db, `SELECT password_hash FROM users`)
	if cost, err := bcrypt.Cost([]byte(hash)); err != nil || cost != 5 {
		t.Errorf("%q has cost %d, %v", hash, cost, err)
	}
	// A hash with another cost still matches.
	old, err := bcrypt.GenerateFromPassword([]byte("of another cost"), 4)
	if err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `UPDATE users SET password_hash = $1`, string(old))
	s.login(t, "S2021", "of another cost")

	for _, cost := range []int{0, 3, 32} {
		if _, err := identity.NewPasswords(cost, 1, identity.PasswordWait); err == nil {
			t.Errorf("BCRYPT_COST %d was accepted", cost)
		}
	}
}

func TestLogoutAndChangePasswordRevokeTokens(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.register(t, "S2021")
	one, two := s.login(t, "S2021", testPassword), s.login(t, "S2021", testPassword)
	verify := func(token string) error {
		_, err := s.auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{Token: token})
		return err
	}
	if err := errors.Join(verify(one), verify(two)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.auth.Logout(bearing(t.Context(), one), &dlsmsv1.LogoutRequest{}); err != nil {
		t.Fatal(err)
	}
	want(t, verify(one), codes.Unauthenticated, "TOKEN_REVOKED")
	if err := verify(two); err != nil {
		t.Errorf("logging out ended another token: %v", err)
	}
	_, err := s.auth.Logout(bearing(t.Context(), one), &dlsmsv1.LogoutRequest{})
	want(t, err, codes.Unauthenticated, "TOKEN_REVOKED")

	change := func(from, to string) error {
		_, err := s.auth.ChangePassword(bearing(t.Context(), two), &dlsmsv1.ChangePasswordRequest{
			CurrentPassword: from, NewPassword: to,
		})
		return err
	}
	want(t, change("wrong password", "battery staple"), codes.Unauthenticated, "BAD_CREDENTIALS")
	if err := verify(two); err != nil {
		t.Errorf("a failed change ended the token: %v", err)
	}
	if err := change(testPassword, "battery staple"); err != nil {
		t.Fatal(err)
	}
	want(t, verify(two), codes.Unauthenticated, "TOKEN_REVOKED")
	_, err = s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: "S2021", Password: testPassword})
	want(t, err, codes.Unauthenticated, "BAD_CREDENTIALS")
	if err := verify(s.login(t, "S2021", "battery staple")); err != nil {
		t.Errorf("a token issued after the change: %v", err)
	}
}

// TestLogoutEverywhereRevokesAllTokens also repeats the call, as after a lost answer: a token that was
// issued since stays valid, also if the replica does not know of the first attempt yet.
func TestLogoutEverywhereRevokesAllTokens(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	s.register(t, "S2021")
	s.register(t, "S2022")
	verify := func(token string) error {
		_, err := s.auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{Token: token})
		return err
	}
	logout := func(token string) error {
		_, err := s.auth.Logout(bearing(t.Context(), token), &dlsmsv1.LogoutRequest{Everywhere: true})
		return err
	}
	one, two := s.login(t, "S2021", testPassword), s.login(t, "S2021", testPassword)
	other := s.login(t, "S2022", testPassword)
	if err := logout(one); err != nil {
		t.Fatal(err)
	}
	want(t, verify(one), codes.Unauthenticated, "TOKEN_REVOKED")
	want(t, verify(two), codes.Unauthenticated, "TOKEN_REVOKED")
	if err := verify(other); err != nil {
		t.Errorf("another user: %v", err)
	}
	again := s.login(t, "S2021", testPassword)
	want(t, logout(one), codes.Unauthenticated, "TOKEN_REVOKED")
	if err := verify(again); err != nil {
		t.Errorf("a token issued after the call: %v", err)
	}

	db.Exec(t, `UPDATE users SET token_generation = token_generation + 1`)
	want(t, logout(again), codes.Unauthenticated, "TOKEN_REVOKED")
	if n := storetest.Value[int](t, db, `SELECT count(*) FROM revocations`); n != 1 {
		t.Errorf("%d revocations, want 1", n)
	}
}

// TestGetAccount reads the account with the tokens of a student and of a member of staff, and after
// the role has changed.
func TestGetAccount(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Seats(t, 1)
	s := startOn(t, db, nil, nil)
	user := s.register(t, "S2021")
	login, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: "S2021", Password: testPassword})
	if err != nil {
		t.Fatal(err)
	}
	get := func(token string) (*dlsmsv1.GetAccountResponse, error) {
		return s.auth.GetAccount(bearing(t.Context(), token), &dlsmsv1.GetAccountRequest{})
	}
	got, err := get(login.GetAccessToken())
	if err != nil {
		t.Fatal(err)
	}
	expected := &dlsmsv1.GetAccountResponse{User: user, ExpiresAt: login.GetExpiresAt()}
	if diff := cmp.Diff(expected, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}

	until := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	db.Exec(t, `UPDATE users SET role = 'STAFF', branches = ARRAY(SELECT id FROM branches), user_group = 'faculty',
		suspended_until = $1`, until)
	got, err = get(s.login(t, "S2021", testPassword))
	if err != nil {
		t.Fatal(err)
	}
	user.Role = dlsmsv1.Role_ROLE_STAFF
	expected = &dlsmsv1.GetAccountResponse{
		User: user, Branches: []string{"branch-0"}, Group: "faculty", ExpiresAt: got.GetExpiresAt(),
		SuspendedUntil: timestamppb.New(until),
	}
	if diff := cmp.Diff(expected, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	db.Exec(t, `UPDATE users SET role = 'ADMIN'`)
	got, err = get(s.login(t, "S2021", testPassword))
	if err != nil || !got.GetAllBranches() || len(got.GetBranches()) != 0 {
		t.Errorf("an admin: %v, %v", got, err)
	}
	// The replica has accepted the user a moment ago: the row decides.
	db.Exec(t, `UPDATE users SET token_generation = token_generation + 1`)
	_, err = get(login.GetAccessToken())
	want(t, err, codes.Unauthenticated, "TOKEN_REVOKED")
}

// TestRepeatedChangePasswordReportsRevokedToken repeats a call after the first answer was lost. The
// client gets TOKEN_REVOKED, not BAD_CREDENTIALS, even if the replica does not know yet that the
// password has changed.
func TestRepeatedChangePasswordReportsRevokedToken(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	s.register(t, "S2021")
	me := bearing(t.Context(), s.login(t, "S2021", testPassword))
	// The first attempt was committed.
	db.Exec(t, `UPDATE users SET token_generation = token_generation + 1, password_hash = 'another'`)
	db.Exec(t, `INSERT INTO revocations (library_id, user_id, generation, expires_at)
		SELECT 1, id, token_generation, now() + interval '1 hour' FROM users`)
	_, err := s.auth.ChangePassword(me, &dlsmsv1.ChangePasswordRequest{
		CurrentPassword: testPassword, NewPassword: "battery staple",
	})
	want(t, err, codes.Unauthenticated, "TOKEN_REVOKED")
}

// TestEraseUserRemovesPersonalData tests the command dlsms erase: see docs/security.md.
func TestEraseUserRemovesPersonalData(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	s.register(t, "s2021001")
	s.register(t, "S2021002")
	mine, other := s.login(t, "S2021001", testPassword), s.login(t, "S2021002", testPassword)
	if _, err := db.Open(t, library.DefaultPolicy()).EraseUser(t.Context(), "S2021001"); err != nil {
		t.Fatal(err)
	}
	storetest.Eventually(t, "the token is revoked", func() bool {
		_, err := s.auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{Token: mine})
		return reasonOf(err) == "TOKEN_REVOKED"
	})
	if _, err := s.auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{Token: other}); err != nil {
		t.Errorf("the token of another user: %v", err)
	}
	_, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: "S2021001", Password: testPassword})
	want(t, err, codes.Unauthenticated, "BAD_CREDENTIALS")
	if n := storetest.Value[int](t, db, `SELECT count(*) FROM users WHERE users::text ~* 's2021001'`); n != 0 {
		t.Error("the users table still has the student id")
	}
}

// TestConcurrentChangePasswordsSucceedOnce changes a password several times at once, each time with
// the right current password. Exactly one change succeeds.
func TestConcurrentChangePasswordsSucceedOnce(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	me := s.student(t)
	claims, err := s.auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{Token: tokenOf(t, me)})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		all.Go(func() {
			_, errs[i] = s.auth.ChangePassword(me, &dlsmsv1.ChangePasswordRequest{
				CurrentPassword: testPassword, NewPassword: fmt.Sprint("new password ", i),
			})
		})
	}
	all.Wait()
	won := slices.IndexFunc(errs, func(err error) bool { return err == nil })
	for i, err := range errs {
		if reason := reasonOf(err); i != won && reason != "BAD_CREDENTIALS" && reason != "TOKEN_REVOKED" {
			t.Errorf("a failed change got %v", err)
		}
	}
	if won < 0 {
		t.Fatal("no change succeeded")
	}
	s.login(t, claims.GetStudentId(), fmt.Sprint("new password ", won))
}

// TestLoginTakesSameTimeForUnknownStudents compares two median times: of a login with a wrong
// password, and of a login with an unknown student id. Equal work differs by a few percent. A login
// that compares no password would take almost no time.
func TestLoginTakesSameTimeForUnknownStudents(t *testing.T) {
	t.Parallel()
	const cost = 6 // 4 ms, several times everything else in a login
	s := start(t, func(c *Config) { c.BcryptCost = cost })
	s.register(t, "S2021001")
	// The first password has one form to compare, and the second has two: see check.password.
	for _, password := range []string{"wrong password", "wrong pa\u0308ssword"} {
		took := map[string][]time.Duration{}
		for range 15 {
			// The ids alternate, so that a busy machine slows both.
			for _, id := range []string{"S2021001", "S2021999"} {
				began := time.Now()
				_, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: id, Password: password})
				took[id] = append(took[id], time.Since(began))
				want(t, err, codes.Unauthenticated, "BAD_CREDENTIALS")
			}
		}
		known, unknown := median(took["S2021001"]), median(took["S2021999"])
		if ratio := float64(unknown) / float64(known); ratio < 0.6 || ratio > 1.67 {
			t.Errorf("the wrong password %q takes %v, an unknown student id %v", password, known, unknown)
		}
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// TestTokensCarryTheRole tests that a token carries the role that the store has for its user.
func TestTokensCarryTheRole(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	s.register(t, "L0001")
	db.Exec(t, `UPDATE users SET role = 'LIBRARIAN'`)
	verify := &dlsmsv1.VerifyTokenRequest{Token: s.login(t, "L0001", testPassword)}
	claims, err := s.auth.VerifyToken(t.Context(), verify)
	if err != nil || claims.GetRole() != dlsmsv1.Role_ROLE_LIBRARIAN {
		t.Errorf("the token of a librarian has the claims %v, %v", claims, err)
	}
	for _, role := range []library.Role{library.RoleStudent, library.RoleLibrarian} {
		if roleProto(role) == dlsmsv1.Role_ROLE_UNSPECIFIED {
			t.Errorf("%s has no value in the enum", role)
		}
	}
}

// TestPublicMethodsIgnoreTokens tests that a client with an invalid token can still read seats.
func TestPublicMethodsIgnoreTokens(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	if _, err := s.seats.GetSeats(bearing(t.Context(), "nonsense"), &dlsmsv1.GetSeatsRequest{}); err != nil {
		t.Error(err)
	}
}

func tokenOf(t *testing.T, ctx context.Context) string { // the context of a call, not of this function
	t.Helper()
	md, _ := metadata.FromOutgoingContext(ctx)
	token, ok := strings.CutPrefix(strings.Join(md.Get("authorization"), " "), "Bearer ")
	if !ok {
		t.Fatal("the context carries no token")
	}
	return token
}
