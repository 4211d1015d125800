package telemetry

import (
	"fmt"
	"slices"
)

// metric describes one metric of the project.
type metric struct {
	name    string // never changes: dashboards use it; /metrics adds the prefix dlsms_
	kind    kind
	labels  []string
	help    string    // the measured quantity and its unit
	when    string    // the situation in which an operator looks at it
	buckets []float64 // upper bounds, of a histogram only
}

type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// catalogue declares every dlsms_* metric, once. To add a metric, add an entry here, register it
// with Counter, Gauge, Histogram, CounterFunc or GaugeFunc, and run `go test ./telemetry -update`.
var catalogue = []metric{
	{
		name: "build_info", kind: gauge, labels: []string{"version", "revision", "go"},
		help: "Always 1. The labels tell the version of the binary, its revision in version control and its Go version.",
		when: "A release is rolled out, to see which replicas still run the previous one.",
	},
	{
		name: "tls_certificate_expires_timestamp_seconds", kind: gauge,
		help: "When the certificate at TLS_PROBE expires, in seconds since 1970. Without TLS it has no value.",
		when: "An alert, two weeks before: dlsms_tls_certificate_expires_timestamp_seconds - time() < 14 * 86400. " +
			"The renewal has failed, or nginx could not load the new certificate.",
	},

	// The gRPC and HTTP servers.
	{
		name: "slots_taken", kind: gauge, labels: []string{"class"},
		help: "Calls that hold a slot of their class: book, read or password.",
		when: "Calls are refused as OVERLOADED. If book or read is near 7/16 of DB_MAX_CONNS (43 of 100), Postgres is " +
			"too slow for the load. If password is near half of GOMAXPROCS, that many users log in at once. " +
			"dlsms_refusals_total tells whether the reason is OVERLOADED or RATE_LIMITED.",
	},
	{
		name: "refusals_total", kind: counter, labels: []string{"grpc_service", "grpc_method", "reason"},
		help: "Calls and streams that failed with a reason, over gRPC and HTTP. The reasons are those of the enum " +
			"dlsms.v1.ErrorReason, without ERROR_REASON_.",
		when: "Users report errors. OVERLOADED and UNAVAILABLE are faults of the service; the other reasons answer " +
			"what a user or a client asked for.",
	},
	{
		name: "http_request_duration_seconds", kind: histogram, labels: []string{"method", "route", "code"},
		buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		help: "Seconds that a request over HTTP takes, by method, route and status. The route is a path of the " +
			"API, such as /v1/seats/{seat_id}. It is / for the web client and all its files, and none for other paths. " +
			"Open streams are left out. A request that is a call also counts in grpc_server_handling_seconds.",
		when: "Requests over HTTP are slow or fail. It includes what the call does not: the read of the body, JSON, and " +
			"requests that are no call.",
	},
	{
		name: "redis_breaker_open", kind: gauge, labels: []string{"use"},
		help: "Whether calls skip Redis, because it failed: 1 or 0. The uses are limits and hints.",
		when: "Rate limits are three times as high, or notifications come a second late.",
	},
	{
		name: "log_lines_dropped_total", kind: counter,
		help: "Lines of the log that were dropped, because the output blocked while 1 MiB of lines waited.",
		when: "Lines are missing in the log. Above 0, the log collector is too slow.",
	},
	{
		name: "calls_incoming", kind: gauge,
		help: "Calls whose request has not arrived in full.",
		when: "Memory grows. Above 100, clients send the headers of calls and no message. A replica ends such calls " +
			"after 5 s.",
	},
	{
		name: "streams_open", kind: gauge,
		help: "Open streams, of Subscribe and WatchSeats.",
		when: "Memory grows.",
	},
	{
		name: "password_hash_duration_seconds", kind: histogram,
		buckets: []float64{.05, .1, .2, .3, .5, .75, 1, 2, 5},
		help:    "Seconds to hash a password or to compare it with a hash, without the wait for a slot.",
		when: "Logins time out. The median is a quarter of a second on most machines at BCRYPT_COST=12. Above one " +
			"second, logins time out in a rush: the machine is overloaded, or the cost is too high for it.",
	},

	// The read model.
	{
		name: "seats", kind: gauge,
		help: "Seats in the catalog.",
		when: "Seats are missing from an answer.",
	},
	{
		name: "seats_age_seconds", kind: gauge,
		help: "Seconds since the read model was last known to be current.",
		when: "Above one or two seconds, Postgres is slow or can't be reached.",
	},
	{
		name: "watches_open", kind: gauge,
		help: "Open watches of seats.",
		when: "Memory grows.",
	},
	{
		name: "refresh_duration_seconds", kind: histogram,
		buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1},
		help:    "Seconds that a refresh takes: one read of the change log, shared by all readers that wait for it.",
		when:    "Reads of seats are slow.",
	},
	{
		name: "refresh_failures_total", kind: counter,
		help: "Refreshes that failed. Readers then get the last known state, for at most MAX_STALENESS.",
		when: "dlsms_seats_age_seconds rises.",
	},

	// The worker.
	{
		name: "worker_transitions_total", kind: counter, labels: []string{"step"},
		help: "Transitions that the worker made, by step.",
		when: "No-shows, completions, offers, expired offers, expired waitlist entries or reminders do not seem to " +
			"happen. The steps of reservations are no_show, complete, offer, offer_expired, waiting_expired and remind. " +
			"The others are suspend, outage, sweep, forget_revocation and retention.",
	},
	{
		name: "worker_lag_seconds", kind: gauge, labels: []string{"step"},
		help: "Seconds for which the most overdue row had been due when the worker last looked for due rows, by step.",
		when: "Above 10, due rows wait: Postgres is slow, or the step fails.",
	},
	{
		name: "worker_errors_total", kind: counter, labels: []string{"step"},
		help: "Queries for due rows and transactions of the worker that failed, by step.",
		when: "It grows: the step fails. The log has the error once, when the failures begin.",
	},
	{
		name: "worker_failing", kind: gauge, labels: []string{"step"},
		help: "Whether the last pass of the worker failed, by step: 1 or 0.",
		when: "It is 1 on all replicas: no replica does the work of this step. The log has the error.",
	},
	{
		name: "worker_skipped", kind: gauge, labels: []string{"step"},
		help: "Seats that the worker skips for now because their rows made a transaction fail, by step.",
		when: "Above 0, the log has the seat_id and the error of each skipped seat. The worker tries each again " +
			"within a minute.",
	},

	// The store.
	{
		name: "booking_batch_size", kind: histogram, buckets: []float64{1, 2, 4, 8, 16, 32},
		help: "Bookings in one batch: the bookings that share one transaction.",
		when: "Bookings are slow. Batches of 32 mean that Postgres is too slow for the load.",
	},
	{
		name: "booking_batch_splits_total", kind: counter,
		help: "Batches of bookings that failed and were tried again in parts.",
		when: "Bookings are slow. Splits mean that a lock or a row delays the batches.",
	},
	{
		name: "waitlist_entries_judged", kind: histogram, buckets: []float64{1, 4, 16, 64, 256, 1024, 4096},
		help: "Waitlist entries that one transaction read to offer its freed seats. Each entry fits if it is served alone.",
		when: "Cancellations and check-outs are slow: many entries are read before one gets the seat.",
	},
	{
		name: "unreadable_rows_total", kind: counter, labels: []string{"table"},
		help: "Reads that left out an unreadable row, by table.",
		when: "Above 0, a row holds a value that this version can't read. The log has its table and id.",
	},
	{
		name: "db_connections", kind: gauge,
		help: "Open connections to Postgres in the pool that serves requests.",
		when: "Calls are refused as OVERLOADED.",
	},
	{
		name: "db_connections_in_use", kind: gauge,
		help: "Connections to Postgres that requests hold, without the connection of the booking batches.",
		when: "Calls are refused as OVERLOADED: compare it with dlsms_db_connections_max.",
	},
	{
		name: "db_connections_max", kind: gauge,
		help: "Most connections to Postgres in the pool that serves requests: DB_MAX_CONNS.",
		when: "Compare it with dlsms_db_connections_in_use.",
	},
}

// lookup returns the metric with this name and kind. It panics if the catalogue has none, so a
// replica that registers an unknown metric does not start.
func lookup(name string, k kind) metric {
	i := slices.IndexFunc(catalogue, func(m metric) bool { return m.name == name && m.kind == k })
	if i < 0 {
		panic(fmt.Sprintf("telemetry: the catalogue has no %s dlsms_%s", k, name))
	}
	return catalogue[i]
}

// Names returns the full names of all metrics of the catalogue.
func Names() []string {
	var names []string
	for _, m := range catalogue {
		names = append(names, "dlsms_"+m.name)
	}
	return names
}
