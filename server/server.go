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
	"github.com/dlsms/dlsms/store"
)

// Config says what a Server works with. All but Redis, Metrics and Options must be set.
type Config struct {
	Store *store.Store
	Seats *availability.Model
	News  *News
	// MaxStaleness is the one of Seats: past it, browsing counts as down.
	MaxStaleness time.Duration
	Redis        redis.UniversalClient // of OpenRedis; nil: no Redis
	Log          *slog.Logger
	// Metrics gets the server's metrics; nil: nobody does.
	Metrics prometheus.Registerer

	Keys       *KeyRing
	TokenTTL   time.Duration
	BcryptCost int
	Limits     RateLimits
	// TrustedProxies are the peers whose x-real-ip is believed.
	TrustedProxies []netip.Prefix
	// DBConns is the size of the store's pool, which admission shares out.
	DBConns      int
	Streams      StreamLimits // a zero limit is the default one
	DrainTimeout time.Duration
	Reflection   bool
	// Now is the wall clock, by which tokens are issued and expire. No booking depends on it.
	Now func() time.Time
	// Options are more options of the gRPC server, such as a stats handler for traces.
	Options []grpc.ServerOption
}

// DefaultStreamLimits are above what a campus behind one address needs, and below what would hurt a replica: a stream costs it some 20 KB.
var DefaultStreamLimits = StreamLimits{Total: 10_000, PerAddress: 1_000, PerUser: 8}

// Sizes of what a client may send. The largest honest message has under 2 KB, and the largest honest headers, with a token, under 1.
const (
	maxMessage = 64 << 10
	maxHeaders = 16 << 10
	// headerRoom is above the 64 KiB that nginx lets through and 32 bytes for each of 1,000 fields, so that too large headers get an answer.
	// grpc resets the stream of a call past it, without a status: nginx takes that for a failing replica, and clients repeat the call.
	headerRoom = 96 << 10
	// nginx spreads one client connection over many to the replicas, so only clients that come directly use more than a few.
	maxConcurrentStreams = 1024
	// window is how much a client may send before it must wait, on a stream and on a connection. Below 64 KiB grpc takes it for its default.
	window = 128 << 10
	// streamWorkers is how many goroutines wait for calls; while all of them are busy, a call gets one of its own.
	streamWorkers = 64
)

// Server serves the API on gRPC.
type Server struct {
	grpc      *grpc.Server
	edge      *edge
	probes    *probes
	hints     *Hints
	seats     *availability.Model
	drain     time.Duration
	staleness time.Duration
	log       *slog.Logger
	running   sync.WaitGroup // what follows logs and hints
	stop      context.CancelFunc
}

// New returns a server that isn't ready yet: until Ready it answers probes with NOT_SERVING and all else with UNAVAILABLE. It fails if a
// setting is unusable or a method has no rule in the policy.
func New(c Config) (*Server, error) { return newServer(c, nil) }

