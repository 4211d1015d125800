package server

import (
	"log/slog"
	"sync"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// probes implements the health service. The service "" is the server as a whole; each gRPC service
// has a status of its own. Only changes of a status are logged.
type probes struct {
	*health.Server
	log *slog.Logger

	mu        sync.Mutex
	ready     bool // the server has started and is not stopping
	postgres  bool // Postgres answers
	seats     bool // the read model is reachable, or not older than the maximum staleness
	published map[string]healthpb.HealthCheckResponse_ServingStatus
}

func newProbes(log *slog.Logger) *probes {
	p := &probes{
		Server: health.NewServer(), log: log, postgres: true, seats: true,
		published: map[string]healthpb.HealthCheckResponse_ServingStatus{},
	}
	p.set(func() {})
	return p
}

// set calls change under the lock, to change the fields, and publishes the statuses that result.
func (p *probes) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	for service, serving := range map[string]bool{
		// Without Postgres the server still answers reads of seats. If the whole server were
		// NOT_SERVING, these reads would stop, too.
		"": p.ready && (p.postgres || p.seats),
		dlsmsv1.SeatService_ServiceDesc.ServiceName:        p.ready && p.seats,
		dlsmsv1.AuthService_ServiceDesc.ServiceName:        p.ready && p.postgres,
		dlsmsv1.ReservationService_ServiceDesc.ServiceName: p.ready && p.postgres,
		dlsmsv1.NotifyService_ServiceDesc.ServiceName:      p.ready && p.postgres,
	} {
		status := healthpb.HealthCheckResponse_NOT_SERVING
		if serving {
			status = healthpb.HealthCheckResponse_SERVING
		}
		if previous, known := p.published[service]; known && previous == status {
			continue
		} else if known {
			p.log.Info("health", "service", service, "status", status.String())
		}
		p.published[service] = status
		p.SetServingStatus(service, status)
	}
}
