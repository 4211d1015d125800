package server

import (
	"log/slog"
	"sync"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// probes keeps what the health service says: "" is the server as a whole, and each of our services has a status of its own. Only changes
// are logged.
type probes struct {
	*health.Server
	log *slog.Logger

	mu       sync.Mutex
	ready    bool // the server has started and isn't stopping
	postgres bool // Postgres answers
	seats    bool // the seats are known recently enough
	said     map[string]healthpb.HealthCheckResponse_ServingStatus
}

func newProbes(log *slog.Logger) *probes {
	p := &probes{
		Server: health.NewServer(), log: log, postgres: true, seats: true,
		said: map[string]healthpb.HealthCheckResponse_ServingStatus{},
	}
	p.set(func() {})
	return p
}

// set changes what is known and says what follows from it.
func (p *probes) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	for service, ok := range map[string]bool{
		// Without Postgres there is still browsing: taking the whole server out would end that, too.
		"": p.ready && (p.postgres || p.seats),
		dlsmsv1.SeatService_ServiceDesc.ServiceName:        p.ready && p.seats,
		dlsmsv1.AuthService_ServiceDesc.ServiceName:        p.ready && p.postgres,
		dlsmsv1.ReservationService_ServiceDesc.ServiceName: p.ready && p.postgres,
		dlsmsv1.NotifyService_ServiceDesc.ServiceName:      p.ready && p.postgres,
	} {
		status := healthpb.HealthCheckResponse_NOT_SERVING
		if ok {
			status = healthpb.HealthCheckResponse_SERVING
		}
		if before, known := p.said[service]; known && before == status {
			continue
		} else if known {
			p.log.Info("health", "service", service, "status", status.String())
		}
		p.said[service] = status
		p.SetServingStatus(service, status)
	}
}
