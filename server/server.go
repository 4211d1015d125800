package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/dlsms/dlsms/availability"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/presence"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/telemetry"
)

// Config holds the dependencies and settings of a Server. A pointer, interface or function may be
// nil only if its comment says so. Options may be empty.
type Config struct {
	Store *store.Store
	// Services are the services that the server serves; nil: all of them.
	Services []Service
	Seats    *availability.Model // nil: the services seat and screen are not served
	Wakeups  *Wakeups            // nil: the notify service is not served
	Arrivals *Arrivals           // nil: the desk service is not served
	// Wake is called when a hint says that the change log has grown; nil: it is not called.
	Wake func()
	// MaxStaleness is the greatest age of the read model (Seats) at which it still answers while
	// Postgres is unreachable. Past this age, the health service reports SeatService as
	// NOT_SERVING.
	MaxStaleness time.Duration
	Redis        redis.UniversalClient // from edge.OpenRedis; nil: the replica runs without Redis
	// RedisTimeout bounds how long a call waits for Redis. 0 stands for edge.RedisTimeout.
	RedisTimeout time.Duration
	Log          *slog.Logger
	Metrics      prometheus.Registerer // nil: metrics are not registered

	// Codes makes and checks the codes of presence; nil: no code is valid.
	Codes *presence.Codes

	Keys       *identity.KeyRing
	TokenTTL   time.Duration
	BcryptCost int
	Limits     edge.RateLimits
	// TrustedProxies are the networks of the peers whose x-real-ip header is trusted.
	TrustedProxies []netip.Prefix
	// DBConns is the number of connections of the store. It determines how many calls may use
	// Postgres at the same time: see admission in package edge.
	DBConns      int
	Streams      edge.StreamLimits // 0 in a field stands for the default: edge.DefaultStreamLimits
	DrainTimeout time.Duration
	// MaxConnectionAge is how long a gRPC connection takes new calls. Then the client opens another
	// one. Calls and streams on the old one go on. 0: no limit.
	MaxConnectionAge time.Duration
	Reflection       bool
	// Now is the wall clock. Tokens are issued and expire by it. No booking depends on it.
	Now func() time.Time
	// Traces makes a span of each call.
	Traces telemetry.Traces
}

// Limits on the requests of a client.
const (
	// maxMessage is the size of a message in bytes. The largest valid message is below 2 KB.
	maxMessage = 64 << 10
	// maxConcurrentStreams bounds the calls that run on one connection at the same time. nginx
	// distributes the calls of a client over many connections to the replicas. Only a client that
	// connects without nginx runs many calls on one connection.
	maxConcurrentStreams = 1024
	// flowWindow is the HTTP/2 flow-control window of a stream and of a connection: the bytes that
	// a client may send before it must wait. grpc replaces a value below 64 KiB by its default.
	flowWindow = 128 << 10
	// streamWorkers is the number of goroutines that wait for calls. A call that arrives while all
	// of them are busy gets a goroutine of its own.
	streamWorkers = 64
)

// Server serves the API over gRPC, and to callers in this process: see InProcess.
type Server struct {
	parts

	grpc         *grpc.Server
	inProcess    *edge.InProcess
	edge         *edge.Edge
	probes       *probes
	hints        *Hints
	seats        *availability.Model // nil: the seat service is not served
	wake         func()
	seatService  *seatService
	store        *store.Store
	drain        time.Duration
	maxStaleness time.Duration
	log          *slog.Logger

	background     sync.WaitGroup // the goroutines that Ready starts
	stopBackground context.CancelFunc
}

// New returns a server that is not ready yet: until Ready returns, it answers health checks with
// NOT_SERVING and all other calls with UNAVAILABLE. New fails if a setting is invalid or the policy
// has no rule for a method.
func New(c Config) (*Server, error) { return newServer(c, nil) }