// newServer is New; replace may put other handlers in the place of ours, for tests of the edge.
func newServer(c Config, replace func(*services)) (*Server, error) {
	s := &Server{probes: newProbes(c.Log), seats: c.Seats, drain: c.DrainTimeout, staleness: c.MaxStaleness, log: c.Log}
	// Half of the cores at most: the other half is for those who look for a seat.
	passwords, err := newPasswords(c.BcryptCost, runtime.GOMAXPROCS(0)/2)
	if err != nil {
		return nil, err
	}
	open := newStreams(c.Streams.orDefault())
	s.edge = &edge{
		log:       c.Log,
		tokens:    newTokens(c.Keys, c.TokenTTL, c.Now),
		revoked:   newRevocations(c.Store, open, c.Log, c.Now),
		limits:    newLimits(c.Limits, c.Redis, c.Log),
		admission: newAdmission(c.DBConns),
		streams:   open,
		incoming:  newIncoming(),
		trusted:   c.TrustedProxies,
	}
	s.edge.limits.library = c.Store.Library()
	s.edge.users = newIdentities(c.Store, open, c.Log, backgroundReads(c.DBConns))
	s.edge.revoked.restarted = s.edge.users.forget
	s.hints = newHints(c.Redis, c.Store.Library(), c.Log, s.hinted)

	unary, stream, initialize := metrics(c.Metrics)
	s.grpc = grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(arrivals{insecure.NewCredentials()}),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.ChainUnaryInterceptor(unary, s.edge.unary),
		grpc.ChainStreamInterceptor(stream, s.edge.serverStream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(headerRoom),
		grpc.InTapHandle(refuseLargeHeaders),
		grpc.MaxConcurrentStreams(maxConcurrentStreams),
		// No message here is larger than the window, so there is nothing to gain from estimating it, and grpc's estimate costs a ping and its
		// answer for each request that nginx sends.
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window),
		// A goroutine for each call grows its stack anew each time: GetSeats then took 94 µs of a replica's CPU, not 71.
		// A long stream occupies one of these goroutines: with 100 streams open, it was 99 µs without them and 96 with them.
		grpc.NumStreamWorkers(streamWorkers),
		grpc.ConnectionTimeout(20 * time.Second),
		// A client that vanished without a word is found out within a minute.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 40 * time.Second, Timeout: 20 * time.Second}),
		// Clients may ask every 10 s whether the server is there, also between calls; at grpc's 5 minutes it would turn away honest ones.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}, c.Options...)...)

	all := services{
		auth: &authService{
			store: c.Store, tokens: s.edge.tokens, revoked: s.edge.revoked, inForce: s.edge.inForce,
			passwords: passwords, limits: s.edge.limits, hints: s.hints,
		},
		seat:        &seatService{seats: c.Seats},
		reservation: &reservationService{store: c.Store, hints: s.hints},
		notify: &notifyService{
			store: c.Store, hints: s.hints, news: c.News, inForce: s.edge.inForce,
			reading: make(chan struct{}, backgroundReads(c.DBConns)),
		},
	}
	if replace != nil {
		replace(&all)
	}
	at := registrar{s.grpc, s.edge}
	all.register(at)
	healthpb.RegisterHealthServer(at, s.probes)
	if c.Reflection {
		if err := reflect(at); err != nil {
			return nil, err
		}
	}
	if err := checkPolicy(s.grpc.GetServiceInfo()); err != nil {
		return nil, err
	}
	initialize(s.grpc)
	if c.Metrics != nil {
		s.observe(c.Metrics, passwords)
	}
	return s, nil
}

// services are the handlers.
type services struct {
	auth        dlsmsv1.AuthServiceServer
	seat        dlsmsv1.SeatServiceServer
	reservation dlsmsv1.ReservationServiceServer
	notify      dlsmsv1.NotifyServiceServer
}

func (s services) register(r grpc.ServiceRegistrar) {
	dlsmsv1.RegisterAuthServiceServer(r, s.auth)
	dlsmsv1.RegisterSeatServiceServer(r, s.seat)
	dlsmsv1.RegisterReservationServiceServer(r, s.reservation)
	dlsmsv1.RegisterNotifyServiceServer(r, s.notify)
}

// metrics returns the interceptors that count and time calls. They are outside of the edge, and so see the codes that clients see.
func metrics(r prometheus.Registerer) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor, func(reflection.ServiceInfoProvider)) {
	m := grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(
		grpcprom.WithHistogramBuckets([]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5})))
	if r != nil {
		r.MustRegister(m)
	}
	return m.UnaryServerInterceptor(), m.StreamServerInterceptor(), m.InitializeMetrics
}

// observe registers what the edge holds at the moment.
func (s *Server) observe(r prometheus.Registerer, p *passwords) {
	gauge := func(name, help string, labels prometheus.Labels, value func() int) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "dlsms", Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(value()) }))
	}
	gauge("streams_open", "Streams that are open.", nil, s.edge.streams.count)
	gauge("calls_incoming", "Calls whose request has not arrived in full.", nil, s.edge.incoming.count)
	const slotsHelp = "Calls that hold a slot, by class."
	gauge("slots_taken", slotsHelp, prometheus.Labels{"class": "book"}, s.edge.admission.classes[book].inUse)
	gauge("slots_taken", slotsHelp, prometheus.Labels{"class": "read"}, s.edge.admission.classes[read].inUse)
	gauge("slots_taken", slotsHelp, prometheus.Labels{"class": "password"}, p.inUse)
	hashes := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "dlsms", Name: "password_hash_duration_seconds",
		Help:    "Duration of hashing a password, or comparing it with a hash, without the wait for a slot.",
		Buckets: []float64{.05, .1, .2, .3, .5, .75, 1, 2, 5},
	})
	r.MustRegister(hashes)
	p.timed = func(took time.Duration) { hashes.Observe(took.Seconds()) }
}

