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

// unavailable checks that a stream ends with UNAVAILABLE.
func unavailable[M any](t *testing.T, tap *e2e.StreamRecorder[M]) {
	t.Helper()
	why, err := tap.End(within(t, waitTimeout))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, why, "UNAVAILABLE")
}

// maxStaleness is for how long browsing goes on without Postgres, in the system that loses it.
const maxStaleness = 8 * time.Second

// TestPostgresGone takes Postgres away twice, gently and not, while clients go on. They see what was known, with the time of it, and get
// UNAVAILABLE for everything else; when Postgres is back, so is everything, and nothing that was acknowledged is lost.
//
//nolint:paralleltest,tparallel // one outage after the other
func TestPostgresGone(t *testing.T) {
	t.Parallel()
	env := e2e.NoRateLimits()
	env["MAX_STALENESS"], env["GRACE_MINUTES"] = maxStaleness.String(), "0.1"
	s := start(t, stack.Config{Env: env})
	b := s.branch(t, 8)
	h := startHammer(t, s, b)
	for _, outage := range []struct {
		name string
		end  func() error
	}{
		{"stopped", func() error { return s.Postgres.Process.Stop(t.Context()) }},
		{"killed", func() error { return s.Postgres.Kill() }},
	} {
		t.Run(outage.name, func(t *testing.T) { postgresGone(t, s, b, outage.end) })
	}
	h.end(t)
}

func postgresGone(t *testing.T, s *system, b branch, takeAway func() error) {
	t.Helper()
	u := s.student(t)
	mail := u.subscribe()
	screens := watch(t, u.Client, &dlsmsv1.WatchSeatsRequest{Branch: b.code})
	seat := b.seats[7]
	never := u.book(seat, fromNow(time.Hour)) // nobody checks in, and the worker can't tell until Postgres is back
	for i := range s.Replicas {               // each of them has seen it
		watch(t, e2e.Anonymous(conn(t, s, i)), &dlsmsv1.WatchSeatsRequest{Branch: b.code}).untilSeat(seat, false)
	}
	before := time.Now()
	if err := takeAway(); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()

	browses(t, s, b, seat, before, gone)
	for range 6 { // each of the replicas, twice
		refused(t, u.tryToBook(seat, tomorrow(0, 1)), "UNAVAILABLE")
		_, err := u.Reservations.GetReservations(t.Context(), &dlsmsv1.GetReservationsRequest{})
		refused(t, err, "UNAVAILABLE")
		_, err = s.anonymous().Login(t.Context(), u.User.GetStudentId(), password)
		refused(t, err, "UNAVAILABLE")
	}

	// At last what is known is too old.
	var err error
	eventually(t, "browsing ends", func() bool {
		_, err = s.anonymous().Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{})
		return err != nil
	})
	refused(t, err, "UNAVAILABLE")
	// Postgres may have answered nobody long before it was gone: a shutdown takes seconds on a busy machine.
	if lasted := time.Since(before); lasted < maxStaleness-2*time.Second {
		t.Errorf("browsing went on for %s only", lasted)
	}
	unavailable(t, screens.StreamRecorder)
	eventually(t, "the replicas say that they don't serve", func() bool { return health(t, s, "") == healthpb.HealthCheckResponse_NOT_SERVING })
	check := launch(t, map[string]string{"GRPC_ADDR": s.ReplicaAddr(0)}, "healthcheck")
	if code := check.exit(); code != 1 || !strings.Contains(check.stderr.String(), "NOT_SERVING") {
		t.Errorf("healthcheck: exit %d: %s", code, check.stderr.String())
	}

	if err := s.Postgres.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all replicas serve again", func() bool {
		for _, service := range []string{"", "dlsms.v1.SeatService", "dlsms.v1.ReservationService", "dlsms.v1.AuthService", "dlsms.v1.NotifyService"} {
			if health(t, s, service) != healthpb.HealthCheckResponse_SERVING {
				return false
			}
		}
		return true
	})
	if n := mail.next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_NO_SHOW); n.GetReservationId() != never.GetId() {
		t.Errorf("the no-show is %v", n)
	}
	again := u.book(seat, tomorrow(0, 1))
	for range 3 {
		resp, err := u.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{Branch: b.code})
		if err != nil || resp.GetAsOf().AsTime().Before(gone) {
			t.Errorf("the seats are as of %s, Postgres went at %s (%v)", resp.GetAsOf().AsTime(), gone, err)
		}
	}
	u.cancel(again.GetId())
	watch(t, u.Client, &dlsmsv1.WatchSeatsRequest{Branch: b.code}).untilSeat(seat, true)
	s.login(t, u.User.GetStudentId(), password)
}