// newServer is New for tests: replace, if it is not nil, can replace handlers.
func newServer(c Config, replace func(*services)) (*Server, error) {
	if c.Services == nil {
		c.Services = Services()
	}
	if c.Codes == nil {
		c.Codes = &presence.Codes{}
	}
	// Hashing gets at most half of the cores, so that reads of seats stay fast during many logins.
	passwords, err := identity.NewPasswords(c.BcryptCost, runtime.GOMAXPROCS(0)/2, identity.PasswordWait)
	if err != nil {
		return nil, err
	}
	p := newParts(c)
	s := &Server{
		parts: p, edge: newEdge(c, p), probes: newProbes(c.Log, c.Services), seats: c.Seats, wake: c.Wake,
		seatService: &seatService{seats: c.Seats, store: c.Store, codes: c.Codes}, store: c.Store,
		drain: c.DrainTimeout, maxStaleness: c.MaxStaleness, log: c.Log,
	}
	s.hints = newHints(c.Redis, c.Store.Library(), c.Log, s.onHint)
	unary, stream, initialize := metrics(c.Metrics)
	unary, stream = c.Traces.Unary(unary), c.Traces.Stream(stream)
	s.grpc = grpc.NewServer(slices.Concat(grpcOptions(unary, stream, c.MaxConnectionAge), s.edge.Options())...)
	s.inProcess = s.edge.InProcess(unary, stream)

	handlers := newServices(c, s, passwords)
	if replace != nil {
		replace(&handlers)
	}
	if err := s.register(handlers, c.Services, c.Reflection); err != nil {
		return nil, err
	}
	initialize(s.grpc)
	if c.Metrics != nil {
		s.registerGauges(c.Metrics, passwords)
		registerPasswordHistogram(c.Metrics, passwords)
	}
	return s, nil
}

// parts are the objects that the server and its handlers share with package edge.
type parts struct {
	tokens  *identity.Tokens
	limits  *edge.Limits
	streams *edge.Streams
	revoked *identity.Revocations
	users   *identity.Users
	keys    *identity.Keys
}

func newParts(c Config) parts {
	streams := edge.NewStreams(c.Streams)
	users := identity.NewUsers(c.Store, streams, c.Log, backgroundReads(c.DBConns))
	return parts{
		tokens:  identity.NewTokens(c.Keys, c.TokenTTL, c.Now),
		limits:  edge.NewLimits(c.Limits, c.Redis, cmp.Or(c.RedisTimeout, edge.RedisTimeout), c.Store.Library(), c.Log),
		streams: streams,
		revoked: identity.NewRevocations(c.Store, streams, users.Forget, c.Log, c.Now),
		users:   users,
		keys:    identity.NewKeys(c.Store),
	}
}

func newEdge(c Config, p parts) *edge.Edge {
	return edge.New(edge.Config{
		Log: c.Log, Tokens: p.tokens, Revocations: p.revoked, Users: p.users, Keys: p.keys, Limits: p.limits,
		Streams: p.streams, DBConns: c.DBConns, TrustedProxies: c.TrustedProxies, Refused: refusalCounter(c.Metrics),
	})
}

// refusalCounter returns a function that counts calls that failed with a reason, or nil without a
// registry.
func refusalCounter(r prometheus.Registerer) func(method, reason string) {
	if r == nil {
		return nil
	}
	refusals := telemetry.Counter(r, "refusals_total")
	return func(method, reason string) {
		service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
		refusals.WithLabelValues(service, name, reason).Inc()
	}
}

func grpcOptions(
	unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor, maxAge time.Duration,
) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.ChainUnaryInterceptor(unary),
		grpc.ChainStreamInterceptor(stream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxConcurrentStreams),
		// A fixed window disables grpc's dynamic window. A dynamic window would cost a ping and its
		// answer for each request from nginx. It would gain nothing, because no message is larger
		// than flowWindow.
		grpc.InitialWindowSize(flowWindow), grpc.InitialConnWindowSize(flowWindow),
		// Without stream workers, each call starts a goroutine, and the stack of this goroutine
		// grows during the call: GetSeats then took 94 µs of a replica's CPU instead of 71 µs. An
		// open stream occupies a worker. With 100 streams open, GetSeats took 99 µs without stream
		// workers and 96 µs with them.
		grpc.NumStreamWorkers(streamWorkers),
		grpc.ConnectionTimeout(20 * time.Second),
		// A client that disappears without closing its connection is detected within a minute.
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 40 * time.Second, Timeout: 20 * time.Second, MaxConnectionAge: maxAge,
		}),
		// Clients may ping every 10 s, also between calls. grpc's default of 5 minutes would
		// disconnect well-behaved clients.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 10 * time.Second, PermitWithoutStream: true,
		}),
	}
}

