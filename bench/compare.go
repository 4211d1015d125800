package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dlsms/dlsms/stack"
)

// studyScale is the size of a comparison of the architectures.
type studyScale struct {
	rounds        int
	warm, measure time.Duration
	clients       []int // of ghz and hey
	rates         []int // of the open loop, calls a second
	rateRounds    int
	bookClients   []int
	stale         staleScale
	streams       int
	streamTime    time.Duration
}

var (
	fullStudy = studyScale{
		rounds:      3,
		warm:        time.Second,
		measure:     5 * time.Second,
		clients:     []int{50, 100, 150, 200},
		rates:       []int{500, 1000, 2000},
		rateRounds:  3,
		bookClients: []int{50, 150},
		stale: staleScale{
			checks: 25_000, most: time.Minute, bursts: 8 * time.Second, timeout: 65 * time.Second,
		},
		streams:    1000,
		streamTime: 15 * time.Second,
	}
	quickStudy = studyScale{
		rounds: 1, warm: time.Second, measure: time.Second, clients: []int{50, 200},
		rates: []int{300, 1000}, rateRounds: 1, bookClients: []int{50},
		stale: staleScale{
			checks: 500, most: 5 * time.Second, bursts: time.Second, timeout: 2 * time.Second,
		},
		streams: 200, streamTime: 2 * time.Second,
	}
)

// study compares the architectures.
type study struct {
	*bench

	scale      studyScale
	services   *subject
	contenders []*contender // with the limits at the end
	tools      *tools
	result     *findings
}

// programs are the paths of the programs that a run starts.
type programs struct{ replica, limit, gateway, tools string }

// newStudy starts all architectures. The caller must stop them, even after an error.
func newStudy(ctx context.Context, b *bench, scale studyScale, p programs, dir string) (*study, error) {
	s := &study{bench: b, scale: scale, result: &findings{report: b.report}}
	var err error
	if s.tools, err = newTools(p.tools, dir); err != nil {
		return s, err
	}
	b.progress("starting the monolith")
	b.ours, err = startSubject(ctx, "the monolith", stack.Config{
		Binary: p.replica, Seed: true, Env: limitsOff(),
		// The monolith and the microservices have a database each in the same Postgres.
		PostgresSettings: map[string]string{"max_connections": "800"},
	})
	if err != nil {
		return s, err
	}
	b.progress("starting the microservices")
	if s.services, err = startServices(ctx, p.replica, b.ours); err != nil {
		return s, err
	}
	gateway, err := startGateway(ctx, p.gateway, s.services)
	if err != nil {
		return s, err
	}
	s.contend(b.ours, s.services, gateway)
	b.progress("starting the limit")
	if b.limit, err = b.startLimit(ctx, p.replica, p.limit, dir); err != nil {
		return s, err
	}
	for _, web := range []bool{false, true} {
		c := &contender{name: nameLimit, sys: b.limit, postgres: b.limit.Postgres, addr: b.limit.Addr()}
		if web {
			c.name, c.http, c.addr = nameLimitJSON, true, b.limit.HTTPAddr()
		}
		s.contenders = append(s.contenders, c)
	}
	if s.result.about, err = s.describe(ctx); err != nil {
		return s, err
	}
	s.result.about.versions += ", hey v0.1.4"
	s.result.about.settings = fmt.Sprintf("the defaults, without rate limits; rounds: %d of %s, warm-up %s",
		scale.rounds, scale.measure, scale.warm)
	if scale.rounds < fullStudy.rounds {
		s.result.about.settings += "; **a quick run, not meaningful**"
	}
	return s, nil
}

// contend makes contenders of the systems.
func (s *study) contend(monolith, services *subject, gateway *goGateway) {
	pg := monolith.Postgres
	s.contenders = []*contender{
		{name: nameA, sys: monolith, postgres: pg, addr: monolith.Addr()},
		{name: nameB, sys: monolith, postgres: pg, addr: monolith.HTTPAddr(), http: true},
		{name: nameB304, sys: monolith, postgres: pg, addr: monolith.HTTPAddr(), http: true, conditional: true},
		{name: nameC, sys: services, postgres: pg, addr: services.HTTPAddr(), http: true},
		{name: nameD, sys: services, postgres: pg, addr: gateway.addr, http: true, gateway: gateway},
	}
}

// stop stops all that was started.
func (s *study) stop() error {
	var errs []error
	if s.limit != nil {
		errs = append(errs, s.limit.stop())
	}
	for _, c := range s.contenders {
		if c.gateway != nil {
			errs = append(errs, c.gateway.stop())
		}
	}
	if s.services != nil {
		errs = append(errs, s.services.stop())
	}
	if s.ours != nil {
		errs = append(errs, s.ours.stop())
	}
	return errors.Join(errs...)
}

// compareArchitectures runs the comparison and writes it into out, if that is not empty.
func (b *bench) compareArchitectures(ctx context.Context, scale studyScale, p programs, out string) (err error) {
	dir, err := os.MkdirTemp("", "dlsms-compare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := newStudy(ctx, b, scale, p, dir)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return err
	}
	// The steps that read the 49 seats of the demo library come first; the later ones add seats.
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"reads", s.reads},
		{"equal rates", s.equalRates},
		{"decoding", s.decoding},
		{"streams", s.streams},
		{"login rush", s.loginRush},
		{"bookings", s.bookings},
		{"freshness", s.freshness},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	s.result.conclude()
	fmt.Fprintf(b.out, "\n%s\n%s", s.result.about, b.report.goalTable())
	if out == "" {
		return nil
	}
	if err := write(s.result, out); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\nwritten: %s\n", filepath.Clean(out))
	return nil
}

// byName returns a contender.
func (s *study) byName(name string) *contender {
	for _, c := range s.contenders {
		if c.name == name {
			return c
		}
	}
	return nil
}

// architectures returns the contenders without the limits.
func (s *study) architectures() []*contender { return s.contenders[:len(s.contenders)-2] }

// inTurns measures the contenders one after the other, in several rounds, so that other activity of
// the machine affects all contenders alike. Each round begins with another contender. The figures
// go into the result. If a call failed, the report gets a fault.
func (s *study) inTurns(
	ctx context.Context, k kind, contenders []*contender, rounds int,
	measure func(ctx context.Context, c *contender) (measurement, error),
) error {
	samples := map[string][]measurement{}
	for round := range rounds {
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			m, err := measure(ctx, c)
			if err != nil {
				return fmt.Errorf("%s on %s: %w", k, c.name, err)
			}
			s.progress("%s, %s, round %d of %d: %s, P95 %s, P99 %s, %s", k, c.name, round+1, rounds, perSecond(m.rps()),
				millis(m.percentile(95)), millis(m.percentile(99)), micros(m.parts.each(m.calls).total()))
			if err := m.failure(); err != nil {
				s.report.fault("%s on %s: %v", k, c.name, err)
			}
			samples[c.name] = append(samples[c.name], m)
		}
	}
	for _, c := range contenders {
		s.result.add(k, c, samples[c.name])
	}
	return nil
}
