package e2e_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// TestMicroservicesFailAlone kills each process of the microservice topology in turn. Calls to its
// service fail, all others succeed, and nothing is lost.
//
//nolint:paralleltest,tparallel // one process after the other
func TestMicroservicesFailAlone(t *testing.T) {
	t.Parallel()
	env := e2e.NoRateLimits()
	env["GRACE_MINUTES"] = "0.1"
	m := &microserviceTest{system: start(t, stack.Config{Topology: stack.Microservices, Seed: true, Env: env})}
	for _, seat := range seats(t, m.system, &dlsmsv1.GetSeatsRequest{Branch: demoBranch}) {
		m.seats = append(m.seats, seat.GetId())
	}
	t.Run("no process", m.readsSeeWrites)
	t.Run("auth", m.withoutAuth)
	t.Run("seat", m.withoutSeat)
	t.Run("reservation", m.withoutReservation)
	t.Run("notify", m.withoutNotify)
	t.Run("worker", m.withoutWorker)
}

// microserviceTest is a system whose services run in processes of their own.
type microserviceTest struct {
	*system

	seats []int64 // of demoBranch; each subtest uses one of them
}

// demoBranch is a branch of the demo data with 25 seats.
const demoBranch = "main"

// kill kills the process of a service, and returns a function that starts it again.
func (m *microserviceTest) kill(t *testing.T, service string) (restart func()) {
	t.Helper()
	at := slices.IndexFunc(m.Replicas, func(r *stack.Replica) bool { return r.Name() == service })
	if err := m.Replicas[at].Kill(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := m.Replicas[at].Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// http makes a request to the gateway. A body makes it a POST. An empty token sends no credentials.
func (m *microserviceTest) http(t *testing.T, token, path, body string) httpAnswer {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	var headers []string
	if token != "" {
		headers = []string{"Authorization", "Bearer " + token}
	}
	return m.send(t, method, path, body, headers...)
}

// succeeds checks that requests to these paths succeed.
func (m *microserviceTest) succeeds(t *testing.T, token string, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if a := m.http(t, token, path, ""); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %s\n%s", path, a.Status, a.body)
		}
	}
}

// unavailable checks that the gateway answers requests to these paths with a problem of its own.
// A path with a space has a body after it.
func (m *microserviceTest) unavailable(t *testing.T, token string, requests ...string) {
	t.Helper()
	for _, request := range requests {
		path, body, _ := strings.Cut(request, " ")
		a := m.http(t, token, path, body)
		var problem struct {
			Status int
			Reason string
		}
		err := json.Unmarshal(a.body, &problem)
		if err != nil || a.StatusCode != http.StatusServiceUnavailable || problem.Status != a.StatusCode ||
			a.Header.Get("Content-Type") != "application/problem+json" || problem.Reason != "UNAVAILABLE" ||
			a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %s %v\n%s", path, a.Status, a.Header, a.body)
		}
	}
}

// ends checks that a stream ends with an error after its process was killed.
func ends[M any](t *testing.T, stream *e2e.StreamRecorder[M]) {
	t.Helper()
	if why, err := stream.End(within(t, waitTimeout)); err != nil || errors.Is(why, io.EOF) {
		t.Errorf("the stream ended with %v (%v)", why, err)
	}
}

// free reports whether GetSeats shows a seat as free at a time.
func (m *microserviceTest) free(t *testing.T, seat int64, w window) bool {
	t.Helper()
	req := &dlsmsv1.GetSeatsRequest{Branch: demoBranch, AvailableOnly: true}
	booking := w.booking(seat)
	req.StartTime, req.EndTime = booking.GetStartTime(), booking.GetEndTime()
	return has(seats(t, m.system, req), seat)
}

// A read by one process sees the change that another process has acknowledged.
func (m *microserviceTest) readsSeeWrites(t *testing.T) {
	u, w, seat := m.student(t), tomorrow(0, 1), m.seats[0]
	for range 50 {
		booked := u.book(seat, w)
		if m.free(t, seat, w) {
			t.Fatal("the seat is free after it was booked")
		}
		u.cancel(booked.GetId())
		if !m.free(t, seat, w) {
			t.Fatal("the seat is taken after the reservation was cancelled")
		}
	}
}

// Without auth, users with valid tokens book and read as before.
func (m *microserviceTest) withoutAuth(t *testing.T) {
	owner, other, w, seat := m.student(t), m.student(t), tomorrow(0, 1), m.seats[1]
	restart := m.kill(t, "auth")
	_, err := m.anonymous().Login(t.Context(), owner.User.GetStudentId(), password)
	refused(t, err, "UNAVAILABLE")
	m.unavailable(t, "", `/v1/auth/login {"studentId": "x", "password": "y"}`)

	booked := owner.book(seat, w)
	refused(t, other.tryToBook(seat, w), "SEAT_TAKEN")
	if m.free(t, seat, w) {
		t.Error("the booked seat is free")
	}
	other.wait(seat, w)
	subscription := other.subscribe()
	owner.cancel(booked.GetId())
	subscription.next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_SEAT_OFFERED)
	m.succeeds(t, owner.Token, "/v1/seats", "/v1/branches", "/v1/reservations", "/v1/waitlist", "/v1/notifications",
		"/healthz", "/v1/openapi.json", "/docs")

	restart()
	m.login(t, owner.User.GetStudentId(), password)
}

