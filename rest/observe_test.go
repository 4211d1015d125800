package rest

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/server/edge/edgetest"
)

// TestRequestsAreMeasuredByRoute checks that the labels have few values, whatever clients send, and
// that streams are not measured.
func TestRequestsAreMeasuredByRoute(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	r := start(t, func(_ *server.Config, c *Config) { c.Metrics = metrics })
	for _, request := range [][2]string{
		{"HEAD", "/v1/seats:watch"}, // a stream, which ends when it is open
		{"GET", "/v1/seats"},
		{"HEAD", "/v1/seats"},
		{"POST", "/v1/seats"},
		{"GET", "/v1/seats?nonsense=1"},
		{"GET", fmt.Sprintf("/v1/seats/%d", r.seats[0])},
		{"GET", "/v1/seats/999999"},
		{"POST", "/v1/reservations/7:cancel"},
		{"POST", "/v1/seats:watch"},
		{"GET", "/v1/notifications:subscribe"}, // without a token
		{"BREW", "/coffee/1"},
		{"GET", "/coffee/2"},
		{"GET", "/docs/"},
		{"GET", "/healthz"},
	} {
		r.do(t, request[0], request[1], "")
	}
	want := map[string]uint64{
		"GET /v1/seats 200":                                 1,
		"HEAD /v1/seats 200":                                1,
		"POST /v1/seats 405":                                1,
		"GET /v1/seats 400":                                 1,
		"GET /v1/seats/{seat_id} 200":                       1,
		"GET /v1/seats/{seat_id} 404":                       1,
		"POST /v1/reservations/{reservation_id}:cancel 401": 1,
		"POST /v1/seats:watch 405":                          1,
		"GET /v1/notifications:subscribe 401":               1,
		"other none 404":                                    1,
		"GET none 404":                                      1,
		"GET /docs 200":                                     1,
		"GET /healthz 200":                                  1,
	}
	edgetest.Eventually(t, "all requests are measured", func() bool {
		return len(durations(t, metrics)) >= len(want) // a request is measured after its answer
	})
	if diff := cmp.Diff(want, durations(t, metrics)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// durations returns how many requests were measured, by method, route and code.
func durations(t *testing.T, metrics prometheus.Gatherer) map[string]uint64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, family := range families {
		if family.GetName() != "dlsms_http_request_duration_seconds" {
			continue
		}
		for _, m := range family.GetMetric() {
			label := map[string]string{}
			for _, l := range m.GetLabel() {
				label[l.GetName()] = l.GetValue()
			}
			counts[label["method"]+" "+label["route"]+" "+label["code"]] = m.GetHistogram().GetSampleCount()
		}
	}
	return counts
}

// discard is a response writer that keeps nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// BenchmarkSeats measures GET /v1/seats without the server of net/http.
func BenchmarkSeats(b *testing.B) {
	r := start(b, func(_ *server.Config, c *Config) { c.Metrics = prometheus.NewRegistry() })
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "/v1/seats", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r.handler.ServeHTTP(discard{http.Header{}}, req)
	}
}
