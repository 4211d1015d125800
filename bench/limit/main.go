// Command limit is a minimal replica, as a reference for the benchmark. Behind the same nginx, it
// answers GetSeats with stored bytes, over gRPC and over HTTP, CreateReservation with one INSERT,
// CancelReservation with one UPDATE, and Login with one bcrypt comparison. It has no authentication,
// rules, logs or metrics.
// Its figures are the most that a replica in this setup can reach.
//
// Package stack runs it as `dlsms-limit serve`. It reads GRPC_ADDR, HTTP_ADDR, DATABASE_URL and
// DB_MAX_CONNS like dlsms, and:
//   - LIMIT_ANSWER: a file with the encoded answer to GetSeats of {"available_only": true}
//   - LIMIT_JSON: a file with this answer in JSON
//   - LIMIT_FILTERED_ANSWER: a file with the encoded answer to all other requests over gRPC
//   - LIMIT_USERS: the number of users; their ids begin with 1
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/migrations"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := serve(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "limit:", err)
		os.Exit(1)
	}
}

// replica is the server of all methods.
type replica struct {
	seats, filtered mem.BufferSlice
	db              *pgxpool.Pool
	users, calls    atomic.Int64
	hash            []byte
}

func serve(ctx context.Context) error {
	if _, err := migrations.Up(ctx, os.Getenv("DATABASE_URL")); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	cfg, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	cfg.ConnConfig.RuntimeParams["dlsms.guard"] = "off" // turns off the check that each change has its event
	conns, err := strconv.ParseInt(os.Getenv("DB_MAX_CONNS"), 10, 32)
	if err != nil {
		return fmt.Errorf("DB_MAX_CONNS: %w", err)
	}
	cfg.MaxConns = int32(conns)
	r := &replica{}
	if r.db, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	defer r.db.Close()
	if r.seats, err = answer("LIMIT_ANSWER"); err != nil {
		return err
	}
	if r.filtered, err = answer("LIMIT_FILTERED_ANSWER"); err != nil {
		return err
	}
	users, err := strconv.ParseInt(os.Getenv("LIMIT_USERS"), 10, 64)
	if err != nil {
		return fmt.Errorf("LIMIT_USERS: %w", err)
	}
	r.users.Store(users)
	if r.hash, err = bcrypt.GenerateFromPassword([]byte("password123"), 12); err != nil {
		return err
	}

	l, err := net.Listen("tcp", os.Getenv("GRPC_ADDR"))
	if err != nil {
		return fmt.Errorf("GRPC_ADDR: %w", err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(raw{}))
	r.register(s)
	web, err := newWeb()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = web.Close() // the benchmark has no requests in flight then
		s.GracefulStop()
	})
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- web.ListenAndServe() }()
	if err := s.Serve(l); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("HTTP_ADDR: %w", err)
	}
	return nil
}

// newWeb returns the server of HTTP_ADDR.
func newWeb() (*http.Server, error) {
	answer, err := os.ReadFile(os.Getenv("LIMIT_JSON"))
	if err != nil {
		return nil, fmt.Errorf("LIMIT_JSON: %w", err)
	}
	// Maps with values that exist cost less than http.Header.Set, as in package rest.
	contentJSON, length := []string{"application/json"}, []string{strconv.Itoa(len(answer))}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	routes.HandleFunc("GET /v1/seats", func(w http.ResponseWriter, _ *http.Request) {
		header := w.Header()
		header["Content-Type"], header["Content-Length"] = contentJSON, length
		_, _ = w.Write(answer) // a client that disconnected needs no answer
	})
	return &http.Server{Addr: os.Getenv("HTTP_ADDR"), Handler: routes, ReadHeaderTimeout: 5 * time.Second}, nil
}

// answer reads the file named by an environment variable.
func answer(setting string) (mem.BufferSlice, error) {
	content, err := os.ReadFile(os.Getenv(setting))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return stored(content), nil
}

func stored(b []byte) mem.BufferSlice { return mem.BufferSlice{mem.SliceBuffer(b)} }

// raw is a codec that leaves messages encoded.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return v.(mem.BufferSlice), nil // the handlers below return nothing else
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize() // the handlers below use only this type
	return nil
}