func newServices(c Config, s *Server, passwords *identity.Passwords) services {
	return services{
		auth: &authService{
			store: c.Store, tokens: s.tokens, revoked: s.revoked, inForce: s.edge.InForce,
			passwords: passwords, limits: s.limits, hints: s.hints,
		},
		seat:        s.seatService,
		reservation: &reservationService{store: c.Store, hints: s.hints, codes: c.Codes, limits: s.limits},
		notify: &notifyService{
			store: c.Store, hints: s.hints, wakeups: c.Wakeups, inForce: s.edge.InForce,
			reading: make(chan struct{}, backgroundReads(c.DBConns)),
		},
		admin:  &adminService{store: c.Store, hints: s.hints, codes: c.Codes},
		desk:   &deskService{store: c.Store, hints: s.hints, arrivals: c.Arrivals},
		screen: &screenService{store: c.Store, seats: c.Seats, codes: c.Codes},
		report: &reportService{store: c.Store},
	}
}

// register registers the named services, the health service and, if withReflection is true,
// reflection. It fails if the policy (edge/policy.go) has no rule for one of their methods.
func (s *Server) register(handlers services, names []Service, withReflection bool) error {
	r := s.edge.Registrar(s.grpc)
	handlers.register(r, names)
	handlers.register(s.inProcess, names)
	healthpb.RegisterHealthServer(r, s.probes)
	if withReflection {
		if err := registerReflection(r); err != nil {
			return err
		}
	}
	return edge.CheckPolicy(s.grpc.GetServiceInfo())
}

// metrics returns the interceptors that count and time calls, and a function that creates the
// counters of all methods with the value 0. The interceptors run outside the edge, so they see the
// codes that clients see.
func metrics(
	r prometheus.Registerer,
) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor, func(reflection.ServiceInfoProvider)) {
	m := grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(
		grpcprom.WithHistogramBuckets([]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5})))
	if r != nil {
		r.MustRegister(m)
	}
	exemplar := grpcprom.WithExemplarFromContext(telemetry.Exemplar)
	return m.UnaryServerInterceptor(exemplar), m.StreamServerInterceptor(exemplar), m.InitializeMetrics
}

// registerGauges registers the gauges of the edge's open streams, incoming calls and admission
// slots.
func (s *Server) registerGauges(r prometheus.Registerer, p *identity.Passwords) {
	gauge := func(name string, labels prometheus.Labels, value func() int) {
		telemetry.GaugeFunc(r, name, labels, func() float64 { return float64(value()) })
	}
	gauge("streams_open", nil, func() int { return s.edge.Stats().Streams })
	gauge("calls_incoming", nil, func() int { return s.edge.Stats().Incoming })
	for class, inUse := range map[string]func() int{
		"book":     func() int { return s.edge.Stats().BookSlots },
		"read":     func() int { return s.edge.Stats().ReadSlots },
		"password": p.InUse,
	} {
		gauge("slots_taken", prometheus.Labels{"class": class}, inUse)
	}
	for use, open := range map[string]func() bool{"limits": s.limits.BreakerOpen, "hints": s.hints.BreakerOpen} {
		gauge("redis_breaker_open", prometheus.Labels{"use": use}, func() int {
			if open() {
				return 1
			}
			return 0
		})
	}
}

func registerPasswordHistogram(r prometheus.Registerer, p *identity.Passwords) {
	hashes := telemetry.Histogram(r, "password_hash_duration_seconds").WithLabelValues()
	p.Observe = func(d time.Duration) { hashes.Observe(d.Seconds()) }
}

// Serve answers calls on the listener until Shutdown, and then returns nil. It may be called before
// Ready, and for several listeners.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	return nil
}

