package server

import (
	"context"
	"time"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/identity"
)

// Session is a user or a screen that stays signed in.
type Session struct {
	// Token is the token of the user, or the service key of the screen.
	Token string
	// Key is true for a service key. The fields below are then zero: a key does not expire.
	Key       bool
	UserID    int64
	StudentID string
	Role      dlsmsv1.Role
	ExpiresAt time.Time
	Remaining time.Duration // until ExpiresAt
}

// VerifySession returns the session of a token. It is a part of calls of VerifyToken, and fails as
// VerifyToken does. Unlike VerifyToken it also accepts a service key with the scope screen.
func (s *Server) VerifySession(ctx context.Context, token string) (Session, error) {
	if identity.IsKey(token) {
		caller, err := s.keys.Verify(ctx, token)
		if err == nil && !caller.Allows(library.ScopeScreen) {
			err = library.ScopeRequired(library.ScopeScreen)
		}
		return Session{Token: token, Key: true}, err
	}
	caller, err := s.tokens.Verify(token)
	if err == nil {
		err = s.edge.InForce(ctx, caller)
	}
	return Session{
		Token: token, UserID: caller.UserID, StudentID: caller.StudentID, Role: roleProto(caller.Role),
		ExpiresAt: caller.ExpiresAt, Remaining: s.tokens.Remaining(caller),
	}, err
}
