package server

import (
	"context"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestHealthWithoutPostgres tests that without Postgres reads of seats work, and that the health
// service reports which services work.
func TestHealthWithoutPostgres(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	me := s.student(t)
	probe := func(service string) healthpb.HealthCheckResponse_ServingStatus {
		resp, err := healthpb.NewHealthClient(s.conn).Check(
			context.WithoutCancel(t.Context()), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatus()
	}
	const up, down = healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING
	name := storetest.Value[string](t, db, `SELECT current_database()`)
	admin := storetest.NewDB(t) // another connection, to close and open the database of s
	admin.Exec(t, `ALTER DATABASE `+name+` ALLOW_CONNECTIONS false`)
	admin.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, name)
	eventually(t, "a probe reports that Postgres is unreachable", func() bool {
		return probe("dlsms.v1.AuthService") == down
	})
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": up, "dlsms.v1.SeatService": up, "dlsms.v1.ReservationService": down, "dlsms.v1.NotifyService": down,
	} {
		if got := probe(service); got != want {
			t.Errorf("%q is %v without Postgres", service, got)
		}
	}
	if _, err := s.seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{}); err != nil {
		t.Errorf("reading branches without Postgres: %v", err)
	}

	admin.Exec(t, `ALTER DATABASE `+name+` ALLOW_CONNECTIONS true`)
	eventually(t, "a probe reports that Postgres is reachable again", func() bool {
		return probe("dlsms.v1.AuthService") == up
	})
	if _, err := s.notify.GetWaitlist(me, &dlsmsv1.GetWaitlistRequest{}); err != nil {
		t.Errorf("with Postgres back: %v", err)
	}
	line := `"msg":"health","service":"dlsms.v1.AuthService"`
	if n := strings.Count(s.log.String(), line); n != 3 { // ready, down, up
		t.Errorf("%d log lines about the health of one service, want one for each change", n)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	me := s.student(t)
	subscribe(t, s, me)
	_, err := s.seats.GetSeat(t.Context(), &dlsmsv1.GetSeatRequest{SeatId: 1})
	want(t, err, codes.NotFound, "SEAT_NOT_FOUND")

	value := func(name string, labels map[string]string) float64 {
		families, err := s.config.Metrics.(*prometheus.Registry).Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() != name {
				continue
			}
		metric:
			for _, m := range family.GetMetric() {
				got := map[string]string{}
				for _, l := range m.GetLabel() {
					got[l.GetName()] = l.GetValue()
				}
				for k, v := range labels {
					if got[k] != v {
						continue metric
					}
				}
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		return -1
	}
	// The metric has the code that the client received.
	eventually(t, "the metric has counted the call", func() bool {
		labels := map[string]string{"grpc_method": "GetSeat", "grpc_code": "NotFound"}
		return value("grpc_server_handled_total", labels) == 1
	})
	if n := value("grpc_server_handling_seconds", map[string]string{"grpc_method": "GetSeat"}); n != 1 {
		t.Errorf("%v calls were timed", n)
	}
	refused := map[string]string{
		"grpc_service": "dlsms.v1.SeatService", "grpc_method": "GetSeat", "reason": "SEAT_NOT_FOUND",
	}
	if n := value("dlsms_refusals_total", refused); n != 1 {
		t.Errorf("%v refusals %v were counted, want 1", n, refused)
	}
	if n := value("dlsms_streams_open", nil); n != 1 {
		t.Errorf("%v streams are open", n)
	}
	for _, class := range []string{"book", "read", "password"} {
		if n := value("dlsms_slots_taken", map[string]string{"class": class}); n != 0 {
			t.Errorf("%v slots of %s are taken", n, class)
		}
	}
}
