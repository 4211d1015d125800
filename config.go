package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/store"
)

// settings are all settings of the binary: each is an environment variable and a flag of the same name. A value that can't be read is kept as
// a fault of its own, so that all faults are reported together.
type settings struct {
	DatabaseURL string `env:"DATABASE_URL" placeholder:"URL" group:"Connections" help:"Postgres, such as postgres://user:password@host:5432/dlsms. Required."`
	RedisURL    string `env:"REDIS_URL" placeholder:"URL" group:"Connections" help:"Redis, such as redis://host:6379/0. Unset: no Redis; each replica limits by itself, and changes reach the others within a second."`
	JWTSecret   string `name:"jwt-secret" env:"JWT_SECRET" placeholder:"SECRET" group:"Connections" help:"What tokens are signed with: at least 32 bytes, 64 random characters for choice. Several, comma separated as kid:secret, while they are rotated: the first signs, all verify. Required."`
	GRPCAddr    string `name:"grpc-addr" env:"GRPC_ADDR" default:":9090" placeholder:"ADDR" group:"Connections" help:"Where clients are served. Default: ${default}."`
	AdminAddr   string `env:"ADMIN_ADDR" default:"127.0.0.1:9100" placeholder:"ADDR" group:"Connections" help:"Where /metrics, /healthz and /debug/pprof/ are served, without a password; keep it private. Default: ${default}."`
	DBMinConns  whole  `name:"db-min-conns" env:"DB_MIN_CONNS" default:"10" placeholder:"N" group:"Connections" help:"Connections to Postgres that are open from the start. Default: ${default}."`
	DBMaxConns  whole  `name:"db-max-conns" env:"DB_MAX_CONNS" default:"100" placeholder:"N" group:"Connections" help:"Most connections to Postgres; each replica has six more for its own work. Default: ${default}."`
	Proxies     string `name:"trusted-proxies" env:"TRUSTED_PROXIES" default:"127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7" placeholder:"CIDRS" group:"Connections" help:"Networks whose x-real-ip header is believed. Default: loopback and private networks."`

	JWTTTL       duration `name:"jwt-ttl" env:"JWT_TTL" default:"24h" placeholder:"DURATION" group:"Users" help:"How long a token is good for. Default: ${default}."`
	BcryptCost   whole    `env:"BCRYPT_COST" default:"12" placeholder:"N" group:"Users" help:"Cost of a password hash, 4 to 16; 12 takes a quarter of a second. Default: ${default}."`
	RateLimit    whole    `name:"rate-limit-per-minute" env:"RATE_LIMIT_PER_MINUTE" default:"100" placeholder:"N" group:"Users" help:"Calls a minute a user; 0: no limit. Default: ${default}."`
	AuthLimit    whole    `name:"auth-rate-limit-per-minute" env:"AUTH_RATE_LIMIT_PER_MINUTE" default:"600" placeholder:"N" group:"Users" help:"Logins and registrations a minute a client address; 0: no limit. Default: ${default}."`
	FailureLimit whole    `name:"login-failure-limit" env:"LOGIN_FAILURE_LIMIT" default:"10" placeholder:"N" group:"Users" help:"Failed logins in 5 minutes a student id; 0: no limit. Default: ${default}."`

	MaxStreams           whole `env:"MAX_STREAMS" default:"10000" placeholder:"N" group:"Users" help:"Most open streams of a replica; one costs some 20 KB. Default: ${default}."`
	MaxStreamsPerAddress whole `env:"MAX_STREAMS_PER_ADDRESS" default:"1000" placeholder:"N" group:"Users" help:"Most open WatchSeats streams without a token of a client address, on a replica. Default: ${default}."`
	MaxStreamsPerUser    whole `env:"MAX_STREAMS_PER_USER" default:"8" placeholder:"N" group:"Users" help:"Most open Subscribe streams of a user, and as many of WatchSeats with a token, on a replica. Default: ${default}."`

	Grace          minutes  `name:"grace-minutes" env:"GRACE_MINUTES" default:"15" placeholder:"MINUTES" group:"Booking rules" help:"Check-in closes this long after the start or the confirmation, whichever is later; decimals allowed. Default: ${default}."`
	ClaimTime      minutes  `name:"claim-minutes" env:"CLAIM_MINUTES" default:"10" placeholder:"MINUTES" group:"Booking rules" help:"An offer from the waitlist stands this long; decimals allowed. Default: ${default}."`
	CheckInLead    duration `env:"CHECK_IN_LEAD" default:"15m" placeholder:"DURATION" group:"Booking rules" help:"Check-in opens this long before the start. Default: ${default}."`
	ReminderLead   duration `env:"REMINDER_LEAD" default:"5m" placeholder:"DURATION" group:"Booking rules" help:"The reminder comes this long before check-in closes. Default: ${default}."`
	MinReservation duration `env:"MIN_RESERVATION" default:"15m" placeholder:"DURATION" group:"Booking rules" help:"Shortest reservation. Default: ${default}."`
	MaxReservation duration `env:"MAX_RESERVATION" default:"12h" placeholder:"DURATION" group:"Booking rules" help:"Longest reservation. Default: ${default}."`
	MaxAhead       duration `env:"MAX_AHEAD" default:"336h" placeholder:"DURATION" group:"Booking rules" help:"Latest start, from now. Default: ${default}, which is 14 days."`
	PastTolerance  duration `env:"PAST_TOLERANCE" default:"1m" placeholder:"DURATION" group:"Booking rules" help:"Earliest start, before now. Default: ${default}."`
	MaxUpcoming    whole    `env:"MAX_UPCOMING" default:"10" placeholder:"N" group:"Booking rules" help:"Most upcoming reservations of a user; 0: no limit. Default: ${default}."`
	MaxWaiting     whole    `env:"MAX_WAITING" default:"20" placeholder:"N" group:"Booking rules" help:"Most waitlist entries that a user has at a time; 0: no limit. Default: ${default}."`
	MaxWaitingSeat whole    `name:"max-waiting-per-seat" env:"MAX_WAITING_PER_SEAT" default:"5" placeholder:"N" group:"Booking rules" help:"Most waitlist entries that a user has at a time for one seat; 0: no limit. Default: ${default}."`
	MaxWaitlist    whole    `env:"MAX_WAITLIST" default:"100" placeholder:"N" group:"Booking rules" help:"Most waitlist entries of all users for one seat; 0: no limit. Default: ${default}."`

	ReadFreshness  duration `env:"READ_FRESHNESS" default:"0s" placeholder:"DURATION" group:"Operation" help:"How old what a look at the seats sees may be; 0s: every acknowledged booking is seen. Default: ${default}."`
	MaxStaleness   duration `env:"MAX_STALENESS" default:"60s" placeholder:"DURATION" group:"Operation" help:"How long browsing goes on while Postgres can't be reached. Default: ${default}."`
	WorkerInterval duration `env:"WORKER_INTERVAL" default:"1m" placeholder:"DURATION" group:"Operation" help:"The worker looks for what is due at least this often. Default: ${default}."`
	DrainTimeout   duration `env:"DRAIN_TIMEOUT" default:"10s" placeholder:"DURATION" group:"Operation" help:"Calls under way get this long to finish when the server stops. Default: ${default}."`
	Reflection     toggle   `env:"REFLECTION" default:"true" negatable:"" group:"Operation" help:"Serve gRPC reflection, for grpcurl. Default: ${default}."`
	LogLevel       level    `env:"LOG_LEVEL" default:"info" placeholder:"LEVEL" group:"Operation" help:"debug, info, warn or error. Default: ${default}."`
	OTLPEndpoint   string   `name:"otel-exporter-otlp-endpoint" env:"OTEL_EXPORTER_OTLP_ENDPOINT" placeholder:"URL" group:"Operation" help:"Where traces go by OTLP over gRPC, such as http://localhost:4317. Unset: no traces."`
	SeedDemo       toggle   `env:"SEED_DEMO" default:"false" group:"Operation" help:"Add the demo data at the start: 49 seats, and users with a known password. Never in production. Default: ${default}."`
}

