package main

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dlsms/dlsms/availability"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/telemetry"
	"github.com/dlsms/dlsms/worker"
)

// The functions below connect the parts of a replica with their metrics, because the parts do not
// import Prometheus:
//   - Some functions return a function that a part calls, for example after each batch.
//   - The others register a metric whose value is read from the part at each scrape.

// observeBuild registers the version of this binary.
func observeBuild(r prometheus.Registerer, b build) {
	telemetry.Gauge(r, "build_info").WithLabelValues(b.version, b.revision, b.goVersion).Set(1)
}

// observeCertificate registers when the certificate of clients expires. addr is that of the proxy
// with TLS, empty for none.
func observeCertificate(ctx context.Context, r prometheus.Registerer, addr string) {
	if addr == "" {
		return
	}
	telemetry.OptionalGaugeFunc(r, "tls_certificate_expires_timestamp_seconds", func() (float64, bool) {
		expires, err := telemetry.CertificateExpiry(ctx, addr)
		return float64(expires.Unix()), err == nil
	})
}

// observeLog registers the number of lines that were dropped.
func observeLog(r prometheus.Registerer, out *telemetry.LogOutput) {
	telemetry.CounterFunc(r, "log_lines_dropped_total", nil, func() float64 { return float64(out.Dropped()) })
}

// storeObserver returns the functions that the store calls for each batch and each read of a
// waitlist.
func storeObserver(r prometheus.Registerer) store.Observer {
	batch := telemetry.Histogram(r, "booking_batch_size").WithLabelValues()
	split := telemetry.Counter(r, "booking_batch_splits_total").WithLabelValues()
	judged := telemetry.Histogram(r, "waitlist_entries_judged").WithLabelValues()
	return store.Observer{
		Batch:  func(n int) { batch.Observe(float64(n)) },
		Split:  func(int) { split.Inc() },
		Judged: func(n int) { judged.Observe(float64(n)) },
	}
}

// startSpan is the store.StartSpan of a replica.
func startSpan(ctx context.Context, s store.Span) (context.Context, func(error)) {
	return telemetry.StartPart(ctx, s.Name, s.Bookings, s.Link)
}

// observeStore registers the metrics of the store: its connections, and the rows that it could not
// read.
func observeStore(r prometheus.Registerer, db *store.Store) {
	gauge := func(name string, value func() int32) {
		telemetry.GaugeFunc(r, name, nil, func() float64 { return float64(value()) })
	}
	gauge("db_connections", func() int32 { return db.PoolStat().TotalConns() })
	gauge("db_connections_in_use", func() int32 { return db.PoolStat().AcquiredConns() })
	gauge("db_connections_max", func() int32 { return db.PoolStat().MaxConns() })
	for table := range db.UnreadableRows() {
		telemetry.CounterFunc(r, "unreadable_rows_total", prometheus.Labels{"table": table},
			func() float64 { return float64(db.UnreadableRows()[table]) })
	}
}

// observeSeats registers the metrics of the read model: its seats, its age and its open watches.
func observeSeats(r prometheus.Registerer, seats *availability.Model) {
	telemetry.GaugeFunc(r, "seats", nil, func() float64 { return float64(seats.Stats().Seats) })
	telemetry.GaugeFunc(r, "seats_age_seconds", nil, func() float64 { return seats.Stats().Age.Seconds() })
	telemetry.GaugeFunc(r, "watches_open", nil, func() float64 { return float64(seats.Stats().Watches) })
}

// refreshObserver returns the function that the feed calls after each refresh.
func refreshObserver(r prometheus.Registerer) func(took time.Duration, err error) {
	durations := telemetry.Histogram(r, "refresh_duration_seconds").WithLabelValues()
	failures := telemetry.Counter(r, "refresh_failures_total").WithLabelValues()
	return func(took time.Duration, err error) {
		durations.Observe(took.Seconds())
		if err != nil {
			failures.Inc()
		}
	}
}

// transitionCounter returns a function that counts the transitions that the worker made.
func transitionCounter(r prometheus.Registerer) func(step string, n int) {
	transitions := telemetry.Counter(r, "worker_transitions_total")
	return func(step string, n int) { transitions.WithLabelValues(step).Add(float64(n)) }
}

// workerMetrics returns the functions to which the worker reports the state of its steps. It
// creates the time series of all steps at once, so that an alert can tell the value 0 from a
// missing metric.
func workerMetrics(r prometheus.Registerer) worker.Metrics {
	lag := telemetry.Gauge(r, "worker_lag_seconds")
	skipped := telemetry.Gauge(r, "worker_skipped")
	failed := telemetry.Counter(r, "worker_errors_total")
	failing := telemetry.Gauge(r, "worker_failing")
	for _, step := range append(slices.Clone(store.DueSteps), store.OfferStep) {
		lag.WithLabelValues(step.Name)
		skipped.WithLabelValues(step.Name)
		failed.WithLabelValues(step.Name)
		failing.WithLabelValues(step.Name)
	}
	skipped.WithLabelValues(worker.SweepName)
	for _, step := range []string{worker.SweepName, worker.UsageName} {
		failed.WithLabelValues(step)
		failing.WithLabelValues(step)
	}
	return worker.Metrics{
		Lag:     func(step string, d time.Duration) { lag.WithLabelValues(step).Set(d.Seconds()) },
		Failed:  func(step string) { failed.WithLabelValues(step).Inc() },
		Failing: func(step string, is bool) { failing.WithLabelValues(step).Set(oneIf(is)) },
		Skipped: func(step string, seats int) { skipped.WithLabelValues(step).Set(float64(seats)) },
	}
}

// oneIf returns 1 or 0, the values of a gauge that tells whether something is so.
func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
