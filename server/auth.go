package server

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store"
)

type authService struct {
	dlsmsv1.UnsafeAuthServiceServer

	store     *store.Store
	tokens    *identity.Tokens
	revoked   *identity.Revocations
	inForce   func(context.Context, identity.Caller) error
	passwords *identity.Passwords
	limits    *edge.Limits
	hints     *Hints
}

func (s *authService) Register(ctx context.Context, req *dlsmsv1.RegisterRequest) (*dlsmsv1.RegisterResponse, error) {
	var c check
	u := library.NewUser{
		StudentID: c.studentID("student_id", req.GetStudentId()),
		Name:      c.name("name", req.GetName()),
		Email:     c.email("email", req.GetEmail()),
		Role:      library.RoleStudent,
	}
	password := c.newPassword("password", req.GetPassword())
	if err := c.err(); err != nil {
		return nil, err
	}

	var err error
	if u.PasswordHash, err = s.passwords.Hash(ctx, clientKey(ctx), u.StudentID, password); err != nil {
		return nil, err
	}
	user, err := s.store.RegisterUser(ctx, u)
	if err != nil {
		return nil, err
	}

	return &dlsmsv1.RegisterResponse{User: userProto(user)}, nil
}

func (s *authService) Login(ctx context.Context, req *dlsmsv1.LoginRequest) (*dlsmsv1.LoginResponse, error) {
	var c check
	studentID := c.studentID("student_id", req.GetStudentId())
	password := c.password("password", req.GetPassword())
	if err := c.err(); err != nil {
		return nil, err
	}

	credentials, err := s.checkPassword(ctx, studentID, password, func() (library.Credentials, error) {
		return s.store.Credentials(ctx, studentID)
	})
	if err != nil {
		return nil, err
	}
	token, claims, err := s.tokens.Issue(credentials)
	if err != nil {
		return nil, err
	}
	// A login does not fail because its time cannot be stored. The next login stores it.
	_ = s.store.SaveLogin(ctx, credentials.ID)

	return &dlsmsv1.LoginResponse{
		AccessToken: token,
		ExpiresAt:   timestamppb.New(claims.ExpiresAt),
		User:        userProto(credentials.User),
	}, nil
}

func (s *authService) VerifyToken(
	ctx context.Context, req *dlsmsv1.VerifyTokenRequest,
) (*dlsmsv1.VerifyTokenResponse, error) {
	var c check
	if req.GetToken() == "" {
		c.fault("token", "is missing")
	}
	if err := c.err(); err != nil {
		return nil, err
	}

	claims, err := s.tokens.Verify(req.GetToken())
	if err != nil {
		return nil, err
	}
	if err := s.inForce(ctx, claims); err != nil {
		return nil, err
	}

	return &dlsmsv1.VerifyTokenResponse{
		UserId:    claims.UserID,
		StudentId: claims.StudentID,
		Role:      roleProto(claims.Role),
		IssuedAt:  timestamppb.New(claims.IssuedAt),
		ExpiresAt: timestamppb.New(claims.ExpiresAt),
	}, nil
}

func (s *authService) ChangePassword(
	ctx context.Context, req *dlsmsv1.ChangePasswordRequest,
) (*dlsmsv1.ChangePasswordResponse, error) {
	var c check
	current := c.password("current_password", req.GetCurrentPassword())
	next := c.newPassword("new_password", req.GetNewPassword())
	if err := c.err(); err != nil {
		return nil, err
	}

	if err := s.checkNotRevoked(ctx); err != nil {
		return nil, err
	}
	if err := s.replacePassword(ctx, current, next); err != nil {
		return nil, err
	}

	return &dlsmsv1.ChangePasswordResponse{}, nil
}

func (s *authService) Logout(ctx context.Context, req *dlsmsv1.LogoutRequest) (*dlsmsv1.LogoutResponse, error) {
	logout := s.revokeOne
	if req.GetEverywhere() {
		logout = s.revokeAll
	}
	if err := logout(ctx, edge.Caller(ctx)); err != nil {
		return nil, err
	}

	return &dlsmsv1.LogoutResponse{}, nil
}

