package e2e_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// revocationDeadline bounds, by the contract, how long a replica may accept a revoked token.
const revocationDeadline = 5 * time.Second

func TestLogoutRevokesTokenOnEveryReplica(t *testing.T) {
	t.Parallel()
	everywhere(t, logoutRevokesToken)
}

func TestChangePasswordRevokesAllTokensOnEveryReplica(t *testing.T) {
	t.Parallel()
	everywhere(t, changePasswordRevokesAllTokens)
}

func TestLogoutEverywhereRevokesAllTokensOnEveryReplica(t *testing.T) {
	t.Parallel()
	everywhere(t, logoutEverywhereRevokesAllTokens)
}

func logoutRevokesToken(t *testing.T, s *system) {
	t.Helper()
	u := s.student(t)
	phone := s.login(t, u.User.GetStudentId(), password) // a second token of the same user
	laptopStreams, phoneStreams := subscribeEverywhere(t, s, u.Client), subscribeEverywhere(t, s, phone.Client)

	if _, err := u.WithConn(conn(t, s, 0)).Auth.Logout(t.Context(), &dlsmsv1.LogoutRequest{}); err != nil {
		t.Fatal(err)
	}
	wantRevoked(t, s, u.Client, laptopStreams)
	for i := range s.copies() {
		c := phone.WithConn(conn(t, s, i))
		if _, err := c.Reservations.GetReservations(t.Context(), &dlsmsv1.GetReservationsRequest{}); err != nil {
			t.Errorf("replica %d refuses the other token: %v", i, err)
		}
	}
	for i, stream := range phoneStreams {
		select {
		case <-stream.Ended():
			t.Errorf("replica %d ended the other token's stream", i)
		default:
		}
	}
}

func changePasswordRevokesAllTokens(t *testing.T, s *system) {
	t.Helper()
	u := s.student(t)
	phone := s.login(t, u.User.GetStudentId(), password)
	laptopStreams, phoneStreams := subscribeEverywhere(t, s, u.Client), subscribeEverywhere(t, s, phone.Client)

	_, err := u.WithConn(conn(t, s, 0)).Auth.ChangePassword(t.Context(),
		&dlsmsv1.ChangePasswordRequest{CurrentPassword: password, NewPassword: "another " + password})
	if err != nil {
		t.Fatal(err)
	}
	wantRevoked(t, s, u.Client, laptopStreams)
	wantRevoked(t, s, phone.Client, phoneStreams)
	_, err = s.anonymous().Login(t.Context(), u.User.GetStudentId(), password)
	refused(t, err, "BAD_CREDENTIALS")
	wantValid(t, s, s.login(t, u.User.GetStudentId(), "another "+password).Client)
}

// logoutEverywhereRevokesAllTokens logs out over HTTP, as the page does.
func logoutEverywhereRevokesAllTokens(t *testing.T, s *system) {
	t.Helper()
	u := s.student(t)
	phone := s.login(t, u.User.GetStudentId(), password)
	laptopStreams, phoneStreams := subscribeEverywhere(t, s, u.Client), subscribeEverywhere(t, s, phone.Client)

	s.send(t, "POST", "/v1/auth/logout", `{"everywhere": true}`, bearer(u)...).message(200, &dlsmsv1.LogoutResponse{})
	wantRevoked(t, s, u.Client, laptopStreams)
	wantRevoked(t, s, phone.Client, phoneStreams)
	again := s.login(t, u.User.GetStudentId(), password)
	wantValid(t, s, again.Client)
	s.send(t, "POST", "/v1/auth/logout", `{"everywhere": true}`, bearer(u)...).problem(401, "TOKEN_REVOKED")
	wantValid(t, s, again.Client)
}

// wantValid checks that every replica accepts the token of u.
func wantValid(t *testing.T, s *system, u *e2e.Client) {
	t.Helper()
	for i := range s.copies() {
		c := u.WithConn(conn(t, s, i))
		if _, err := c.Reservations.GetReservations(t.Context(), &dlsmsv1.GetReservationsRequest{}); err != nil {
			t.Errorf("replica %d refuses the new token: %v", i, err)
		}
	}
}

// subscribeEverywhere opens a subscription on each replica.
func subscribeEverywhere(t *testing.T, s *system, u *e2e.Client) []*e2e.StreamRecorder[dlsmsv1.SubscribeResponse] {
	t.Helper()
	var streams []*e2e.StreamRecorder[dlsmsv1.SubscribeResponse]
	for i := range s.copies() {
		stream, err := u.WithConn(conn(t, s, i)).Subscribe(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stream.Close)
		streams = append(streams, stream)
	}
	return streams
}

// waitUntilRevoked returns when the services for students on every replica refuse the token of u.
func waitUntilRevoked(t *testing.T, s *system, u *e2e.Client) {
	t.Helper()
	deadline := within(t, revocationDeadline)
	for i := range s.copies() {
		c := u.WithConn(conn(t, s, i))
		for name, call := range map[string]func() error{
			"auth": func() error {
				_, err := c.Auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{Token: u.Token})
				return err
			},
			"reservation": func() error {
				_, err := c.Reservations.GetReservations(t.Context(), &dlsmsv1.GetReservationsRequest{})
				return err
			},
			"notify": func() error {
				_, err := c.Notify.GetWaitlist(t.Context(), &dlsmsv1.GetWaitlistRequest{})
				return err
			},
		} {
			for e2e.Reason(call()) != "TOKEN_REVOKED" {
				if deadline.Err() != nil {
					t.Fatalf("replica %d, service %s: the token is still valid", i, name)
				}
			}
		}
	}
}

// wantRevoked checks that every replica refuses the token of u, and has ended its streams, within
// revocationDeadline.
func wantRevoked(t *testing.T, s *system, u *e2e.Client, streams []*e2e.StreamRecorder[dlsmsv1.SubscribeResponse]) {
	t.Helper()
	deadline := within(t, revocationDeadline)
	for i := range s.copies() {
		c := u.WithConn(conn(t, s, i))
		var err error
		for err == nil && deadline.Err() == nil {
			_, err = c.Reservations.GetReservations(t.Context(), &dlsmsv1.GetReservationsRequest{})
		}
		refused(t, err, "TOKEN_REVOKED")
		_, err = c.Auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{Token: u.Token})
		refused(t, err, "TOKEN_REVOKED")
		_, err = c.Auth.Logout(t.Context(), &dlsmsv1.LogoutRequest{})
		refused(t, err, "TOKEN_REVOKED")
		why, err := streams[i].End(deadline)
		if err != nil {
			t.Errorf("replica %d: %v", i, err)
			continue
		}
		if e2e.RefusalOf(why).Code != codes.Unauthenticated {
			t.Errorf("replica %d ended the stream with %v", i, why)
		}
		refused(t, why, "TOKEN_REVOKED")
	}
}
