package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store"
)

func (s *authService) GetAccount(
	ctx context.Context, _ *dlsmsv1.GetAccountRequest,
) (*dlsmsv1.GetAccountResponse, error) {
	me := edge.Caller(ctx)
	account, err := s.store.Account(ctx, me.Identity())
	if err != nil {
		return nil, err
	}

	return &dlsmsv1.GetAccountResponse{
		User: userProto(account.User), Branches: account.Branches, AllBranches: account.AllBranches,
		Group: account.Group, ExpiresAt: timestamppb.New(me.ExpiresAt), SuspendedUntil: timestamp(account.SuspendedUntil),
	}, nil
}

func (s *authService) ExportMyData(
	_ *dlsmsv1.ExportMyDataRequest, stream grpc.ServerStreamingServer[dlsmsv1.ExportMyDataResponse],
) error {
	ctx := stream.Context()
	return s.store.ExportUser(ctx, edge.Caller(ctx).UserID, func(part []byte) error {
		return stream.Send(&dlsmsv1.ExportMyDataResponse{Content: part})
	})
}

func (s *authService) CloseMyAccount(
	ctx context.Context, req *dlsmsv1.CloseMyAccountRequest,
) (*dlsmsv1.CloseMyAccountResponse, error) {
	var c check
	password := c.password("password", req.GetPassword())
	if err := c.err(); err != nil {
		return nil, err
	}

	closed, err := s.closeAccount(ctx, password)
	if err != nil {
		return nil, err
	}

	return &dlsmsv1.CloseMyAccountResponse{
		Reservations: count(closed.Reservations), Entries: count(closed.Entries),
	}, nil
}

// closeAccount checks the caller's password and closes the caller's account. Like ChangePassword, it
// first checks that no earlier attempt has succeeded.
func (s *authService) closeAccount(ctx context.Context, password []string) (library.Closed, error) {
	if err := s.checkNotRevoked(ctx); err != nil {
		return library.Closed{}, err
	}
	me := edge.Caller(ctx)
	found, err := s.checkPassword(ctx, me.StudentID, password, func() (library.Credentials, error) {
		return s.store.CredentialsByID(ctx, me.UserID)
	})
	if err != nil {
		return library.Closed{}, err
	}
	order := library.Order{Actor: me.Actor(), Action: "CloseMyAccount", RequestID: edge.CallID(ctx)}
	closed, generation, err := s.store.CloseOwnAccount(ctx, order, found.PasswordHash)
	if err != nil {
		return library.Closed{}, err
	}
	s.revoke(store.Revocation{UserID: me.UserID, Generation: generation, ExpiresAt: s.tokens.RevocationExpiry()})
	s.hints.Send(HintReservations)
	return closed, nil
}
