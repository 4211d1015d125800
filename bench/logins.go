package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

const loginMethod = dlsmsv1.AuthService_Login_FullMethodName

// demoLogins returns the logins of the ten demo students.
func demoLogins() []*dlsmsv1.LoginRequest {
	var list []*dlsmsv1.LoginRequest
	for i := range 10 {
		list = append(list, &dlsmsv1.LoginRequest{StudentId: fmt.Sprintf("S20210%02d", i+1), Password: password})
	}
	return list
}

// logins measures the rate of Login, relative to the rate at which bcrypt runs on all cores. Then
// it measures how concurrent logins affect GetSeats.
func (b *bench) logins(ctx context.Context) error {
	hash, err := b.ours.passwordHash(ctx)
	if err != nil {
		return err
	}
	// With eight clients, a login waits for less than identity.PasswordWait (2 s), so none is
	// refused.
	const clients = 8
	var samples []sample
	var ratios []float64
	for round := range b.rounds {
		allowed, err := bcryptRate(hash, b.measure)
		if err != nil {
			return err
		}
		s, err := load{
			method: loginMethod, clients: clients, warm: b.warm, measure: b.measure, request: cycle(demoLogins()),
		}.run(ctx, b.ours)
		if err != nil {
			return fmt.Errorf("logins: %w", err)
		}
		b.progress(
			"Login, %d clients, round %d of %d: %s, bcrypt alone %s", clients, round+1, b.rounds, perSecond(s.rps()),
			perSecond(allowed),
		)
		if err := s.failure(); err != nil {
			b.report.fault("Login: %v", err)
		}
		samples, ratios = append(samples, s), append(ratios, s.rps()/allowed)
	}
	b.report.add(summary("Login", clients, b.ours, samples))
	b.report.atLeast("Login: logins a second, divided by what bcrypt at cost 12 allows on all cores", median(ratios), 0.9)
	return b.loginRush(ctx)
}

// bcryptRate returns how many passwords a second this machine compares on all cores.
func bcryptRate(hash string, measure time.Duration) (float64, error) {
	var compared atomic.Int64
	began := time.Now()
	errs := make(chan error, runtime.NumCPU())
	for range runtime.NumCPU() {
		go func() {
			for time.Since(began) < measure {
				if err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)); err != nil {
					errs <- err
					return
				}
				compared.Add(1)
			}
			errs <- nil
		}()
	}
	var all error
	for range runtime.NumCPU() {
		all = errors.Join(all, <-errs)
	}
	return float64(compared.Load()) / time.Since(began).Seconds(), all
}

// loginRush measures GetSeats without logins and during many concurrent logins. The calls of
// GetSeats first have a fixed rate, which leaves the machine mostly idle, and then the full rate.
func (b *bench) loginRush(ctx context.Context) error {
	for _, l := range []struct {
		name string
		load
	}{
		{"200 a second", load{clients: 20, rps: 200}},
		{"50 clients", load{clients: 50}},
	} {
		l.method, l.request, l.warm, l.measure = getSeats, sameMessage(availableNow), b.warm, b.measure
		if err := b.measureBesideLogins(ctx, l.name, l.load); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) measureBesideLogins(ctx context.Context, name string, steady load) error {
	const logins = 100
	var idle, during []sample
	var ratios []float64
	for round := range b.rounds {
		alone, err := steady.run(ctx, b.ours)
		if err != nil {
			return err
		}
		clients, err := dialGRPC(b.ours.Addr(), max(1, logins/clientsPerConnection))
		if err != nil {
			return err
		}
		stop := startLogins(ctx, clients, logins)
		busy, err := steady.run(ctx, b.ours)
		admitted, refused, other := stop()
		clients.close()
		if err != nil {
			return err
		}
		for _, s := range []sample{alone, busy} {
			if err := s.failure(); err != nil {
				b.report.fault("GetSeats during logins: %v", err)
			}
		}
		if other != nil {
			b.report.fault("logins during GetSeats: %v", other)
		}
		b.progress("GetSeats, %s, while %d log in, round %d of %d: P99 %s, alone %s; "+
			"%d logins admitted, %d refused",
			name, logins, round+1, b.rounds, millis(busy.percentile(99)), millis(alone.percentile(99)), admitted, refused)
		idle, during = append(idle, alone), append(during, busy)
		ratios = append(ratios, busy.percentile(99).Seconds()/alone.percentile(99).Seconds())
	}
	b.report.add(summary("GetSeats, "+name+", no logins", steady.clients, b.ours, idle))
	b.report.add(summary("GetSeats, "+name+", 100 logins", steady.clients, b.ours, during))
	b.report.atMost("GetSeats, "+name+", while 100 clients log in: P99, divided by P99 without logins", median(ratios), 3)
	return nil
}

// startLogins starts n clients, each of which logs in repeatedly until stop is called. A refused
// client waits for the time that the answer tells. stop returns the numbers of admitted and refused
// logins, and the first other error.
func startLogins(ctx context.Context, a api, n int) (stop func() (admitted, refused int64, other error)) {
	ctx, cancel := context.WithCancel(ctx)
	var admitted, refused atomic.Int64
	var other error
	var once sync.Once
	var all sync.WaitGroup
	requests := demoLogins()
	for i := range n {
		all.Go(func() {
			for ctx.Err() == nil {
				wait, err := a.login(ctx, requests[i%len(requests)])
				switch {
				case err == nil:
					admitted.Add(1)
				case ctx.Err() != nil:
				case wait > 0:
					refused.Add(1)
					_ = until(ctx, time.Now().Add(wait))
				default:
					once.Do(func() { other = err })
				}
			}
		})
	}
	return func() (int64, int64, error) {
		cancel()
		all.Wait()
		return admitted.Load(), refused.Load(), other
	}
}