// Without seat, users book and join the waitlist.
func (m *microserviceTest) withoutSeat(t *testing.T) {
	owner, other, w, seat := m.student(t), m.student(t), tomorrow(0, 1), m.seats[2]
	shown := watch(t, owner.Client, &dlsmsv1.WatchSeatsRequest{Branch: demoBranch})
	restart := m.kill(t, "seat")
	ends(t, shown.StreamRecorder)
	_, err := owner.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{})
	refused(t, err, "UNAVAILABLE")
	m.unavailable(t, "", "/v1/seats", "/v1/seats/1", "/v1/branches", "/v1/seats:watch")

	owner.book(seat, w)
	other.wait(seat, w)
	m.login(t, owner.User.GetStudentId(), password)
	m.succeeds(t, owner.Token, "/v1/reservations", "/v1/waitlist", "/v1/notifications",
		"/healthz", "/v1/openapi.json", "/docs")

	restart()
	if m.free(t, seat, w) {
		t.Error("the seat that was booked without the process is free")
	}
}

// Without reservation, users read and claim offers.
func (m *microserviceTest) withoutReservation(t *testing.T) {
	owner, other, w, seat := m.student(t), m.student(t), tomorrow(0, 1), m.seats[3]
	booked := owner.book(seat, w)
	entry := other.wait(seat, w)
	owner.cancel(booked.GetId())
	restart := m.kill(t, "reservation")
	refused(t, owner.tryToBook(seat, w), "UNAVAILABLE")
	m.unavailable(t, owner.Token, "/v1/reservations", "/v1/reservations/1", `/v1/reservations {"seatId": "1"}`,
		"/v1/reservations/1:cancel {}")

	claimed := other.claim(entry.GetId()).GetReservation()
	if m.free(t, seat, w) {
		t.Error("the claimed seat is free")
	}
	m.login(t, owner.User.GetStudentId(), password)
	m.succeeds(t, owner.Token, "/v1/seats", "/v1/branches", "/v1/waitlist", "/v1/notifications", "/healthz")

	restart()
	if got := other.reservation(claimed.GetId()); got.GetStatus() != claimed.GetStatus() {
		t.Errorf("the claimed reservation is %v", got)
	}
}

// While notify is stopped, users still book, and a seat that becomes free is still offered. The
// notification of the offer is there when notify runs again.
func (m *microserviceTest) withoutNotify(t *testing.T) {
	owner, waiter, w, seat := m.student(t), m.student(t), tomorrow(0, 1), m.seats[4]
	booked := owner.book(seat, w)
	entry := waiter.wait(seat, w)
	stream := waiter.subscribe()
	restart := m.kill(t, "notify")
	ends(t, stream.StreamRecorder)
	_, err := waiter.Notify.GetNotifications(t.Context(), &dlsmsv1.GetNotificationsRequest{})
	refused(t, err, "UNAVAILABLE")
	m.unavailable(t, waiter.Token, "/v1/notifications", "/v1/notifications:subscribe", "/v1/waitlist",
		`/v1/waitlist {"seatId": "1"}`, "/v1/waitlist/1:claim {}")

	owner.cancel(booked.GetId())
	held := waiter.reservations(dlsmsv1.ReservationView_RESERVATION_VIEW_UPCOMING)
	if len(held) != 1 || held[0].GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_HELD || m.free(t, seat, w) {
		t.Errorf("the seat was not held for the waitlist: %v", held)
	}
	refused(t, owner.tryToBook(seat, w), "SEAT_TAKEN")
	owner.book(seat, tomorrow(2, 3))
	m.login(t, owner.User.GetStudentId(), password)
	m.succeeds(t, owner.Token, "/v1/seats", "/v1/branches", "/v1/reservations", "/healthz")

	restart()
	offer := waiter.subscribe().next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_SEAT_OFFERED)
	if offer.GetEntryId() != entry.GetId() || offer.GetReservationId() != held[0].GetId() {
		t.Errorf("the offer is %v", offer)
	}
	if got := waiter.claim(entry.GetId()).GetReservation(); got.GetId() != held[0].GetId() {
		t.Errorf("claimed %v, want reservation %d", got, held[0].GetId())
	}
}

// Without the worker, every call succeeds. Transitions that came due in the meantime are made when
// it is back.
func (m *microserviceTest) withoutWorker(t *testing.T) {
	absent, seat := m.student(t), m.seats[5]
	restart := m.kill(t, "worker")
	missed := absent.book(seat, fromNow(time.Hour))
	m.login(t, absent.User.GetStudentId(), password)
	m.succeeds(t, absent.Token, "/v1/seats", "/v1/branches", "/v1/reservations", "/v1/waitlist", "/v1/notifications",
		"/healthz")
	eventually(t, "the deadline for the check-in passes", func() bool {
		return value[bool](t, m.system, `SELECT dlsms_now() > $1`, missed.GetCheckInDeadline().AsTime())
	})
	refused(t, absent.tryToCheckIn(missed.GetId()), "CHECK_IN_TOO_LATE")
	confirmed := dlsmsv1.ReservationStatus_RESERVATION_STATUS_CONFIRMED
	if got := absent.reservation(missed.GetId()); got.GetStatus() != confirmed {
		t.Errorf("without the worker, the reservation is %v", got)
	}

	restart()
	absent.subscribe().next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_NO_SHOW)
	eventually(t, "the seat is free again", func() bool { return m.free(t, seat, fromNow(time.Hour)) })
}
