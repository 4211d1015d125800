package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// The names of the measured systems.
const (
	ours  = "DL-SMS"
	limit = "limit"
)

// secret signs the tokens of the benchmark's users, so that the users need no logins. With bcrypt,
// the logins would take an hour.
const secret = "bench:a-secret-of-the-benchmark-that-guards-nothing"

// password is the password of all users, also of the demo users.
const password = "password123"

// subject is a running system with a connection pool to its database.
type subject struct {
	name string
	*stack.Stack
	db *pgxpool.Pool
	// conn is for calls that are not measured.
	conn *grpc.ClientConn
	// certificate, if set, is the file of the certificate of nginx, and the load uses TLS.
	certificate string
}

// limitsOff returns settings for replicas. It turns off the rate limits, because the users of the
// benchmark would exceed them at once. All other limits keep their defaults.
func limitsOff() map[string]string {
	env := e2e.NoRateLimits()
	env["JWT_SECRET"] = secret
	return env
}

// startSubject starts a system. The caller must stop it.
func startSubject(ctx context.Context, name string, cfg stack.Config) (*subject, error) {
	s := &subject{name: name}
	var err error
	if s.Stack, err = stack.Start(ctx, cfg); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if s.db, err = openPool(ctx, s.Postgres.AdminURL()); err == nil {
		s.conn, err = e2e.Dial(s.Addr())
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// openPool returns a pool for changes that the replicas do not make.
func openPool(ctx context.Context, adminURL string) (*pgxpool.Pool, error) {
	return pgxpool.New(ctx, adminURL+"&dlsms.guard=off")
}

// stop stops the system. It also works after the benchmark is interrupted.
func (s *subject) stop() error {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	if s.db != nil {
		s.db.Close()
	}
	if err := s.Stop(context.Background()); err != nil {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	return nil
}

// users has the ids of users, and for each user the metadata with a token.
type users struct {
	ids    []int64
	signed []*metadata.MD
}

// passwordHash returns the hash of password at cost 12: $2a$12$….
func (s *subject) passwordHash(ctx context.Context) (hash string, err error) {
	err = s.db.QueryRow(
		ctx,
		`SELECT password_hash FROM users WHERE library_id = 1 AND student_id = 'S2021001'`,
	).Scan(&hash)
	return hash, err
}

// memory returns the highest value of a field among the replicas, in bytes. memoryOf describes the
// fields.
func (s *subject) memory(field string) (most int64, err error) {
	for _, r := range s.Replicas {
		n, err := memoryOf(r.PID(), field)
		if err != nil {
			return 0, err
		}
		most = max(most, n)
	}
	return most, nil
}

// overTLS returns the same system for loads that use TLS. It must not be stopped.
func (s *subject) overTLS(certificates string) *subject {
	secure := *s
	secure.name, secure.certificate = s.name+" over TLS", filepath.Join(certificates, "certificate.pem")
	return &secure
}

// addUsers adds n students with student ids that begin with prefix, and signs a token for each.
func (s *subject) addUsers(ctx context.Context, prefix string, n int) (users, error) {
	hash, err := s.passwordHash(ctx)
	if err != nil {
		return users{}, err
	}
	rows, err := s.db.Query(ctx, `
		INSERT INTO users (library_id, student_id, name, email, role, password_hash, token_generation)
		SELECT 1, $1 || i, 'Student ' || i, $1 || i || '@university.example', 'STUDENT', $3, 0
		FROM generate_series(0, $2 - 1) i RETURNING id`, prefix, n, hash)
	if err != nil {
		return users{}, err
	}
	u := users{}
	if u.ids, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
		return users{}, fmt.Errorf("add users: %w", err)
	}
	for i, id := range u.ids {
		signed, err := e2e.SignToken("bench", secret[len("bench:"):], id, prefix+strconv.Itoa(i))
		if err != nil {
			return users{}, err
		}
		u.signed = append(u.signed, bearer(signed))
	}
	return u, nil
}

// addBranch adds a branch of n seats and returns the ids of the seats.
func (s *subject) addBranch(ctx context.Context, code string, n int) ([]int64, error) {
	rows, err := s.db.Query(ctx, `
		WITH b AS (INSERT INTO branches (library_id, code, name, timezone)
			VALUES (1, $1, 'Branch ' || $1, 'Europe/Berlin') RETURNING id)
		INSERT INTO seats (library_id, branch_id, area, label, amenities)
		SELECT 1, b.id, 'Area ' || i % 5, 'A-' || i, ARRAY[1 + i % 5]::smallint[]
		FROM b, generate_series(1, $2) i RETURNING id`, code, n)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// seats returns the ids of all seats.
func (s *subject) seats(ctx context.Context) ([]int64, error) {
	rows, err := s.db.Query(ctx, `SELECT id FROM seats WHERE library_id = 1 ORDER BY id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// deadlocks returns the number of deadlocks that Postgres has resolved.
func (s *subject) deadlocks(ctx context.Context) (n int64, err error) {
	err = s.db.QueryRow(ctx, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).Scan(&n)
	return n, err
}

// slots hands out bookings that do not conflict. Each booking takes one seat for a quarter of an
// hour at night. Seats and users come in turn. There are at least as many users as seats, so no
// user has two seats at the same time.
type slots struct {
	seats []int64
	users users
	first time.Time // start of the first window
	next  atomic.Int64
}

const (
	quarter = 15 * time.Minute
	// The windows are from 18:00 to 8:00 UTC, so that they do not conflict with bookings for the
	// day.
	quartersANight = 14 * 4
	nights         = 12
)

// newSlots returns the bookings from tomorrow evening on, because the night of today may have
// begun.
func newSlots(seats []int64, users users, now time.Time) (*slots, error) {
	if len(users.ids) < len(seats) {
		return nil, fmt.Errorf("%d users are too few for %d seats", len(users.ids), len(seats))
	}
	return &slots{seats: seats, users: users, first: now.UTC().Truncate(24 * time.Hour).Add((24 + 18) * time.Hour)}, nil
}

// capacity is the number of bookings that slots can hand out. A user makes at most ten, the default
// of MAX_UPCOMING.
func (d *slots) capacity() int64 {
	return min(int64(len(d.seats))*quartersANight*nights, 10*int64(len(d.users.ids)))
}

// take sets aside the next n bookings for the caller, and returns the number of the first one.
func (d *slots) take(n int64) (int64, error) {
	first := d.next.Add(n) - n
	if first+n > d.capacity() {
		return 0, fmt.Errorf("the benchmark has users and seats for %d bookings only", d.capacity())
	}
	return first, nil
}

// request returns the request of booking n.
func (d *slots) request(n int64) *dlsmsv1.CreateReservationRequest {
	slot := n / int64(len(d.seats))
	start := d.first.Add(time.Duration(slot/quartersANight)*24*time.Hour + time.Duration(slot%quartersANight)*quarter)
	return &dlsmsv1.CreateReservationRequest{
		SeatId:    d.seats[n%int64(len(d.seats))],
		StartTime: timestamppb.New(start),
		EndTime:   timestamppb.New(start.Add(quarter)),
		// The minimal replica (bench/limit) uses the same users for all slots. So the request id
		// must differ between slots: it contains the first seat.
		RequestId: fmt.Sprintf("bench-%d-%d", d.seats[0], n),
	}
}

// sign returns the metadata with the token of the user of booking n.
func (d *slots) sign(n int64) *metadata.MD { return d.users.signed[n%int64(len(d.users.signed))] }