// revokeOne revokes the token of a call.
func (s *authService) revokeOne(ctx context.Context, me identity.Caller) error {
	if err := s.store.RevokeToken(ctx, me.UserID, me.JTI, me.RevocationExpiry()); err != nil {
		return err
	}
	s.revoke(store.Revocation{UserID: me.UserID, JTI: me.JTI, ExpiresAt: me.RevocationExpiry()})
	return nil
}

// revokeAll revokes all tokens of the user of a call.
func (s *authService) revokeAll(ctx context.Context, me identity.Caller) error {
	expiresAt := s.tokens.RevocationExpiry()
	generation, err := s.store.RevokeTokens(ctx, me.Identity(), expiresAt)
	if err != nil {
		return err
	}
	s.revoke(store.Revocation{UserID: me.UserID, Generation: generation, ExpiresAt: expiresAt})
	return nil
}

// checkNotRevoked reads the revocation list and checks the caller's token against it.
//
// ChangePassword needs this for a client that repeats a call after a lost answer. The first attempt
// has changed the password, so the current password in the request is wrong now. The client must
// learn that its token is revoked, not that its password is wrong.
func (s *authService) checkNotRevoked(ctx context.Context) error {
	if err := s.revoked.Read(ctx); err != nil {
		return err
	}
	return s.revoked.Check(edge.Caller(ctx))
}

// replacePassword checks the caller's current password, stores the hash of the next one and revokes
// all of the caller's tokens.
func (s *authService) replacePassword(ctx context.Context, current []string, next string) error {
	me := edge.Caller(ctx)
	old, err := s.checkPassword(ctx, me.StudentID, current, func() (library.Credentials, error) {
		return s.store.CredentialsByID(ctx, me.UserID)
	})
	if err != nil {
		return err
	}
	hash, err := s.passwords.Hash(ctx, clientKey(ctx), me.StudentID, next)
	if err != nil {
		return err
	}
	expiresAt := s.tokens.RevocationExpiry()
	generation, err := s.store.ChangePassword(ctx, me.UserID, old.PasswordHash, hash, expiresAt)
	if err != nil {
		return err
	}
	s.revoke(store.Revocation{UserID: me.UserID, Generation: generation, ExpiresAt: expiresAt})
	return nil
}

// revoke applies a committed revocation on this replica at once, and sends a hint to the other
// replicas.
func (s *authService) revoke(r store.Revocation) {
	s.revoked.Apply(r)
	s.hints.Send(HintTokens)
}

// checkPassword loads the credentials of a student with load. It returns them if one of the forms
// of the password (see check.password) matches their hash, and ErrBadCredentials otherwise. A call
// for a student that does not exist takes the same time.
//
// Wrong passwords count as failed logins of the student id. After too many of them, checkPassword
// refuses right and wrong passwords alike, so that a client cannot learn the password by guessing.
func (s *authService) checkPassword(
	ctx context.Context, studentID string, forms []string, load func() (library.Credentials, error),
) (library.Credentials, error) {
	var found library.Credentials
	if err := s.limits.LoginAllowed(ctx, studentID); err != nil {
		return found, err
	}
	err := s.passwords.WithSlot(ctx, clientKey(ctx), studentID, func() (err error) {
		// Check the limit again: other attempts may have failed while this attempt waited for its
		// slot. Without this check, all attempts in the queue would pass the limit.
		if err := s.limits.LoginAllowed(ctx, studentID); err != nil {
			return err
		}
		if found, err = load(); err != nil && !errors.Is(err, library.ErrUserNotFound) {
			return err
		}
		err = s.passwords.Compare(found.PasswordHash, forms...)
		if errors.Is(err, library.ErrBadCredentials) {
			s.limits.LoginFailed(ctx, studentID)
		}
		return err
	})
	return found, err
}

// clientKey returns the key by which the password slots count the client.
func clientKey(ctx context.Context) string { return string(edge.ClientKey(ctx)) }

func userProto(u library.User) *dlsmsv1.User {
	return &dlsmsv1.User{
		Id:        u.ID,
		StudentId: u.StudentID,
		Name:      u.Name,
		Email:     u.Email,
		Role:      roleProto(u.Role),
		CreatedAt: timestamppb.New(u.CreatedAt),
	}
}

func roleProto(r library.Role) dlsmsv1.Role {
	return enumValue[dlsmsv1.Role]("ROLE_"+string(r), dlsmsv1.Role_value)
}
