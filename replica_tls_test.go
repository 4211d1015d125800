package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/stack"
	"github.com/dlsms/dlsms/stack/certtest"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// loopback is the host in the URLs of the servers of a test.
const loopback = "127.0.0.1"

const testSecret = "--jwt-secret=vT4qk9Zr2mWc7XpLh8sYb3NdJf6GaEuQ"

var (
	expired  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	nextYear = time.Now().AddDate(1, 0, 0)
)

func issue(t *testing.T, ca *certtest.CA, name string, notAfter time.Time) *stack.Certificate {
	t.Helper()
	cert, key := ca.Issue(t, []string{name}, notAfter)
	return &stack.Certificate{Cert: cert, Key: key}
}

func startPostgres(t *testing.T, c *stack.Certificate) *stack.Postgres {
	t.Helper()
	pg, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Unsafe: true, Certificate: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return pg
}

func startRedis(t *testing.T, c *stack.Certificate) *stack.Redis {
	t.Helper()
	r, err := stack.StartRedis(t.Context(), stack.RedisConfig{Certificate: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// withTLS returns the URL of the database with other parameters, such as "sslmode=require".
func withTLS(t *testing.T, databaseURL, parameters string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	u.RawQuery = parameters
	return u.String()
}

// passwordOf returns the password in a URL.
func passwordOf(t *testing.T, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	return password
}

// requireTLS makes Postgres refuse connections of the role dlsms without TLS.
func requireTLS(t *testing.T, pg *stack.Postgres) {
	t.Helper()
	db := storetest.Attach(t, pg.AdminURL())
	file := storetest.Value[string](t, db, `SHOW hba_file`)
	db.Exec(t, `COPY (VALUES ('host all postgres 127.0.0.1/32 scram-sha-256'),
		('hostssl all dlsms 127.0.0.1/32 scram-sha-256')) TO '`+file+`'`)
	db.Exec(t, `SELECT pg_reload_conf()`)
	storetest.Eventually(t, "a connection without TLS is refused", func() bool {
		conn, err := pgx.Connect(t.Context(), pg.DatabaseURL())
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err != nil && strings.Contains(err.Error(), "no encryption")
	})
}

// startReplica starts a replica and returns a client of it.
func startReplica(t *testing.T, args ...string) *e2e.Client {
	t.Helper()
	l, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	s := parseSettings(t, append(args, testSecret, "--grpc-addr="+addr, "--http-addr=", "--admin-addr=127.0.0.1:0",
		"--db-min-conns=1", "--db-max-conns=4", "--bcrypt-cost=4")...)
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	log := &logRecorder{}
	r := newReplica(t.Context(), s, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() {
		stopInOrder(context.Background(), r.log, r.stopSteps())
		if t.Failed() {
			t.Log(log.String())
		}
	})
	if err := startInOrder(t.Context(), r.log, r.startSteps()); err != nil {
		t.Fatal(err)
	}
	conn, err := e2e.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return e2e.Anonymous(conn)
}

// TestReplicasUseTLS starts two replicas. Postgres refuses them without TLS, and the only URL of
// Redis that they have is that of its TLS port. A booking must succeed, and both the limit of failed
// logins and the hints must pass through Redis.
func TestReplicasUseTLS(t *testing.T) {
	t.Parallel()
	ca := certtest.NewCA(t)
	pg, cache := startPostgres(t, issue(t, ca, loopback, nextYear)), startRedis(t, issue(t, ca, loopback, nextYear))
	requireTLS(t, pg)
	args := []string{
		"--database-url=" + withTLS(t, pg.DatabaseURL(), "sslmode=verify-full&sslrootcert="+ca.File(t)),
		"--redis-url=" + cache.TLSURL(), "--redis-ca-file=" + ca.File(t), "--login-failure-limit=3",
	}
	replicas := []*e2e.Client{startReplica(t, args...), startReplica(t, args...)}

	db := storetest.Attach(t, pg.AdminURL())
	const sessions = `SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'dlsms' AND `
	with, without := storetest.Value[int](t, db, sessions+`ssl`), storetest.Value[int](t, db, sessions+`NOT ssl`)
	if without != 0 || with < 10 { // of each replica: one for requests, one of the worker, three others
		t.Errorf("%d sessions with TLS, %d without", with, without)
	}

	options, err := redis.ParseURL(cache.RedisURL())
	if err != nil {
		t.Fatal(err)
	}
	observer := redis.NewClient(options)
	defer func() { _ = observer.Close() }()
	const channel = "dlsms:1:hints"
	hints := observer.Subscribe(t.Context(), channel)
	defer func() { _ = hints.Close() }()
	storetest.Eventually(t, "both replicas and the test have subscribed", func() bool {
		n, err := observer.PubSubNumSub(t.Context(), channel).Result()
		return err == nil && n[channel] == 3
	})

	const password = "correct horse battery"
	_, err = replicas[0].Auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
		StudentId: "TLS-1", Name: "User", Email: "user@university.example", Password: password,
	})
	if err != nil {
		t.Fatal(err)
	}
	user, err := replicas[0].Login(t.Context(), "TLS-1", password)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now().Add(time.Hour)
	_, err = user.Reservations.CreateReservation(t.Context(), &dlsmsv1.CreateReservationRequest{
		SeatId: db.Seats(t, 1)[0], StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)),
	})
	if err != nil {
		t.Errorf("booking: %v", err)
	}
	if _, err := hints.ReceiveMessage(t.Context()); err != nil {
		t.Errorf("no hint: %v", err)
	}

	attempts := 0
	storetest.Eventually(t, "the replicas share the limit of failed logins", func() bool {
		attempts++
		passed := 0
		for i := range 8 {
			_, err := replicas[i%2].Login(t.Context(), fmt.Sprintf("unknown-%d", attempts), password)
			if e2e.Reason(err) == "BAD_CREDENTIALS" {
				passed++
			}
		}
		return passed == 3
	})
}

