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
	"github.com/dlsms/dlsms/store"
)

// check gathers everything that is wrong with the shape of a request, so that a client learns of all of it at once. Its zero value is
// ready. Each method takes a field's name and value and returns the value as the store wants it; after a fault that value is meaningless,
// and err says so. What depends on time or on other rows is not for here: the store decides it, in its transaction.
type check struct {
	faults []store.Fault
}

// err returns store.Invalid with all the faults found, nil if there are none.
func (c *check) err() error {
	if len(c.faults) == 0 {
		return nil
	}
	return store.Invalid(c.faults...)
}

// fault notes what is wrong with a field; handlers use it for what no method here covers.
func (c *check) fault(field, msg string) {
	c.faults = append(c.faults, store.Fault{Field: field, Msg: msg})
}

// id takes the id of something: above 0.
func (c *check) id(field string, v int64) int64 {
	if v <= 0 {
		c.fault(field, "must be above 0")
	}
	return v
}

// afterID takes the id to go on after: 0 or above.
func (c *check) afterID(field string, v int64) int64 {
	if v < 0 {
		c.fault(field, "must be 0 or above")
	}
	return v
}

// pageSize takes the size of a page, of which 0 means byDefault and the most is most.
func (c *check) pageSize(v int32, byDefault, most int) int {
	switch {
	case v < 0 || int(v) > most:
		c.fault("page_size", fmt.Sprintf("must be 0 to %d", most))
	case v == 0:
		return byDefault
	}
	return int(v)
}

// text takes least to most characters, none of which is one that spoils logs and screens: a control character (Postgres refuses a NUL), a
// line or paragraph separator, or one that turns the direction of what comes after it.
func (c *check) text(field, v string, least, most int) string {
	switch n := utf8.RuneCountInString(v); {
	case !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl):
		c.fault(field, "must be UTF-8 text without control characters")
	case strings.ContainsFunc(v, disruptive):
		c.fault(field, "must not contain line separators or characters that turn the direction of text")
	case n < least && v == "":
		c.fault(field, "is missing")
	case n < least || n > most:
		c.fault(field, fmt.Sprintf("must have %d to %d characters", least, most))
	}
	return v
}

// disruptive reports whether a character changes lines or the direction of text. The marks for a single place (U+061C, U+200E, U+200F) are
// harmless, and some names need them.
func disruptive(r rune) bool {
	return r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

// visible reports whether something can be seen of a character by itself: of a letter, digit, sign or symbol, but for those that are blank.
func visible(r rune) bool {
	switch r {
	case '\u115f', '\u1160', '\u3164', '\uffa0', '\u2800': // fillers of Hangul, and the Braille pattern without dots
		return false
	}
	return unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S)
}

// name takes a person's name: 1 to 100 characters, one of them visible.
func (c *check) name(field, v string) string {
	before := len(c.faults)
	c.text(field, v, 1, 100)
	trimmed := strings.TrimSpace(v)
	switch {
	case v != "" && trimmed == "":
		c.fault(field, "must not be blank")
	case len(c.faults) == before && !strings.ContainsFunc(v, visible):
		c.fault(field, "must have a visible character")
	}
	return trimmed
}

// requestID takes an optional request_id: empty, or 1 to 64 printable characters.
func (c *check) requestID(v string) string {
	c.text("request_id", v, 0, 64)
	return v
}

// studentID takes 3 to 32 of ASCII letters, digits, ".", "_" and "-".
func (c *check) studentID(field, v string) string {
	ok := len(v) >= 3 && len(v) <= 32
	for i := 0; ok && i < len(v); i++ {
		ok = idByte(v[i])
	}
	if !ok {
		c.fault(field, `must be 3 to 32 of letters, digits, ".", "_" and "-"`)
	}
	return v
}

// The size of a password in bytes: bcrypt ignores what comes after the 72nd.
const minPassword, maxPassword = 8, 72

// newPassword takes a password that is to be set and returns the form of it that is hashed, of 8 to 72 bytes: the one of PRECIS OpaqueString
// (RFC 8265), so that the same characters are the same password, whichever code points a keyboard makes of them.
func (c *check) newPassword(field, v string) string {
	prepared, err := preparePassword(v)
	switch {
	case err != nil && goodLength(v):
		c.fault(field, "must not contain control characters or code points without a character")
	case err != nil || !goodLength(prepared):
		c.fault(field, passwordLength)
	}
	return prepared
}

// password takes a password that is to be compared and returns its forms, the likeliest first: the prepared one, and then, where it differs, the
// one that was typed, since passwords were hashed as they were typed before there was a newPassword.
func (c *check) password(field, v string) (forms []string) {
	if prepared, err := preparePassword(v); err == nil && goodLength(prepared) {
		forms = append(forms, prepared)
	}
	if goodLength(v) && !slices.Contains(forms, v) {
		forms = append(forms, v)
	}
	if len(forms) == 0 {
		c.fault(field, passwordLength)
	}
	return forms
}

