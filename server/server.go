package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/dlsms/dlsms/availability"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/telemetry"
)

// Config holds the dependencies and settings of a Server. Redis, Metrics, Streams and Options are
// optional; every other field is required.
type Config struct {
	Store   *store.Store
	Seats   *availability.Model
	Wakeups *Wakeups
	// MaxStaleness is the MaxStaleness of Seats. When the read model is older and Postgres is
	// unreachable, the health service reports SeatService as NOT_SERVING.
	MaxStaleness time.Duration
	Redis        redis.UniversalClient // from OpenRedis; nil: the replica runs without Redis
	Log          *slog.Logger
	Metrics      prometheus.Registerer // nil: metrics are not registered

	Keys       *KeyRing
	TokenTTL   time.Duration
	BcryptCost int
	Limits     RateLimits
	// TrustedProxies are the networks of the peers whose x-real-ip header is trusted.
	TrustedProxies []netip.Prefix
	// DBConns is the size of the store's connection pool. Admission derives its slots from it.
	DBConns      int
	Streams      StreamLimits // a zero limit is replaced by the one of DefaultStreamLimits
	DrainTimeout time.Duration
	Reflection   bool
	// Now is the wall clock. Tokens are issued and expire by it. No booking depends on it.
	Now func() time.Time
	// Options are additional options for the gRPC server, such as a stats handler for traces.
	Options []grpc.ServerOption
}

// DefaultStreamLimits are the limits on open streams. They are above the need of a campus behind
// one address and below the load that would harm a replica: a stream costs a replica about 20 KB.
var DefaultStreamLimits = StreamLimits{Total: 10_000, PerAddress: 1_000, PerUser: 8}

// Limits on the size of requests. The largest valid message is below 2 KB. The largest valid
// headers, with a token, are below 1 KB.
const (
	maxMessage = 64 << 10
	maxHeaders = 16 << 10
	// maxHeaderList is the limit that grpc itself enforces. grpc resets a stream above it without a
	// status; nginx takes the reset for a failing replica, and clients repeat the call. The limit
	// is therefore above the 64 KiB that nginx lets through plus 32 bytes for each of 1,000 fields,
	// so that refuseLargeHeaders answers every oversized call from nginx.
	maxHeaderList = 96 << 10
	// maxConcurrentStreams bounds the calls on one connection. nginx spreads one client connection
	// over many connections to the replicas, so only direct clients use more than a few.
	maxConcurrentStreams = 1024
	// flowWindow is the HTTP/2 flow-control window of a stream and of a connection: the bytes that
	// a client may send before it must wait. grpc replaces a value below 64 KiB by its default.
	flowWindow = 128 << 10
	// streamWorkers is the number of goroutines that wait for calls. A call that arrives while all
	// of them are busy gets a goroutine of its own.
	streamWorkers = 64
)

