package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/dlsms/dlsms/availability"
	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/rest"
	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/telemetry"
	"github.com/dlsms/dlsms/web"
	"github.com/dlsms/dlsms/worker"
)

// replica has all parts of one process. The steps of startSteps set the fields in the order below.
type replica struct {
	settings *settings
	log      *slog.Logger
	metrics  *prometheus.Registry

	running          *errgroup.Group    // the goroutines of the parts
	failed           context.Context    // ends when a goroutine of running fails; its cause is the error
	cancelBackground context.CancelFunc // ends the feed, the read model and the worker

	traces telemetry.Traces
	store  *store.Store
	redis  redis.UniversalClient // nil: no Redis
	feed   *feed.Feed            // nil: no service of the process needs it
	seats  *availability.Model   // nil: the process does not read seats
	worker *worker.Worker        // nil: the process does not run the worker
	server *server.Server
	http   *rest.Server // nil: no HTTP
	admin  *http.Server
}

func newReplica(ctx context.Context, s *settings, log *slog.Logger) *replica {
	r := &replica{settings: s, log: log, metrics: telemetry.NewRegistry(), cancelBackground: func() {}}
	r.running, r.failed = errgroup.WithContext(context.WithoutCancel(ctx))
	observeBuild(r.metrics, thisBuild())
	observeCertificate(context.WithoutCancel(ctx), r.metrics, s.TLSProbe)
	return r
}

// connect creates the parts that the services of the process need, and connects them. No part runs
// yet.
//
// The feed follows the change log for three subscribers:
//   - the read model applies the changes
//   - the wakeups wake Subscribe streams
//   - the worker learns when rows come due
func (r *replica) connect(context.Context) error {
	s := r.settings
	keys, err := identity.ParseKeyRing(s.JWTSecret)
	if err != nil {
		return err
	}
	codes, err := presenceCodes(s.Presence, r.store.Library())
	if err != nil {
		return err
	}
	if r.redis, err = edge.OpenRedis(s.RedisURL, s.RedisCAFile, edge.RedisTimeout); err != nil {
		return err
	}
	r.traces.TraceRedis(r.redis)
	observeStore(r.metrics, r.store)
	wakeups, arrivals := &server.Wakeups{}, &server.Arrivals{}
	wake := r.connectFeed(wakeups, arrivals)

	r.server, err = server.New(server.Config{
		Store:        r.store,
		Services:     s.Services.api,
		Seats:        r.seats,
		Wakeups:      wakeups,
		Arrivals:     arrivals,
		Wake:         wake,
		MaxStaleness: s.MaxStaleness,
		Redis:        r.redis,
		Log:          r.log,
		Metrics:      r.metrics,
		Keys:         keys,
		Codes:        codes,
		TokenTTL:     s.JWTTTL,
		BcryptCost:   s.BcryptCost,
		Limits: edge.RateLimits{
			PerUserPerMinute: s.RateLimit, PerAddressPerMinute: s.AuthLimit, LoginFailures: s.FailureLimit,
		},
		Streams: edge.StreamLimits{
			Total: s.MaxStreams, PerAddress: s.MaxStreamsPerAddress, PerUser: s.MaxStreamsPerUser,
		},
		TrustedProxies:   s.Proxies,
		DBConns:          s.DBMaxConns,
		DrainTimeout:     s.DrainTimeout,
		MaxConnectionAge: s.MaxConnectionAge,
		Reflection:       s.Reflection,
		Now:              time.Now,
		Traces:           r.traces,
	})
	if err != nil || !s.servesHTTP() {
		return err
	}
	handler, err := rest.NewHandler(rest.Config{ //nolint:contextcheck // nothing in it runs yet
		Calls:        r.server.InProcess(),
		GetSeats:     r.server.GetSeatsJSON,
		GetFloorPlan: r.server.GetFloorPlanJSON,
		Session:      r.server.VerifySession,
		Healthy:      r.server.Healthy,
		Origins:      s.Origins,
		Web:          web.Dist(),
		Log:          r.log,
		Metrics:      r.metrics,
		Traces:       r.traces,
	})
	if err != nil {
		return err
	}
	r.http = rest.NewServer(handler)
	return nil
}

// connectFeed creates the feed and the subscribers that the services of the process need. It
// returns a function that makes the feed refresh at once, or nil if the process needs no feed.
func (r *replica) connectFeed(wakeups *server.Wakeups, arrivals *server.Arrivals) (wake func()) {
	s := r.settings
	if !s.Services.feed() {
		return nil
	}
	r.feed = feed.New(r.store, feed.Options{
		Freshness:    s.ReadFreshness,
		MaxStaleness: s.MaxStaleness,
		OnRefresh:    refreshObserver(r.metrics),
		Logger:       r.log,
	})
	if s.Services.readModel() {
		r.seats = availability.New(r.feed, availability.Options{PastTolerance: s.PastTolerance})
		observeSeats(r.metrics, r.seats)
	}
	if s.Services.serve(server.NotifyService) {
		r.feed.Subscribe(feed.Subscriber{OnEvents: func(d feed.Delta) { wakeups.Notify(d.Events) }})
	}
	if s.Services.serve(server.DeskService) {
		r.feed.Subscribe(feed.Subscriber{OnEvents: func(d feed.Delta) {
			if d.World != nil {
				arrivals.Restart()
			}
			arrivals.Notify(d.Events)
		}})
	}
	if s.Services.worker {
		r.worker = worker.New(r.store, worker.Config{
			Interval:        s.WorkerInterval,
			RetentionMonths: s.RetentionMonths,
			Logger:          r.log,
			Metrics:         workerMetrics(r.metrics),
			Done:            r.afterTransitions(),
		})
		r.feed.Subscribe(feed.Subscriber{OnEvents: r.worker.Schedule})
	}
	return r.feed.Wake
}

// afterTransitions returns the function that the worker calls after each transaction. The function
// counts the transitions, and sends a hint so that all replicas read the new events at once.
func (r *replica) afterTransitions() func(step string, n int) {
	count := transitionCounter(r.metrics)
	return func(step string, n int) {
		count(step, n)
		r.server.Hint(server.HintReservations)
	}
}