// reading is a value read from text, with what was wrong with the text.
type reading[T any] struct {
	value T
	fault string
}

type (
	whole    struct{ reading[int] }
	duration struct{ reading[time.Duration] }
	minutes  struct{ reading[time.Duration] }
	level    struct{ reading[slog.Level] }
	toggle   struct{ reading[bool] }
)

// whyUnread says what was wrong with the text, "" if nothing was.
func (r reading[T]) whyUnread() string { return r.fault }

// UnmarshalText reads a whole number, 0 or above.
func (w *whole) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 31)
	w.reading = reading[int]{value: int(n), fault: faultIf(err, text, "a whole number, 0 or above")}
	return nil
}

// UnmarshalText reads a duration such as 1m30s, 0 or above.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if v < 0 {
		err = errors.New("negative")
	}
	d.reading = reading[time.Duration]{value: v, fault: faultIf(err, text, "a duration such as 90s or 1h30m, 0 or above")}
	return nil
}

// UnmarshalText reads minutes, with decimals or without, above 0 and at most a day.
func (m *minutes) UnmarshalText(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	if !(v > 0 && v <= 24*60) {
		err = errors.New("out of range")
	}
	m.reading = reading[time.Duration]{value: time.Duration(v * float64(time.Minute)), fault: faultIf(err, text, "minutes above 0, such as 15 or 0.5, at most 1440")}
	return nil
}