// register adds the handlers under the names of the methods of the API.
func (r *replica) register(s *grpc.Server) {
	method := func(name string, handle func(context.Context, []byte) (mem.BufferSlice, error)) grpc.MethodDesc {
		return grpc.MethodDesc{
			MethodName: name,
			Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var req []byte
				if err := dec(&req); err != nil {
					return nil, err
				}
				return handle(ctx, req)
			},
		}
	}
	service := func(name string, methods ...grpc.MethodDesc) {
		s.RegisterService(&grpc.ServiceDesc{ServiceName: name, HandlerType: (*any)(nil), Methods: methods}, r)
	}
	service(healthpb.Health_ServiceDesc.ServiceName, method("Check", r.check))
	service(dlsmsv1.AuthService_ServiceDesc.ServiceName, method("Login", r.login))
	service(dlsmsv1.SeatService_ServiceDesc.ServiceName, method("GetSeats", r.getSeats))
	service(
		dlsmsv1.ReservationService_ServiceDesc.ServiceName, method("CreateReservation", r.createReservation),
		method("CancelReservation", r.cancelReservation),
	)
}

// serving is the encoded HealthCheckResponse SERVING.
var serving = stored([]byte{0x08, byte(healthpb.HealthCheckResponse_SERVING)})

func (r *replica) check(context.Context, []byte) (mem.BufferSlice, error) { return serving, nil }

// getSeats recognizes the request {"available_only": true} by its length of 2 bytes: a tag and a
// bool.
func (r *replica) getSeats(_ context.Context, req []byte) (mem.BufferSlice, error) {
	if len(req) <= 2 {
		return r.seats, nil
	}
	return r.filtered, nil
}

const insert = `
	INSERT INTO reservations (library_id, seat_id, user_id, during, status,
		check_in_opens_at, check_in_deadline, created_at, request_id, request_hash)
	VALUES (1, $1, $2, tstzrange($3, $4), 'CONFIRMED', $3, $4, $3, $5, '\x00')
	ON CONFLICT DO NOTHING RETURNING id`

func (r *replica) createReservation(ctx context.Context, b []byte) (mem.BufferSlice, error) {
	var req dlsmsv1.CreateReservationRequest
	if err := proto.Unmarshal(b, &req); err != nil {
		return nil, err
	}
	user := r.calls.Add(1)%r.users.Load() + 1
	start, end := req.GetStartTime().AsTime(), req.GetEndTime().AsTime()
	var id int64
	if err := r.db.QueryRow(ctx, insert, req.GetSeatId(), user, start, end, req.GetRequestId()).Scan(&id); err != nil {
		return nil, status.Error(codes.AlreadyExists, err.Error())
	}
	out, err := proto.Marshal(&dlsmsv1.CreateReservationResponse{Reservation: &dlsmsv1.Reservation{
		Id:              id,
		Seat:            &dlsmsv1.SeatRef{Id: req.GetSeatId(), Branch: "main", Area: "Reading Room", Label: "R-07"},
		UserId:          user,
		StartTime:       req.GetStartTime(),
		EndTime:         req.GetEndTime(),
		Status:          dlsmsv1.ReservationStatus_RESERVATION_STATUS_CONFIRMED,
		CheckInOpensAt:  req.GetStartTime(),
		CheckInDeadline: req.GetEndTime(),
		CreatedAt:       timestamppb.New(time.Now()),
	}})
	return stored(out), err
}

const cancel = `UPDATE reservations SET status = 'CANCELLED', ended_at = now() WHERE library_id = 1 AND id = $1`

func (r *replica) cancelReservation(ctx context.Context, b []byte) (mem.BufferSlice, error) {
	var req dlsmsv1.CancelReservationRequest
	if err := proto.Unmarshal(b, &req); err != nil {
		return nil, err
	}
	_, err := r.db.Exec(ctx, cancel, req.GetReservationId())
	return nil, err
}

func (r *replica) login(_ context.Context, b []byte) (mem.BufferSlice, error) {
	var req dlsmsv1.LoginRequest
	if err := proto.Unmarshal(b, &req); err != nil {
		return nil, err
	}
	if err := bcrypt.CompareHashAndPassword(r.hash, []byte(req.GetPassword())); err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return nil, nil
}
