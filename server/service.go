package server

import (
	"slices"

	"google.golang.org/grpc"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// Service is the name of a gRPC service that a server can serve.
type Service string

// The services.
const (
	AuthService        Service = "auth"
	SeatService        Service = "seat"
	ReservationService Service = "reservation"
	NotifyService      Service = "notify"
)

// Services returns all services.
func Services() []Service {
	return []Service{AuthService, SeatService, ReservationService, NotifyService}
}

// services are the handlers.
type services struct {
	auth        dlsmsv1.AuthServiceServer
	seat        dlsmsv1.SeatServiceServer
	reservation dlsmsv1.ReservationServiceServer
	notify      dlsmsv1.NotifyServiceServer
}

// register registers the named services.
func (h services) register(r grpc.ServiceRegistrar, names []Service) {
	for name, register := range map[Service]func(){
		AuthService:        func() { dlsmsv1.RegisterAuthServiceServer(r, h.auth) },
		SeatService:        func() { dlsmsv1.RegisterSeatServiceServer(r, h.seat) },
		ReservationService: func() { dlsmsv1.RegisterReservationServiceServer(r, h.reservation) },
		NotifyService:      func() { dlsmsv1.RegisterNotifyServiceServer(r, h.notify) },
	} {
		if slices.Contains(names, name) {
			register()
		}
	}
}

// fullName returns the name of the service in the protos.
func (s Service) fullName() string {
	switch s {
	case AuthService:
		return dlsmsv1.AuthService_ServiceDesc.ServiceName
	case SeatService:
		return dlsmsv1.SeatService_ServiceDesc.ServiceName
	case ReservationService:
		return dlsmsv1.ReservationService_ServiceDesc.ServiceName
	case NotifyService:
		return dlsmsv1.NotifyService_ServiceDesc.ServiceName
	}
	return ""
}
