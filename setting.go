package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"

	"github.com/dlsms/dlsms/certificate"
	"github.com/dlsms/dlsms/presence"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store"
)

// setting declares one setting: an environment variable, and a flag of the same name in lower case
// with dashes. If both are set, the flag wins.
type setting struct {
	name        string // of the environment variable
	group       string
	placeholder string // the value in --help; a toggle has none
	preset      string // the default, as text; empty: none
	presetIn    string // the default in words; empty: preset is clear enough
	required    bool
	value       value
	notAbove    string // name of another setting, an upper bound for this one; empty: none
	help        string // sentences for --help and docs/reference/settings.md

	unread error // the error of value.read
}

// value says how the text of a setting is read and checked.
type value struct {
	field   any                     // pointer to the field of settings
	accepts string                  // the valid values, for docs/reference/settings.md
	read    func(text string) error // sets the field; an error tells how the text is wrong
	check   func() error            // reports a value out of range; nil: every value is valid
	number  func() int64            // the value as a number, for notAbove; nil: it is not a number
	toggle  bool                    // the flag needs no value
}

// newSettings returns settings without values; read sets the values.
func newSettings() *settings {
	s := &settings{}
	s.table = s.declare()
	return s
}

// flags returns a pointer to a struct for kong.Embed. The struct has one text field for each
// setting. kong only collects the texts, because it would report only the first fault; check
// reports all faults.
func (s *settings) flags() any {
	var fields []reflect.StructField
	for _, d := range s.table {
		tag := fmt.Sprintf("name:%q env:%q group:%q help:%q", d.flag(), d.name, d.group, d.helpText())
		typ := reflect.TypeFor[string]()
		if d.placeholder != "" {
			tag += fmt.Sprintf(" placeholder:%q", d.placeholder)
		}
		if d.preset != "" {
			tag += fmt.Sprintf(" default:%q", d.preset)
		}
		if d.value.toggle {
			typ = reflect.TypeFor[toggleText]()
			if d.preset == "true" {
				tag += ` negatable:""`
			}
		}
		fields = append(fields, reflect.StructField{Name: d.name, Type: typ, Tag: reflect.StructTag(tag)})
	}
	return reflect.New(reflect.StructOf(fields)).Interface()
}

// read sets the values from the texts that kong collected in flags.
func (s *settings) read(flags any) {
	texts := reflect.ValueOf(flags).Elem()
	for i := range s.table {
		d := &s.table[i]
		d.unread = d.value.read(texts.FieldByName(d.name).String())
	}
}

