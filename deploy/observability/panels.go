package main

import (
	"fmt"
	"strings"
)

// dashboard is a Grafana dashboard. A file in the directory grafana has the JSON of each.
type dashboard struct {
	uid    string // never changes: it is part of the dashboard's URL, and the name of its file
	title  string
	panels []panel
}

// panel is a graph, or a number if stat is true.
type panel struct {
	title, description string
	unit               string // as in Grafana: s, bytes, reqps, percentunit, …
	stat               bool
	exemplars          bool // shows the traces of single calls as points
	noValue            string
	queries            []query
}

// query is one expression in PromQL. It may use $__rate_interval, which Grafana replaces by a range
// that has enough samples.
type query struct {
	legend string // may use labels: {{grpc_method}}
	expr   string
}

// quantile returns the expression of a quantile of a histogram by these labels. bucket selects its
// series, whose name ends with _bucket.
func quantile(q float64, bucket string, by ...string) string {
	return fmt.Sprintf("histogram_quantile(%g, sum by (%s) (rate(%s[$__rate_interval])))",
		q, strings.Join(append([]string{"le"}, by...), ", "), bucket)
}

// Units of Grafana.
const (
	opsPerSecond = "ops"
	seconds      = "s"
	bytesUnit    = "bytes"
	ratio        = "percentunit"
	count        = "short"
)

