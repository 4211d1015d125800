package server

import (
	"log/slog"
	"slices"
	"sync"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// probes implements the health service. The service "" is the server as a whole; each gRPC service
// has a status of its own. Only changes of a status are logged.
type probes struct {
	*health.Server
	log     *slog.Logger
	serving []Service // the services that have a status of their own

	mu        sync.Mutex
	ready     bool // the server has started and is not stopping
	postgres  bool // Postgres answers
	seats     bool // the read model is reachable, or not older than the maximum staleness
	published map[string]healthpb.HealthCheckResponse_ServingStatus
}

func newProbes(log *slog.Logger, serving []Service) *probes {
	p := &probes{
		Server: health.NewServer(), log: log, serving: serving,
		postgres: true, seats: slices.Contains(serving, SeatService),
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
	serving := map[string]bool{
		// Without Postgres the server still answers reads of seats. If the whole server were
		// NOT_SERVING, these reads would stop, too.
		"": p.ready && (p.postgres || p.seats),
	}
	for _, s := range p.serving {
		serving[s.fullName()] = p.ready && p.postgres
	}
	if slices.Contains(p.serving, SeatService) {
		serving[SeatService.fullName()] = p.ready && p.seats
	}
	for service, serving := range serving {
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