const passwordLength = "must have 8 to 72 bytes"

func goodLength(password string) bool {
	return len(password) >= minPassword && len(password) <= maxPassword
}

// preparePassword returns the form of a password by PRECIS OpaqueString. It does not look at what is too long whatever the form.
func preparePassword(password string) (string, error) {
	if len(password) > 4*maxPassword {
		return "", errors.New("too long")
	}
	return precis.OpaqueString.String(password)
}

// email takes what looks like an address: at most 254 characters, local@domain, the domain with a dot. Only a mail sent to it could tell more.
func (c *check) email(field, v string) string {
	before := len(c.faults)
	c.text(field, v, 1, 254)
	local, domain, ok := strings.Cut(v, "@")
	ok = ok && !strings.ContainsFunc(v, func(r rune) bool { return !visible(r) && !unicode.In(r, unicode.M) }) &&
		local != "" && len(local) <= 64 && !strings.ContainsFunc(v, unicode.IsSpace) && !strings.ContainsAny(v, `<>()[],;:\"`) &&
		strings.Contains(domain, ".") && !strings.Contains(domain, "@")
	for label := range strings.SplitSeq(domain, ".") {
		ok = ok && label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
	}
	if len(c.faults) == before && !ok {
		c.fault(field, "must be an email address")
	}
	return v
}

// The years within which a time makes sense; what is further away overflows somewhere sooner or later.
var (
	earliest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// time takes a time that must be set, in the years 2000 to 2199, and returns it in UTC, cut to the microseconds that Postgres keeps.
func (c *check) time(field string, v *timestamppb.Timestamp) time.Time {
	if v == nil {
		c.fault(field, "is missing")
		return time.Time{}
	}
	return c.optionalTime(field, v)
}

// optionalTime is time for one that may be unset, and is zero then.
func (c *check) optionalTime(field string, v *timestamppb.Timestamp) time.Time {
	if v == nil {
		return time.Time{}
	}
	t := v.AsTime()
	if !v.IsValid() || t.Before(earliest) || !t.Before(latest) {
		c.fault(field, "must be a time in the years 2000 to 2199")
		return time.Time{}
	}
	return t.Truncate(time.Microsecond)
}

// window takes a window whose two times must be set, the end after the start.
func (c *check) window(start, end *timestamppb.Timestamp) (from, to time.Time) {
	return c.inOrder(c.time("start_time", start), c.time("end_time", end))
}

// windowFromNow takes a window whose start may be unset, and is zero then: the store puts the time of the transaction there.
func (c *check) windowFromNow(start, end *timestamppb.Timestamp) (from, to time.Time) {
	return c.inOrder(c.optionalTime("start_time", start), c.time("end_time", end))
}

// optionalWindow takes a window of which both times are set or neither; both are zero then.
func (c *check) optionalWindow(start, end *timestamppb.Timestamp) (from, to time.Time) {
	switch {
	case start == nil && end != nil:
		c.fault("start_time", "is missing: set both times or neither")
	case start != nil && end == nil:
		c.fault("end_time", "is missing: set both times or neither")
	}
	return c.inOrder(c.optionalTime("start_time", start), c.optionalTime("end_time", end))
}

// inOrder finds fault with a window that is empty or reversed; times that are zero were unset or found faulty before.
func (c *check) inOrder(from, to time.Time) (time.Time, time.Time) {
	if !from.IsZero() && !to.IsZero() && !to.After(from) {
		c.fault("end_time", "must be after start_time")
	}
	return from, to
}

// span finds fault with a window that is longer than most.
func (c *check) span(from, to time.Time, most time.Duration) {
	if !from.IsZero() && to.Sub(from) > most {
		c.fault("end_time", "must be at most "+days(most)+" after start_time")
	}
}

func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return strconv.Itoa(int(d/(24*time.Hour))) + " days"
	}
	return d.String()
}

// maxAmenities is how many a request may name: more than there are, and few enough that checking them is nothing.
const maxAmenities = 16

// amenities takes known amenities, in any order, some perhaps twice.
func (c *check) amenities(v []dlsmsv1.Amenity) []dlsmsv1.Amenity {
	if len(v) > maxAmenities {
		c.fault("amenities", fmt.Sprintf("must be at most %d", maxAmenities))
		return nil
	}
	for i, a := range v {
		if a == dlsmsv1.Amenity_AMENITY_UNSPECIFIED || !known(a) {
			c.fault("amenities["+strconv.Itoa(i)+"]", "is not a known amenity")
		}
	}
	return v
}

// enum takes a value that the enum defines; the unspecified one passes.
func enum[E protoreflect.Enum](c *check, field string, v E) E {
	if !known(v) {
		c.fault(field, "is not a known value")
	}
	return v
}

func known(v protoreflect.Enum) bool {
	return v.Descriptor().Values().ByNumber(v.Number()) != nil
}