// Server serves the API over gRPC.
type Server struct {
	grpc         *grpc.Server
	edge         *edge
	probes       *probes
	hints        *Hints
	seats        *availability.Model
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

// newServer is New. If replace is not nil, it can replace handlers, for tests of the edge.
func newServer(c Config, replace func(*services)) (*Server, error) {
	// Hashing gets at most half of the cores, so that reads of seats stay fast during many logins.
	passwords, err := newPasswords(c.BcryptCost, runtime.GOMAXPROCS(0)/2)
	if err != nil {
		return nil, err
	}
	s := &Server{
		edge: newEdge(c), probes: newProbes(c.Log), seats: c.Seats,
		drain: c.DrainTimeout, maxStaleness: c.MaxStaleness, log: c.Log,
	}
	s.hints = newHints(c.Redis, c.Store.Library(), c.Log, s.onHint)
	unary, stream, initialize := metrics(c.Metrics)
	s.grpc = grpc.NewServer(append(grpcOptions(s.edge, unary, stream), c.Options...)...)

	handlers := newServices(c, s.edge, s.hints, passwords)
	if replace != nil {
		replace(&handlers)
	}
	if err := s.register(handlers, c.Reflection); err != nil {
		return nil, err
	}
	initialize(s.grpc)
	if c.Metrics != nil {
		s.registerGauges(c.Metrics, passwords)
		registerPasswordHistogram(c.Metrics, passwords)
	}
	return s, nil
}

func newEdge(c Config) *edge {
	open := newStreams(c.Streams.orDefault())
	e := &edge{
		log:       c.Log,
		tokens:    newTokens(c.Keys, c.TokenTTL, c.Now),
		revoked:   newRevocations(c.Store, open, c.Log, c.Now),
		limits:    newLimits(c.Limits, c.Redis, c.Log),
		admission: newAdmission(c.DBConns),
		streams:   open,
		incoming:  newIncoming(),
		trusted:   c.TrustedProxies,
	}
	e.limits.library = c.Store.Library()
	e.users = newIdentities(c.Store, open, c.Log, backgroundReads(c.DBConns))
	e.revoked.restarted = e.users.forget
	return e
}

func grpcOptions(e *edge, unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(arrivals{insecure.NewCredentials()}),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.ChainUnaryInterceptor(unary, e.unary),
		grpc.ChainStreamInterceptor(stream, e.serverStream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.InTapHandle(refuseLargeHeaders),
		grpc.MaxConcurrentStreams(maxConcurrentStreams),
		// No message is larger than the window, so grpc's dynamic window would gain nothing. It
		// would cost a ping and its answer for each request from nginx. A fixed window disables it.
		grpc.InitialWindowSize(flowWindow), grpc.InitialConnWindowSize(flowWindow),
		// A new goroutine for each call grows its stack each time: GetSeats then took 94 µs of a
		// replica's CPU instead of 71 µs. A long stream occupies one of these goroutines. With 100
		// streams open, GetSeats took 99 µs without stream workers and 96 µs with them.
		grpc.NumStreamWorkers(streamWorkers),
		grpc.ConnectionTimeout(20 * time.Second),
		// A client that disappears without closing its connection is detected within a minute.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 40 * time.Second, Timeout: 20 * time.Second}),
		// Clients may ping every 10 s, also between calls. grpc's default of 5 minutes would
		// disconnect well-behaved clients.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 10 * time.Second, PermitWithoutStream: true,
		}),
	}
}

// services are the handlers.
type services struct {
	auth        dlsmsv1.AuthServiceServer
	seat        dlsmsv1.SeatServiceServer
	reservation dlsmsv1.ReservationServiceServer
	notify      dlsmsv1.NotifyServiceServer
}

func newServices(c Config, e *edge, hints *Hints, passwords *passwords) services {
	return services{
		auth: &authService{
			store: c.Store, tokens: e.tokens, revoked: e.revoked, inForce: e.inForce,
			passwords: passwords, limits: e.limits, hints: hints,
		},
		seat:        &seatService{seats: c.Seats},
		reservation: &reservationService{store: c.Store, hints: hints},
		notify: &notifyService{
			store: c.Store, hints: hints, wakeups: c.Wakeups, inForce: e.inForce,
			reading: make(chan struct{}, backgroundReads(c.DBConns)),
		},
	}
}

// register registers the services, the health service and, if asked for, reflection. It fails if
// the policy does not cover all of their methods.
func (s *Server) register(handlers services, withReflection bool) error {
	r := registrar{s.grpc, s.edge}
	dlsmsv1.RegisterAuthServiceServer(r, handlers.auth)
	dlsmsv1.RegisterSeatServiceServer(r, handlers.seat)
	dlsmsv1.RegisterReservationServiceServer(r, handlers.reservation)
	dlsmsv1.RegisterNotifyServiceServer(r, handlers.notify)
	healthpb.RegisterHealthServer(r, s.probes)
	if withReflection {
		if err := registerReflection(r); err != nil {
			return err
		}
	}
	return checkPolicy(s.grpc.GetServiceInfo())
}

// metrics returns the interceptors that count and time calls. They run outside the edge, so they
// see the codes that clients see.
func metrics(
	r prometheus.Registerer,
) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor, func(reflection.ServiceInfoProvider)) {
	m := grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(
		grpcprom.WithHistogramBuckets([]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5})))
	if r != nil {
		r.MustRegister(m)
	}
	return m.UnaryServerInterceptor(), m.StreamServerInterceptor(), m.InitializeMetrics
}

// registerGauges registers the gauges of the edge's open streams, incoming calls and admission
// slots.
func (s *Server) registerGauges(r prometheus.Registerer, p *passwords) {
	gauge := func(name string, labels prometheus.Labels, value func() int) {
		telemetry.GaugeFunc(r, name, labels, func() float64 { return float64(value()) })
	}
	gauge("streams_open", nil, s.edge.streams.count)
	gauge("calls_incoming", nil, s.edge.incoming.count)
	for class, inUse := range map[string]func() int{
		"book":     s.edge.admission.classes[book].inUse,
		"read":     s.edge.admission.classes[read].inUse,
		"password": p.inUse,
	} {
		gauge("slots_taken", prometheus.Labels{"class": class}, inUse)
	}
}

