package server

import (
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
	AdminService       Service = "admin"
	DeskService        Service = "desk"
	ReportService      Service = "report"
	ScreenService      Service = "screen"
)

// Services returns all services.
func Services() []Service {
	return []Service{
		AuthService, SeatService, ReservationService, NotifyService, AdminService, DeskService, ScreenService, ReportService,
	}
}

// services are the handlers.
type services struct {
	auth        dlsmsv1.AuthServiceServer
	seat        dlsmsv1.SeatServiceServer
	reservation dlsmsv1.ReservationServiceServer
	notify      dlsmsv1.NotifyServiceServer
	admin       dlsmsv1.AdminServiceServer
	desk        dlsmsv1.DeskServiceServer
	report      dlsmsv1.ReportServiceServer
	screen      dlsmsv1.ScreenServiceServer
}

// registration is a gRPC service with its handlers.
type registration struct {
	desc     *grpc.ServiceDesc
	handlers any
}

// byName returns all services by their names.
func (h services) byName() map[Service]registration {
	return map[Service]registration{
		AuthService:        {&dlsmsv1.AuthService_ServiceDesc, h.auth},
		SeatService:        {&dlsmsv1.SeatService_ServiceDesc, h.seat},
		ReservationService: {&dlsmsv1.ReservationService_ServiceDesc, h.reservation},
		NotifyService:      {&dlsmsv1.NotifyService_ServiceDesc, h.notify},
		AdminService:       {&dlsmsv1.AdminService_ServiceDesc, h.admin},
		DeskService:        {&dlsmsv1.DeskService_ServiceDesc, h.desk},
		ReportService:      {&dlsmsv1.ReportService_ServiceDesc, h.report},
		ScreenService:      {&dlsmsv1.ScreenService_ServiceDesc, h.screen},
	}
}

// register registers the named services.
func (h services) register(r grpc.ServiceRegistrar, names []Service) {
	all := h.byName()
	for _, name := range names {
		r.RegisterService(all[name].desc, all[name].handlers)
	}
}

// fullName returns the name of the service in the protos.
func (s Service) fullName() string { return services{}.byName()[s].desc.ServiceName }
