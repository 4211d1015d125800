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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/dlsms/dlsms/availability"
	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
	"github.com/dlsms/dlsms/telemetry"
	"github.com/dlsms/dlsms/worker"
)

type serveCommand struct{}

// Run serves clients until ctx ends.
func (serveCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("dlsms can't start with these settings (dlsms --help explains each):\n%w", err)
	}
	signal.Ignore(syscall.SIGPIPE) // whoever took the log may have ended: that must not end the replica
	log, flush := telemetry.NewLog(out, s.LogLevel)
	defer flush()
	tuneCollector(os.DirFS("/"), log)
	err := runReplica(ctx, s, log)
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return nil // told to stop before it was ready
	}
	return err
}

func runReplica(ctx context.Context, s *settings, log *slog.Logger) error {
	// A port in use is told before anything else happens.
	if err := checkFree("GRPC_ADDR", s.GRPCAddr); err != nil {
		return err
	}
	if err := checkFree("ADMIN_ADDR", s.AdminAddr); err != nil {
		return err
	}

	traces, err := telemetry.NewTraces(ctx, s.OTLPEndpoint)
	if err != nil {
		return err
	}
	defer stopTraces(ctx, traces, log)
	metrics := telemetry.NewRegistry()
	db, err := openDatabase(ctx, s, traces, storeObserver(metrics), log)
	if err != nil {
		return err
	}
	defer db.Close()
	r, err := newReplica(s, db, traces, metrics, log)
	if err != nil {
		return err
	}
	defer r.close()
	return r.serve(ctx, s)
}

func stopTraces(ctx context.Context, traces telemetry.Traces, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := traces.Stop(ctx); err != nil {
		log.WarnContext(ctx, "the last traces were not sent", "error", err)
	}
}

func checkFree(setting, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%s: %w", setting, err)
	}
	return l.Close()
}

// startPatience is how long a replica waits for Postgres when it starts: the two are often started together.
const startPatience = time.Minute

// demoSecret is a part of the secret that docker-compose.yml has for the demo.
const demoSecret = "everybody-can-read-this-secret"

// openDatabase migrates the database, opens it, and adds the demo data where that is set.
func openDatabase(ctx context.Context, s *settings, traces telemetry.Traces, observer store.Observer, log *slog.Logger) (*store.Store, error) {
	patience := newPatience(log)
	migrated, err := await(ctx, patience, func() (migrations.Result, error) { return migrations.Up(ctx, s.DatabaseURL) })
	if err != nil {
		return nil, err
	}
	log.InfoContext(ctx, "the database is migrated", "applied", len(migrated.Applied), "schema", migrated.Schema)
	if migrated.Schema > migrated.Newest {
		log.WarnContext(ctx, "the database has the schema of a newer release", "schema", migrated.Schema, "newest_known", migrated.Newest)
	}
	if migrated.Moved {
		log.WarnContext(ctx, movedOn)
	}
	db, err := await(ctx, patience, func() (*store.Store, error) {
		return store.Open(ctx, store.Config{
			URL:      s.DatabaseURL,
			MinConns: int32(s.DBMinConns), //nolint:gosec // setting.go reads 31 bits
			MaxConns: int32(s.DBMaxConns), //nolint:gosec // setting.go reads 31 bits
			Policy:   s.rules(),
			Tracer:   traces.QueryTracer(),
			Log:      log,
			Observer: observer,
		})
	})
	if err != nil {
		return nil, fmt.Errorf("open the database (is max_connections of Postgres above DB_MAX_CONNS of all replicas together?): %w", err)
	}
	switch faults, err := db.DurabilityFaults(ctx); {
	case err != nil:
		log.WarnContext(ctx, "Postgres does not tell whether a crash may lose acknowledged reservations", "error", err)
	case len(faults) > 0:
		log.WarnContext(ctx, "a crash of Postgres may lose acknowledged reservations", "settings", faults)
	}
	if strings.Contains(s.JWTSecret, demoSecret) {
		log.WarnContext(ctx, "JWT_SECRET is that of docker-compose.yml, which everybody can read: set your own, or anyone can be anyone")
	}
	if s.SeedDemo {
		added, err := await(ctx, patience, func() (store.Seeded, error) { return seedDemo(ctx, db, s.BcryptCost) })
		if err != nil {
			db.Close()
			return nil, fmt.Errorf("add the demo data: %w", err)
		}
		log.WarnContext(ctx, "SEED_DEMO is set: users with a known password exist", "added_seats", added.Seats, "added_users", added.Users)
	}
	return db, nil
}

// patience is how long a start goes on waiting for Postgres.
type patience struct {
	until time.Time
	log   *slog.Logger
}

func newPatience(log *slog.Logger) patience { return patience{time.Now().Add(startPatience), log} }

