package server

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/identity"
)

// check validates the shape of a request. It collects all field errors, so that a client learns of
// all of them at once. The zero value is ready to use.
//
// Each method takes the name and the value of a field and returns the value in the form that the
// store expects. After a field error the returned value has no meaning; err reports the error.
// Rules that depend on time or on other rows are not checked here: the store checks them in its
// transaction.
type check struct {
	faults []library.FieldViolation
}

// err returns library.Invalid with all field errors; nil if there are none.
func (c *check) err() error {
	if len(c.faults) == 0 {
		return nil
	}
	return library.Invalid(c.faults...)
}

// fault adds a field error. Handlers call it for rules that no method of check covers.
func (c *check) fault(field, msg string) {
	c.faults = append(c.faults, library.FieldViolation{Field: field, Message: msg})
}

// id checks a required id: above 0.
func (c *check) id(field string, v int64) int64 {
	if v <= 0 {
		c.fault(field, "must be above 0")
	}
	return v
}

// afterID checks the id after which a list starts: 0 or above.
func (c *check) afterID(field string, v int64) int64 {
	if v < 0 {
		c.fault(field, "must be 0 or above")
	}
	return v
}

// pageSize checks a page size: 0 to maxSize. It returns defaultSize for 0.
func (c *check) pageSize(v int32, defaultSize, maxSize int) int {
	switch {
	case v < 0 || int(v) > maxSize:
		c.fault("page_size", fmt.Sprintf("must be 0 to %d", maxSize))
	case v == 0:
		return defaultSize
	}
	return int(v)
}

// text checks that v has minLen to maxLen characters. It refuses characters that corrupt logs or
// screens: control characters (Postgres refuses NUL), line and paragraph separators, and characters
// that change the direction of the text after them.
func (c *check) text(field, v string, minLen, maxLen int) string {
	switch n := utf8.RuneCountInString(v); {
	case !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl):
		c.fault(field, "must be UTF-8 text without control characters")
	case strings.ContainsFunc(v, breaksLayout):
		c.fault(field, "must not contain line separators or characters that change the text direction")
	case n < minLen && v == "":
		c.fault(field, "is missing")
	case n < minLen || n > maxLen:
		c.fault(field, fmt.Sprintf("must have %d to %d characters", minLen, maxLen))
	}
	return v
}

// breaksLayout reports whether a character separates lines or changes the direction of the text
// after it. The direction marks U+061C, U+200E and U+200F are allowed: each affects a single place,
// and some names need them.
func breaksLayout(r rune) bool {
	return r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

// isVisible reports whether a character is a letter, digit, punctuation mark or symbol that can be
// seen. A few letters and symbols are blank.
func isVisible(r rune) bool {
	switch r {
	// The Hangul fillers, and the blank Braille pattern.
	case '\u115f', '\u1160', '\u3164', '\uffa0', '\u2800':
		return false
	}
	return unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S)
}

// name checks the name of a person: 1 to 100 characters, at least one of them visible. It returns
// the name without surrounding space.
func (c *check) name(field, v string) string {
	before := len(c.faults)
	c.text(field, v, 1, 100)
	trimmed := strings.TrimSpace(v)
	switch {
	case v != "" && trimmed == "":
		c.fault(field, "must not be blank")
	case len(c.faults) == before && !strings.ContainsFunc(v, isVisible):
		c.fault(field, "must have a visible character")
	}
	return trimmed
}

// requestID checks the optional request_id: empty, or 1 to 64 printable characters.
func (c *check) requestID(v string) string {
	c.text("request_id", v, 0, 64)
	return v
}

// studentID checks a student id: 3 to 32 characters, each an ASCII letter, a digit, ".", "_" or
// "-".
func (c *check) studentID(field, v string) string {
	ok := len(v) >= 3 && len(v) <= 32
	for i := 0; ok && i < len(v); i++ {
		ok = identity.IsIDByte(v[i])
	}
	if !ok {
		c.fault(field, `must be 3 to 32 ASCII letters, digits, ".", "_" or "-"`)
	}
	return v
}

// The length of a password in bytes. bcrypt ignores all bytes after the 72nd.
const (
	minPassword    = 8
	maxPassword    = 72
	passwordLength = "must have 8 to 72 bytes"
)

// newPassword checks a new password. It returns the PRECIS OpaqueString form of the password (RFC
// 8265), which must have 8 to 72 bytes. The caller hashes this form. Two keyboards may produce
// different code points for the same characters, but the form is the same.
func (c *check) newPassword(field, v string) string {
	prepared, err := preparePassword(v)
	switch {
	case err != nil && hasPasswordLength(v):
		c.fault(field, "must not contain control characters or unassigned code points")
	case err != nil || !hasPasswordLength(prepared):
		c.fault(field, passwordLength)
	}
	return prepared
}

// password checks a password that is to be compared with a hash. It returns the forms to compare:
// first the PRECIS form of newPassword, then the password as typed, if it differs. Before
// newPassword existed, passwords were hashed as typed.
func (c *check) password(field, v string) (forms []string) {
	if prepared, err := preparePassword(v); err == nil && hasPasswordLength(prepared) {
		forms = append(forms, prepared)
	}
	if hasPasswordLength(v) && !slices.Contains(forms, v) {
		forms = append(forms, v)
	}
	if len(forms) == 0 {
		c.fault(field, passwordLength)
	}
	return forms
}

