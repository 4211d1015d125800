package server

import (
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store"
)

// deskService acts for users, at the desk of a branch.
type deskService struct {
	dlsmsv1.UnimplementedDeskServiceServer

	store *store.Store
	hints *Hints
}