// await does something with Postgres, and again each second while Postgres can't be reached, until the patience is at its end.
func await[T any](ctx context.Context, p patience, do func() (T, error)) (T, error) {
	for {
		v, err := do()
		if err == nil || ctx.Err() != nil || time.Now().After(p.until) || !store.Unavailable(err) {
			return v, err
		}
		p.log.WarnContext(ctx, "Postgres does not answer yet; trying again", "error", err)
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// replica is everything that runs in one process.
type replica struct {
	log     *slog.Logger
	metrics *prometheus.Registry
	redis   redis.UniversalClient // nil: none
	feed    *feed.Feed
	seats   *availability.Model
	worker  *worker.Worker
	server  *server.Server
}

func newReplica(s *settings, db *store.Store, traces telemetry.Traces, metrics *prometheus.Registry, log *slog.Logger) (*replica, error) {
	r := &replica{log: log, metrics: metrics}
	count := transitionCounter(r.metrics)
	r.worker = worker.New(db, worker.Config{Interval: s.WorkerInterval, Logger: log, Metrics: workerMetrics(r.metrics), Done: func(step string, n int) {
		count(step, n)
		r.server.Hint(server.HintReservations)
	}})
	r.feed = feed.New(db, feed.Options{
		Freshness:    s.ReadFreshness,
		MaxStaleness: s.MaxStaleness,
		OnRefresh:    refreshObserver(r.metrics),
		Logger:       log,
	})
	r.seats = availability.New(r.feed, availability.Options{PastTolerance: s.rules().PastTolerance})
	wakeups := &server.Wakeups{}
	r.feed.Subscribe(feed.Subscriber{OnEvents: func(d feed.Delta) { wakeups.Notify(d.Events) }})
	r.feed.Subscribe(feed.Subscriber{OnEvents: r.worker.Schedule})
	observeStore(r.metrics, db)
	observeSeats(r.metrics, r.seats)

	var err error
	if r.redis, err = server.OpenRedis(s.RedisURL); err != nil {
		return nil, err
	}
	r.server, err = s.newServer(r, db, wakeups, traces)
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (s *settings) newServer(r *replica, db *store.Store, wakeups *server.Wakeups, traces telemetry.Traces) (*server.Server, error) {
	keys, err := server.ParseKeyRing(s.JWTSecret)
	if err != nil {
		return nil, err
	}
	return server.New(server.Config{
		Store:          db,
		Seats:          r.seats,
		Wakeups:        wakeups,
		MaxStaleness:   s.MaxStaleness,
		Redis:          r.redis,
		Log:            r.log,
		Metrics:        r.metrics,
		Keys:           keys,
		TokenTTL:       s.JWTTTL,
		BcryptCost:     s.BcryptCost,
		Limits:         server.RateLimits{PerUserPerMinute: s.RateLimit, PerAddressPerMinute: s.AuthLimit, LoginFailures: s.FailureLimit},
		Streams:        server.StreamLimits{Total: s.MaxStreams, PerAddress: s.MaxStreamsPerAddress, PerUser: s.MaxStreamsPerUser},
		TrustedProxies: s.Proxies,
		DBConns:        s.DBMaxConns,
		DrainTimeout:   s.DrainTimeout,
		Reflection:     s.Reflection,
		Now:            time.Now,
		Options:        traces.ServerOptions(),
	})
}

func (r *replica) close() {
	if r.redis != nil {
		_ = r.redis.Close() // nothing is lost with it
	}
}

// serve runs until ctx ends, and then stops in the order in which nothing is cut off: the server drains, then the worker and the seats stop.
func (r *replica) serve(ctx context.Context, s *settings) error {
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	running, failed := errgroup.WithContext(background)
	adminListener, err := net.Listen("tcp", s.AdminAddr)
	if err != nil {
		return fmt.Errorf("ADMIN_ADDR: %w", err)
	}
	admin := &http.Server{Handler: telemetry.AdminHandler(r.metrics, r.server.Healthy), ReadHeaderTimeout: 5 * time.Second}
	running.Go(func() error {
		if err := admin.Serve(adminListener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("ADMIN_ADDR: %w", err)
		}
		return nil
	})
	running.Go(func() error { return r.feed.Run(background) })
	running.Go(func() error { return r.seats.Run(background) })
	running.Go(func() error { r.worker.Run(background); return nil })

	starting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	ready := make(chan error, 1)
	go func() {
		_, err := await(starting, newPatience(r.log), func() (struct{}, error) { return struct{}{}, r.server.Ready(starting) })
		ready <- err
	}()
	for serving := true; serving && err == nil; {
		select {
		case <-ctx.Done():
			serving = false
		case <-failed.Done():
			serving = false
		case err = <-ready:
			ready = nil
			if err == nil {
				err = r.listen(s.GRPCAddr, running)
			}
			if err == nil {
				r.log.InfoContext(ctx, "serving", "grpc", s.GRPCAddr, "admin", s.AdminAddr)
			}
		}
	}
	giveUp()
	if ready != nil { // nothing is to start while all stops
		if unready := <-ready; unready != nil {
			r.log.InfoContext(background, "the start was given up", "cause", unready)
		}
	}
	r.log.InfoContext(background, "stopping", "drain_timeout", s.DrainTimeout.String())
	if cut := r.server.Shutdown(background); cut != nil {
		r.log.WarnContext(background, "stopped before all calls had finished", "error", cut)
	}
	stopBackground()
	_ = admin.Close()
	if waitErr := running.Wait(); err == nil && !errors.Is(waitErr, context.Canceled) {
		err = waitErr
	}
	if err == nil {
		r.log.InfoContext(background, "stopped")
	}
	return err
}

// listen lets clients in, now that they can be answered: a proxy passes a call from a closed port on to the next replica at once, but one
// that an early listener had accepted would wait for as long as this replica waits for Postgres, or loads the seats.
func (r *replica) listen(addr string, running *errgroup.Group) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("GRPC_ADDR: %w", err)
	}
	running.Go(func() error { return r.server.Serve(l) })
	return nil
}