// logRecorder is the log of a replica. It calls found when the log has all texts.
type logRecorder struct {
	texts []string
	found func() // may be nil

	mu      sync.Mutex
	written bytes.Buffer
}

func (l *logRecorder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.written.Write(p)
	for _, text := range l.texts {
		if !strings.Contains(l.written.String(), text) {
			return n, err
		}
	}
	if l.found != nil {
		l.found()
	}
	return n, err
}

func (l *logRecorder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written.String()
}

// serveUntil runs `dlsms serve` until its log has all texts, and returns the log.
func serveUntil(t *testing.T, texts []string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second) // it tries to reach Postgres for longer
	defer cancel()
	log := &logRecorder{texts: texts, found: cancel}
	args = append(args, testSecret, "--grpc-addr=127.0.0.1:0", "--http-addr=", "--admin-addr=127.0.0.1:0",
		"--db-min-conns=1", "--db-max-conns=4", "--bcrypt-cost=4")
	if err := run(ctx, append([]string{"serve"}, args...), log, io.Discard); err != nil {
		t.Error(err)
	}
	for _, text := range texts {
		if !strings.Contains(log.String(), text) {
			t.Errorf("the log does not have %q:\n%s", text, log)
		}
	}
	return log.String()
}

// refusals are servers with a certificate that a client must refuse. The client trusts ours and
// connects to 127.0.0.1.
func refusals(t *testing.T, ours, other *certtest.CA) map[string]*stack.Certificate {
	t.Helper()
	return map[string]*stack.Certificate{
		"its certificate has expired (2026-01-01): renew it":            issue(t, ours, loopback, expired),
		"its certificate is for db.example and not for 127.0.0.1: use ": issue(t, ours, "db.example", nextYear),
		"its certificate is signed by an unknown authority":             issue(t, other, loopback, nextYear),
	}
}

