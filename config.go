package main

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/telemetry"
)

// settings holds the value of every setting. Each field has one entry in declare.
//
// To add a setting:
//  1. Add a field here and an entry in declare.
//  2. Use the field.
//  3. Run `make generate`, which writes docs/reference/settings.md.
//  4. Add the variable to the compose files.
type settings struct {
	DatabaseURL string
	RedisURL    string
	RedisCAFile string
	JWTSecret   string
	Presence    string
	GRPCAddr    string
	HTTPAddr    string
	AdminAddr   string
	TLSProbe    string
	Services    services
	Origins     []string
	DBMinConns  int
	DBMaxConns  int
	Proxies     []netip.Prefix

	JWTTTL               time.Duration
	BcryptCost           int
	RateLimit            int
	AuthLimit            int
	FailureLimit         int
	MaxStreams           int
	MaxStreamsPerAddress int
	MaxStreamsPerUser    int

	Grace             time.Duration
	ClaimTime         time.Duration
	CheckInLead       time.Duration
	ReminderLead      time.Duration
	MinReservation    time.Duration
	MaxReservation    time.Duration
	MaxAhead          time.Duration
	PastTolerance     time.Duration
	MaxUpcoming       int
	MaxWaiting        int
	MaxWaitingPerSeat int
	MaxWaitlist       int

	ReadFreshness    time.Duration
	MaxStaleness     time.Duration
	WorkerInterval   time.Duration
	RetentionMonths  int
	DrainTimeout     time.Duration
	MaxConnectionAge time.Duration
	Reflection       bool
	LogLevel         slog.Level
	OTLPEndpoint     string
	TracesSampler    string
	TracesRatio      float64
	SeedDemo         bool

	table []setting
}

// The groups of settings, in the order of --help.
const (
	connections  = "Connections"
	users        = "Users"
	bookingRules = "Booking rules"
	operation    = "Operation"
)

const (
	// anySize, given as an upper bound, means that there is none.
	anySize = 0
	// maxTokenTTL is the longest lifetime of a token. The database deletes some revocations after one
	// year: see dlsms_revoke in 00004_integrity.sql. A revoked token that lived longer than its
	// revocation would be accepted again.
	maxTokenTTL = 365 * 24 * time.Hour
	// maxRetention is 100 years in months.
	maxRetention = 1200
	// maxPerMinute is the highest rate limit. At this limit, a rate limiter returns a token every
	// 60 µs. Redis counts in whole microseconds, so much higher limits would be inexact.
	maxPerMinute = 1_000_000
)

