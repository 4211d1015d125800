package main

import (
	"net/http"
	"net/http/pprof"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dlsms/dlsms/availability"
	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/worker"
)

// adminHandler serves what operators look at. It belongs on a private address: profiles show what a process works on.
func adminHandler(metrics *prometheus.Registry, s *server.Server) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, req *http.Request) {
		if !s.Healthy(req.Context()) {
			http.Error(w, "not serving", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("serving\n")) // a prober that hung up needs no answer
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// countTransitions returns what the worker calls after each transaction.
func countTransitions(metrics *prometheus.Registry) func(step string, n int) {
	transitions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "dlsms", Name: "worker_transitions_total", Help: "What the worker did as time passed, by step.",
	}, []string{"step"})
	metrics.MustRegister(transitions)
	return func(step string, n int) { transitions.WithLabelValues(step).Add(float64(n)) }
}

// timeRefreshes returns what the read model calls after each refresh.
func timeRefreshes(metrics *prometheus.Registry) func(took time.Duration, err error) {
	durations := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "dlsms", Name: "refresh_duration_seconds",
		Help:    "Duration of a refresh: one read of the change log, for which all reads of seats that arrive meanwhile wait.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1},
	})
	failures := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "dlsms", Name: "refresh_failures_total", Help: "Refreshes that failed. Reads of seats are answered from memory then.",
	})
	metrics.MustRegister(durations, failures)
	return func(took time.Duration, err error) {
		durations.Observe(took.Seconds())
		if err != nil {
			failures.Inc()
		}
	}
}

// workerMetrics registers how the steps of the worker fare.
func workerMetrics(metrics *prometheus.Registry) worker.Metrics {
	byStep := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "dlsms", Name: name, Help: help}, []string{"step"})
	}
	lag := byStep("worker_lag_seconds", "How long the longest overdue row had been due at the last look, by step.")
	skipped := byStep("worker_skipped", "Seats that the worker leaves out for a while, as what is due there fails, by step. The log has their ids.")
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "dlsms", Name: "worker_errors_total", Help: "Looks and transactions of the worker that failed, by step.",
	}, []string{"step"})
	metrics.MustRegister(lag, skipped, failed)
	for _, step := range append(slices.Clone(store.DueSteps), store.OfferStep) {
		lag.WithLabelValues(step.Name)
		skipped.WithLabelValues(step.Name)
		failed.WithLabelValues(step.Name)
	}
	return worker.Metrics{
		Lag:     func(step string, d time.Duration) { lag.WithLabelValues(step).Set(d.Seconds()) },
		Failed:  func(step string) { failed.WithLabelValues(step).Inc() },
		Skipped: func(step string, seats int) { skipped.WithLabelValues(step).Set(float64(seats)) },
	}
}

// storeMetrics registers what the store does for many at a time.
func storeMetrics(metrics *prometheus.Registry) store.Observer {
	batch := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "dlsms", Name: "booking_batch_size", Help: "Bookings that shared one transaction.", Buckets: []float64{1, 2, 4, 8, 16, 32},
	})
	split := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "dlsms", Name: "booking_batch_splits_total", Help: "Batches of bookings that failed and were tried again in parts.",
	})
	judged := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "dlsms", Name: "waitlist_entries_judged", Buckets: []float64{1, 4, 16, 64, 256, 1024, 4096},
		Help: "Waitlist entries that fitted by themselves and were read to serve the seats of one transaction.",
	})
	metrics.MustRegister(batch, split, judged)
	return store.Observer{
		Batch:  func(n int) { batch.Observe(float64(n)) },
		Split:  func(int) { split.Inc() },
		Judged: func(n int) { judged.Observe(float64(n)) },
	}
}

// observe registers what the pool and the read model hold at the moment.
func observe(metrics *prometheus.Registry, db *store.Store, seats *availability.Model) {
	gauge := func(name, help string, value func() float64) {
		metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "dlsms", Name: name, Help: help}, value))
	}
	gauge("db_connections", "Connections to Postgres that are open, for requests.", func() float64 { return float64(db.PoolStat().TotalConns()) })
	gauge("db_connections_in_use", "Connections to Postgres that a request holds.", func() float64 { return float64(db.PoolStat().AcquiredConns()) })
	gauge("db_connections_max", "Most connections to Postgres for requests.", func() float64 { return float64(db.PoolStat().MaxConns()) })
	for table := range db.UnreadableRows() {
		metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "dlsms", Name: "unreadable_rows_total", ConstLabels: prometheus.Labels{"table": table},
			Help: "How often a row was left out because it could not be read, by table. The log has its id.",
		}, func() float64 { return float64(db.UnreadableRows()[table]) }))
	}
	gauge("seats", "Seats in the catalog.", func() float64 { return float64(seats.Stats().Seats) })
	gauge("seats_age_seconds", "How old what is known of the seats is.", func() float64 { return seats.Stats().Age.Seconds() })
	gauge("watches_open", "Watches of seats that are open.", func() float64 { return float64(seats.Stats().Watches) })
}