// UnmarshalText reads the name of a log level.
func (l *level) UnmarshalText(text []byte) error {
	err := l.value.UnmarshalText(text)
	l.fault = faultIf(err, text, "debug, info, warn or error")
	return nil
}

// IsBool says that the flag needs no value.
func (*toggle) IsBool() bool { return true }

// Decode reads true or false, from the flag alone, its negation, or a text.
func (b *toggle) Decode(ctx *kong.DecodeContext) error {
	b.reading = reading[bool]{value: true}
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		return nil
	}
	switch text := fmt.Sprint(ctx.Scan.Pop().Value); strings.ToLower(text) {
	case "true", "1", "yes":
	case "false", "0", "no":
		b.value = false
	default:
		b.fault = fmt.Sprintf("%q is not true or false", text)
	}
	return nil
}

func faultIf(err error, text []byte, want string) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf("%q is not %s", text, want)
}

// faults are what is wrong with the settings.
type faults struct{ list []error }

// check notes a fault of a setting unless ok.
func (f *faults) check(ok bool, setting, want string) {
	if !ok {
		f.list = append(f.list, fmt.Errorf("%s: %s", setting, want))
	}
}

// err returns all faults as one error, nil if there are none.
func (f *faults) err() error { return errors.Join(f.list...) }

// checkDatabase finds fault with what every command on the database needs.
func (s *settings) checkDatabase(f *faults) {
	if s.DatabaseURL == "" {
		f.check(false, "DATABASE_URL", "is missing: set it to a Postgres URL, such as postgres://user:password@localhost:5432/dlsms")
		return
	}
	_, err := store.ParseURL(s.DatabaseURL)
	f.check(err == nil, "DATABASE_URL", fmt.Sprint(err))
}

// checkBcrypt finds fault with what every command that hashes passwords needs.
func (s *settings) checkBcrypt(f *faults) {
	f.check(s.BcryptCost.fault != "" || s.BcryptCost.value >= 4 && s.BcryptCost.value <= 16, "BCRYPT_COST", "must be 4 to 16")
}

// check finds all faults of the settings of serve.
func (s *settings) check() error {
	var f faults
	s.checkDatabase(&f)
	if s.RedisURL != "" {
		_, err := redis.ParseURL(s.RedisURL)
		f.check(err == nil, "REDIS_URL", "is not a Redis URL, such as redis://localhost:6379/0")
	}
	if _, err := server.ParseKeyRing(s.JWTSecret); err != nil {
		f.list = append(f.list, err) // it names the setting
	}
	for _, addr := range []struct{ name, value string }{{"GRPC_ADDR", s.GRPCAddr}, {"ADMIN_ADDR", s.AdminAddr}} {
		_, _, err := net.SplitHostPort(addr.value)
		f.check(err == nil, addr.name, fmt.Sprintf("%q is not an address such as :9090 or 127.0.0.1:9090", addr.value))
	}
	endpoint, err := url.Parse(s.OTLPEndpoint)
	f.check(s.OTLPEndpoint == "" || err == nil && endpoint.Host != "" && (endpoint.Scheme == "http" || endpoint.Scheme == "https"),
		"OTEL_EXPORTER_OTLP_ENDPOINT", "is not a URL such as http://localhost:4317")
	_, err = s.trustedProxies()
	f.check(err == nil, "TRUSTED_PROXIES", fmt.Sprint(err))
	s.checkRead(&f)
	s.checkRanges(&f)
	return f.err()
}

