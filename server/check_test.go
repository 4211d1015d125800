package server

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
)

// invalidFields returns the names of the fields with an error.
func invalidFields(c *check) []string {
	var out []string
	e, _ := errors.AsType[*library.Error](c.err())
	if e != nil {
		for _, f := range e.Fields {
			out = append(out, f.Field)
		}
	}
	return out
}

func TestCheck(t *testing.T) {
	t.Parallel()
	at := func(s string) *timestamppb.Timestamp {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return timestamppb.New(v)
	}
	noon, one := at("2026-03-02T12:00:00Z"), at("2026-03-02T13:00:00Z")
	for name, test := range map[string]struct {
		check func(c *check)
		want  []string // the fields with an error
	}{
		"id":                          {func(c *check) { c.id("x", 1) }, nil},
		"id 0":                        {func(c *check) { c.id("x", 0) }, []string{"x"}},
		"id below 0":                  {func(c *check) { c.id("x", -1) }, []string{"x"}},
		"after id 0":                  {func(c *check) { c.afterID("x", 0) }, nil},
		"after id -1":                 {func(c *check) { c.afterID("x", -1) }, []string{"x"}},
		"page size":                   {func(c *check) { c.pageSize(0, 10, 20); c.pageSize(20, 10, 20) }, nil},
		"page size above the maximum": {func(c *check) { c.pageSize(21, 10, 20) }, []string{"page_size"}},
		"page size below 0":           {func(c *check) { c.pageSize(-1, 10, 20) }, []string{"page_size"}},
		"text":                        {func(c *check) { c.text("x", "äöü", 3, 3) }, nil},
		"text missing":                {func(c *check) { c.text("x", "", 1, 3) }, []string{"x"}},
		"text too short":              {func(c *check) { c.text("x", "a", 2, 3) }, []string{"x"}},
		"text too long":               {func(c *check) { c.text("x", "abcd", 0, 3) }, []string{"x"}},
		"text with NUL":               {func(c *check) { c.text("x", "a\x00", 0, 3) }, []string{"x"}},
		"text with a line break":      {func(c *check) { c.text("x", "a\n", 0, 3) }, []string{"x"}},
		"text not UTF-8":              {func(c *check) { c.text("x", "\xff", 0, 3) }, []string{"x"}},
		"name":                        {func(c *check) { c.name("x", "Ada Lovelace") }, nil},
		"name blank":                  {func(c *check) { c.name("x", "  ") }, []string{"x"}},
		"name missing":                {func(c *check) { c.name("x", "") }, []string{"x"}},
		"name too long": {
			func(c *check) { c.name("x", strings.Repeat("a", 101)) },
			[]string{"x"},
		},
		"name in other scripts": {func(c *check) {
			c.name("x", "नेहा")
			c.name("x", "علی\u200cرضا")
			c.name("x", "李")
			c.name("x", "🙂")
		}, nil},
		"name with a direction mark": {func(c *check) { c.name("x", "דנה\u200f") }, nil},
		"name of zero-width characters": {
			func(c *check) { c.name("x", "\u200b\u200d\u2060\ufeff") },
			[]string{"x"},
		},
		"name of fillers": {
			func(c *check) { c.name("x", "\u3164\u115f\uffa0\u2800") },
			[]string{"x"},
		},
		"name of combining marks": {
			func(c *check) { c.name("x", "\u0301\ufe0f\u034f") },
			[]string{"x"},
		},
		"name with a direction override": {
			func(c *check) { c.name("x", "Ada \u202egro.elpmaxe") },
			[]string{"x"},
		},
		"name with a direction isolate": {
			func(c *check) { c.name("x", "Ada \u2066b\u2069") },
			[]string{"x"},
		},
		"name with a line separator": {func(c *check) { c.name("x", "Ada\u2028Eve") }, []string{"x"}},
		"request id with a direction override": {
			func(c *check) { c.requestID("a\u202eb") },
			[]string{"request_id"},
		},
		"email with a zero-width space": {
			func(c *check) { c.email("x", "ada\u200b@university.example") },
			[]string{"x"},
		},
		"email with a direction override": {
			func(c *check) { c.email("x", "ada\u202e@university.example") },
			[]string{"x"},
		},
		"international email": {
			func(c *check) { c.email("x", "zoë@universität.example") },
			nil,
		},
		"new password": {
			func(c *check) {
				c.newPassword("x", "12345678")
				c.newPassword("x", strings.Repeat("ü", 36))
			},
			nil,
		},
		"new password in NFD": { // 72 bytes of NFC
			func(c *check) { c.newPassword("x", strings.Repeat("u\u0308", 36)) },
			nil,
		},
		"new password in NFD, too short": { // 9 bytes, 6 of NFC
			func(c *check) { c.newPassword("x", "u\u0308u\u0308u\u0308") },
			[]string{"x"},
		},
		"new password in NFD, too long": {
			func(c *check) { c.newPassword("x", strings.Repeat("u\u0308", 37)) },
			[]string{"x"},
		},
		"new password with a NUL": {
			func(c *check) { c.newPassword("x", "12345678\x00") },
			[]string{"x"},
		},
		"new password, unassigned code point": {
			func(c *check) { c.newPassword("x", "12345678\u0378") },
			[]string{"x"},
		},
		"new password of 60 KB": {
			func(c *check) { c.newPassword("x", strings.Repeat("u\u0308", 20000)) },
			[]string{"x"},
		},
		"password that was hashed as typed": {
			func(c *check) {
				c.password("x", "12345678\x00")
				c.password("x", "u\u0308u\u0308u\u0308")
			},
			nil,
		},
		"request id": {
			func(c *check) {
				c.requestID("")
				c.requestID(strings.Repeat("ü", 64))
			},
			nil,
		},
		"request id too long": {
			func(c *check) { c.requestID(strings.Repeat("a", 65)) },
			[]string{"request_id"},
		},
		"request id unprintable": {
			func(c *check) { c.requestID("a\x7f") },
			[]string{"request_id"},
		},
		"student id":           {func(c *check) { c.studentID("x", "S20-21_0.01") }, nil},
		"student id too short": {func(c *check) { c.studentID("x", "ab") }, []string{"x"}},
		"student id too long": {
			func(c *check) { c.studentID("x", strings.Repeat("a", 33)) },
			[]string{"x"},
		},
		"student id with a space": {func(c *check) { c.studentID("x", "S 2021") }, []string{"x"}},
		"student id not ASCII":    {func(c *check) { c.studentID("x", "Sü2021") }, []string{"x"}},
		"password": {
			func(c *check) {
				c.password("x", "12345678")
				c.password("x", strings.Repeat("a", 72))
			},
			nil,
		},
		"password too short": {func(c *check) { c.password("x", "1234567") }, []string{"x"}},
		"password with too many bytes": {
			func(c *check) { c.password("x", strings.Repeat("ü", 37)) },
			[]string{"x"},
		},
		"email": {
			func(c *check) { c.email("x", "ada.l+dlsms@cs.university.example") },
			nil,
		},
		"email missing": {func(c *check) { c.email("x", "") }, []string{"x"}},
		"email without @": {
			func(c *check) { c.email("x", "ada.university.example") },
			[]string{"x"},
		},
		"email with two @": {
			func(c *check) { c.email("x", "a@b@university.example") },
			[]string{"x"},
		},
		"email without a dot": {
			func(c *check) { c.email("x", "ada@university") },
			[]string{"x"},
		},
		"email with a space": {
			func(c *check) { c.email("x", "a da@university.example") },
			[]string{"x"},
		},
		"email with an empty label": {
			func(c *check) { c.email("x", "ada@university..example") },
			[]string{"x"},
		},
		"email label starts with a hyphen": {
			func(c *check) { c.email("x", "ada@-university.example") },
			[]string{"x"},
		},
		"email with a name": {
			func(c *check) { c.email("x", "Ada <ada@university.example>") },
			[]string{"x"},
		},
		"email too long": {
			func(c *check) { c.email("x", "a@"+strings.Repeat("b.", 130)+"example") },
			[]string{"x"},
		},
		"time":                {func(c *check) { c.time("x", noon) }, nil},
		"time missing":        {func(c *check) { c.time("x", nil) }, []string{"x"}},
		"optional time unset": {func(c *check) { c.optionalTime("x", nil) }, nil},
		"time is 1970": {
			func(c *check) { c.time("x", &timestamppb.Timestamp{}) },
			[]string{"x"},
		},
		"time with negative nanos": {
			func(c *check) { c.time("x", &timestamppb.Timestamp{Seconds: noon.GetSeconds(), Nanos: -1}) },
			[]string{"x"},
		},
		"time before the minimum": {
			func(c *check) { c.time("x", at("1999-12-31T23:59:59.999999999Z")) },
			[]string{"x"},
		},
		"minimum time": {
			func(c *check) { c.time("x", at("2000-01-01T00:00:00Z")) },
			nil,
		},
		"maximum time": {
			func(c *check) { c.time("x", at("2199-12-31T23:59:59.999999999Z")) },
			nil,
		},
		"time after the maximum": {
			func(c *check) { c.time("x", at("2200-01-01T00:00:00Z")) },
			[]string{"x"},
		},
		"time at the maximum int64": {
			func(c *check) { c.time("x", &timestamppb.Timestamp{Seconds: 1<<63 - 1}) },
			[]string{"x"},
		},
		"window": {func(c *check) { c.window(noon, one) }, nil},
		"window unset": {
			func(c *check) { c.window(nil, nil) },
			[]string{"start_time", "end_time"},
		},
		"window reversed": {func(c *check) { c.window(one, noon) }, []string{"end_time"}},
		"window empty":    {func(c *check) { c.window(noon, noon) }, []string{"end_time"}},
		"window shorter than 1 µs": {
			func(c *check) { c.window(noon, at("2026-03-02T12:00:00.000000999Z")) },
			[]string{"end_time"},
		},
		"window from now": {func(c *check) { c.windowFromNow(nil, one) }, nil},
		"window from now without end": {
			func(c *check) { c.windowFromNow(noon, nil) },
			[]string{"end_time"},
		},
		"optional window": {
			func(c *check) {
				c.optionalWindow(nil, nil)
				c.optionalWindow(noon, one)
			},
			nil,
		},
		"optional window without end": {
			func(c *check) { c.optionalWindow(noon, nil) },
			[]string{"end_time"},
		},
		"optional window without start": {
			func(c *check) { c.optionalWindow(nil, noon) },
			[]string{"start_time"},
		},
		"window within the longest": {
			func(c *check) { c.span(noon.AsTime(), one.AsTime(), time.Hour) },
			nil,
		},
		"window above the longest": {
			func(c *check) { c.span(noon.AsTime(), one.AsTime(), time.Minute) },
			[]string{"end_time"},
		},
		"amenities": {
			func(c *check) { c.amenities([]dlsmsv1.Amenity{1, 5, 1}) },
			nil,
		},
		"unknown amenities": {
			func(c *check) { c.amenities([]dlsmsv1.Amenity{1, 0, 99}) },
			[]string{"amenities[1]", "amenities[2]"},
		},
		"too many amenities": {
			func(c *check) { c.amenities(make([]dlsmsv1.Amenity, 17)) },
			[]string{"amenities"},
		},
		"enum": {
			func(c *check) {
				enum(c, "x", dlsmsv1.ReservationView(0))
				enum(c, "x", dlsmsv1.ReservationView(3))
			},
			nil,
		},
		"unknown enum value": {
			func(c *check) { enum(c, "x", dlsmsv1.ReservationView(4)) },
			[]string{"x"},
		},
		"all field errors at once": {
			func(c *check) {
				c.id("a", 0)
				c.id("ok", 1)
				c.time("b", nil)
				c.password("c", "")
			},
			[]string{"a", "b", "c"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c check
			test.check(&c)
			if diff := cmp.Diff(test.want, invalidFields(&c)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCheckNormalizesValues(t *testing.T) {
	t.Parallel()
	var c check
	got := c.time("x", &timestamppb.Timestamp{Seconds: 1772452800, Nanos: 123456789})
	if want := time.Date(2026, 3, 2, 12, 0, 0, 123456000, time.UTC); got != want {
		t.Errorf("time() returned %v, want %v, the precision of Postgres", got, want)
	}
	if got := c.name("x", " Ada "); got != "Ada" {
		t.Errorf("name() returned %q", got)
	}
	if got := c.pageSize(0, 10, 20); got != 10 {
		t.Errorf("the default page size is %d", got)
	}
	if start, _ := c.windowFromNow(nil, timestamppb.New(got)); !start.IsZero() {
		t.Errorf("an unset start became %v", start)
	}
	if err := c.err(); err != nil {
		t.Error(err)
	}
}

// TestPasswordForms tests the forms that check.password returns: first the PRECIS form, and then
// the password as typed, if it differs and has a valid length.
func TestPasswordForms(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string][]string{
		"correct horse":               {"correct horse"},
		"pässwörd":                    {"pässwörd"},
		"pa\u0308sswo\u0308rd":        {"pässwörd", "pa\u0308sswo\u0308rd"},
		"correct\u00a0horse":          {"correct horse", "correct\u00a0horse"},
		"u\u0308u\u0308u\u0308":       {"u\u0308u\u0308u\u0308"}, // too short when prepared
		"12345678\t":                  {"12345678\t"},            // cannot be prepared
		strings.Repeat("u\u0308", 36): {strings.Repeat("ü", 36)}, // too long as typed
		"Correct Horse":               {"Correct Horse"},         // case is significant
		"ｐａｓｓｗｏｒｄ":                    {"ｐａｓｓｗｏｒｄ"},              // width is significant
	} {
		var c check
		if got := c.password("x", typed); !slices.Equal(got, want) || c.err() != nil {
			t.Errorf("%q has the forms %q, %v; want %q", typed, got, c.err(), want)
		}
	}
}

// FuzzCheck tests that each accepted value is within the documented bounds of the API.
func FuzzCheck(f *testing.F) {
	f.Add("S2021001", "ada@university.example", "password123", int64(1772452800), int32(5), int64(1772456400), int32(7))
	f.Add("\x00", "@", "", int64(-1<<63), int32(-1), int64(1<<62), int32(1<<30))
	f.Fuzz(func(t *testing.T, id, email, text string, seconds int64, nanos int32, endSeconds int64, number int32) {
		ok := func(validate func(c *check)) bool {
			var c check
			validate(&c)
			return c.err() == nil
		}
		var at, from, to time.Time
		if ok(func(c *check) { at = c.time("x", &timestamppb.Timestamp{Seconds: seconds, Nanos: nanos}) }) &&
			(at.Year() < 2000 || at.Year() > 2199 || at.Nanosecond()%1000 != 0) {
			t.Errorf("%v was accepted", at)
		}
		if ok(func(c *check) {
			from, to = c.window(
				&timestamppb.Timestamp{Seconds: seconds, Nanos: nanos},
				&timestamppb.Timestamp{Seconds: endSeconds},
			)
		}) && !to.After(from) {
			t.Errorf("[%v, %v) was accepted", from, to)
		}
		if ok(func(c *check) { c.studentID("x", id) }) &&
			(len(id) < 3 || len(id) > 32 || strings.ContainsAny(id, " \x00\n@ü")) {
			t.Errorf("student id %q was accepted", id)
		}
		if ok(func(c *check) { c.email("x", email) }) &&
			(strings.Count(email, "@") != 1 || utf8.RuneCountInString(email) > 254 ||
				strings.ContainsAny(email, " \x00\n<>")) {
			t.Errorf("email %q was accepted", email)
		}
		if ok(func(c *check) { c.text("x", text, 1, 10) }) &&
			(!utf8.ValidString(text) || text == "" || utf8.RuneCountInString(text) > 10 ||
				strings.Contains(text, "\x00")) {
			t.Errorf("text %q was accepted", text)
		}
		var password string
		if ok(func(c *check) { password = c.newPassword("x", text) }) {
			var c check
			forms := c.password("x", text)
			if len(password) < 8 || len(password) > 72 || len(forms) == 0 || forms[0] != password {
				t.Errorf("password %q is hashed as %q and compared as %q", text, password, forms)
			}
		}
		if ok(func(c *check) { c.name("x", text) }) && strings.TrimSpace(text) == "" {
			t.Errorf("name %q was accepted", text)
		}
		if ok(func(c *check) { c.amenities([]dlsmsv1.Amenity{dlsmsv1.Amenity(number)}) }) &&
			(number < 1 || number > 5) {
			t.Errorf("amenity %d was accepted", number)
		}
	})
}
