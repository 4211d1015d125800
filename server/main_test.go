package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/dlsms/dlsms/availability"
	"github.com/dlsms/dlsms/feed"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/server/edge/edgetest"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/stack"
	"github.com/dlsms/dlsms/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const testSecret = "qL2vN8xR4tW6yB1dF3hJ5kM7pS9uZ0aC"

// within bounds how long a test waits for an expected event. The event usually occurs much sooner.
const within = edgetest.Within

// testServer is a replica with all of its interceptors, and a client of that replica.
type testServer struct {
	*Server
	config Config
	addr   string
	conn   *grpc.ClientConn
	log    *testLog
	clock  *testClock

	auth        dlsmsv1.AuthServiceClient
	seats       dlsmsv1.SeatServiceClient
	reservation dlsmsv1.ReservationServiceClient
	notify      dlsmsv1.NotifyServiceClient
}

// start starts a replica without rate limits on a new database.
func start(t *testing.T, change func(*Config)) *testServer {
	t.Helper()
	return startOn(t, storetest.NewDB(t), change, nil)
}

// startWith is like start, but replace may replace handlers.
func startWith(t *testing.T, replace func(*services)) *testServer {
	t.Helper()
	return startOn(t, storetest.NewDB(t), nil, replace)
}

// startOn starts a replica on db and waits until it is ready.
func startOn(t testing.TB, db *storetest.DB, change func(*Config), replace func(*services)) *testServer {
	t.Helper()
	s := prepare(t, db, change, replace)
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

// prepare starts a replica that is not ready yet.
func prepare(t testing.TB, db *storetest.DB, change func(*Config), replace func(*services)) *testServer {
	t.Helper()
	ring, err := identity.ParseKeyRing("test:" + testSecret)
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{log: &testLog{}, clock: &testClock{}}
	wakeups, arrivals := &Wakeups{}, &Arrivals{}
	s.config = Config{
		Store: db.Open(t, library.DefaultPolicy()), Wakeups: wakeups, Arrivals: arrivals, MaxStaleness: time.Minute,
		Log:     slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: prometheus.NewRegistry(),
		Keys:    ring, TokenTTL: 24 * time.Hour, BcryptCost: 4,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		DBConns:        16, DrainTimeout: within, Reflection: true,
		RedisTimeout: within, // a busy machine may delay Redis
		Now:          s.clock.Now,
	}
	changes := feed.New(s.config.Store, feed.Options{MaxStaleness: time.Minute})
	s.config.Seats = availability.New(changes, availability.Options{PastTolerance: time.Minute})
	changes.Subscribe(feed.Subscriber{OnEvents: func(d feed.Delta) {
		wakeups.Notify(d.Events)
		arrivals.Notify(d.Events)
	}})
	if change != nil {
		change(&s.config)
	}
	background, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = changes.Run(background) })
	running.Go(func() { _ = s.config.Seats.Run(background) })
	if s.Server, err = newServer(s.config, replace); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
	})
	s.addr = l.Addr().String()
	s.conn = dial(t, s.addr)
	s.auth = dlsmsv1.NewAuthServiceClient(s.conn)
	s.seats = dlsmsv1.NewSeatServiceClient(s.conn)
	s.reservation = dlsmsv1.NewReservationServiceClient(s.conn)
	s.notify = dlsmsv1.NewNotifyServiceClient(s.conn)
	t.Cleanup(func() {
		s.conn.Close()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		stop()
		running.Wait()
	})
	return s
}

func dial(t testing.TB, addr string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// startRedis starts a Redis server for this test alone. It returns the server, and a client whose
// timeout is long enough for a busy machine.
func startRedis(t *testing.T) (redis.UniversalClient, *stack.Redis) {
	t.Helper()
	r := edgetest.StartRedis(t)
	return slowClient(t, r), r
}

// slowClient returns a client whose timeout is long enough for a busy machine.
func slowClient(t *testing.T, r *stack.Redis) redis.UniversalClient {
	t.Helper()
	return clientOf(t, r, within)
}

func clientOf(t *testing.T, r *stack.Redis, timeout time.Duration) redis.UniversalClient {
	t.Helper()
	client, err := edge.OpenRedis(r.RedisURL(), "", timeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

type testLog = edgetest.Log

type testClock = edgetest.Clock

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	edgetest.Eventually(t, what, condition)
}

const testPassword = "correct horse"

// register registers a student and returns the user.
func (s *testServer) register(t *testing.T, studentID string) *dlsmsv1.User {
	t.Helper()
	resp, err := s.auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
		StudentId: studentID, Name: "Ada Lovelace", Email: "ada@university.example", Password: testPassword,
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetUser()
}

// login logs a user in and returns the token.
func (s *testServer) login(t *testing.T, studentID, password string) string {
	t.Helper()
	resp, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: studentID, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetAccessToken()
}

// student registers a new student, logs it in, and returns a context that carries its token.
func (s *testServer) student(t *testing.T) context.Context {
	t.Helper()
	id := fmt.Sprintf("S%05d", students.Add(1))
	s.register(t, id)
	return bearing(t.Context(), s.login(t, id, testPassword))
}

var students atomic.Int64

// bearing returns a context whose calls carry a token.
func bearing(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// want fails the test unless err has the code and the reason. An empty reason means that err must
// have no reason.
func want(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	edgetest.Want(t, err, code, reason)
}

func detail[T any](err error) T { return edgetest.Detail[T](err) }

func reasonOf(err error) string { return edgetest.Reason(err) }

// fieldsOf returns the names of the fields that an error reports as invalid.
func fieldsOf(err error) []string { return edgetest.Fields(err) }

type fakeSeats = edgetest.Seats

// ended receives until the stream ends and returns the error of the end; nil for io.EOF.
func ended[T any](t *testing.T, stream grpc.ServerStreamingClient[T]) error {
	t.Helper()
	return edgetest.Ended(t, stream)
}
