package server

import (
	"context"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store"
)

// adminService changes the library. Its methods are in the files admin_*.go, one for each noun.
type adminService struct {
	dlsmsv1.UnimplementedAdminServiceServer

	store *store.Store
	hints *Hints
}

// change is a request of staff that changes something.
type change interface {
	GetValidateOnly() bool
	GetReason() string
}

// order returns the order of a staff call. action is the name of the RPC.
func (c *check) order(ctx context.Context, action string, req change) library.Order {
	return library.Order{
		Actor:        edge.Caller(ctx).Actor(),
		Action:       action,
		Reason:       c.text("reason", req.GetReason(), 0, store.MaxReason),
		RequestID:    edge.CallID(ctx),
		ValidateOnly: req.GetValidateOnly(),
	}
}
