package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
	"github.com/dlsms/dlsms/telemetry"
)

type serveCommand struct{}

// Run serves clients until ctx ends.
func (serveCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("dlsms can't start with these settings (dlsms --help explains each):\n%w", err)
	}
	signal.Ignore(syscall.SIGPIPE) // a closed log pipe must not end the replica
	log, output := telemetry.NewLog(out, s.LogLevel)
	defer output.Flush()
	tuneCollector(os.DirFS("/"), log)
	r := newReplica(ctx, s, log)
	observeLog(r.metrics, output)
	err := r.run(ctx)
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return nil // stopped before it was ready
	}
	return err
}

const (
	// postgresTimeout bounds how long a step of a start tries to reach Postgres. A replica and
	// Postgres are often started at the same time, and then Postgres is not ready at the first
	// attempt.
	postgresTimeout = time.Minute
	// migrateTimeout ends a migration that hangs. It must be longer than the build of an index on a
	// large table: a build that is interrupted begins again at the next start.
	migrateTimeout = 24 * time.Hour
	// loadTimeout bounds how long the read model and the revocations take to load.
	loadTimeout = 10 * time.Minute
	// instant bounds a step that waits for no other process.
	instant = 5 * time.Second
)

// startSteps returns the steps of a start. The last step opens the port for clients. While the port
// is closed, a proxy sends each call to another replica at once. If the port were open from the
// beginning, calls would wait until this replica has reached Postgres and loaded the seats.
func (r *replica) startSteps() []step {
	return []step{
		{"check that the addresses are free", instant, r.checkAddresses},
		{"set up traces", instant, r.setUpTraces},
		{"migrate the database", migrateTimeout, r.migrate},
		{"open the database", 2 * postgresTimeout, r.openDatabase},
		{"check the durability of the database", instant, r.checkDurability},
		{"repair the policies", 2 * postgresTimeout, r.repairPolicies},
		{"add the demo data", 2 * postgresTimeout, r.seed},
		{"connect the parts", instant, r.connect},
		{"open the admin port", instant, r.openAdminPort},
		{"start the feed, the read model and the worker", instant, r.startBackground},
		{"load the read model and the revocations", loadTimeout, r.load},
		{"listen for clients", instant, r.listen},
	}
}

// stopSteps returns the steps of a stop. The server drains first, while the feed and the worker
// still run, so that calls in flight can finish. If a part was not started, its step does nothing.
func (r *replica) stopSteps() []step {
	return []step{
		{"drain the server", r.settings.DrainTimeout + instant, r.drain},
		{"stop the feed, the read model, the worker and the admin port", 2 * instant, r.stopBackground},
		{"close Redis", instant, r.closeRedis},
		{"close the database", instant, r.closeDatabase},
		{"send the last traces", 3 * time.Second, r.sendTraces},
	}
}

// run starts the replica, serves until ctx ends or a part fails, and stops the replica.
func (r *replica) run(ctx context.Context) error {
	b := thisBuild()
	r.log.InfoContext(ctx, "starting", "version", b.version, "revision", b.revision, "go", b.goVersion)
	err := startInOrder(ctx, r.log, r.startSteps())
	if err == nil {
		r.log.InfoContext(ctx, "serving", "services", r.settings.Services.String(),
			"grpc", r.settings.GRPCAddr, "http", r.settings.HTTPAddr, "admin", r.settings.AdminAddr)
		select {
		case <-ctx.Done():
		case <-r.failed.Done():
		}
	}
	ctx = context.WithoutCancel(ctx)
	r.log.InfoContext(ctx, "stopping", "drain_timeout", r.settings.DrainTimeout.String())
	stopInOrder(ctx, r.log, r.stopSteps())
	cause := context.Cause(r.failed) //nolint:contextcheck // failed is the state of the replica, not of a call
	if err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if err == nil {
		r.log.InfoContext(ctx, "stopped")
	}
	return err
}

