package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

const password = "a password for tests"

// system is a running system with a monitor.
type system struct {
	*stack.Stack
	*monitor

	db       *pgxpool.Pool
	conn     *grpc.ClientConn // through nginx
	postgres *toxiproxy.Proxy // between the replicas and Postgres
	log      *blockable
	dir      string // of the monitor
	tls      string // the directory of the certificate
	user     *e2e.Client
	seats    []int64
}

// binary is the path of dlsms.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "observability-test")
	if err == nil {
		binary = filepath.Join(dir, "dlsms")
		build := exec.Command("go", "build", "-o", binary, ".")
		build.Dir, build.Stderr = filepath.Join("..", ".."), os.Stderr
		err = build.Run()
	}
	code := 1
	if err == nil {
		code = m.Run()
		err = os.RemoveAll(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// speed is the factor by which the monitors of the tests are faster than the rules.
const speed = 30

func startSystem(t *testing.T, env map[string]string) *system {
	t.Helper()
	ctx := t.Context()
	s := &system{log: &blockable{}, tls: t.TempDir()}
	s.writeCertificate(t, 90*24*time.Hour)
	proxies := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	settings := map[string]string{"WORKER_INTERVAL": "2s"} // the worker does not see that makeOverdue changes a row
	maps.Copy(settings, env)
	var err error
	s.Stack, err = stack.Start(ctx, stack.Config{
		Binary: binary, Env: settings, Seed: true, Unsafe: true, Log: s.log, TLS: s.tls,
		ProxyURLs: func(databaseURL, redisURL string) (string, string, error) {
			u, err := url.Parse(databaseURL)
			if err != nil {
				return "", "", err
			}
			s.postgres = toxiproxy.NewProxy(proxies, "postgres", "127.0.0.1:0", u.Host)
			err = s.postgres.Start()
			u.Host = s.postgres.Listen
			return u.String(), redisURL, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stack.Stop(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	if s.db, err = pgxpool.New(ctx, s.Postgres.AdminURL()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.db.Close)
	if s.conn, err = e2e.Dial(s.Nginx.Addr(), e2e.RetryOptions()...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	s.signUp(t)
	s.watch(t)
	return s
}

// watch starts the monitor of the system.
func (s *system) watch(t *testing.T) {
	t.Helper()
	s.dir = t.TempDir()
	rules, err := readRules()
	if err != nil {
		t.Fatal(err)
	}
	var admin []string
	for _, r := range s.Replicas {
		admin = append(admin, r.AdminAddr())
	}
	s.monitor, err = startMonitor(t.Context(), monitorConfig{
		dir: s.dir, replicas: admin, proxy: s.Nginx.HTTPAddr(), disk: s.dir, speed: speed, rules: rules,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.monitor.stop(); err != nil {
			t.Error(err)
		}
	})
}

// signUp registers a user, and reads the seats of the demo data.
func (s *system) signUp(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	anonymous := e2e.Anonymous(s.conn)
	id := "observer"
	if _, err := anonymous.Auth.Register(ctx, &dlsmsv1.RegisterRequest{
		StudentId: id, Name: "Observer", Email: id + "@university.example", Password: password,
	}); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.user, err = anonymous.Login(ctx, id, password); err != nil {
		t.Fatal(err)
	}
	rows, err := s.db.Query(ctx, `SELECT id FROM seats ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		s.seats = append(s.seats, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// book books the seat for an hour that begins in n hours, and returns the id of the reservation.
func (s *system) book(ctx context.Context, seat int64, n int) (int64, error) {
	start := time.Now().Truncate(time.Hour).Add(time.Duration(n) * time.Hour)
	resp, err := s.user.Reservations.CreateReservation(ctx, &dlsmsv1.CreateReservationRequest{
		SeatId: seat, StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)),
	})
	return resp.GetReservation().GetId(), err
}

// writeCertificate writes a certificate for nginx that is valid for the given time.
func (s *system) writeCertificate(t *testing.T, valid time.Duration) {
	t.Helper()
	now := time.Now()
	if err := stack.MakeCertificate(s.tls, []string{"127.0.0.1"}, now, now.Add(valid)); err != nil {
		t.Fatal(err)
	}
}

// blockable discards what is written, and can block its writers.
type blockable struct{ mu sync.RWMutex }

func (b *blockable) Write(p []byte) (int, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(p), nil
}

// block blocks all writers, and returns the function that ends the block.
func (b *blockable) block() (unblock func()) {
	b.mu.Lock()
	return sync.OnceFunc(b.mu.Unlock)
}
