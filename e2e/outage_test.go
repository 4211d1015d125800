package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// endsUnavailable checks that a stream ends with UNAVAILABLE.
func endsUnavailable[M any](t *testing.T, stream *e2e.StreamRecorder[M]) {
	t.Helper()
	why, err := stream.End(within(t, waitTimeout))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, why, "UNAVAILABLE")
}

// maxStaleness is the setting MAX_STALENESS of the system. For this time replicas answer reads of
// seats without Postgres.
const maxStaleness = 8 * time.Second

// TestPostgresOutageLosesNothing shuts Postgres down under load, and later kills it. During each
// outage, reads of seats return the last known state and its time, and all other calls fail with
// UNAVAILABLE. After the outage, all calls succeed, and no acknowledged change is lost.
//
//nolint:paralleltest,tparallel // one outage after the other
func TestPostgresOutageLosesNothing(t *testing.T) {
	t.Parallel()
	env := e2e.NoRateLimits()
	env["MAX_STALENESS"], env["GRACE_MINUTES"] = maxStaleness.String(), "0.1"
	s := start(t, stack.Config{Env: env})
	b := s.branch(t, 8)
	h := startRetryingClients(t, s, b)
	for _, outage := range []struct {
		name string
		end  func() error
	}{
		{"stopped", func() error { return s.Postgres.Process.Stop(t.Context()) }},
		{"killed", func() error { return s.Postgres.Kill() }},
	} {
		t.Run(outage.name, func(t *testing.T) { postgresOutage(t, s, b, outage.end) })
	}
	h.end(t)
}

func postgresOutage(t *testing.T, s *system, b branch, endPostgres func() error) {
	t.Helper()
	u := s.student(t)
	subscription := u.subscribe()
	watches := watch(t, u.Client, &dlsmsv1.WatchSeatsRequest{Branch: b.code})
	seat := b.seats[7]
	missed := u.book(seat, fromNow(time.Hour)) // becomes a no-show, after the outage
	for i := range s.Replicas {                // wait until each replica has read the reservation
		watch(t, e2e.Anonymous(conn(t, s, i)), &dlsmsv1.WatchSeatsRequest{Branch: b.code}).untilSeat(seat, false)
	}
	before := time.Now()
	if err := endPostgres(); err != nil {
		t.Fatal(err)
	}
	ended := time.Now()

	readsFromMemory(t, s, b, seat, before, ended)
	for range 6 { // each replica twice
		refused(t, u.tryToBook(seat, tomorrow(0, 1)), "UNAVAILABLE")
		_, err := u.Reservations.GetReservations(t.Context(), &dlsmsv1.GetReservationsRequest{})
		refused(t, err, "UNAVAILABLE")
		_, err = s.anonymous().Login(t.Context(), u.User.GetStudentId(), password)
		refused(t, err, "UNAVAILABLE")
	}

	// After maxStaleness the last known state is too old, and reads of seats fail too.
	var err error
	eventually(t, "reads of seats end", func() bool {
		_, err = s.anonymous().Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{})
		return err != nil
	})
	refused(t, err, "UNAVAILABLE")
	// Reads must have succeeded for about maxStaleness. The test measures this time from the start
	// of the shutdown, because Postgres may stop answering long before the shutdown ends. At the
	// start, the last known state may already be up to 2 s old.
	if lasted := time.Since(before); lasted < maxStaleness-2*time.Second {
		t.Errorf("reads of seats succeeded for %s only", lasted)
	}
	endsUnavailable(t, watches.StreamRecorder)
	eventually(
		t, "the replicas are NOT_SERVING",
		func() bool { return health(t, s, "") == healthpb.HealthCheckResponse_NOT_SERVING },
	)
	check := launch(t, map[string]string{"GRPC_ADDR": s.ReplicaAddr(0)}, "healthcheck")
	if code := check.exit(); code != 1 || !strings.Contains(check.stderr.String(), "NOT_SERVING") {
		t.Errorf("healthcheck: exit %d: %s", code, check.stderr.String())
	}

	if err := s.Postgres.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all replicas serve again", func() bool {
		for _, service := range []string{
			"", "dlsms.v1.SeatService", "dlsms.v1.ReservationService", "dlsms.v1.AuthService", "dlsms.v1.NotifyService",
		} {
			if health(t, s, service) != healthpb.HealthCheckResponse_SERVING {
				return false
			}
		}
		return true
	})
	n := subscription.next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_NO_SHOW)
	if n.GetReservationId() != missed.GetId() {
		t.Errorf("the no-show is %v", n)
	}
	again := u.book(seat, tomorrow(0, 1))
	for range 3 {
		resp, err := u.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{Branch: b.code})
		if err != nil || resp.GetAsOf().AsTime().Before(ended) {
			t.Errorf("the seats are as of %s, Postgres ended at %s (%v)", resp.GetAsOf().AsTime(), ended, err)
		}
	}
	u.cancel(again.GetId())
	watch(t, u.Client, &dlsmsv1.WatchSeatsRequest{Branch: b.code}).untilSeat(seat, true)
	s.login(t, u.User.GetStudentId(), password)
}

