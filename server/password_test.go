package server

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// TestPasswordMetricCountsEachOperation: the histogram counts each hash and each comparison, also
// those for unknown students.
func TestPasswordMetricCountsEachOperation(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s := start(t, func(c *Config) { c.Metrics = registry })
	s.register(t, "S2021001")
	s.login(t, "S2021001", testPassword)
	_, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: "S2021002", Password: "wrong password"})
	want(t, err, codes.Unauthenticated, "BAD_CREDENTIALS")
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "dlsms_password_hash_duration_seconds" {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		if h.GetSampleCount() != 3 || h.GetSampleSum() <= 0 {
			t.Errorf("the histogram is %v, want 3 operations", h)
		}
		return
	}
	t.Error("no such metric")
}