// browses looks at the seats while Postgres is away: they are what they were, and so is the time of them.
func browses(t *testing.T, s *system, b branch, taken int64, before, gone time.Time) {
	t.Helper()
	for i := range 9 { // each of the replicas, three times
		c := s.anonymous()
		if i%3 == 0 {
			c = e2e.Anonymous(conn(t, s, i/3))
		}
		resp, err := c.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{Branch: b.code})
		if err != nil {
			t.Fatalf("%s after Postgres went: %v", time.Since(gone), err)
		}
		asOf := resp.GetAsOf().AsTime()
		if asOf.After(gone) || asOf.Before(before.Add(-2*time.Second)) || len(resp.GetSeats()) != len(b.seats) || resp.GetSeats()[7].GetAvailable() {
			t.Errorf("as of %s, when Postgres was there until %s: %v", asOf, gone, resp)
		}
		if _, err := s.anonymous().Seats.GetSeat(t.Context(), &dlsmsv1.GetSeatRequest{SeatId: taken}); err != nil {
			t.Error(err)
		}
		if _, err := s.anonymous().Seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{}); err != nil {
			t.Error(err)
		}
	}
	watch(t, s.anonymous(), &dlsmsv1.WatchSeatsRequest{Branch: b.code}).untilSeat(taken, false)
	eventually(t, "each service has its own health", func() bool {
		return health(t, s, "") == healthpb.HealthCheckResponse_SERVING &&
			health(t, s, "dlsms.v1.SeatService") == healthpb.HealthCheckResponse_SERVING &&
			health(t, s, "dlsms.v1.ReservationService") == healthpb.HealthCheckResponse_NOT_SERVING
	})
}

// health returns what all replicas say of a service, or unknown if they don't agree.
func health(t *testing.T, s *system, service string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	said := healthpb.HealthCheckResponse_UNKNOWN
	for i := range s.Replicas {
		resp, err := healthpb.NewHealthClient(conn(t, s, i)).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && resp.GetStatus() != said {
			return healthpb.HealthCheckResponse_UNKNOWN
		}
		said = resp.GetStatus()
	}
	return said
}

// hammer are clients that book and cancel through everything, and remember what was acknowledged.
type hammer struct {
	stop    context.CancelFunc
	all     sync.WaitGroup
	clients []*e2e.Client

	mu     sync.Mutex
	acked  map[int64]dlsmsv1.ReservationStatus
	codes  map[codes.Code]int
	faults []error
}

func startHammer(t *testing.T, s *system, b branch) *hammer {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	h := &hammer{stop: stop, clients: s.users(t, 4), acked: map[int64]dlsmsv1.ReservationStatus{}, codes: map[codes.Code]int{}}
	t.Cleanup(func() { stop(); h.all.Wait() })
	for i, c := range h.clients {
		h.all.Go(func() {
			beat := time.NewTicker(callInterval)
			defer beat.Stop()
			for round := 0; ctx.Err() == nil; round++ {
				h.hit(ctx, c, b.seats[i], round)
				<-beat.C
			}
		})
	}
	return h
}

// hit books and cancels, each until it is acknowledged: while Postgres is away for as long as that takes.
func (h *hammer) hit(ctx context.Context, c *e2e.Client, seat int64, round int) {
	req := tomorrow(0, 1).booking(seat)
	req.RequestId = fmt.Sprintf("hammer-%d", round)
	var id int64
	if !h.until(ctx, func() error {
		resp, err := c.Reservations.CreateReservation(ctx, req)
		id = resp.GetReservation().GetId()
		return err
	}) {
		return
	}
	h.ack(id, dlsmsv1.ReservationStatus_RESERVATION_STATUS_CONFIRMED)
	if h.until(ctx, func() error {
		_, err := c.Reservations.CancelReservation(ctx, &dlsmsv1.CancelReservationRequest{ReservationId: id})
		return err
	}) {
		h.ack(id, dlsmsv1.ReservationStatus_RESERVATION_STATUS_CANCELLED)
	}
}

func (h *hammer) until(ctx context.Context, call func() error) bool {
	again := time.NewTicker(retryDelay)
	defer again.Stop()
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
		case <-again.C:
		case <-ctx.Done():
			return false
		}
	}
}

func (h *hammer) ack(id int64, status dlsmsv1.ReservationStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked[id] = status
}

// end stops the clients and looks whether what was acknowledged is there.
func (h *hammer) end(t *testing.T) {
	t.Helper()
	h.stop()
	h.all.Wait()
	there := map[int64]dlsmsv1.ReservationStatus{}
	for _, c := range h.clients {
		for token := ""; ; {
			resp, err := c.Reservations.GetReservations(t.Context(), &dlsmsv1.GetReservationsRequest{
				View: dlsmsv1.ReservationView_RESERVATION_VIEW_ALL, PageSize: 500, PageToken: token,
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range resp.GetReservations() {
				there[r.GetId()] = r.GetStatus()
			}
			if token = resp.GetNextPageToken(); token == "" {
				break
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, status := range h.acked {
		// The last call of a client may have been done without being answered.
		if got := there[id]; got != status && got != dlsmsv1.ReservationStatus_RESERVATION_STATUS_CANCELLED {
			t.Errorf("reservation %d is %s, acknowledged was %s", id, got, status)
		}
	}
	if err := errors.Join(h.faults...); err != nil {
		t.Error(err)
	}
	if h.codes[codes.Unavailable] == 0 || len(h.acked) < 50 {
		t.Errorf("%d reservations were acknowledged, and the calls got %v: that is no test", len(h.acked), h.codes)
	}
	t.Logf("%d reservations were acknowledged, none is lost; the calls got %v", len(h.acked), h.codes)
}