// readsFromMemory checks reads of seats while Postgres is down: they return the last known state
// and its time.
func readsFromMemory(t *testing.T, s *system, b branch, taken int64, before, ended time.Time) {
	t.Helper()
	for i := range 9 { // each replica three times
		c := s.anonymous()
		if i%3 == 0 {
			c = e2e.Anonymous(conn(t, s, i/3))
		}
		resp, err := c.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{Branch: b.code})
		if err != nil {
			t.Fatalf("%s after Postgres ended: %v", time.Since(ended), err)
		}
		asOf := resp.GetAsOf().AsTime()
		if asOf.After(ended) || asOf.Before(before.Add(-2*time.Second)) || len(resp.GetSeats()) != len(b.seats) ||
			resp.GetSeats()[7].GetAvailable() {
			t.Errorf("as of %s, Postgres ran until %s: %v", asOf, ended, resp)
		}
		if _, err := s.anonymous().Seats.GetSeat(t.Context(), &dlsmsv1.GetSeatRequest{SeatId: taken}); err != nil {
			t.Error(err)
		}
		if _, err := s.anonymous().Seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{}); err != nil {
			t.Error(err)
		}
	}
	watch(t, s.anonymous(), &dlsmsv1.WatchSeatsRequest{Branch: b.code}).untilSeat(taken, false)
	eventually(t, "each service reports its own health", func() bool {
		return health(t, s, "") == healthpb.HealthCheckResponse_SERVING &&
			health(t, s, "dlsms.v1.SeatService") == healthpb.HealthCheckResponse_SERVING &&
			health(t, s, "dlsms.v1.ReservationService") == healthpb.HealthCheckResponse_NOT_SERVING
	})
}

// health returns the health status of a service. If the replicas report different statuses, it
// returns UNKNOWN.
func health(t *testing.T, s *system, service string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	first := healthpb.HealthCheckResponse_UNKNOWN
	for i := range s.Replicas {
		resp, err := healthpb.NewHealthClient(conn(t, s, i)).Check(
			t.Context(), &healthpb.HealthCheckRequest{Service: service},
		)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && resp.GetStatus() != first {
			return healthpb.HealthCheckResponse_UNKNOWN
		}
		first = resp.GetStatus()
	}
	return first
}

// retryingClients book and cancel, repeat each call until it succeeds, and record the acknowledged
// reservations.
type retryingClients struct {
	stop    context.CancelFunc
	all     sync.WaitGroup
	clients []*e2e.Client

	mu     sync.Mutex
	acked  map[int64]dlsmsv1.ReservationStatus
	codes  map[codes.Code]int
	faults []error
}