// checkAddresses reports an address in use before the replica changes the database.
func (r *replica) checkAddresses(context.Context) error {
	s := r.settings
	for _, a := range []struct {
		setting, addr string
		used          bool
	}{
		{"ADMIN_ADDR", s.AdminAddr, true},
		{"GRPC_ADDR", s.GRPCAddr, s.Services.clients()},
		{"HTTP_ADDR", s.HTTPAddr, s.servesHTTP()},
	} {
		if !a.used {
			continue
		}
		l, err := listenOn(a.setting, a.addr)
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// listenOn listens on addr, the value of a setting. Its error names the setting.
func listenOn(setting, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return l, nil
}

func (r *replica) setUpTraces(ctx context.Context) (err error) {
	s := r.settings
	r.traces, err = telemetry.NewTraces(ctx, telemetry.TraceConfig{
		Endpoint: s.OTLPEndpoint, Sampler: s.TracesSampler, Ratio: s.TracesRatio, Log: r.log,
	})
	return err
}

func (r *replica) migrate(ctx context.Context) error {
	migrated, err := await(ctx, r.log, func() (migrations.Result, error) {
		return migrations.Up(ctx, r.settings.DatabaseURL)
	})
	if err != nil {
		return err
	}
	r.log.InfoContext(ctx, "the database is migrated", "applied", len(migrated.Applied), "schema", migrated.Schema)
	if migrated.Schema > migrated.Newest {
		r.log.WarnContext(ctx, "the database has the schema of a newer release",
			"schema", migrated.Schema, "newest_known", migrated.Newest)
	}
	if migrated.Moved {
		r.log.WarnContext(ctx, movedOn)
	}
	return nil
}

func (r *replica) openDatabase(ctx context.Context) error {
	s := r.settings
	observer := storeObserver(r.metrics) // not in each attempt: to register a metric twice panics
	db, err := await(ctx, r.log, func() (*store.Store, error) {
		return store.Open(ctx, store.Config{
			URL:       s.DatabaseURL,
			MinConns:  int32(s.DBMinConns), //nolint:gosec // setting.go reads 31 bits
			MaxConns:  int32(s.DBMaxConns), //nolint:gosec // setting.go reads 31 bits
			Policy:    s.rules(),
			Tracer:    r.traces.QueryTracer(),
			StartSpan: startSpan,
			Log:       r.log,
			Observer:  observer,
		})
	})
	if err != nil {
		return fmt.Errorf("open the database (each replica needs DB_MAX_CONNS + 9 connections: "+
			"is max_connections of Postgres high enough for all replicas?): %w", err)
	}
	r.store = db
	return nil
}

// demoSecret is a part of the JWT_SECRET that docker-compose.yml sets for the demo.
const demoSecret = "everybody-can-read-this-secret"

// checkDurability logs a warning if a crash of Postgres may lose acknowledged reservations because
// of its settings, or if JWT_SECRET is the public one of the demo. The replica starts anyway.
func (r *replica) checkDurability(ctx context.Context) error {
	switch faults, err := r.store.DurabilityFaults(ctx); {
	case err != nil:
		r.log.WarnContext(ctx, "Postgres does not tell whether a crash may lose acknowledged reservations", "error", err)
	case len(faults) > 0:
		r.log.WarnContext(ctx, "a crash of Postgres may lose acknowledged reservations", "settings", faults)
	}
	if strings.Contains(r.settings.JWTSecret, demoSecret) {
		r.log.WarnContext(ctx, "JWT_SECRET is the public one of docker-compose.yml: "+
			"anyone can sign tokens of any user until you set your own")
	}
	return nil
}

func (r *replica) repairPolicies(ctx context.Context) error {
	_, err := await(ctx, r.log, func() (struct{}, error) { return struct{}{}, r.store.RepairPolicies(ctx) })
	if err != nil {
		return fmt.Errorf("repair the policies: %w", err)
	}
	return nil
}

func (r *replica) seed(ctx context.Context) error {
	if !r.settings.SeedDemo {
		return nil
	}
	added, err := await(ctx, r.log, func() (store.Seeded, error) {
		return seedDemo(ctx, r.store, r.settings.BcryptCost)
	})
	if err != nil {
		return fmt.Errorf("add the demo data: %w", err)
	}
	r.log.WarnContext(ctx, "SEED_DEMO is set: users with a known password exist",
		"added_seats", added.Seats, "added_users", added.Users)
	return nil
}

// await calls do and returns its result. If do fails because Postgres can't be reached, await calls
// it again after a second, for at most postgresTimeout.
func await[T any](ctx context.Context, log *slog.Logger, do func() (T, error)) (T, error) {
	for deadline := time.Now().Add(postgresTimeout); ; {
		v, err := do()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) || !store.Unavailable(err) {
			return v, err
		}
		log.WarnContext(ctx, "Postgres does not answer yet; trying again", "error", err)
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (r *replica) openAdminPort(context.Context) error {
	l, err := listenOn("ADMIN_ADDR", r.settings.AdminAddr)
	if err != nil {
		return err
	}
	r.admin = &http.Server{
		Handler:           telemetry.AdminHandler(r.metrics, r.server.Healthy),
		ReadHeaderTimeout: 5 * time.Second,
	}
	r.running.Go(func() error {
		if err := r.admin.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("ADMIN_ADDR: %w", err)
		}
		return nil
	})
	return nil
}

func (r *replica) startBackground(ctx context.Context) error {
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancelBackground = cancel
	if r.feed != nil {
		r.running.Go(func() error { return r.feed.Run(background) })
	}
	if r.seats != nil {
		r.running.Go(func() error { return r.seats.Run(background) })
	}
	if r.worker != nil {
		r.running.Go(func() error { r.worker.Run(background); return nil })
	}
	return nil
}

// load waits until the server can answer calls. It returns an error if a part of the replica fails
// before.
func (r *replica) load(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.failed, func() { cancel(context.Cause(r.failed)) })() //nolint:contextcheck // as in run
	_, err := await(ctx, r.log, func() (struct{}, error) { return struct{}{}, r.server.Ready(ctx) })
	if r.failed.Err() != nil {
		return context.Cause(r.failed) //nolint:contextcheck // as in run
	}
	return err
}

func (r *replica) listen(context.Context) error {
	if !r.settings.Services.clients() {
		return nil
	}
	l, err := listenOn("GRPC_ADDR", r.settings.GRPCAddr)
	if err != nil {
		return err
	}
	r.running.Go(func() error { return r.server.Serve(l) })
	if r.http == nil {
		return nil
	}
	web, err := listenOn("HTTP_ADDR", r.settings.HTTPAddr)
	if err != nil {
		return err
	}
	r.running.Go(func() error { return r.http.Serve(web) })
	return nil
}

// drain ends calls and streams, over gRPC and HTTP, within DRAIN_TIMEOUT. It returns an error if
// calls were cut off.
func (r *replica) drain(ctx context.Context) error {
	if r.server == nil {
		return nil
	}
	if r.http == nil {
		return r.server.Shutdown(ctx)
	}
	return r.server.Shutdown(ctx, r.http.Shutdown)
}

// stopBackground ends the feed, the read model, the worker and the admin port, and waits until they
// have returned. The worker finishes its current transaction.
func (r *replica) stopBackground(context.Context) error {
	r.cancelBackground()
	if r.admin != nil {
		_ = r.admin.Close() // a scrape that is cut off is repeated
	}
	if err := r.running.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (r *replica) closeRedis(context.Context) error {
	if r.redis == nil {
		return nil
	}
	return r.redis.Close()
}

func (r *replica) closeDatabase(context.Context) error {
	if r.store != nil {
		r.store.Close()
	}
	return nil
}

func (r *replica) sendTraces(ctx context.Context) error { return r.traces.Stop(ctx) }