// Ready waits until the revocation list and the seats are loaded, and then opens the server to
// calls. ctx bounds the wait.
func (s *Server) Ready(ctx context.Context) error {
	if err := s.revoked.Read(ctx); err != nil {
		return fmt.Errorf("read the revocation list: %w", err)
	}
	if s.seats != nil {
		select {
		case <-s.seats.Ready():
		case <-ctx.Done():
			return fmt.Errorf("load the seats: %w", context.Cause(ctx))
		}
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopBackground = stop
	s.background.Go(func() { s.revoked.Follow(background, s.updateProbes) })
	s.background.Go(func() { s.users.Follow(background) })
	s.background.Go(func() { s.hints.run(background) })
	s.background.Go(func() { s.limits.Run(background) })
	s.background.Go(func() { s.store.FollowRefusals(background, s.reportRefusals) })
	s.edge.Open()
	s.probes.set(func() { s.probes.ready = true })
	return nil
}

// reportRefusals logs that refusals could not be written. They stay in memory, and the next write has
// them. While Postgres is unreachable, other parts report it.
func (s *Server) reportRefusals(err error) {
	if err != nil && !store.Unavailable(err) {
		s.log.Warn("the refusals of bookings, which reports show, can't be written", "error", err)
	}
}

// updateProbes updates the health service. identity.Revocations calls it after each read of the
// revocation list, about once a second, and passes whether Postgres answered.
func (s *Server) updateProbes(postgresAnswers bool) {
	seats := false
	if s.seats != nil {
		stats := s.seats.Stats()
		seats = stats.Reachable || stats.Age <= s.maxStaleness
	}
	s.probes.set(func() { s.probes.postgres, s.probes.seats = postgresAnswers, seats })
}

// onHint handles each hint, from this replica and from other replicas.
func (s *Server) onHint(h Hint) {
	if h&HintReservations != 0 && s.wake != nil {
		s.wake()
	}
	if h&HintTokens != 0 {
		s.revoked.Wake()
	}
}

// Healthy reports whether the health service answers SERVING for the server as a whole.
func (s *Server) Healthy(ctx context.Context) bool {
	resp, err := s.probes.Check(ctx, &healthpb.HealthCheckRequest{})
	return err == nil && resp.GetStatus() == healthpb.HealthCheckResponse_SERVING
}

// InProcess returns an edge.InProcess, which calls the services of this server without a
// connection. Shutdown waits for such calls as for all others.
func (s *Server) InProcess() *edge.InProcess { return s.inProcess }

// Hint tells all replicas, including this replica, that a transaction outside of the handlers has
// committed a change. It never blocks.
func (s *Server) Hint(h Hint) { s.hints.Send(h) }

// Shutdown stops the server within DrainTimeout, or until ctx ends if that is sooner:
//
//   - Health checks answer NOT_SERVING and open streams end with UNAVAILABLE.
//   - The server accepts no connection and sends GOAWAY on open connections.
//   - Running calls finish. New calls on old connections are served for the first half of
//     DrainTimeout and refused with UNAVAILABLE in the second half.
//
// Shutdown returns an error if it had to cut off calls. It does not wait for incomplete requests,
// nor for clients that do not answer the GOAWAY: see idle. While the gRPC server stops, Shutdown
// also runs the functions in alongside, which stop other servers, such as the HTTP server, and
// waits for them.
func (s *Server) Shutdown(ctx context.Context, alongside ...func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.drain)
	defer cancel()
	defer s.waitBackground()
	s.probes.set(func() { s.probes.ready = false })
	s.streams.EndAll(library.ErrUnavailable)
	var draining errgroup.Group
	for _, drain := range alongside {
		draining.Go(func() error { return drain(ctx) })
	}
	err := s.shutdownGRPC(ctx)
	return cmp.Or(err, draining.Wait())
}

func (s *Server) shutdownGRPC(ctx context.Context) error {
	drained := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(drained)
	}()
	closeGate := time.AfterFunc(s.drain/2, s.edge.Close)
	defer closeGate.Stop()
	var err error
	select {
	case <-drained:
		return nil
	case <-s.idle(ctx):
		s.log.InfoContext(ctx, "closing connections whose clients do not answer",
			"calls_incoming", s.edge.Stats().Incoming)
	case <-ctx.Done():
		err = fmt.Errorf("calls were cut off after %s", s.drain)
	}
	s.grpc.Stop() // cancels the contexts of the handlers
	// Do not wait longer for a handler that ignores its context.
	select {
	case <-drained:
	case <-time.After(edge.HandlerGrace):
	}
	return err
}

// waitBackground stops the goroutines that Ready started and waits for them.
func (s *Server) waitBackground() {
	if s.stopBackground != nil {
		s.stopBackground()
	}
	s.background.Wait()
}

// idle returns a channel that it closes when no call has run for edge.HandlerGrace. In this time,
// grpc writes the last answers. After that, GracefulStop can only wait for
//
//   - incomplete requests, which may never arrive in full
//   - clients that have not answered the GOAWAY, for up to 5 s each
func (s *Server) idle(ctx context.Context) <-chan struct{} {
	idle := make(chan struct{})
	go func() {
		poll := time.NewTicker(edge.HandlerGrace / 20)
		defer poll.Stop()
		for lastBusy := time.Now(); time.Since(lastBusy) < edge.HandlerGrace; {
			select {
			case <-ctx.Done():
				return
			case <-poll.C:
			}
			if s.edge.Stats().Running > 0 {
				lastBusy = time.Now()
			}
		}
		close(idle)
	}()
	return idle
}