func startRetryingClients(t *testing.T, s *system, b branch) *retryingClients {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	h := &retryingClients{
		stop:    stop,
		clients: s.users(t, 4),
		acked:   map[int64]dlsmsv1.ReservationStatus{},
		codes:   map[codes.Code]int{},
	}
	t.Cleanup(func() { stop(); h.all.Wait() })
	for i, c := range h.clients {
		h.all.Go(func() {
			ticker := time.NewTicker(callInterval)
			defer ticker.Stop()
			for round := 0; ctx.Err() == nil; round++ {
				h.bookAndCancel(ctx, c, b.seats[i], round)
				<-ticker.C
			}
		})
	}
	return h
}

// bookAndCancel books a seat and cancels the booking. It repeats each call until the server
// acknowledges it, which may take until the end of the outage.
func (h *retryingClients) bookAndCancel(ctx context.Context, c *e2e.Client, seat int64, round int) {
	req := tomorrow(0, 1).booking(seat)
	req.RequestId = fmt.Sprintf("retry-%d", round)
	var id int64
	if !h.retry(ctx, func() error {
		resp, err := c.Reservations.CreateReservation(ctx, req)
		id = resp.GetReservation().GetId()
		return err
	}) {
		return
	}
	h.ack(id, dlsmsv1.ReservationStatus_RESERVATION_STATUS_CONFIRMED)
	if h.retry(ctx, func() error {
		_, err := c.Reservations.CancelReservation(ctx, &dlsmsv1.CancelReservationRequest{ReservationId: id})
		return err
	}) {
		h.ack(id, dlsmsv1.ReservationStatus_RESERVATION_STATUS_CANCELLED)
	}
}

func (h *retryingClients) retry(ctx context.Context, call func() error) bool {
	timer := time.NewTicker(retryDelay)
	defer timer.Stop()
	for {
		err := call()
		if ctx.Err() != nil {
			return false
		}
		code := e2e.RefusalOf(err).Code
		h.mu.Lock()
		h.codes[code]++
		if code != codes.OK {
			if err := e2e.CheckRefusal(err, "UNAVAILABLE"); err != nil {
				h.faults = append(h.faults, err)
			}
		}
		h.mu.Unlock()
		if code == codes.OK {
			return true
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false
		}
	}
}

func (h *retryingClients) ack(id int64, status dlsmsv1.ReservationStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked[id] = status
}

// end stops the clients, and checks that the system has every acknowledged reservation with its
// status.
func (h *retryingClients) end(t *testing.T) {
	t.Helper()
	h.stop()
	h.all.Wait()
	stored := map[int64]dlsmsv1.ReservationStatus{}
	for _, c := range h.clients {
		for token := ""; ; {
			resp, err := c.Reservations.GetReservations(t.Context(), &dlsmsv1.GetReservationsRequest{
				View: dlsmsv1.ReservationView_RESERVATION_VIEW_ALL, PageSize: 500, PageToken: token,
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range resp.GetReservations() {
				stored[r.GetId()] = r.GetStatus()
			}
			if token = resp.GetNextPageToken(); token == "" {
				break
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, status := range h.acked {
		// CANCELLED is right too: the last cancel of a client may have succeeded although the
		// client got no answer.
		if got := stored[id]; got != status && got != dlsmsv1.ReservationStatus_RESERVATION_STATUS_CANCELLED {
			t.Errorf("reservation %d is %s, acknowledged as %s", id, got, status)
		}
	}
	if err := errors.Join(h.faults...); err != nil {
		t.Error(err)
	}
	if h.codes[codes.Unavailable] == 0 || len(h.acked) < 50 {
		t.Errorf("%d reservations were acknowledged, the calls got %v: too few for a test", len(h.acked), h.codes)
	}
	t.Logf("%d reservations were acknowledged, none is lost; the calls got %v", len(h.acked), h.codes)
}