// TestPostgresCertificateIsRefused starts Postgres with each faulty certificate. The commands and
// the log of a replica must name the fault in one line without the password.
func TestPostgresCertificateIsRefused(t *testing.T) {
	t.Parallel()
	ours, other := certtest.NewCA(t), certtest.NewCA(t)
	for want, faulty := range refusals(t, ours, other) {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			pg := startPostgres(t, faulty)
			u := withTLS(t, pg.DatabaseURL(), "sslmode=verify-full&sslrootcert="+ours.File(t))
			parsed, err := url.Parse(u)
			if err != nil {
				t.Fatal(err)
			}
			message := "Postgres at " + parsed.Host + ": " + want
			check := func(name string, err error) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), message) || strings.Contains(err.Error(), "\n") ||
					strings.Contains(err.Error(), passwordOf(t, u)) || !store.Unavailable(err) {
					t.Errorf("%s: %v, want %q", name, err, message)
				}
			}
			_, err = runCommand(t, "migrate", "--database-url="+u)
			check("migrate", err)
			_, err = runCommand(t, "seed", "--database-url="+u, "--bcrypt-cost=4")
			check("seed", err)
			_, err = store.Open(t.Context(), store.Config{URL: u, MaxConns: 1, Policy: library.DefaultPolicy()})
			check("open", err)
			log := serveUntil(t, []string{"Postgres does not answer yet; trying again", message}, "--database-url="+u)
			if strings.Contains(log, passwordOf(t, u)) {
				t.Errorf("the log has the password:\n%s", log)
			}
		})
	}
}

// TestRedisCertificateIsRefused starts Redis with each faulty certificate. The replica must serve,
// and its log must name the fault without the password.
func TestRedisCertificateIsRefused(t *testing.T) {
	t.Parallel()
	ours, other := certtest.NewCA(t), certtest.NewCA(t)
	for want, faulty := range refusals(t, ours, other) {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			u := startRedis(t, faulty).TLSURL()
			parsed, err := url.Parse(u)
			if err != nil {
				t.Fatal(err)
			}
			log := serveUntil(t,
				[]string{"Redis can't be reached", "Redis at " + parsed.Host + ": " + want, `"msg":"serving"`},
				"--database-url="+storetest.NewDB(t).URL, "--redis-url="+u, "--redis-ca-file="+ours.File(t))
			if strings.Contains(log, passwordOf(t, u)) {
				t.Errorf("the log has the password:\n%s", log)
			}
		})
	}
}

// TestSSLModes connects with each sslmode to a Postgres whose certificate is for another name, and
// to a Postgres without TLS. docs/operating/postgres.md describes the modes.
func TestSSLModes(t *testing.T) {
	t.Parallel()
	ours, other := certtest.NewCA(t), certtest.NewCA(t)
	const unknown = "signed by an unknown authority"
	encrypted, plain := startPostgres(t, issue(t, ours, "db.example", nextYear)).DatabaseURL(), storetest.NewDB(t).URL
	for _, c := range []struct {
		url, parameters string
		want            string // "true" or "false": whether the connection uses TLS; else a part of the error
	}{
		{encrypted, "sslmode=disable", "false"},
		{encrypted, "sslmode=prefer", "true"},
		{encrypted, "sslmode=require", "true"},
		{encrypted, "sslmode=require&sslrootcert=" + ours.File(t), "true"},
		{encrypted, "sslmode=require&sslrootcert=" + other.File(t), unknown},
		{encrypted, "sslmode=verify-ca&sslrootcert=" + ours.File(t), "true"},
		{encrypted, "sslmode=verify-ca&sslrootcert=" + other.File(t), unknown},
		{encrypted, "sslmode=verify-ca", unknown},
		{encrypted, "sslmode=verify-full&sslrootcert=" + ours.File(t), "is for db.example and not for 127.0.0.1"},
		{plain, "sslmode=prefer", "false"},
		{plain, "sslmode=require", "server refused TLS connection"},
		{plain, "sslmode=verify-full&sslrootcert=" + ours.File(t), "server refused TLS connection"},
	} {
		got, err := usesTLS(t, withTLS(t, c.url, c.parameters))
		if err != nil {
			got = store.ExplainCertificate(err).Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %q", c.parameters, got, c.want)
		}
	}
}

// usesTLS opens a connection as a replica does, and returns "true" if it uses TLS.
func usesTLS(t *testing.T, databaseURL string) (string, error) {
	t.Helper()
	config, err := store.ParseURL(databaseURL)
	if err != nil {
		return "", err
	}
	conn, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var tls string
	err = conn.QueryRow(t.Context(), `SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()`).Scan(&tls)
	return tls, err
}