// check returns the faults of the settings with these fields, which are pointers to fields of s.
// Without fields, it checks all settings. A command checks only the settings that it needs.
func (s *settings) check(fields ...any) error {
	var faults []error
	for _, d := range s.table {
		if len(fields) > 0 && !slices.Contains(fields, d.value.field) {
			continue
		}
		err := s.fault(d)
		// Errors of identity.ParseKeyRing already begin with the name of the setting.
		if err != nil && !strings.HasPrefix(err.Error(), d.name) {
			err = fmt.Errorf("%s: %w", d.name, err)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// fault returns what is wrong with the value of a setting, nil if it is valid.
func (s *settings) fault(d setting) error {
	if d.unread != nil {
		return d.unread
	}
	if d.value.check != nil {
		if err := d.value.check(); err != nil {
			return err
		}
	}
	for _, other := range s.table {
		if other.name == d.notAbove && other.unread == nil && d.value.number() > other.value.number() {
			return fmt.Errorf("must not be above %s", other.name)
		}
	}
	return nil
}

func (d setting) flag() string { return strings.ToLower(strings.ReplaceAll(d.name, "_", "-")) }

// helpText is the text of --help: the help, and the default.
func (d setting) helpText() string {
	switch {
	case d.required:
		return d.help + " Required."
	case d.preset == "":
		return d.help
	default:
		return d.help + " Default: " + cmp.Or(d.presetIn, d.preset) + "."
	}
}

// text is the value of a string setting. check returns an error if the text is not valid.
func text(field *string, accepts string, check func(text string) error) value {
	return value{field: field, accepts: accepts, read: func(text string) error {
		*field = text
		return check(text)
	}}
}

// whole is the value of a setting that takes a whole number from low to high. If high is anySize,
// there is no upper bound.
func whole(field *int, low, high int) value {
	v := value{field: field, number: func() int64 { return int64(*field) }}
	v.read = func(text string) error {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("%q is not a whole number, 0 or above", text)
		}
		*field = int(n)
		return nil
	}
	var fault error
	switch {
	case high == anySize:
		v.accepts = fmt.Sprintf("a whole number, %d or above", low)
		fault = fmt.Errorf("must be %d or above", low)
	case low == 0:
		v.accepts = fmt.Sprintf("a whole number, at most %d", high)
		fault = fmt.Errorf("must be at most %d; 0 is no limit", high)
	default:
		v.accepts = fmt.Sprintf("a whole number, %d to %d", low, high)
		fault = fmt.Errorf("must be %d to %d", low, high)
	}
	v.check = func() error {
		if *field < low || high != anySize && *field > high {
			return fault
		}
		return nil
	}
	return v
}

// duration is the value of a setting that takes a duration such as 1m30s, of at least low.
func duration(field *time.Duration, low time.Duration) value {
	return value{
		field:   field,
		accepts: fmt.Sprintf("a duration such as 90s or 1h30m, at least %v", low),
		number:  func() int64 { return int64(*field) },
		read: func(text string) error {
			v, err := time.ParseDuration(text)
			if err != nil || v < 0 {
				return fmt.Errorf("%q is not a duration such as 90s or 1h30m, 0 or above", text)
			}
			*field = v
			return nil
		},
		check: func() error {
			if *field < low {
				return fmt.Errorf("must be at least %v", low)
			}
			return nil
		},
	}
}

// durationUpTo is duration with an upper bound.
func durationUpTo(field *time.Duration, low, high time.Duration) value {
	v := duration(field, low)
	v.accepts = fmt.Sprintf("a duration such as 90s or 1h30m, %v to %v", low, high)
	v.check = func() error {
		if *field < low || *field > high {
			return fmt.Errorf("must be %v to %v", low, high)
		}
		return nil
	}
	return v
}

// minutes is the value of a setting that takes minutes, with or without decimals, above 0 and at
// most a day.
func minutes(field *time.Duration) value {
	return value{
		field:   field,
		accepts: "minutes above 0, at most 1440",
		number:  func() int64 { return int64(*field) },
		read: func(text string) error {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil || !(v > 0 && v <= 24*60) { // NaN fails every comparison
				return fmt.Errorf("%q is not minutes above 0, such as 15 or 0.5, at most 1440", text)
			}
			*field = time.Duration(v * float64(time.Minute))
			return nil
		},
	}
}

func level(field *slog.Level) value {
	const levels = "debug, info, warn or error"
	return value{field: field, accepts: levels, read: func(text string) error {
		if err := field.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("%q is not %s", text, levels)
		}
		return nil
	}}
}

// oneOf is the value of a setting that takes one of several names.
func oneOf(field *string, names []string) value {
	accepts := strings.Join(names, ", ")
	return text(field, accepts, func(text string) error {
		if !slices.Contains(names, text) {
			return fmt.Errorf("%q is not one of %s", text, accepts)
		}
		return nil
	})
}

// ratio is the value of a setting that takes a number from 0 to 1.
func ratio(field *float64) value {
	return value{field: field, accepts: "a number from 0 to 1", read: func(text string) error {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v >= 0 && v <= 1) { // NaN fails every comparison
			return fmt.Errorf("%q is not a number from 0 to 1", text)
		}
		*field = v
		return nil
	}}
}

