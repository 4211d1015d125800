package rest

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

const (
	timeForm     = `must be a time in RFC 3339, such as "2026-12-07T08:00:00+01:00"`
	durationForm = `must be a number of seconds, such as "7200s"`
	numberForm   = "must be a whole number of at most 64 bits"
	smallForm    = "must be a whole number of at most 32 bits"
	textForm     = "must be text of UTF-8 in quotation marks"
	objectForm   = "must be an object in curly brackets"
	listForm     = "must be a list in square brackets"
	actionForm   = "must be one of BOOKING_ACTION_KEEP, BOOKING_ACTION_CANCEL"
	viewForm     = "must be one of RESERVATION_VIEW_UPCOMING, RESERVATION_VIEW_HISTORY, RESERVATION_VIEW_ALL"
	amenityForm  = "must be one of AMENITY_POWER_OUTLET, AMENITY_MONITOR, AMENITY_WHEELCHAIR_ACCESSIBLE, " +
		"AMENITY_STANDING_DESK, AMENITY_WINDOW"
	scopeForm = "must be one of KEY_SCOPE_SCREEN, KEY_SCOPE_ARRIVALS, KEY_SCOPE_REPORTS"
)

// TestFormOfRequests sends requests that do not have the form of their message. The problem must name
// every faulty field and the form that it must have.
func TestFormOfRequests(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	token := r.staff(t, "A0001", "ADMIN")
	const closures = "/v1/admin/closures"
	for _, c := range []struct {
		what, method, path, body string
		want                     []invalidField
	}{
		{"all kinds", "POST", closures, `{"branch": 7, "seatIds": ["x", "1", {}], "startTime": "2026-12-07", "endTime": 5,
			"onBookings": "CANCEL", "expectedReservations": 3000000000, "validateOnly": "yes", "note": {"en": "a", "de": 1}}`,
			[]invalidField{
				{"#/branch", textForm}, {"#/seatIds/0", numberForm}, {"#/seatIds/2", numberForm}, {"#/startTime", timeForm},
				{"#/endTime", timeForm}, {"#/onBookings", actionForm}, {"#/expectedReservations", smallForm},
				{"#/validateOnly", "must be true or false"}, {"#/note/de", textForm},
			}},
		{"names of the proto", "POST", closures, `{"start_time": "now"}`, []invalidField{{"#/startTime", timeForm}}},
		{"no list, no object", "POST", closures, `{"seatIds": 7, "note": "text"}`,
			[]invalidField{{"#/seatIds", listForm}, {"#/note", objectForm}}},
		{"words of a list", "POST", "/v1/admin/keys", `{"scopes": ["KEY_SCOPE_ARRIVALS", "arrivals"]}`,
			[]invalidField{{"#/scopes/1", scopeForm}}},
		{"a message in a message", "POST", "/v1/admin/policies",
			`{"policy": {"rules": {"minReservation": "1h", "mayBook": 1}}}`,
			[]invalidField{
				{"#/policy/rules/minReservation", durationForm}, {"#/policy/rules/mayBook", "must be true or false"},
			}},
		{"a message in a list", "POST", "/v1/admin/users", `{"users": [{"studentId": 1}, 7]}`,
			[]invalidField{{"#/users/0/studentId", textForm}, {"#/users/1", objectForm}}},
		{"unknown fields", "POST", "/v1/admin/keys/1:revoke", `{"key_idd": 1, "reasons": ""}`, []invalidField{
			{"#/key_idd", "is not known: the fields are keyId, validateOnly, reason"},
			{"#/reasons", "is not known: the fields are keyId, validateOnly, reason"},
		}},
		{"no object", "POST", closures, `[1]`, []invalidField{{"#", objectForm}}},
		{"a parameter of the path", "POST", "/v1/admin/keys/x:revoke", `{}`, []invalidField{{"#/keyId", numberForm}}},
		{"a parameter of the path of a GET", "GET", "/v1/seats/x", ``, []invalidField{{"#/seatId", numberForm}}},
		{"parameters", "GET", "/v1/reservations?pageSize=x&view=PAST&brunch=1", ``, []invalidField{
			{"#/brunch", "is not known: the fields are view, pageSize, pageToken"},
			{"#/pageSize", smallForm}, {"#/view", viewForm},
		}},
		{"a plus in a URL", "GET", "/v1/seats?startTime=2026-12-07T08:00:00+01:00", ``,
			[]invalidField{{"#/startTime", timeForm + `; in a URL, "+" is written "%2B"`}}},
		{"parameters of a stream", "GET", "/v1/seats:watch?amenities=SOFA&branch=a&branch=b", ``,
			[]invalidField{{"#/amenities/0", amenityForm}, {"#/branch", "must be there once"}}},
		{"a parameter that the path sets", "GET", "/v1/seats/1?seatId=2", ``,
			[]invalidField{{"#/seatId", "is not known: the fields are startTime, endTime"}}},
		{"a switch", "GET", "/v1/seats?availableOnly=maybe", ``,
			[]invalidField{{"#/availableOnly", "must be true or false"}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			p := r.do(t, c.method, c.path, c.body, token...).problem(t, http.StatusBadRequest, "INVALID_FIELDS")
			if diff := cmp.Diff(c.want, p.Errors); diff != "" {
				t.Errorf("%s\n%s", p.Detail, diff)
			}
		})
	}
}

// TestFormFaultsAreBounded sends a body in which every element of a list is faulty.
func TestFormFaultsAreBounded(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	body := `{"seatIds": [` + strings.Repeat(`"x",`, 10_000) + `"x"]}`
	p := r.do(t, "POST", "/v1/admin/closures", body, r.staff(t, "A0001", "ADMIN")...).
		problem(t, http.StatusBadRequest, "INVALID_FIELDS")
	if len(p.Errors) != maxFormFaults {
		t.Errorf("%d faults", len(p.Errors))
	}
}

// TestEveryFieldHasAForm checks that the form of each field is known.
func TestEveryFieldHasAForm(t *testing.T) {
	t.Parallel()
	d := (&dlsmsv1.CreateClosureRequest{}).ProtoReflect().Descriptor()
	for i := range d.Fields().Len() {
		if f := d.Fields().Get(i); !strings.HasPrefix(formOf(f), "must be ") {
			t.Errorf("%s: %q", f.Name(), formOf(f))
		}
	}
}