// checkRead finds the values that could not be read, of whichever type.
func (s *settings) checkRead(f *faults) {
	values := reflect.ValueOf(*s)
	for i := range values.NumField() {
		if v, ok := values.Field(i).Interface().(interface{ whyUnread() string }); ok {
			f.check(v.whyUnread() == "", values.Type().Field(i).Tag.Get("env"), v.whyUnread())
		}
	}
}

// maxPerMinute is the highest limit: with it, a token comes back every 60 µs, and Redis counts in whole microseconds.
const maxPerMinute = 1_000_000

// checkRanges finds values that can be read and make no sense. What could not be read has its fault already.
func (s *settings) checkRanges(f *faults) {
	f.check(s.DBMaxConns.fault != "" || s.DBMaxConns.value >= 1, "DB_MAX_CONNS", "must be 1 or above")
	f.check(s.DBMinConns.fault != "" || s.DBMaxConns.fault != "" || s.DBMinConns.value <= max(s.DBMaxConns.value, 1), "DB_MIN_CONNS", "must not be above DB_MAX_CONNS")
	s.checkBcrypt(f)
	for _, r := range []struct {
		name  string
		limit whole
	}{
		{"RATE_LIMIT_PER_MINUTE", s.RateLimit}, {"AUTH_RATE_LIMIT_PER_MINUTE", s.AuthLimit}, {"LOGIN_FAILURE_LIMIT", s.FailureLimit},
	} {
		f.check(r.limit.value <= maxPerMinute, r.name, fmt.Sprintf("must be at most %d; 0 is no limit", maxPerMinute))
	}
	for _, r := range []struct {
		name string
		n    whole
	}{
		{"MAX_STREAMS", s.MaxStreams}, {"MAX_STREAMS_PER_ADDRESS", s.MaxStreamsPerAddress}, {"MAX_STREAMS_PER_USER", s.MaxStreamsPerUser},
	} {
		f.check(r.n.fault != "" || r.n.value >= 1, r.name, "must be 1 or above")
	}
	for _, r := range []struct {
		name string
		d    duration
		min  time.Duration
	}{
		{"JWT_TTL", s.JWTTTL, time.Minute}, {"MIN_RESERVATION", s.MinReservation, time.Second}, {"MAX_RESERVATION", s.MaxReservation, time.Second},
		{"MAX_AHEAD", s.MaxAhead, time.Minute}, {"WORKER_INTERVAL", s.WorkerInterval, 10 * time.Millisecond}, {"MAX_STALENESS", s.MaxStaleness, time.Second},
	} {
		f.check(r.d.fault != "" || r.d.value >= r.min, r.name, fmt.Sprintf("must be at least %v", r.min))
	}
	f.check(s.MinReservation.fault != "" || s.MaxReservation.fault != "" || s.MinReservation.value <= s.MaxReservation.value,
		"MIN_RESERVATION", "must not be above MAX_RESERVATION")
	f.check(s.ReadFreshness.fault != "" || s.MaxStaleness.fault != "" || s.ReadFreshness.value <= s.MaxStaleness.value,
		"READ_FRESHNESS", "must not be above MAX_STALENESS")
}

func (s *settings) trustedProxies() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for text := range strings.SplitSeq(s.Proxies, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a network such as 10.0.0.0/8", text)
		}
		out = append(out, p)
	}
	return out, nil
}

func (s *settings) rules() library.Policy {
	return library.Policy{
		MinDuration:   s.MinReservation.value,
		MaxDuration:   s.MaxReservation.value,
		MaxAhead:      s.MaxAhead.value,
		PastTolerance: s.PastTolerance.value,
		MaxUpcoming:   s.MaxUpcoming.value,
		MaxWaiting:    s.MaxWaiting.value,

		MaxWaitingPerSeat: s.MaxWaitingSeat.value,
		MaxWaitlist:       s.MaxWaitlist.value,

		CheckInLead:  s.CheckInLead.value,
		Grace:        s.Grace.value,
		ClaimTime:    s.ClaimTime.value,
		ReminderLead: s.ReminderLead.value,
	}
}