// dashboards are the two dashboards: the service as its users see it, and the resources that it
// uses. docs/operating/alerts.md names the panel to look at for each alert.
var dashboards = []dashboard{
	{
		uid: "dlsms-service", title: "DL-SMS: service",
		panels: []panel{
			{
				title: "Replicas and nginx that answer", stat: true, unit: count,
				queries: []query{{"{{job}}", `sum by (job) (up{job=~"dlsms|nginx"})`}},
			},
			{
				title: "Alerts", stat: true, unit: count, noValue: "none",
				queries: []query{{"{{alertname}}", `count by (alertname) (ALERTS{alertstate="firing"})`}},
			},
			{
				title: "Calls", stat: true, unit: opsPerSecond,
				queries: []query{{"", `sum(rate(grpc_server_handled_total{job="dlsms"}[$__rate_interval]))`}},
			},
			{
				title: "Age of seats", stat: true, unit: seconds,
				description: "Seconds since the seats of a replica were last known to be current. The worst replica counts.",
				queries:     []query{{"", `max(dlsms_seats_age_seconds)`}},
			},
			{
				title: "Calls by method", unit: opsPerSecond,
				description: "Calls over gRPC and over HTTP.",
				queries: []query{{
					"{{grpc_method}}",
					`sum by (grpc_method) (rate(grpc_server_handled_total{job="dlsms"}[$__rate_interval])) > 0`,
				}},
			},
			{
				title: "Errors by code", unit: opsPerSecond,
				queries: []query{{
					"{{grpc_code}}",
					`sum by (grpc_code) (rate(grpc_server_handled_total{job="dlsms", grpc_code!="OK"}[$__rate_interval])) > 0`,
				}},
			},
			{
				title: "Refusals by method and reason", unit: opsPerSecond,
				description: "OVERLOADED and UNAVAILABLE are faults of the service. " +
					"The other reasons answer what a user or a client asked for.",
				queries: []query{{
					"{{grpc_method}} {{reason}}",
					`sum by (grpc_method, reason) (rate(dlsms_refusals_total[$__rate_interval]))`,
				}},
			},
			{
				title: "P99 by method, over gRPC and HTTP", unit: seconds, exemplars: true,
				description: "Unary calls, in a replica. Each point is a call with a trace.",
				queries: []query{{
					"{{grpc_method}}",
					quantile(0.99, `grpc_server_handling_seconds_bucket{job="dlsms", grpc_type="unary"}`, "grpc_method"),
				}},
			},
			{
				title: "P50 by method, over gRPC and HTTP", unit: seconds,
				queries: []query{{
					"{{grpc_method}}",
					quantile(0.5, `grpc_server_handling_seconds_bucket{job="dlsms", grpc_type="unary"}`, "grpc_method"),
				}},
			},
			{
				title: "Requests over HTTP by route", unit: opsPerSecond,
				queries: []query{{
					"{{method}} {{route}}",
					`sum by (method, route) (rate(dlsms_http_request_duration_seconds_count[$__rate_interval]))`,
				}},
			},
			{
				title: "Errors over HTTP by status", unit: opsPerSecond,
				queries: []query{{
					"{{code}}", `sum by (code) (rate(dlsms_http_request_duration_seconds_count{code=~"4..|5.."}[$__rate_interval]))`,
				}},
			},
			{
				title: "P99 of requests over HTTP by route", unit: seconds, exemplars: true,
				queries: []query{{
					"{{method}} {{route}}",
					quantile(0.99, `dlsms_http_request_duration_seconds_bucket`, "method", "route"),
				}},
			},
			{
				title: "Read of the change log", unit: seconds,
				description: "Reads of seats wait for this.",
				queries: []query{
					{"P50", quantile(0.5, "dlsms_refresh_duration_seconds_bucket")},
					{"P99", quantile(0.99, "dlsms_refresh_duration_seconds_bucket")},
				},
			},
			{
				title: "Age of seats by replica", unit: seconds,
				queries: []query{{"{{instance}}", `max by (instance) (dlsms_seats_age_seconds)`}},
			},
			{
				title: "Failed reads of the change log", unit: opsPerSecond,
				queries: []query{{
					"{{instance}}", `sum by (instance) (rate(dlsms_refresh_failures_total[$__rate_interval]))`,
				}},
			},
			{
				title: "Streams", unit: count,
				queries: []query{
					{"streams, {{instance}}", `sum by (instance) (dlsms_streams_open)`},
					{"watches of seats, {{instance}}", `sum by (instance) (dlsms_watches_open)`},
				},
			},
			{
				title: "Transitions by the worker", unit: opsPerSecond,
				description: "No-shows, completions, offers and what expires.",
				queries: []query{{
					"{{step}}", `sum by (step) (rate(dlsms_worker_transitions_total[$__rate_interval]))`,
				}},
			},
		},
	},
	{
		uid: "dlsms-resources", title: "DL-SMS: resources",
		panels: []panel{
			{
				title: "Disk of Postgres, free", stat: true, unit: ratio,
				queries: []query{{
					"", `min(node_filesystem_avail_bytes{job="postgres-disk"} / node_filesystem_size_bytes{job="postgres-disk"})`,
				}},
			},
			{
				title: "Certificate expires in", stat: true, unit: seconds, noValue: "no TLS",
				queries: []query{{"", `min(dlsms_tls_certificate_expires_timestamp_seconds) - time()`}},
			},
			{
				title: "Without Redis", stat: true, unit: count,
				description: "Replicas that do without Redis for limits or for hints.",
				queries:     []query{{"{{use}}", `sum by (use) (dlsms_redis_breaker_open)`}},
			},
			{
				title: "Versions", stat: true, unit: count,
				queries: []query{{"{{version}} {{revision}}", `count by (version, revision) (dlsms_build_info)`}},
			},
			{
				title: "Connections to Postgres", unit: count,
				queries: []query{
					{"in use, {{instance}}", `sum by (instance) (dlsms_db_connections_in_use)`},
					{"open, {{instance}}", `sum by (instance) (dlsms_db_connections)`},
					{"most", `max(dlsms_db_connections_max)`},
				},
			},
			{
				title: "Slots", unit: count,
				description: "Calls that hold a slot. Calls that find none are OVERLOADED.",
				queries:     []query{{"{{class}}, {{instance}}", `sum by (class, instance) (dlsms_slots_taken)`}},
			},
			{
				title: "Hash of a password", unit: seconds,
				queries: []query{
					{"P50", quantile(0.5, "dlsms_password_hash_duration_seconds_bucket")},
					{"P99", quantile(0.99, "dlsms_password_hash_duration_seconds_bucket")},
				},
			},
			{
				title: "Bookings in a batch", unit: count,
				queries: []query{
					{
						"mean", `sum(rate(dlsms_booking_batch_size_sum[$__rate_interval])) / ` +
							`sum(rate(dlsms_booking_batch_size_count[$__rate_interval]))`,
					},
					{"P99", quantile(0.99, "dlsms_booking_batch_size_bucket")},
				},
			},
			{
				title: "Batches and splits", unit: opsPerSecond,
				queries: []query{
					{"batches", `sum(rate(dlsms_booking_batch_size_count[$__rate_interval]))`},
					{"splits", `sum(rate(dlsms_booking_batch_splits_total[$__rate_interval]))`},
				},
			},
			{
				title: "Waitlist entries read for a freed seat", unit: count,
				queries: []query{
					{"P50", quantile(0.5, "dlsms_waitlist_entries_judged_bucket")},
					{"P99", quantile(0.99, "dlsms_waitlist_entries_judged_bucket")},
				},
			},
			{
				title: "Lag of the worker", unit: seconds,
				description: "How long the most overdue row has been due. The replicas share the work, so the best one counts.",
				queries:     []query{{"{{step}}", `min by (step) (dlsms_worker_lag_seconds)`}},
			},
			{
				title: "Errors of the worker", unit: opsPerSecond,
				queries: []query{{"{{step}}", `sum by (step) (rate(dlsms_worker_errors_total[$__rate_interval]))`}},
			},
			{
				title: "Seats that the worker skips", unit: count,
				queries: []query{{"{{step}}", `max by (step) (dlsms_worker_skipped)`}},
			},
			{
				title: "CPU", unit: count, description: "Processors that each replica uses.",
				queries: []query{{"{{instance}}", `rate(process_cpu_seconds_total{job="dlsms"}[$__rate_interval])`}},
			},
			{
				title: "Memory", unit: bytesUnit,
				queries: []query{
					{"{{instance}}", `process_resident_memory_bytes{job="dlsms"}`},
					{"heap, {{instance}}", `go_memstats_heap_alloc_bytes{job="dlsms"}`},
				},
			},
			{
				title: "Longest pause of the garbage collector", unit: seconds,
				queries: []query{{"{{instance}}", `max by (instance) (go_gc_duration_seconds{job="dlsms", quantile="1"})`}},
			},
			{
				title: "Garbage collections", unit: opsPerSecond,
				queries: []query{{"{{instance}}", `rate(go_gc_duration_seconds_count{job="dlsms"}[$__rate_interval])`}},
			},
			{
				title: "Goroutines and open files", unit: count,
				queries: []query{
					{"goroutines, {{instance}}", `go_goroutines{job="dlsms"}`},
					{"files, {{instance}}", `process_open_fds{job="dlsms"}`},
				},
			},
			{
				title: "Calls whose request is incomplete", unit: count,
				queries: []query{{"{{instance}}", `sum by (instance) (dlsms_calls_incoming)`}},
			},
			{
				title: "Dropped lines of the log", unit: opsPerSecond,
				queries: []query{{"{{instance}}", `sum by (instance) (rate(dlsms_log_lines_dropped_total[$__rate_interval]))`}},
			},
			{
				title: "Unreadable rows", unit: opsPerSecond,
				queries: []query{{"{{table}}", `sum by (table) (rate(dlsms_unreadable_rows_total[$__rate_interval]))`}},
			},
			{
				title: "Seats in the catalog", unit: count,
				queries: []query{{"{{instance}}", `max by (instance) (dlsms_seats)`}},
			},
		},
	},
}