func hasPasswordLength(password string) bool {
	return len(password) >= minPassword && len(password) <= maxPassword
}

// preparePassword returns the PRECIS OpaqueString form of a password. It refuses a password of more
// than 4 * maxPassword bytes at once, because its form would be longer than maxPassword.
func preparePassword(password string) (string, error) {
	if len(password) > 4*maxPassword {
		return "", errors.New("too long")
	}
	return precis.OpaqueString.String(password)
}

// email checks the form of an email address: at most 254 characters, local@domain, and a dot in the
// domain. Only a message to the address could prove that it exists.
func (c *check) email(field, v string) string {
	before := len(c.faults)
	c.text(field, v, 1, 254)
	if len(c.faults) == before && !isEmail(v) {
		c.fault(field, "must be an email address")
	}
	return v
}

func isEmail(v string) bool {
	invisible := func(r rune) bool { return !isVisible(r) && !unicode.In(r, unicode.M) }
	if strings.ContainsFunc(v, invisible) || strings.ContainsFunc(v, unicode.IsSpace) ||
		strings.ContainsAny(v, `<>()[],;:\"`) {
		return false
	}
	local, domain, ok := strings.Cut(v, "@")
	if !ok || local == "" || len(local) > 64 || !strings.Contains(domain, ".") || strings.Contains(domain, "@") {
		return false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// minTime and maxTime bound the times of a request: minTime <= t < maxTime. Calculations with times
// outside of this range could overflow.
var (
	minTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	maxTime = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// time checks a required time, in the years 2000 to 2199. It returns the time in UTC, truncated to
// microseconds, the precision of Postgres.
func (c *check) time(field string, v *timestamppb.Timestamp) time.Time {
	if v == nil {
		c.fault(field, "is missing")
		return time.Time{}
	}
	return c.optionalTime(field, v)
}

// optionalTime is like time, but returns the zero time for an unset field.
func (c *check) optionalTime(field string, v *timestamppb.Timestamp) time.Time {
	if v == nil {
		return time.Time{}
	}
	t := v.AsTime()
	if !v.IsValid() || t.Before(minTime) || !t.Before(maxTime) {
		c.fault(field, "must be a time in the years 2000 to 2199")
		return time.Time{}
	}
	return t.Truncate(time.Microsecond)
}

// window checks a window with two required times, the end after the start.
func (c *check) window(start, end *timestamppb.Timestamp) (from, to time.Time) {
	return c.ordered(c.time("start_time", start), c.time("end_time", end))
}

// windowFromNow checks a window with an optional start. For an unset start it returns the zero
// time. The store replaces the zero time by the time of its transaction.
func (c *check) windowFromNow(start, end *timestamppb.Timestamp) (from, to time.Time) {
	return c.ordered(c.optionalTime("start_time", start), c.time("end_time", end))
}

// optionalWindow checks a window with both times set or neither. Without a window, both results are
// zero.
func (c *check) optionalWindow(start, end *timestamppb.Timestamp) (from, to time.Time) {
	switch {
	case start == nil && end != nil:
		c.fault("start_time", "is missing: set both times or neither")
	case start != nil && end == nil:
		c.fault("end_time", "is missing: set both times or neither")
	}
	return c.ordered(c.optionalTime("start_time", start), c.optionalTime("end_time", end))
}

// ordered adds a field error if the window is empty or reversed. It ignores a zero time: this time
// was unset, or has a field error already.
func (c *check) ordered(from, to time.Time) (time.Time, time.Time) {
	if !from.IsZero() && !to.IsZero() && !to.After(from) {
		c.fault("end_time", "must be after start_time")
	}
	return from, to
}

// span adds a field error if the window is longer than longest.
func (c *check) span(from, to time.Time, longest time.Duration) {
	if !from.IsZero() && to.Sub(from) > longest {
		c.fault("end_time", "must be at most "+days(longest)+" after start_time")
	}
}

func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return strconv.Itoa(int(d/(24*time.Hour))) + " days"
	}
	return d.String()
}

// maxAmenities bounds the amenities of a request. It is above the number of amenities that exist,
// and low enough that checking them costs nothing.
const maxAmenities = 16

// amenities checks that all amenities are known. Their order is free and duplicates are allowed.
func (c *check) amenities(v []dlsmsv1.Amenity) (known []int16) {
	if len(v) > maxAmenities {
		c.fault("amenities", fmt.Sprintf("must be at most %d", maxAmenities))
		return nil
	}
	for i, a := range v {
		if a == dlsmsv1.Amenity_AMENITY_UNSPECIFIED || !isDefined(a) {
			c.fault("amenities["+strconv.Itoa(i)+"]", "is not a known amenity")
			continue
		}
		known = append(known, int16(a)) //nolint:gosec // the enum has no value that is larger
	}
	return known
}

// enum checks that the enum defines the value. The unspecified value passes.
func enum[E protoreflect.Enum](c *check, field string, v E) E {
	if !isDefined(v) {
		c.fault(field, "is not a known value")
	}
	return v
}

func isDefined(v protoreflect.Enum) bool {
	return v.Descriptor().Values().ByNumber(v.Number()) != nil
}