// declare returns the table of settings. Flags, environment variables, --help, checks and
// docs/reference/settings.md are derived from the table.
func (s *settings) declare() []setting {
	return []setting{
		{
			name: "DATABASE_URL", group: connections, placeholder: "URL",
			value: text(&s.DatabaseURL, "a Postgres URL or a string of keywords and values", checkDatabaseURL), required: true,
			help: "Postgres, such as postgres://user:password@host:5432/dlsms.",
		},
		{
			name: "REDIS_URL", group: connections, placeholder: "URL",
			value: text(&s.RedisURL, "a Redis URL, or empty", checkRedisURL),
			help: "Redis, such as redis://host:6379/0. Without it, each replica counts rate limits by itself. Streams " +
				"then wake up to a second later for changes that other replicas made. Reads do not depend on Redis.",
		},
		{
			name: "REDIS_CA_FILE", group: connections, placeholder: "FILE",
			value: redisCA(&s.RedisCAFile, &s.RedisURL),
			help: "File with the certificates, in PEM, of the authorities that may sign the certificate of Redis. It is " +
				"only for a rediss:// URL. Without it, the replica trusts the authorities of the system.",
		},
		{
			name: "JWT_SECRET", group: connections, placeholder: "SECRET",
			value: text(&s.JWTSecret, "secrets of 32 bytes or more", checkJWTSecret), required: true,
			help: "Secret that signs tokens: at least 32 bytes, better 64 random characters. To rotate it, set " +
				"several as kid:secret, separated by commas: the first one signs, all of them verify.",
		},
		{
			name: "PRESENCE_SECRET", group: connections, placeholder: "SECRET",
			value: text(&s.Presence, "secrets of 32 bytes or more, or empty", orEmpty(checkPresenceSecret)),
			help: "Secret from which the codes on screens and seat labels are made, in the form of JWT_SECRET. It is " +
				"rotated in the same way. Without it, no codes can be made, and no policy can require them.",
		},
		{
			name: "GRPC_ADDR", group: connections, placeholder: "ADDR", preset: ":9090",
			value: text(&s.GRPCAddr, "an address such as :9090", checkAddr(9090)),
			help:  "Address on which clients are served over gRPC.",
		},
		{
			name: "HTTP_ADDR", group: connections, placeholder: "ADDR", preset: ":8080",
			value: text(&s.HTTPAddr, "an address such as :8080, or empty", orEmpty(checkAddr(8080))),
			help:  "Address on which clients are served over HTTP. If it is empty, there is no HTTP.",
		},
		{
			name: "ADMIN_ADDR", group: connections, placeholder: "ADDR", preset: "127.0.0.1:9100",
			value: text(&s.AdminAddr, "an address such as 127.0.0.1:9100", checkAddr(9090)),
			help:  "Address of /metrics, /healthz and /debug/pprof/. They need no password: keep the address private.",
		},
		{
			name: "TLS_PROBE", group: connections, placeholder: "ADDR",
			value: text(&s.TLSProbe, "an address such as nginx:9443, or empty", orEmpty(checkAddr(9443))),
			help: "Address of the proxy that serves clients with TLS, such as nginx:9443. At each read of /metrics, the " +
				"replica connects to it and reports when its certificate expires. If the setting is empty, or the proxy " +
				"does not answer, /metrics does not have this metric.",
		},
		{
			name: "DB_MIN_CONNS", group: connections, placeholder: "N", preset: "10", notAbove: "DB_MAX_CONNS",
			value: whole(&s.DBMinConns, 0, anySize),
			help:  "Connections to Postgres that a replica opens at its start.",
		},
		{
			name: "DB_MAX_CONNS", group: connections, placeholder: "N", preset: "100",
			value: whole(&s.DBMaxConns, 1, anySize),
			help:  "Most connections of one replica to Postgres for requests. A replica opens seven more for its own work.",
		},
		{
			name: "TRUSTED_PROXIES", group: connections, placeholder: "CIDRS",
			preset:   "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
			presetIn: "loopback and private networks",
			value:    networks(&s.Proxies),
			help:     "Networks of proxies. A replica uses the x-real-ip header only in calls from these networks.",
		},
		{
			name: "SERVICES", group: connections, placeholder: "NAMES",
			preset: "auth,seat,reservation,notify,admin,desk,screen,report,worker",
			value:  serviceNames(&s.Services),
			help: "Services that this process runs, separated by commas. " +
				"The processes of a database together must run all of them.",
		},
		{
			name: "CORS_ORIGINS", group: connections, placeholder: "ORIGINS",
			value: origins(&s.Origins),
			help: "Origins of web pages that may call the HTTP API from a browser, separated by commas. * allows all. " +
				"Without it, only pages of the same origin may call it.",
		},

		{
			name: "JWT_TTL", group: users, placeholder: "DURATION", preset: "24h",
			value: durationUpTo(&s.JWTTTL, time.Minute, maxTokenTTL),
			help:  "Lifetime of a token.",
		},
		{
			name: "BCRYPT_COST", group: users, placeholder: "N", preset: "12",
			value: whole(&s.BcryptCost, 4, 16),
			help:  "Cost of a password hash, 4 to 16. At 12, a hash takes a quarter of a second.",
		},
		{
			name: "RATE_LIMIT_PER_MINUTE", group: users, placeholder: "N", preset: "100",
			value: whole(&s.RateLimit, 0, maxPerMinute),
			help: "Calls of a user in a minute, and up to twice as many in the first minute after a pause; " +
				"0: no limit.",
		},
		{
			name: "AUTH_RATE_LIMIT_PER_MINUTE", group: users, placeholder: "N", preset: "600",
			value: whole(&s.AuthLimit, 0, maxPerMinute),
			help:  "Logins and registrations from a client address in a minute, and as many scans; 0: no limit.",
		},
		{
			name: "LOGIN_FAILURE_LIMIT", group: users, placeholder: "N", preset: "10",
			value: whole(&s.FailureLimit, 0, maxPerMinute),
			help:  "Failed logins of a student id in 5 minutes; 0: no limit.",
		},
		{
			name: "MAX_STREAMS", group: users, placeholder: "N", preset: "10000",
			value: whole(&s.MaxStreams, 1, anySize),
			help:  "Most open streams of a replica. A stream takes about 20 KB.",
		},
		{
			name: "MAX_STREAMS_PER_ADDRESS", group: users, placeholder: "N", preset: "1000",
			value: whole(&s.MaxStreamsPerAddress, 1, anySize),
			help:  "Most open WatchSeats streams without a token from a client address, on one replica.",
		},
		{
			name: "MAX_STREAMS_PER_USER", group: users, placeholder: "N", preset: "8",
			value: whole(&s.MaxStreamsPerUser, 1, anySize),
			help: "Most open Subscribe streams of a user on one replica. The same limit applies to the WatchSeats " +
				"streams that a user opens with a token.",
		},

		{
			name: "GRACE_MINUTES", group: bookingRules, placeholder: "MINUTES", preset: "15",
			value: minutes(&s.Grace),
			help: "Check-in closes this long after the start or the confirmation, whichever is later. Decimals are " +
				"allowed.",
		},
		{
			name: "CLAIM_MINUTES", group: bookingRules, placeholder: "MINUTES", preset: "10",
			value: minutes(&s.ClaimTime),
			help:  "An offer from the waitlist expires after this time. Decimals are allowed.",
		},
		{
			name: "CHECK_IN_LEAD", group: bookingRules, placeholder: "DURATION", preset: "15m",
			value: duration(&s.CheckInLead, 0),
			help:  "Check-in opens this long before the start.",
		},
		{
			name: "REMINDER_LEAD", group: bookingRules, placeholder: "DURATION", preset: "5m",
			value: duration(&s.ReminderLead, 0),
			help:  "The reminder comes this long before check-in closes.",
		},
		{
			name: "MIN_RESERVATION", group: bookingRules, placeholder: "DURATION", preset: "15m",
			value: duration(&s.MinReservation, time.Second), notAbove: "MAX_RESERVATION",
			help: "Shortest reservation.",
		},
		{
			name: "MAX_RESERVATION", group: bookingRules, placeholder: "DURATION", preset: "12h",
			value: duration(&s.MaxReservation, time.Second),
			help:  "Longest reservation.",
		},
		{
			name: "MAX_AHEAD", group: bookingRules, placeholder: "DURATION", preset: "336h",
			value: duration(&s.MaxAhead, time.Minute),
			help:  "The start of a new reservation is at most this far in the future; 336h are 14 days.",
		},
		{
			name: "PAST_TOLERANCE", group: bookingRules, placeholder: "DURATION", preset: "1m",
			value: duration(&s.PastTolerance, 0),
			help:  "The start of a new reservation is at most this far in the past.",
		},
		{
			name: "MAX_UPCOMING", group: bookingRules, placeholder: "N", preset: "10",
			value: whole(&s.MaxUpcoming, 0, anySize),
			help:  "Most upcoming reservations of a user; 0: no limit.",
		},
		{
			name: "MAX_WAITING", group: bookingRules, placeholder: "N", preset: "20",
			value: whole(&s.MaxWaiting, 0, anySize),
			help:  "Most waitlist entries of a user at a time; 0: no limit.",
		},
		{
			name: "MAX_WAITING_PER_SEAT", group: bookingRules, placeholder: "N", preset: "5",
			value: whole(&s.MaxWaitingPerSeat, 0, anySize),
			help:  "Most waitlist entries of a user at a time for one seat; 0: no limit.",
		},
		{
			name: "MAX_WAITLIST", group: bookingRules, placeholder: "N", preset: "100",
			value: whole(&s.MaxWaitlist, 0, anySize),
			help:  "Most waitlist entries of all users for one seat; 0: no limit.",
		},

		{
			name: "READ_FRESHNESS", group: operation, placeholder: "DURATION", preset: "0s",
			value: duration(&s.ReadFreshness, 0), notAbove: "MAX_STALENESS",
			help: "Greatest age of the state that a read of seats may return. With 0s, every read sees every " +
				"acknowledged booking. A longer time saves refreshes, but a read may miss the bookings of that time.",
		},
		{
			name: "MAX_STALENESS", group: operation, placeholder: "DURATION", preset: "60s",
			value: duration(&s.MaxStaleness, time.Second),
			help:  "While Postgres can't be reached, reads of seats are answered from memory for this long.",
		},
		{
			name: "WORKER_INTERVAL", group: operation, placeholder: "DURATION", preset: "1m",
			value: duration(&s.WorkerInterval, 10*time.Millisecond),
			help:  "The worker looks for due rows at least this often.",
		},
		{
			name: "RETENTION_MONTHS", group: operation, placeholder: "N", preset: "0",
			value: whole(&s.RetentionMonths, 0, maxRetention),
			help: "Age in months, at least 30 days, at which the worker replaces the user of old rows by a pseudonym. " +
				"It also blanks students without a login for so long. This cannot be undone; 0: never.",
		},
		{
			name: "DRAIN_TIMEOUT", group: operation, placeholder: "DURATION", preset: "10s",
			value: duration(&s.DrainTimeout, 0),
			help:  "Running calls have this long to finish when a replica stops.",
		},
		{
			name: "MAX_CONNECTION_AGE", group: operation, placeholder: "DURATION", preset: "0s",
			value: duration(&s.MaxConnectionAge, 0),
			help: "A gRPC connection is replaced after this time, so that clients that connect without nginx find new " +
				"replicas; 0s: never.",
		},
		{
			name: "REFLECTION", group: operation, preset: "true",
			value: toggle(&s.Reflection),
			help:  "Serve gRPC reflection, for grpcurl.",
		},
		{
			name: "LOG_LEVEL", group: operation, placeholder: "LEVEL", preset: "info",
			value: level(&s.LogLevel),
			help:  "Lowest level that is logged: debug, info, warn or error.",
		},
		{
			name: "OTEL_EXPORTER_OTLP_ENDPOINT", group: operation, placeholder: "URL",
			value: text(&s.OTLPEndpoint, "an http or https URL, or empty", checkEndpoint),
			help: "Endpoint for traces, by OTLP over gRPC, such as http://localhost:4317. Without it, there are no " +
				"traces.",
		},
		{
			name: "OTEL_TRACES_SAMPLER", group: operation, placeholder: "SAMPLER", preset: "always_on",
			value: oneOf(&s.TracesSampler, telemetry.Samplers),
			help: "Decides which calls are traced. If the name begins with parentbased_, a client can make the replica " +
				"trace its calls. Use such a sampler only if all clients are trusted. The others ignore the client.",
		},
		{
			name: "OTEL_TRACES_SAMPLER_ARG", group: operation, placeholder: "RATIO", preset: "1",
			value: ratio(&s.TracesRatio),
			help:  "Fraction of the calls that is traced, 0 to 1, with traceidratio and parentbased_traceidratio.",
		},
		{
			name: "SEED_DEMO", group: operation, preset: "false",
			value: toggle(&s.SeedDemo),
			help: "Add the demo data at the start: 49 seats, and users with a known password. Never set it in " +
				"production.",
		},
	}
}

// rules returns the booking rules in the settings.
func (s *settings) rules() library.Policy {
	return library.Policy{
		MinDuration:       s.MinReservation,
		MaxDuration:       s.MaxReservation,
		MaxAhead:          s.MaxAhead,
		PastTolerance:     s.PastTolerance,
		MaxUpcoming:       s.MaxUpcoming,
		MaxWaiting:        s.MaxWaiting,
		MaxWaitingPerSeat: s.MaxWaitingPerSeat,
		MaxWaitlist:       s.MaxWaitlist,
		CheckInLead:       s.CheckInLead,
		Grace:             s.Grace,
		ClaimTime:         s.ClaimTime,
		ReminderLead:      s.ReminderLead,
	}
}