func toggle(field *bool) value {
	return value{field: field, accepts: "true or false, yes or no, 1 or 0", toggle: true, read: func(text string) error {
		switch strings.ToLower(text) {
		case "true", "1", "yes":
			*field = true
		case "false", "0", "no":
			*field = false
		default:
			return fmt.Errorf("%q is not true or false", text)
		}
		return nil
	}}
}

// networks is the value of a setting that takes networks in CIDR notation, separated by commas.
func networks(field *[]netip.Prefix) value {
	return value{field: field, accepts: "networks such as 10.0.0.0/8, separated by commas", read: func(text string) error {
		*field = nil
		for network := range strings.SplitSeq(text, ",") {
			if network = strings.TrimSpace(network); network == "" {
				continue
			}
			p, err := netip.ParsePrefix(network)
			if err != nil {
				return fmt.Errorf("%q is not a network such as 10.0.0.0/8", network)
			}
			*field = append(*field, p)
		}
		return nil
	}}
}

func checkDatabaseURL(text string) error {
	if text == "" {
		return errors.New("is missing: set it to a Postgres URL, such as postgres://user:password@localhost:5432/dlsms")
	}
	_, err := store.ParseURL(text)
	return err
}

func checkRedisURL(text string) error {
	if _, err := redis.ParseURL(text); text != "" && err != nil {
		return errors.New("is not a Redis URL, such as redis://localhost:6379/0") // err may show the password
	}
	return nil
}

// redisCA is the value of the setting with the file of the authorities of Redis. url is REDIS_URL.
func redisCA(field, url *string) value {
	v := text(field, "a file with certificates in PEM, or empty", orEmpty(func(text string) error {
		_, err := certificate.ReadPool(text)
		return err
	}))
	v.check = func() error {
		// checkRedisURL reports a wrong URL.
		if o, err := redis.ParseURL(*url); *field != "" && (*url == "" || err == nil && o.TLSConfig == nil) {
			return errors.New("needs a REDIS_URL that begins with rediss://, because other URLs do not use TLS")
		}
		return nil
	}
	return v
}

func checkJWTSecret(text string) error {
	_, err := identity.ParseKeyRing(text)
	return err
}

func checkPresenceSecret(text string) error {
	_, err := identity.ParseSecrets("PRESENCE_SECRET", text)
	return err
}

// presenceCodes returns the codes that follow from PRESENCE_SECRET. Without it, no code is valid.
func presenceCodes(setting string, library int64) (*presence.Codes, error) {
	if setting == "" {
		return presence.New(nil, library)
	}
	secrets, err := identity.ParseSecrets("PRESENCE_SECRET", setting)
	if err != nil {
		return nil, err
	}
	return presence.New(secrets, library)
}

// checkAddr returns a check for addresses. port is that of the examples in its error.
func checkAddr(port int) func(text string) error {
	return func(text string) error {
		if _, _, err := net.SplitHostPort(text); err != nil {
			return fmt.Errorf("%q is not an address such as :%d or 127.0.0.1:%d", text, port, port)
		}
		return nil
	}
}

// orEmpty returns a check that also accepts no text.
func orEmpty(check func(text string) error) func(text string) error {
	return func(text string) error {
		if text == "" {
			return nil
		}
		return check(text)
	}
}

func checkEndpoint(text string) error {
	u, err := url.Parse(text)
	if text != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		return errors.New("is not a URL such as http://localhost:4317")
	}
	return nil
}

// toggleText is the text of a flag that needs no value: --reflection means --reflection=true, and
// --no-reflection means --reflection=false.
type toggleText string

// IsBool tells kong that the flag needs no value.
func (*toggleText) IsBool() bool { return true }

// Decode takes the text of the flag's value, or "true" if the flag has none.
func (t *toggleText) Decode(ctx *kong.DecodeContext) error {
	*t = "true"
	if ctx.Scan.Peek().Type == kong.FlagValueToken {
		*t = toggleText(fmt.Sprint(ctx.Scan.Pop().Value))
	}
	return nil
}