// Serve answers on the listener until Shutdown, and returns nil then. It may be called before Ready, and for several listeners.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	return nil
}

// Ready opens the server to calls, once it knows which tokens are revoked and the seats are loaded; ctx bounds the wait for both.
func (s *Server) Ready(ctx context.Context) error {
	if err := s.edge.revoked.read(ctx); err != nil {
		return fmt.Errorf("read the revoked tokens: %w", err)
	}
	select {
	case <-s.seats.Ready():
	case <-ctx.Done():
		return fmt.Errorf("load the seats: %w", context.Cause(ctx))
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.running.Go(func() { s.edge.revoked.follow(background, s.look) })
	s.running.Go(func() { s.edge.users.follow(background) })
	s.running.Go(func() { s.hints.run(background) })
	s.edge.gate.open.Store(true)
	s.probes.set(func() { s.probes.ready = true })
	return nil
}

// look is called each second, after Postgres was asked, and tells the probes what works.
func (s *Server) look(postgresAnswers bool) {
	seats := s.seats.Stats()
	s.probes.set(func() {
		s.probes.postgres = postgresAnswers
		s.probes.seats = seats.Reachable || seats.Age <= s.staleness
	})
}

// hinted is called for every hint, of this replica and the others.
func (s *Server) hinted(h Hint) {
	if h&HintReservations != 0 {
		s.seats.Wake()
	}
	if h&HintTokens != 0 {
		s.edge.revoked.refresh()
	}
}

// Healthy reports what the health service says of the server as a whole.
func (s *Server) Healthy(ctx context.Context) bool {
	resp, err := s.probes.Check(ctx, &healthpb.HealthCheckRequest{})
	return err == nil && resp.GetStatus() == healthpb.HealthCheckResponse_SERVING
}

// Hint tells all replicas, this one too, of changes that were committed outside of the handlers. It never waits.
func (s *Server) Hint(h Hint) { s.hints.Send(h) }

// Shutdown ends the server within DrainTimeout, or when ctx ends if that is sooner: probes say NOT_SERVING, streams end with UNAVAILABLE, no
// connection is accepted and clients are told to go elsewhere, and the calls that run are finished. What then still comes in on old
// connections is answered for the first half of the time, and with UNAVAILABLE after that. It returns an error if calls had to be cut off.
// A request that has not arrived, or a client that does not answer, does not hold it up: see idle.
func (s *Server) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.drain)
	defer cancel()
	s.probes.set(func() { s.probes.ready = false })
	s.edge.streams.endAll(store.ErrUnavailable)

	drained := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(drained)
	}()
	enough := time.AfterFunc(s.drain/2, func() { s.edge.gate.open.Store(false) })
	defer enough.Stop()
	var err error
	select {
	case <-drained:
		s.halt()
		return nil
	case <-s.idle(ctx):
		s.log.InfoContext(ctx, "closing connections whose clients do not answer", "calls_incoming", s.edge.incoming.count())
	case <-ctx.Done():
		err = fmt.Errorf("calls were cut off after %s", s.drain)
	}
	s.grpc.Stop()
	// Their handlers see it by their contexts; one that doesn't is left behind.
	select {
	case <-drained:
	case <-time.After(lastWord):
	}
	s.halt()
	return err
}

// halt ends what follows logs and hints.
func (s *Server) halt() {
	if s.stop != nil {
		s.stop()
	}
	s.running.Wait()
}

// idle returns a channel that is closed when no call has run for lastWord: time enough for grpc to write the last answers.
// What grpc still waits for then is half-sent requests, which may never arrive, and clients that have not answered its GOAWAY;
// for one of those it waits 5 s.
func (s *Server) idle(ctx context.Context) <-chan struct{} {
	idle := make(chan struct{})
	go func() {
		look := time.NewTicker(lastWord / 20)
		defer look.Stop()
		for busy := time.Now(); time.Since(busy) < lastWord; {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
			}
			if s.edge.running.Load() > 0 {
				busy = time.Now()
			}
		}
		close(idle)
	}()
	return idle
}
