package server

import (
	"log/slog"
	"slices"
	"sync"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// probes implements the health service. The service "" stands for the whole server, and each gRPC
// service has a status of its own. A status is logged only when it changes.
type probes struct {
	*health.Server
	log     *slog.Logger
	serving []Service // the services that have a status of their own

	mu        sync.Mutex
	ready     bool // the server has started and is not stopping
	postgres  bool // Postgres answers
	seats     bool // the read model is current, or not older than Config.MaxStaleness
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

// set calls change with the lock held, to change the fields. It then publishes the statuses that
// follow from the fields.
func (p *probes) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	serving := map[string]bool{
		// Without Postgres the server still answers reads of seats, so the whole server stays
		// SERVING. If it were NOT_SERVING, a client or proxy that checks this status would send it
		// no reads.
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