func registerPasswordHistogram(r prometheus.Registerer, p *passwords) {
	hashes := telemetry.Histogram(r, "password_hash_duration_seconds")
	p.timed = func(d time.Duration) { hashes.Observe(d.Seconds()) }
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
	if err := s.edge.revoked.read(ctx); err != nil {
		return fmt.Errorf("read the revocation list: %w", err)
	}
	select {
	case <-s.seats.Ready():
	case <-ctx.Done():
		return fmt.Errorf("load the seats: %w", context.Cause(ctx))
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopBackground = stop
	s.background.Go(func() { s.edge.revoked.follow(background, s.updateProbes) })
	s.background.Go(func() { s.edge.users.follow(background) })
	s.background.Go(func() { s.hints.run(background) })
	s.edge.gate.open.Store(true)
	s.probes.set(func() { s.probes.ready = true })
	return nil
}

// updateProbes updates the health service. The follower of the revocation list calls it once a
// second, after it has queried Postgres.
func (s *Server) updateProbes(postgresAnswers bool) {
	seats := s.seats.Stats()
	s.probes.set(func() {
		s.probes.postgres = postgresAnswers
		s.probes.seats = seats.Reachable || seats.Age <= s.maxStaleness
	})
}

// onHint handles each hint, from this replica and from the others.
func (s *Server) onHint(h Hint) {
	if h&HintReservations != 0 {
		s.seats.Wake()
	}
	if h&HintTokens != 0 {
		s.edge.revoked.refresh()
	}
}

// Healthy reports whether the health service answers SERVING for the server as a whole.
func (s *Server) Healthy(ctx context.Context) bool {
	resp, err := s.probes.Check(ctx, &healthpb.HealthCheckRequest{})
	return err == nil && resp.GetStatus() == healthpb.HealthCheckResponse_SERVING
}

// Hint tells all replicas, including this one, that a change was committed outside of the handlers.
// It never blocks.
func (s *Server) Hint(h Hint) { s.hints.Send(h) }

// Shutdown stops the server within DrainTimeout, or until ctx ends if that is sooner:
//
//   - Health checks answer NOT_SERVING and open streams end with UNAVAILABLE.
//   - The server accepts no connection and sends GOAWAY on the open ones.
//   - Running calls finish. New calls on old connections are served for the first half of
//     DrainTimeout and refused with UNAVAILABLE in the second half.
//
// Shutdown returns an error if it had to cut off calls. Half-sent requests and clients that do not
// answer the GOAWAY do not delay it: see idle.
func (s *Server) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.drain)
	defer cancel()
	s.probes.set(func() { s.probes.ready = false })
	s.edge.streams.endAll(library.ErrUnavailable)

	drained := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(drained)
	}()
	closeGate := time.AfterFunc(s.drain/2, func() { s.edge.gate.open.Store(false) })
	defer closeGate.Stop()
	defer s.waitBackground()
	var err error
	select {
	case <-drained:
		return nil
	case <-s.idle(ctx):
		s.log.InfoContext(ctx, "closing connections whose clients do not answer",
			"calls_incoming", s.edge.incoming.count())
	case <-ctx.Done():
		err = fmt.Errorf("calls were cut off after %s", s.drain)
	}
	s.grpc.Stop() // cancels the contexts of the handlers
	// A handler that ignores its context is left behind.
	select {
	case <-drained:
	case <-time.After(lastWord):
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

// idle returns a channel that is closed when no call has run for lastWord, which is long enough for
// grpc to write the last answers. After that, grpc waits only for half-sent requests, which may
// never arrive completely, and up to 5 s for each client that has not answered its GOAWAY.
func (s *Server) idle(ctx context.Context) <-chan struct{} {
	idle := make(chan struct{})
	go func() {
		poll := time.NewTicker(lastWord / 20)
		defer poll.Stop()
		for lastBusy := time.Now(); time.Since(lastBusy) < lastWord; {
			select {
			case <-ctx.Done():
				return
			case <-poll.C:
			}
			if s.edge.running.Load() > 0 {
				lastBusy = time.Now()
			}
		}
		close(idle)
	}()
	return idle
}
